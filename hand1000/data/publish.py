"""Publication of a dataset: two image sets with their final captions, and a card for the Hugging Face hub."""

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from hand1000.captions.metrics import CaptionMetrics, caption_metrics_table
from hand1000.captions.records import CaptionRecord
from hand1000.core.errors import translate_write_errors
from hand1000.core.tables import Table
from hand1000.data.captioning import apply_captions
from hand1000.data.imageset import read_image_set, write_typed_metadata
from hand1000.data.prepare import REPORT, PreparationReport
from hand1000.gestures import gesture_phrase
from hand1000.storage.files import read_json, write_text

SPLITS = ("train", "test")
CARD = "README.md"


def publish_dataset(
    prepared: Path,
    captions: Mapping[str, Mapping[str, CaptionRecord]],
    metrics: Sequence[CaptionMetrics],
    output_dir: Path,
) -> None:
    """Write `train/`, `test/` and the card into `output_dir`.

    `datasets.load_dataset("imagefolder", data_dir=output_dir)` reads it, and so does `train_gesture` as its `data`. The
    records are in `metadata.parquet`, with the same columns and types in both splits whatever the images have.
    `captions` has the captions of each split by file name, `metrics` those of all captioners, the published one first.

    Raises:
        Hand1000Error: An image has no caption, or `output_dir` is full or not writable.
    """
    published: list[CaptionRecord] = []
    gesture = ""
    for split in SPLITS:
        records = apply_captions(read_image_set(prepared / split), captions[split], split)
        gesture = records[0].gesture
        published += [captions[split][record.file_name] for record in records]
        with translate_write_errors(output_dir / split):
            (output_dir / split).mkdir()
            for record in records:
                shutil.copyfile(prepared / split / record.file_name, output_dir / split / record.file_name)
        write_typed_metadata(output_dir / split, records)
    report = PreparationReport.model_validate(read_json(prepared / REPORT))
    with translate_write_errors(output_dir):
        shutil.copyfile(prepared / REPORT, output_dir / REPORT)
    write_text(output_dir / CARD, _render_card(gesture, report, published, metrics))


def _render_card(
    gesture: str, report: PreparationReport, captions: Sequence[CaptionRecord], metrics: Sequence[CaptionMetrics]
) -> str:
    """Return the card: YAML, then Markdown."""
    data_files = [{"split": split, "path": f"{split}/**"} for split in SPLITS]
    front = {
        "license": "other",
        "license_name": "as-the-source",
        "task_categories": ["text-to-image"],
        "configs": [{"config_name": "default", "data_files": data_files}],
    }
    writers = Counter(caption.writer for caption in captions)
    faults = Counter(fault for caption in captions for fault in caption.faults)
    completion = [f"- by {name}: {count}" for name, count in sorted(writers.items())]
    completion += [f"- refused: {fault}: {count}" for fault, count in sorted(faults.items())]
    if shortened := sum(caption.shortened for caption in captions):
        completion.append(f"- shortened to fit the text encoder: {shortened}")
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
        f"# Hand1000 data: {gesture}",
        f"Images of people {gesture_phrase(gesture)}. Every `text` is the captioner's `caption` and ends with that "
        f"phrase, which it contains once. {report.train} training and {report.test} test images; no person is in both.",
        "The licence is that of the source: HaGRID is under a variant of CC BY-SA 4.0; rendered hands are Apache-2.0.",
        f"## Captioners\n\n{caption_metrics_table(metrics).markdown()}\nThe captions of the first one are published.",
        "## Completion\n\n" + "\n".join(completion),
    ]
    if any(report.filter_counts.values()):
        table = Table(("filter", "images removed"), list(report.filter_counts.items()), numeric={1})
        parts.append(f"## Filtered\n\n{table.markdown()}".rstrip())
    if report.problems:
        parts.append("## Not used\n\n" + "\n".join(f"- {problem}" for problem in report.problems))
    if report.unusable:
        parts.append("## Skipped\n\n" + "\n".join(f"- `{image.file}`: {image.reason}" for image in report.unusable))
    return "\n\n".join(parts) + "\n"
