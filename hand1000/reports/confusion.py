"""Which gestures were requested, and which were found."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hand1000.evaluation.image_results import ImageResult

NO_HAND = "no hand"


@dataclass(frozen=True)
class ConfusionRow:
    """The images of one model and one requested gesture: how many of them show each of the found gestures."""

    requested: str
    model: str
    counts: Sequence[int]

    @property
    def total(self) -> int:
        """Number of images."""
        return sum(self.counts)


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix of several models; `found` names its columns."""

    found: Sequence[str]
    rows: Sequence[ConfusionRow]


def count_confusion(models: Mapping[str, Sequence[ImageResult]]) -> Confusion:
    """Count the found gestures by requested gesture and model.

    The columns are the requested gestures, then the others that were found, the most frequent first, then `NO_HAND`.
    """
    pairs = {
        model: Counter((result.target_gesture, result.predicted_gesture or NO_HAND) for result in results)
        for model, results in models.items()
    }
    requested = sorted({target for counts in pairs.values() for target, _ in counts})
    totals: Counter[str] = Counter()
    for counts in pairs.values():
        for (_, found), count in counts.items():
            totals[found] += count
    others = sorted(set(totals) - {*requested, NO_HAND}, key=lambda gesture: (-totals[gesture], gesture))
    columns = [*requested, *others, NO_HAND]
    rows = [
        ConfusionRow(target, model, [counts[target, found] for found in columns])
        for target in requested
        for model, counts in pairs.items()
    ]
    return Confusion(columns, rows)
