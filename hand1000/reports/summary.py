"""From what a run left behind, folder by folder, to its model card and its report."""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from hand1000.config.settings import Settings
from hand1000.data.captioning import read_captioned_split
from hand1000.data.imageset import read_image_set
from hand1000.data.prepare import REPORT, PreparationReport
from hand1000.evaluation.base_vs_tuned import MetricRow, compare_metrics, compare_rates_by_gesture
from hand1000.evaluation.metrics import Metrics
from hand1000.gestures import gesture_phrase
from hand1000.hands.stage1 import load_features
from hand1000.reports.model_card import CardContent
from hand1000.reports.training import Curve, Pair, ReportContent, Sample
from hand1000.storage.files import read_json, read_jsonl
from hand1000.training.validation import IMAGES_DIR

PAIRS, WORST, SAMPLES = 8, 8, 12
"""How many pictures of each kind the report shows."""

LICENCES = {
    "the small base model, the rendered hands": "Apache-2.0, as this project",
    "Stable Diffusion 1.x, if it is the base model": "CreativeML OpenRAIL-M",
    "HaGRID, if the data is from it": "a variant of CC BY-SA 4.0",
}


@dataclass(frozen=True)
class RunFolders:
    """The local folders of a run's artifacts."""

    dataset: Path
    captions: list[Path]
    feature: Path
    fusion: Path
    embeddings: Sequence[Path]
    trained: Path
    model: Path
    base_images: Path
    tuned_images: Path
    evaluation: Path


@dataclass(frozen=True)
class RunFacts:
    """What a run was asked for."""

    gestures: tuple[str, ...]
    base_model: str
    base_identity: str
    data_digest: str
    run_key: str
    settings: Settings


def read_metrics(evaluation: Path) -> tuple[Metrics, Metrics]:
    """The measures of the base model and of the tuned one."""
    base, tuned = (Metrics.model_validate(read_json(evaluation / f"{name}.json")) for name in ("base", "tuned"))
    return base, tuned


def read_metric_rows(evaluation: Path) -> list[MetricRow]:
    """The rows of the comparison, as card and report show them."""
    return compare_metrics(*read_metrics(evaluation))


def gesture_accuracies(evaluation: Path) -> dict[str, dict[str, float | None]]:
    """Return each gesture's accuracy with the base model and with the tuned one."""
    base, tuned = (side.by_gesture for side in read_metrics(evaluation))
    return {
        gesture: {"base": base[gesture].gesture_accuracy, "tuned": metrics.gesture_accuracy}
        for gesture, metrics in tuned.items()
    }


def run_metrics(evaluation: Path) -> dict[str, float | None]:
    """Return the metrics of a run, `base.` and `tuned.` before their names, and of several gestures the accuracies."""
    metrics: dict[str, float | None] = {}
    for row in read_metric_rows(evaluation):
        metrics |= {f"base.{row.name}": row.base, f"tuned.{row.name}": row.tuned}
    accuracies = gesture_accuracies(evaluation)
    if len(accuracies) > 1:
        for gesture, sides in accuracies.items():
            metrics |= {f"{side}.gesture_accuracy.{gesture}": value for side, value in sides.items()}
    return metrics


def candidate_metrics(evaluation: Path) -> dict[str, float | None]:
    """Return the metrics of the tuned model, the tags of its registered version."""
    metrics = run_metrics(evaluation).items()
    return {name.removeprefix("tuned."): value for name, value in metrics if name.startswith("tuned.")}


def choose_example_prompt(folders: RunFolders) -> str:
    """A held-out prompt, as base model and gesture are used to."""
    return read_image_set(folders.tuned_images)[0].text


def build_card_content(facts: RunFacts, folders: RunFolders) -> CardContent:
    """What the model card says of this run."""
    base, tuned = read_metrics(folders.evaluation)
    preparation = PreparationReport.model_validate(read_json(folders.dataset / REPORT))
    stage2, stage3 = facts.settings.stage2, facts.settings.stage3
    trained = "all weights" if stage3.training_mode == "full" else f"adapters of rank {stage3.lora.rank}"
    return CardContent(
        gestures=facts.gestures,
        base_model=facts.base_model,
        base_revision=facts.base_identity,
        data_digest=facts.data_digest,
        counts={"train": preparation.train, "test": preparation.test},
        settings={
            "lambda": stage2.lambda_,
            "Stage II": f"{stage2.fusion_steps} steps of the fusion, {stage2.embedding_steps} of each embedding",
            "Stage III": f"{trained}, {stage3.steps} steps of {stage3.batch_size}, "
            f"learning rate {stage3.learning_rate:g}",
            "seed": facts.settings.seed,
        },
        measures=read_metric_rows(folders.evaluation),
        extractor=tuned.extractor,
        resizer=tuned.resizer,
        prompt=choose_example_prompt(folders),
        rates=compare_rates_by_gesture(base, tuned),
        licences=LICENCES,
    )


def build_report_content(
    facts: RunFacts, folders: RunFolders, *, model_uri: str, seconds: Mapping[str, float]
) -> ReportContent:
    """What the report shows of this run."""
    base, tuned = read_metrics(folders.evaluation)
    preparation = PreparationReport.model_validate(read_json(folders.dataset / REPORT))
    drawn = {record.file_name: record for record in read_image_set(folders.tuned_images)}
    results = {result.file_name: result for result in tuned.images}

    def pair(name: str) -> Pair:
        result, record = results[name], drawn[name]
        found = f"{result.predicted_gesture}, {result.target_probability:.2f}"
        note = found if result.num_hands else "no hand found"
        return Pair(record.text, record.seed or 0, folders.base_images / name, folders.tuned_images / name, note)

    worst = sorted(results, key=lambda name: (results[name].target_probability, name))[:WORST]
    features = load_features(folders.feature)
    training = read_captioned_split(folders.dataset, "train", folders.captions)[:SAMPLES]
    curves = [
        _curve("Stage II: fusion", [folders.fusion]),
        _curve("Stage II: embeddings, loss at the last step", folders.embeddings),
        _curve("Stage III: UNet", [folders.trained]),
        _curve("Stage III: images that are held back", [folders.trained], "validation_loss"),
    ]
    return ReportContent(
        phrases={gesture: gesture_phrase(gesture) for gesture in facts.gestures},
        run_key=facts.run_key,
        model_uri=model_uri,
        date=f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        base_model=f"{facts.base_model} ({facts.base_identity})",
        measures=read_metric_rows(folders.evaluation),
        extractor=tuned.extractor,
        resizer=tuned.resizer,
        random_pairs=[pair(name) for name in sorted(results)[:PAIRS]],
        worst_pairs=[pair(name) for name in worst],
        curves=[curve for curve in curves if curve.points],
        samples=[Sample(folders.dataset / "train" / record.file_name, record.text) for record in training],
        hands={one.gesture: one.mean.reshape(21, 3).tolist() for one in features if one.kind == "normalized"},
        counts={
            "training images": preparation.train,
            "held-out images": preparation.test,
            "unusable, passed over": len(preparation.unusable),
            **{f"filtered: {reason}": count for reason, count in preparation.filtered.items() if count},
            "training images with the labelled hand found": sum(one.found for one in features),
            "training images without": sum(len(one.images_without_hand) for one in features),
        },
        rates=compare_rates_by_gesture(base, tuned),
        settings_yaml=yaml.safe_dump(facts.settings.model_dump(mode="json"), sort_keys=False),
        seconds=seconds,
        unusable={entry.file: entry.reason for entry in preparation.unusable},
        looks=[
            Sample(path, f"after {int(path.stem)} steps")
            for path in sorted((folders.trained / IMAGES_DIR).glob("*.png"))
        ],
    )


def _curve(title: str, folders: Sequence[Path], value: str = "loss") -> Curve:
    rows = [row for folder in folders for _, row in read_jsonl(folder / "history.jsonl")]
    return Curve(title, sorted((int(row["step"]), float(row[value])) for row in rows if value in row))
