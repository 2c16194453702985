"""The report of a training run: one HTML file."""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from hand1000.data.imageset import read_image_set
from hand1000.evaluation.base_vs_tuned import GestureRow, MetricRow, gesture_rates_table, metrics_table
from hand1000.gestures import gesture_phrase
from hand1000.hands.stage1 import load_features
from hand1000.models.encoding import find_truncated
from hand1000.reports.figures import Curve
from hand1000.reports.html import render_template
from hand1000.reports.model_card import python_snippet, shell_snippet
from hand1000.reports.run import FinishedRun
from hand1000.storage.files import read_jsonl, write_text
from hand1000.training.validation import IMAGES_DIR

NUM_PAIRS, NUM_SAMPLES = 8, 12
"""Number of image pairs and of training images that the report shows."""


@dataclass(frozen=True)
class ImagePair:
    """Images of the base model and of the fine-tuned model with the same prompt and seed.

    Attributes:
        prompt: The prompt.
        seed: Random seed of both images.
        base: Image of the base model.
        tuned: Image of the fine-tuned model.
        note: Metrics of the fine-tuned model's image.
    """

    prompt: str
    seed: int
    base: Path
    tuned: Path
    note: str


@dataclass(frozen=True)
class CaptionedImage:
    """An image and its caption."""

    image: Path
    caption: str


@dataclass(frozen=True)
class ReportContent:
    """Everything that the report shows.

    Attributes:
        phrases: Phrase of each gesture.
        run_key: Key of the workflow run.
        model_uri: Registered version, such as `models:/hand1000-call-candidates/3`.
        date: Formatted date.
        base_model: Name and revision of the base model.
        metric_rows: Metrics of both models.
        extractor: Name of the feature extractor.
        resizer: Its resizer.
        first_pairs: Images of the first test prompts.
        worst_pairs: Images that show the requested gesture least.
        curves: Training curves.
        samples: Some training images.
        hands: Mean hand of each gesture, 21 of (x, y, z); empty if the feature is not normalized.
        counts: Numbers of images and captions by what happened to them.
        settings_yaml: All settings.
        seconds: Run time of each stage.
        skipped: Reason for each skipped image.
        validation_images: Images that were generated during training.
        gesture_rows: Rates of each of several gestures.
    """

    phrases: Mapping[str, str]
    run_key: str
    model_uri: str
    date: str
    base_model: str
    metric_rows: Sequence[MetricRow]
    extractor: str
    resizer: str
    first_pairs: Sequence[ImagePair]
    worst_pairs: Sequence[ImagePair]
    curves: Sequence[Curve]
    samples: Sequence[CaptionedImage]
    hands: Mapping[str, Sequence[Sequence[float]]]
    counts: Mapping[str, object]
    settings_yaml: str
    seconds: Mapping[str, float]
    skipped: Mapping[str, str] = field(default_factory=dict)
    validation_images: Sequence[CaptionedImage] = ()
    gesture_rows: Sequence[GestureRow] = ()


def write_report(path: Path, content: ReportContent) -> None:
    """Write the report to `path`, completely or not at all.

    Raises:
        Hand1000Error: An image is missing or unreadable, or `path` is not writable.
    """
    write_text(path, render_report(content))


def render_report(content: ReportContent) -> str:
    """Render the report as HTML."""
    prompt = content.first_pairs[0].prompt if content.first_pairs else next(iter(content.phrases.values()))
    return render_template(
        "training.html.j2",
        report=content,
        metrics=metrics_table(content.metric_rows),
        gesture_rates=gesture_rates_table(content.gesture_rows),
        python_snippet=python_snippet(content.model_uri, prompt),
        shell_snippet=shell_snippet(content.model_uri, prompt),
    )


def build_report_content(run: FinishedRun, *, model_uri: str, seconds: Mapping[str, float]) -> ReportContent:
    """Collect the content of the report.

    Args:
        run: The finished run.
        model_uri: Registered version of its model.
        seconds: Run time of each stage.
    """
    _, tuned = run.metrics
    records = {record.file_name: record for record in read_image_set(run.tuned_images)}
    results = {result.file_name: result for result in tuned.images}

    def make_pair(name: str) -> ImagePair:
        result, record = results[name], records[name]
        recognized = f"{result.predicted_gesture}, {result.target_probability:.2f}"
        note = recognized if result.num_hands else "no hand detected"
        return ImagePair(record.text, record.seed or 0, run.base_images / name, run.tuned_images / name, note)

    worst = sorted(results, key=lambda name: (results[name].target_probability, name))[:NUM_PAIRS]
    curves = [
        _read_curve("Stage II: fusion", [run.fusion]),
        _read_curve("Stage II: embeddings, loss of the last step", run.embeddings),
        _read_curve("Stage III: UNet", [run.trained]),
        _read_curve("Stage III: validation images", [run.trained], "validation_loss"),
    ]
    features = load_features(run.feature)
    return ReportContent(
        phrases={gesture: gesture_phrase(gesture) for gesture in run.gestures},
        run_key=run.run_key,
        model_uri=model_uri,
        date=f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        base_model=f"{run.base_model} ({run.base_identity})",
        metric_rows=run.metric_rows,
        extractor=tuned.extractor,
        resizer=tuned.resizer,
        first_pairs=[make_pair(name) for name in sorted(results)[:NUM_PAIRS]],
        worst_pairs=[make_pair(name) for name in worst],
        curves=[curve for curve in curves if curve.points],
        samples=[
            CaptionedImage(run.dataset / "train" / record.file_name, record.text)
            for record in run.training_records[:NUM_SAMPLES]
        ],
        hands={
            feature.gesture: feature.mean.reshape(21, 3).tolist()
            for feature in features
            if feature.kind == "normalized"
        },
        counts={
            "training images": run.preparation.train,
            "test images": run.preparation.test,
            "skipped images": len(run.preparation.unusable),
            **{f"filtered images: {reason}": count for reason, count in run.preparation.filter_counts.items() if count},
            "training images with a detected hand": sum(feature.found for feature in features),
            "training images without": sum(len(feature.images_without_hand) for feature in features),
            "captions cut by the text encoder": f"{_count_cut_captions(run)} of {len(run.training_records)}",
        },
        settings_yaml=yaml.safe_dump(run.settings.model_dump(mode="json"), sort_keys=False),
        seconds=seconds,
        skipped={entry.file: entry.reason for entry in run.preparation.unusable},
        validation_images=[
            CaptionedImage(path, f"after {int(path.stem)} steps")
            for path in sorted((run.trained / IMAGES_DIR).glob("*.png"))
        ],
        gesture_rows=run.gesture_rows,
    )


def _count_cut_captions(run: FinishedRun) -> int:
    """The number of training captions that are longer than the text encoder reads."""
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(run.model, subfolder="tokenizer")
    return len(find_truncated(tokenizer, [record.text for record in run.training_records]))


def _read_curve(title: str, folders: Sequence[Path], value: str = "loss") -> Curve:
    rows = [row for folder in folders for _, row in read_jsonl(folder / "history.jsonl")]
    return Curve(title, sorted((int(row["step"]), float(row[value])) for row in rows if value in row))
