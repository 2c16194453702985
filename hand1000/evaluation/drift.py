"""How far the data that a model was trained on and newer data lie apart: hands, captions, boxes."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from hand1000.data.imageset import ImageRecord, read_image_set
from hand1000.hands.stage1 import GestureFeature

_WORD = re.compile(r"[^\W\d_]+")
_NAMED = 10


class GestureDrift(BaseModel):
    """Of one gesture's feature: its step, in units of how much it varies from image to image, over the 63 numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    gesture: str
    mean: float
    largest: float


class Drift(BaseModel):
    """Old against new training images.

    Attributes:
        images: how many, old and new.
        features: of the gestures that both have.
        vocabulary: Jensen-Shannon distance of how often each word is used, 0 (alike) to 1 (no word in common).
        new_words, lost_words: the most frequent of those that only one side uses.
        box_sides: mean longer side of the labelled boxes, of the image's; None where there are none.
        box_distance: of their distributions (Kolmogorov-Smirnov), 0 to 1, and how likely chance gives as much.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    images: tuple[int, int]
    features: tuple[GestureDrift, ...]
    vocabulary: float
    new_words: tuple[str, ...]
    lost_words: tuple[str, ...]
    box_sides: tuple[float | None, float | None]
    box_distance: tuple[float, float] | None

    def rows(self) -> list[tuple[str, str]]:
        """What is measured and what was found, as a person reads it."""
        told = [("training images", f"{self.images[0]} before, {self.images[1]} now")]
        for one in self.features:
            told.append(
                (f"hands, {one.gesture}", f"{one.mean:.3f} standard deviations on average, {one.largest:.3f} at most")
            )
        told.append(("captions' vocabulary", f"{self.vocabulary:.3f} of 1 apart"))
        told.append(("new words", ", ".join(self.new_words) or "none"))
        told.append(("lost words", ", ".join(self.lost_words) or "none"))
        if self.box_distance is not None:
            before, now = self.box_sides
            distance, chance = self.box_distance
            told.append(("hand's box, longer side", f"{before:.3f} before, {now:.3f} now"))
            told.append(("boxes' distribution", f"{distance:.3f} of 1 apart; chance alone: p = {chance:.2g}"))
        return told


def measure_drift(
    old: Path, new: Path, old_features: Sequence[GestureFeature], new_features: Sequence[GestureFeature]
) -> Drift:
    """Compare two data sets by their training images.

    Args:
        old, new: image sets with captions.
        old_features, new_features: f of their gestures.

    Raises:
        Hand1000Error: not an image set.
    """
    from scipy.stats import ks_2samp

    before, now = read_image_set(old), read_image_set(new)
    words = _words(before), _words(now)
    sides = _sides(before), _sides(now)
    boxes = ks_2samp(*sides) if all(sides) else None
    known = {one.gesture: one for one in old_features}
    return Drift(
        images=(len(before), len(now)),
        features=tuple(_feature_drift(known[one.gesture], one) for one in new_features if one.gesture in known),
        vocabulary=_word_distance(*words),
        new_words=_only(words[1], words[0]),
        lost_words=_only(words[0], words[1]),
        box_sides=(_mean(sides[0]), _mean(sides[1])),
        box_distance=boxes and (float(boxes.statistic), float(boxes.pvalue)),
    )


def _feature_drift(old: GestureFeature, new: GestureFeature) -> GestureDrift:
    # Some numbers hardly vary, the wrist's not at all: a step of theirs is not divided by nothing.
    spread = np.maximum(old.std, 0.01 * max(float(old.std.max()), 1e-6))
    steps = np.abs(new.mean - old.mean) / spread
    return GestureDrift(gesture=new.gesture, mean=float(steps.mean()), largest=float(steps.max()))


def _words(records: Sequence[ImageRecord]) -> Counter[str]:
    return Counter(word for record in records for word in _WORD.findall(record.text.lower()))


def _word_distance(old: Counter[str], new: Counter[str]) -> float:
    from scipy.spatial.distance import jensenshannon

    every = sorted(old.keys() | new.keys())
    if not old or not new:
        return 0.0 if old == new else 1.0
    return float(jensenshannon([old[word] for word in every], [new[word] for word in every], base=2))


def _only(these: Counter[str], others: Counter[str]) -> tuple[str, ...]:
    own = [(-count, word) for word, count in these.items() if word not in others]
    return tuple(word for _, word in sorted(own)[:_NAMED])


def _sides(records: Sequence[ImageRecord]) -> list[float]:
    return [max(record.bbox[2:]) for record in records if record.bbox]


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
