"""The report of a training run: one HTML file."""

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from hand1000.data.imageset import read_image_set
from hand1000.evaluation.base_vs_tuned import gesture_rates_table, metrics_table
from hand1000.gestures import gesture_phrase
from hand1000.hands.stage1 import GestureFeature, load_features
from hand1000.models.encoding import find_truncated
from hand1000.reports.figures import Curve
from hand1000.reports.html import render_template
from hand1000.reports.model_card import usage_snippets
from hand1000.reports.run import FinishedRun
from hand1000.storage.files import read_jsonl, write_text
from hand1000.training.validation import IMAGES_DIR

NUM_PAIRS, NUM_SAMPLES = 8, 12
"""Number of image pairs and of training images that the report shows."""


class ImagePair(NamedTuple):
    """Images of the base model and of the fine-tuned model with the same prompt and seed; `note` is on the latter."""

    prompt: str
    seed: int
    base: Path
    tuned: Path
    note: str


def write_report(path: Path, run: FinishedRun, *, model_uri: str, seconds: Mapping[str, float]) -> None:
    """Write the report to `path`, completely or not at all; `seconds` is the run time of each stage.

    Raises:
        Hand1000Error: An image is missing or unreadable, or `path` is not writable.
    """
    _, tuned = run.metrics
    features = load_features(run.feature)
    results = {result.file_name: result for result in tuned.images}
    worst = sorted(results, key=lambda name: (results[name].target_probability, name))
    pairs = _make_pairs(run)
    curves = [
        _read_curve("Stage II: fusion", [run.fusion]),
        _read_curve("Stage II: embeddings, loss of the last step", run.embeddings),
        _read_curve("Stage III: UNet", [run.trained]),
        _read_curve("Stage III: validation images", [run.trained], "validation_loss"),
    ]
    page = render_template(
        "training.html.j2",
        phrases={gesture: gesture_phrase(gesture) for gesture in run.gestures},
        overview={
            "registered model": model_uri,
            "run": run.run_key,
            "base model": f"{run.base_model} ({run.base_identity})",
            "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        },
        metrics=metrics_table(run.metric_rows),
        gesture_rates=gesture_rates_table(*run.metrics),
        extractor=tuned.extractor,
        resizer=tuned.resizer,
        first_pairs=[pairs[name] for name in sorted(results)[:NUM_PAIRS]],
        worst_pairs=[pairs[name] for name in worst[:NUM_PAIRS]],
        curves=[curve for curve in curves if curve.points],
        validation_images=[
            (path, f"after {int(path.stem)} steps") for path in sorted((run.trained / IMAGES_DIR).glob("*.png"))
        ],
        samples=[
            (run.dataset / "train" / record.file_name, record.text) for record in run.training_records[:NUM_SAMPLES]
        ],
        hands={
            feature.gesture: feature.mean.reshape(21, 3).tolist()
            for feature in features
            if feature.kind == "normalized"
        },
        counts=count_data(run, features),
        skipped={entry.file: entry.reason for entry in run.preparation.unusable},
        settings_yaml=yaml.safe_dump(run.settings.model_dump(mode="json"), sort_keys=False),
        snippets=usage_snippets(model_uri, run.example_prompt),
        seconds=seconds,
    )
    write_text(path, page)


def _make_pairs(run: FinishedRun) -> dict[str, ImagePair]:
    """The images of both models by file name."""
    records, pairs = {record.file_name: record for record in read_image_set(run.tuned_images)}, {}
    for result in run.metrics[1].images:
        name, record = result.file_name, records[result.file_name]
        recognized = f"{result.predicted_gesture}, {result.target_probability:.2f}"
        note = recognized if result.num_hands else "no hand detected"
        pairs[name] = ImagePair(record.text, record.seed or 0, run.base_images / name, run.tuned_images / name, note)
    return pairs


def count_data(run: FinishedRun, features: Sequence[GestureFeature]) -> dict[str, object]:
    """Numbers of images and of captions by what happened to them."""
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(run.model, subfolder="tokenizer")
    truncated = find_truncated(tokenizer, [record.text for record in run.training_records])
    return {
        "training images": run.preparation.train,
        "test images": run.preparation.test,
        "skipped images": len(run.preparation.unusable),
        **{f"not used: {problem.kind}": problem.describe() for problem in run.preparation.problems},
        **{f"filtered images: {reason}": count for reason, count in run.preparation.filter_counts.items() if count},
        "training images with a detected hand": sum(feature.found for feature in features),
        "training images without": sum(len(feature.images_without_hand) for feature in features),
        "captions cut by the text encoder": f"{len(truncated)} of {len(run.training_records)}",
    }


def _read_curve(title: str, folders: Sequence[Path], value: str = "loss") -> Curve:
    rows = [row for folder in folders for _, row in read_jsonl(folder / "history.jsonl")]
    return Curve(title, sorted((int(row["step"]), float(row[value])) for row in rows if value in row))
