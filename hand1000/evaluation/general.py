"""Images of prompts without the gesture: has the model forgotten the rest?

The base model and the tuned one generate them from the same prompts and seeds, the tuned one without its gesture
(mu 1). There are no real images of these prompts, so that the base model's images are the reference.
"""

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from hand1000.captions.captioners import FALLBACK_CAPTION
from hand1000.config.base import Fraction, FrozenSettings
from hand1000.core.rng import derived_seed
from hand1000.data.imageset import ImageRecord
from hand1000.evaluation.colors import check_colors, color_faithfulness
from hand1000.evaluation.features import ImageFeatures
from hand1000.gestures import gesture_phrase, group_by_gesture


class GeneralImage(FrozenSettings):
    """What was found in one image: hands, and the places that its prompt names a color of, with the wrong ones."""

    file_name: str
    num_hands: int = Field(ge=0)
    named_colors: tuple[str, ...]
    wrong_colors: tuple[str, ...]


class GeneralMetrics(FrozenSettings):
    """Metrics of one model's images of prompts without the gesture."""

    n: int
    detection_rate: Fraction
    color_faithfulness: dict[str, Fraction]
    clip_score: float | None
    images: tuple[GeneralImage, ...]


def plan_general_images(prompts: Sequence[ImageRecord], num_images: int, seed: int) -> list[ImageRecord]:
    """Return the records of the images to generate: captions of the test images without the gesture's phrase.

    The gestures take turns, and so do the captions of a gesture.

    Args:
        prompts: Records of the test images.
        num_images: Number of images.
        seed: Random seed of the run, from which each image has one of its own.
    """
    groups = list(group_by_gesture(prompts).values())
    records = []
    for index in range(num_images):
        turn, position = divmod(index, len(groups))
        record = groups[position][turn % len(groups[position])]
        update = {
            "file_name": f"{index:06d}.png",
            "text": _without_phrase(record),
            "seed": derived_seed(seed, "general", index) >> 32,
            "bbox": None,
        }
        records.append(record.model_copy(update=update))
    return records


def _without_phrase(record: ImageRecord) -> str:
    """The caption that the phrase was added to, without the phrase if it came with one."""
    return record.caption.replace(gesture_phrase(record.gesture), "").strip(" ,.") or FALLBACK_CAPTION


def compute_general_metrics(features: ImageFeatures, real: ImageFeatures) -> GeneralMetrics:
    """Compute the metrics of one model's images; the real images define the colors' words."""
    words = (features.colors, features.color_words, real.colors, real.color_words)
    checked = check_colors(*words)
    hands = np.bincount(features.image_index, minlength=len(features.file_names))
    images = []
    for index, name in enumerate(features.file_names):
        correct = {place: places[index] for place, places in checked.items() if index in places}
        wrong = tuple(place for place, is_right in correct.items() if not is_right)
        images.append(
            GeneralImage(file_name=name, num_hands=int(hands[index]), named_colors=tuple(correct), wrong_colors=wrong)
        )
    return GeneralMetrics(
        n=len(images),
        detection_rate=float(np.mean(hands > 0)),
        color_faithfulness=color_faithfulness(*words),
        clip_score=float(100 * features.clip_similarity.clip(0).mean()) if len(features.clip_similarity) else None,
        images=tuple(images),
    )
