"""The images of all models side by side: one row per prompt and seed, what is wrong with each, and which are shown."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from hand1000.core.rng import derived_seed
from hand1000.data.imageset import ImageRecord, read_image_set
from hand1000.evaluation.image_results import ImageResult
from hand1000.evaluation.paired_metrics import BASE, CHAMPION, TUNED
from hand1000.reports.metric_lines import MODELS
from hand1000.reports.run import FinishedRun

FAULTS = {
    "no-hand": "no hand",
    "wrong-gesture": "wrong gesture",
    "implausible": "implausible hand",
    "near-copy": "near-copy of a training image",
    "wrong-color": "wrong color",
}
"""The faults of an image, by the key that the page's filter uses."""


@dataclass(frozen=True)
class ModelImage:
    """One model's image, and what was found in it; `model` is `base`, `champion` or `candidate`."""

    model: str
    path: Path
    result: ImageResult

    @property
    def finding(self) -> str:
        """The recognized gesture and the probability of the requested one."""
        if not self.result.num_hands:
            return "no hand"
        return f"{self.result.predicted_gesture} {self.result.target_probability:.2f}"

    @property
    def faults(self) -> tuple[str, ...]:
        """Keys of `FAULTS`."""
        result = self.result
        found = {
            "no-hand": not result.num_hands,
            "wrong-gesture": bool(result.num_hands) and not result.shows_target,
            "implausible": bool(result.num_implausible),
            "near-copy": bool(result.memorized),
            "wrong-color": bool(self.wrong_colors),
        }
        return tuple(fault for fault, is_there in found.items() if is_there)

    @property
    def wrong_colors(self) -> tuple[str, ...]:
        """Places with another color than the prompt's; without a hand, only the wall can be judged."""
        return tuple(place for place in self.result.wrong_colors if self.result.num_hands or place == "wall")

    @property
    def fault_labels(self) -> tuple[str, ...]:
        """The faults in words."""
        colors = f": {', '.join(self.wrong_colors)}"
        return tuple(FAULTS[fault] + (colors if fault == "wrong-color" else "") for fault in self.faults)


@dataclass(frozen=True)
class ComparedImages:
    """The images of all models with the same prompt and seed; the last one is the candidate's."""

    name: str
    prompt: str
    seed: int
    images: tuple[ModelImage, ...]

    @property
    def candidate(self) -> ModelImage:
        """The image of the new model."""
        return self.images[-1]

    @property
    def change(self) -> str:
        """`lost` or `gained` if the champion, or without one the base model, and the candidate differ, else ""."""
        before, after = self.images[-2].result.shows_target, self.candidate.result.shows_target
        return "" if before == after else "gained" if after else "lost"


class WorstImages(NamedTuple):
    """Images with one kind of fault, the worst first; `total` counts those that have it."""

    title: str
    total: int
    rows: Sequence[ComparedImages]


def compare_images(
    records: Sequence[ImageRecord], models: Mapping[str, tuple[Path, Sequence[ImageResult]]]
) -> list[ComparedImages]:
    """Put the images of the models side by side.

    Args:
        records: Records of the images, which are those of every model.
        models: Folder and results of each model, the candidate last.
    """
    results = {model: {result.file_name: result for result in rows} for model, (_, rows) in models.items()}
    return [
        ComparedImages(
            name=record.file_name,
            prompt=record.text,
            seed=record.seed or 0,
            images=tuple(
                ModelImage(model, folder / record.file_name, results[model][record.file_name])
                for model, (folder, _) in models.items()
            ),
        )
        for record in records
    ]


def evaluated_models(run: FinishedRun) -> dict[str, tuple[Path, Sequence[ImageResult]]]:
    """The image folder and the results of each model of a run, the candidate last."""
    base, tuned = run.metrics
    models: dict[str, tuple[Path, Sequence[ImageResult]]] = {MODELS[BASE]: (run.base_images, base.images)}
    if run.champion_images and run.champion_metrics:
        models[MODELS[CHAMPION]] = run.champion_images, run.champion_metrics.images
    models[MODELS[TUNED]] = run.tuned_images, tuned.images
    return models


def compare_run(run: FinishedRun) -> list[ComparedImages]:
    """The images of all models of a run side by side."""
    return compare_images(read_image_set(run.tuned_images), evaluated_models(run))


def sample_rows(rows: Sequence[ComparedImages], count: int, seed: int) -> list[ComparedImages]:
    """Draw `count` rows at random; the draw depends on the seed and the names of the images only."""
    return sorted(rows, key=lambda row: derived_seed(seed, "report", "sample", row.name))[:count]


def find_worst(rows: Sequence[ComparedImages], count: int, seed: int) -> list[WorstImages]:
    """The worst images by each metric, at most `count` of each kind. No image appears twice; ties are drawn by seed."""
    reference = rows[0].images[-2].model if rows else ""
    kinds: dict[str, Callable[[ComparedImages], float | None]] = {
        f"Correct in the {reference}, wrong in the candidate": lambda row: (
            row.candidate.result.target_probability if row.change == "lost" else None
        ),
        "Wrong gesture, the most confident first": lambda row: (
            -(row.candidate.result.predicted_probability or 0) if "wrong-gesture" in row.candidate.faults else None
        ),
        "Implausible hand, the surest hand first": lambda row: (
            -(row.candidate.result.handedness_score or 0) if "implausible" in row.candidate.faults else None
        ),
        "No hand": lambda row: 0.0 if "no-hand" in row.candidate.faults else None,
        "Wrong color, the most colors first": lambda row: -float(len(row.candidate.wrong_colors)) or None,
        "Correct, the lowest probability first": lambda row: (
            row.candidate.result.target_probability if row.candidate.result.shows_target else None
        ),
    }
    chosen: set[str] = set()
    groups = []
    for title, badness in kinds.items():
        values = {row.name: value for row in rows if (value := badness(row)) is not None}
        ranked = sorted(
            (row for row in rows if row.name in values and row.name not in chosen),
            key=lambda row: (values[row.name], derived_seed(seed, "report", "worst", row.name)),
        )[:count]
        chosen |= {row.name for row in ranked}
        groups.append(WorstImages(title, len(values), ranked))
    return [group for group in groups if group.rows]


def find_near_copies(rows: Sequence[ComparedImages], count: int) -> list[ComparedImages]:
    """The rows whose candidate's image is nearest to a training image, the nearest first."""
    distances = {row.name: row.candidate.result.nearest_distance for row in rows}
    measured = [(distances[row.name] or 0.0, row.name, row) for row in rows if distances[row.name] is not None]
    return [row for *_, row in sorted(measured, key=lambda entry: entry[:2])[:count]]
