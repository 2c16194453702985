"""The review page of a training run: one HTML file from which a person decides about the candidate."""

import datetime
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from hand1000.core.rng import derived_seed
from hand1000.data.imageset import read_image_set
from hand1000.evaluation.paired_metrics import TUNED
from hand1000.gestures import gesture_phrase
from hand1000.hands.stage1 import GestureFeature, load_features
from hand1000.registry.review import ReviewCommands
from hand1000.reports.compared_images import (
    FAULTS,
    ComparedImages,
    compare_run,
    evaluated_models,
    find_near_copies,
    find_worst,
    sample_rows,
)
from hand1000.reports.confusion import count_confusion
from hand1000.reports.costs import describe_costs, finished_stages
from hand1000.reports.curves import read_curves
from hand1000.reports.forgetting import read_other_gestures
from hand1000.reports.html import render_template
from hand1000.reports.images import MAX_SIDE, fit_thumbnails
from hand1000.reports.metric_lines import MIN_SAMPLES, MODELS, read_metric_lines
from hand1000.reports.model_card import LICENSES
from hand1000.reports.run import FinishedRun
from hand1000.reports.snippets import usage_snippets
from hand1000.storage.files import write_text
from hand1000.training.validation import IMAGES_DIR

NUM_WORST, NUM_RANDOM, NUM_COPIES, NUM_TRAINING = 4, 8, 6, 12
"""Number of images that the page shows of each kind of fault, at random, beside training images, and of training."""

_TABLE_BYTES = 20_000_000
"""Size of all thumbnails in the table of all images; with the rest, a page of 512 pixel images has about 30 MB."""

SECTIONS = {
    "verdict": "Verdict",
    "decide": "Decide",
    "worst": "Worst images",
    "random": "Random",
    "metrics": "Metrics",
    "all": "All images",
    "training": "Training",
    "data": "Data",
    "cost": "Cost",
    "use": "Use",
}
"""Titles of the page's sections by their anchors."""


@dataclass(frozen=True)
class ReportedCandidate:
    """A registered candidate, as its page shows it.

    Attributes:
        uri: Address of the version.
        commands: Shell commands that decide about it.
        registry: Address of the MLflow for the usage examples; "" if the default finds the model.
        seconds: Run time of each stage.
        peaks: Peak memory of each stage in GiB, where it is known.
    """

    uri: str
    commands: ReviewCommands
    registry: str
    seconds: Mapping[str, float]
    peaks: Mapping[str, float] = field(default_factory=dict)


class GeneralImages(NamedTuple):
    """Images of a prompt without the gesture by model."""

    prompt: str
    seed: int
    images: Sequence[tuple[str, Path]]


def write_report(path: Path, run: FinishedRun, candidate: ReportedCandidate) -> None:
    """Write the page to `path`, completely or not at all.

    Raises:
        Hand1000Error: An image is missing or unreadable, or `path` is not writable.
    """
    write_text(path, render_template("training/page.html.j2", **describe_run(run, candidate)))


def describe_run(run: FinishedRun, candidate: ReportedCandidate) -> dict[str, Any]:
    """Everything that the page shows."""
    seed = run.settings.seed
    features = load_features(run.feature)
    models = evaluated_models(run)
    # The table begins with what a reviewer looks for.
    rows = sorted(
        compare_run(run),
        key=lambda row: (-len(row.candidate.faults), row.candidate.result.target_probability, row.name),
    )
    tuned, seconds = run.metrics[1], finished_stages(candidate.seconds)
    training = [(run.dataset / "train" / record.file_name, record.text) for record in run.training_records]
    return {
        "phrases": {gesture: gesture_phrase(gesture) for gesture in run.gestures},
        "sections": SECTIONS,
        "seed": seed,
        "models": list(models),
        "gates": run.gates,
        "champion": run.champion,
        "model_uri": candidate.uri,
        "commands": {"Promote": candidate.commands.promote, "Reject": candidate.commands.reject}
        | ({"Roll back the champion": candidate.commands.rollback} if run.champion else {}),
        "rows": rows,
        "worst": find_worst(rows, NUM_WORST, seed),
        "sampled": sample_rows(rows, NUM_RANDOM, seed),
        "general": sample_general_images(run, NUM_RANDOM // 2),
        "copies": [(row, _nearest(row, training)) for row in find_near_copies(rows, NUM_COPIES)],
        "faults": FAULTS,
        "fault_counts": Counter(fault for row in rows for fault in row.candidate.faults),
        "change_counts": Counter(row.change for row in rows),
        "thumbnails": fit_thumbnails([image.path for row in rows for image in row.images], _TABLE_BYTES),
        "full_side": MAX_SIDE,
        "metrics": read_metric_lines(run),
        "min_samples": MIN_SAMPLES,
        "export": run.export_metrics,
        "other_gestures": read_other_gestures(run),
        "confusion": count_confusion({model: results for model, (_, results) in models.items()}),
        "extractor": tuned.extractor,
        "classifier": tuned.classifier_summary,
        "resizer": tuned.resizer,
        "curves": read_curves(run),
        "validation_images": [
            (image, f"after {int(image.stem)} steps") for image in sorted((run.trained / IMAGES_DIR).glob("*.png"))
        ],
        "hands": {
            feature.gesture: feature.mean.reshape(21, 3).tolist()
            for feature in features
            if feature.kind == "normalized"
        },
        "counts": count_data(run, features),
        "skipped": {entry.file: entry.reason for entry in run.preparation.unusable},
        "samples": training[:NUM_TRAINING],
        "drift": run.drift.rows() if run.drift else [],
        "drift_note": run.drift_note or "There is no champion to compare with.",
        "licenses": LICENSES,
        "seconds": seconds,
        "peaks": candidate.peaks,
        "costs": describe_costs(run.settings, len(rows), seconds),
        "snippets": usage_snippets(candidate.uri, run.example_prompt, candidate.registry),
        "overview": {
            "registered model": candidate.uri,
            "run": run.run_key,
            "base model": f"{run.base_model} ({run.base_identity})",
            "dataset": f"sha256 {run.data_digest}",
            "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        },
        "settings_yaml": yaml.safe_dump(run.settings.model_dump(mode="json"), sort_keys=False),
    }


def sample_general_images(run: FinishedRun, count: int) -> list[GeneralImages]:
    """Random images of prompts without the gesture; empty if there are none."""
    if not run.general_images:
        return []
    folders = {label: run.general_images / name for name, label in MODELS.items()}
    folders = {label: folder for label, folder in folders.items() if folder.is_dir()}
    records = read_image_set(folders[MODELS[TUNED]])
    ordered = sorted(records, key=lambda record: derived_seed(run.settings.seed, "report", "general", record.file_name))
    return [
        GeneralImages(
            record.text, record.seed or 0, [(label, folder / record.file_name) for label, folder in folders.items()]
        )
        for record in ordered[:count]
    ]


def count_data(run: FinishedRun, features: Sequence[GestureFeature]) -> dict[str, object]:
    """Numbers of images and of captions by what happened to them, and who wrote the captions."""
    shortened = sum(record.shortened for record in run.caption_records.values())
    captioners = Counter(record.captioner or "unknown" for record in run.training_records)
    return {
        "training images": run.preparation.train,
        "test images": run.preparation.test,
        "skipped images": len(run.preparation.unusable),
        **{f"not used: {problem.kind}": problem.describe() for problem in run.preparation.problems},
        **{f"filtered images: {reason}": count for reason, count in run.preparation.filter_counts.items() if count},
        "training images with a detected hand": sum(feature.found for feature in features),
        "training images without": sum(len(feature.images_without_hand) for feature in features),
        **{f"captions by {captioner}": count for captioner, count in captioners.most_common()},
        "captions shortened before the phrase": f"{shortened} of {len(run.training_records)}",
    }


def _nearest(row: ComparedImages, training: Sequence[tuple[Path, str]]) -> tuple[Path, str]:
    index = row.candidate.result.nearest_train
    assert index is not None
    return training[index]
