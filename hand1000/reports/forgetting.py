"""Prompts that name other gestures than the trained ones: which models show the named gesture, which the trained."""

from collections.abc import Mapping
from dataclasses import dataclass

from hand1000.evaluation.general import GeneralMetrics
from hand1000.reports.metric_lines import MODELS
from hand1000.reports.run import FinishedRun
from hand1000.storage.files import read_json


@dataclass(frozen=True)
class OtherGestureRow:
    """The images whose prompts name one gesture.

    Attributes:
        gesture: The named gesture, or "all".
        n: Number of images of each model.
        shown: Number of images of each model that show the named gesture.
        leaked: Number of images of each model that show a trained gesture.
    """

    gesture: str
    n: int
    shown: Mapping[str, int]
    leaked: Mapping[str, int]


def read_other_gestures(run: FinishedRun) -> list[OtherGestureRow]:
    """One row for each named gesture and one for all of them, the last; empty if there are no such images."""
    models = {}
    for name, label in MODELS.items():
        path = run.evaluation / f"other_{name}.json"
        if path.is_file():
            models[label] = GeneralMetrics.model_validate(read_json(path)).images
    if not models:
        return []
    named = sorted({image.named_gesture or "" for images in models.values() for image in images})
    rows = []
    for gesture in [*named, "all"]:
        chosen = {
            label: [image for image in images if gesture in (image.named_gesture, "all")]
            for label, images in models.items()
        }
        rows.append(
            OtherGestureRow(
                gesture=gesture,
                n=len(next(iter(chosen.values()))),
                shown={label: sum(image.shows_named for image in images) for label, images in chosen.items()},
                leaked={label: sum(image.leaks for image in images) for label, images in chosen.items()},
            )
        )
    return rows
