"""Images of prompts that do not ask for the trained gesture: has the model forgotten the rest, does the gesture leak?

Some prompts name no gesture, the others one that the model was not trained on. The base model and the tuned one
generate them from the same prompts and seeds, the tuned one without its gesture (mu 1). There are no real images of
these prompts, so that the base model's images are the reference.
"""

from collections.abc import Collection, Sequence

import numpy as np
from pydantic import Field

from hand1000.captions.captioners import FALLBACK_CAPTION
from hand1000.config.base import Fraction, FrozenSettings
from hand1000.core.rng import derived_seed
from hand1000.data.imageset import ImageRecord
from hand1000.evaluation.colors import check_colors, color_faithfulness
from hand1000.evaluation.features import ImageFeatures
from hand1000.gestures import HAGRID_V1, PHRASES, gesture_phrase, group_by_gesture
from hand1000.hands.classifier import GestureClassifier, hand_class

OTHER_GESTURES = "other_gestures"
"""Folder, within those of the general images, of the images of prompts that name other gestures."""


class GeneralImage(FrozenSettings):
    """What was found in one image.

    Attributes:
        file_name: File name of the image.
        num_hands: Number of detected hands.
        named_colors: Places that the prompt names a color of.
        wrong_colors: Those of them that have another color.
        named_gesture: Gesture that the prompt names; None without one.
        found_gestures: Gesture of each detected hand.
        leaks: Whether a hand makes a trained gesture.
    """

    file_name: str
    num_hands: int = Field(ge=0)
    named_colors: tuple[str, ...]
    wrong_colors: tuple[str, ...]
    named_gesture: str | None
    found_gestures: tuple[str, ...]
    leaks: bool

    @property
    def shows_named(self) -> bool:
        """Whether a hand makes the gesture that the prompt names."""
        return self.named_gesture in self.found_gestures


class GeneralMetrics(FrozenSettings):
    """Metrics of one model's images of prompts that do not ask for the trained gesture.

    Attributes:
        n: Number of images.
        detection_rate: Share of images with a detected hand.
        color_faithfulness: Share of images with the named color, for each place that any prompt names a color of.
        clip_score: CLIP score; None without CLIP.
        leak_rate: Share of images with a hand that makes a trained gesture; None if the classifier does not know one.
        gesture_accuracy: Share of images that show the gesture that the prompt names; None if the prompts name none.
        images: What was found in each image.
    """

    n: int
    detection_rate: Fraction
    color_faithfulness: dict[str, Fraction]
    clip_score: float | None
    leak_rate: Fraction | None
    gesture_accuracy: Fraction | None
    images: tuple[GeneralImage, ...]


def plan_general_images(prompts: Sequence[ImageRecord], num_images: int, seed: int) -> list[ImageRecord]:
    """Return the records of the images to generate: captions of the test images without the gesture's phrase.

    The gestures take turns, and so do the captions of a gesture.

    Args:
        prompts: Records of the test images.
        num_images: Number of images.
        seed: Random seed of the run, from which each image has one of its own.
    """
    return _plan(prompts, [_without_phrase(record) for record in prompts], num_images, seed, "general")


def plan_other_gesture_images(prompts: Sequence[ImageRecord], num_images: int, seed: int) -> list[ImageRecord]:
    """Return the records of images whose prompts name a gesture that the model was not trained on.

    The prompts are those of the test images with the phrase of another gesture of HaGRID v1; these gestures take turns.
    The records keep the trained gesture, which decides the fusion that a model of several uses. There are none if all
    gestures of HaGRID v1 are trained.

    Args:
        prompts: Records of the test images, with texts that contain their gesture's phrase.
        num_images: Number of images.
        seed: Random seed of the run, from which each image has one of its own.
    """
    others = [gesture for gesture in HAGRID_V1 if gesture not in {record.gesture for record in prompts}]
    if not others:
        return []
    records = _plan(prompts, [record.text for record in prompts], num_images, seed, "other gesture")
    return [
        record.model_copy(
            update={
                "text": record.text.replace(gesture_phrase(record.gesture), gesture_phrase(others[i % len(others)]))
            }
        )
        for i, record in enumerate(records)
    ]


def _plan(
    prompts: Sequence[ImageRecord], texts: Sequence[str], num_images: int, seed: int, key: str
) -> list[ImageRecord]:
    """Records of `num_images` images, for which the gestures take turns, and the prompts of a gesture."""
    with_texts = [record.model_copy(update={"text": text}) for record, text in zip(prompts, texts, strict=True)]
    groups = list(group_by_gesture(with_texts).values())
    records = []
    for index in range(num_images):
        turn, position = divmod(index, len(groups))
        record = groups[position][turn % len(groups[position])]
        update = {
            "file_name": f"{index:06d}.png",
            "seed": derived_seed(seed, key, index) >> 32,
            "bbox": None,
        }
        records.append(record.model_copy(update=update))
    return records


def _without_phrase(record: ImageRecord) -> str:
    """The caption that the phrase was added to, without the phrase if it came with one."""
    return record.caption.replace(gesture_phrase(record.gesture), "").strip(" ,.") or FALLBACK_CAPTION


def find_named_gesture(prompt: str) -> str | None:
    """Return the gesture whose phrase a prompt contains; None without one."""
    return next((gesture for gesture, phrase in PHRASES.items() if phrase in prompt), None)


def compute_general_metrics(
    features: ImageFeatures, real: ImageFeatures, classifier: GestureClassifier, trained: Collection[str]
) -> GeneralMetrics:
    """Compute the metrics of one model's images.

    Args:
        features: Features of the images.
        real: Features of the real images, which define the colors' words.
        classifier: Gesture classifier.
        trained: The gestures that the tuned model was trained on.
    """
    words = (features.colors, features.color_words, real.colors, real.color_words)
    checked = check_colors(*words)
    named_gestures = [find_named_gesture(prompt) for prompt in features.prompts]
    classifier = classifier.restricted_to({*trained, *filter(None, named_gestures)})
    trained_hands = set(map(hand_class, trained))
    labels, _ = classifier.predict(features.landmarks, features.is_right)
    images = []
    for index, name in enumerate(features.file_names):
        correct = {place: places[index] for place, places in checked.items() if index in places}
        found = tuple(labels[hand] for hand in np.flatnonzero(features.image_index == index))
        images.append(
            GeneralImage(
                file_name=name,
                num_hands=len(found),
                named_colors=tuple(correct),
                wrong_colors=tuple(place for place, is_right in correct.items() if not is_right),
                named_gesture=named_gestures[index],
                found_gestures=found,
                leaks=not trained_hands.isdisjoint(found),
            )
        )
    named = [image.shows_named for image in images if image.named_gesture]
    return GeneralMetrics(
        n=len(images),
        detection_rate=float(np.mean([image.num_hands > 0 for image in images])),
        color_faithfulness=color_faithfulness(*words),
        clip_score=float(100 * features.clip_similarity.clip(0).mean()) if len(features.clip_similarity) else None,
        leak_rate=float(np.mean([image.leaks for image in images]))
        if trained_hands <= set(classifier.classes)
        else None,
        gesture_accuracy=float(np.mean(named)) if named else None,
        images=tuple(images),
    )
