"""A data set as it is published: two image sets with their final captions, and a card."""

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from hand1000.captions.metrics import CaptionMetrics, caption_metrics_table
from hand1000.captions.records import CaptionRecord
from hand1000.core.errors import translate_write_errors
from hand1000.data.captioning import apply_captions
from hand1000.data.imageset import read_image_set, write_metadata
from hand1000.data.prepare import REPORT, PreparationReport
from hand1000.gestures import gesture_phrase
from hand1000.storage.files import read_json, write_text

SPLITS = ("train", "test")
CARD = "README.md"


def publish_data_set(
    prepared: Path, lines: Mapping[str, Mapping[str, CaptionRecord]], quality: Sequence[CaptionMetrics], out: Path
) -> None:
    """Write `train/`, `test/` and the card into `out`.

    `datasets.load_dataset("imagefolder", data_dir=out)` reads it, and so does `train_gesture` as its `data`.

    Args:
        prepared: the data set as it was cropped.
        lines: by split, each image's completed caption by file name.
        quality: of every captioner that was tried; the first one's captions are those that are published.
        out: an empty folder.

    Raises:
        Hand1000Error: an image has no caption, or `out` may not be written or is full.
    """
    everything: list[CaptionRecord] = []
    gesture = ""
    for split in SPLITS:
        records = apply_captions(read_image_set(prepared / split), lines[split], split)
        gesture = records[0].gesture
        everything += [lines[split][record.file_name] for record in records]
        with translate_write_errors(out / split):
            (out / split).mkdir()
            for record in records:
                shutil.copyfile(prepared / split / record.file_name, out / split / record.file_name)
        write_metadata(out / split, records)
    report = PreparationReport.model_validate(read_json(prepared / REPORT))
    with translate_write_errors(out):
        shutil.copyfile(prepared / REPORT, out / REPORT)
    write_text(out / CARD, data_card(gesture, report, everything, quality))


def data_card(
    gesture: str, report: PreparationReport, lines: Sequence[CaptionRecord], quality: Sequence[CaptionMetrics]
) -> str:
    """The card as the Hugging Face hub reads it: YAML, then Markdown."""
    front = {
        "license": "other",
        "license_name": "as-the-source",
        "task_categories": ["text-to-image"],
        "configs": [
            {"config_name": "default", "data_files": [{"split": split, "path": f"{split}/**"} for split in SPLITS]}
        ],
    }
    by = Counter(line.writer for line in lines)
    faults = Counter(fault for line in lines for fault in line.faults)
    shortened = sum(line.shortened for line in lines)
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
        f"# Hand1000 data: {gesture}",
        f"Images of people {gesture_phrase(gesture)}. Every `text` ends with that phrase and holds it once; "
        f"what the captioner wrote. {report.train} images to train on and {report.test} to measure against; nobody is "
        "in both.",
        "The licence is that of the source: HaGRID is under a variant of CC BY-SA 4.0; rendered hands are Apache-2.0.",
        f"## Captioners\n\n{caption_metrics_table(quality).markdown()}\nThe first one's captions are published.",
        "## Completion\n\n"
        + "\n".join(
            [
                *(f"- by {name}: {count}" for name, count in sorted(by.items())),
                *(f"- refused: {fault}: {count}" for fault, count in sorted(faults.items())),
                *([f"- shortened to fit the text encoder: {shortened}"] if shortened else []),
            ]
        ),
    ]
    if any(report.filtered.values()):
        rows = "".join(f"| {reason} | {count} |\n" for reason, count in report.filtered.items())
        parts.append(f"## Filtered\n\n| filter | images removed |\n| --- | --- |\n{rows}".rstrip())
    if report.unusable:
        parts.append("## Passed over\n\n" + "\n".join(f"- `{one.file}`: {one.reason}" for one in report.unusable))
    return "\n\n".join(parts) + "\n"
