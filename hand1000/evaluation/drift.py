"""Data drift: differences between two training sets in their hands, captions and bounding boxes."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hand1000.config.base import FrozenSettings
from hand1000.data.imageset import ImageRecord, read_image_set
from hand1000.hands.stage1 import GestureFeature

_WORD = re.compile(r"[^\W\d_]+")
_MAX_WORDS = 10


class GestureDrift(FrozenSettings):
    """Mean and largest change of the 63 values of a gesture's feature, in standard deviations over the images."""

    gesture: str
    mean: float
    largest: float


class Drift(FrozenSettings):
    """Differences between the old and the new training images.

    Attributes:
        vocabulary: Jensen-Shannon distance of the word frequencies, 0 (equal) to 1 (no common word).
        new_words: Most frequent words that only the new captions contain.
        lost_words: Most frequent words that only the old captions contain.
        box_sides: Mean longer side of the old and the new bounding boxes, relative to the image; None without boxes.
        box_distance: Kolmogorov-Smirnov statistic of the sides, 0 to 1, and its p-value; None without boxes.
    """

    images: tuple[int, int]
    features: tuple[GestureDrift, ...]
    vocabulary: float
    new_words: tuple[str, ...]
    lost_words: tuple[str, ...]
    box_sides: tuple[float | None, float | None]
    box_distance: tuple[float, float] | None

    def rows(self) -> list[tuple[str, str]]:
        """Names and values for display."""
        rows = [("training images", f"{self.images[0]} before, {self.images[1]} now")]
        rows += [
            (
                f"hand feature, {feature.gesture}",
                f"changed by {feature.mean:.3f} standard deviations on average, {feature.largest:.3f} at most",
            )
            for feature in self.features
        ]
        rows += [
            ("caption vocabulary", f"distance {self.vocabulary:.3f} of 1"),
            ("new words", ", ".join(self.new_words) or "none"),
            ("lost words", ", ".join(self.lost_words) or "none"),
        ]
        if self.box_distance is not None:
            (before, now), (distance, p) = self.box_sides, self.box_distance
            rows.append(("longer side of the hand box", f"{before:.3f} before, {now:.3f} now"))
            rows.append(("distribution of these sides", f"distance {distance:.3f} of 1, p = {p:.2g}"))
        return rows


def measure_drift(
    old: Path, new: Path, old_features: Sequence[GestureFeature], new_features: Sequence[GestureFeature]
) -> Drift:
    """Compare the image sets of two training splits, and the features of their gestures."""
    from scipy.stats import ks_2samp

    old_records, new_records = read_image_set(old), read_image_set(new)
    old_words, new_words = _count_words(old_records), _count_words(new_records)
    sides = _box_sides(old_records), _box_sides(new_records)
    test = ks_2samp(*sides) if all(sides) else None
    old_by_gesture = {feature.gesture: feature for feature in old_features}
    return Drift(
        images=(len(old_records), len(new_records)),
        features=tuple(
            _compute_gesture_drift(old_by_gesture[feature.gesture], feature)
            for feature in new_features
            if feature.gesture in old_by_gesture
        ),
        vocabulary=_word_distance(old_words, new_words),
        new_words=_words_only_in(new_words, old_words),
        lost_words=_words_only_in(old_words, new_words),
        box_sides=(_mean(sides[0]), _mean(sides[1])),
        box_distance=test and (float(test.statistic), float(test.pvalue)),
    )


def _compute_gesture_drift(old: GestureFeature, new: GestureFeature) -> GestureDrift:
    # Some values hardly vary (those of the wrist not at all), so that the divisor needs a lower bound.
    spread = np.maximum(old.std, 0.01 * max(float(old.std.max()), 1e-6))
    changes = np.abs(new.mean - old.mean) / spread
    return GestureDrift(gesture=new.gesture, mean=float(changes.mean()), largest=float(changes.max()))


def _count_words(records: Sequence[ImageRecord]) -> Counter[str]:
    return Counter(word for record in records for word in _WORD.findall(record.caption.lower()))


def _word_distance(old: Counter[str], new: Counter[str]) -> float:
    from scipy.spatial.distance import jensenshannon

    vocabulary = sorted(old.keys() | new.keys())
    if not old or not new:
        return 0.0 if old == new else 1.0
    return float(jensenshannon([old[word] for word in vocabulary], [new[word] for word in vocabulary], base=2))


def _words_only_in(counts: Counter[str], other_counts: Counter[str]) -> tuple[str, ...]:
    exclusive = [(-count, word) for word, count in counts.items() if word not in other_counts]
    return tuple(word for _, word in sorted(exclusive)[:_MAX_WORDS])


def _box_sides(records: Sequence[ImageRecord]) -> list[float]:
    return [max(record.bbox[2:]) for record in records if record.bbox]


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
