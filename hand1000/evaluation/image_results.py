"""What was found in each generated image: its hands, their gesture, and what is wrong with it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import Field

from hand1000.config.base import Fraction, FrozenSettings
from hand1000.evaluation.anatomy import Anatomy
from hand1000.evaluation.colors import check_colors
from hand1000.evaluation.features import ImageFeatures
from hand1000.evaluation.neighbors import find_nearest, memorization_limit
from hand1000.hands.classifier import SAME_HANDS, GestureClassifier, hand_class


class ImageResult(FrozenSettings):
    """Classification of one generated image, and what is wrong with it.

    Attributes:
        file_name: File name of the image.
        target_gesture: Gesture that the image should show.
        num_hands: Number of detected hands.
        handedness_score: Handedness score of the classified hand, None without a hand.
        predicted_gesture: Gesture of the hand that resembles the target gesture most, None without a hand.
        target_probability: Probability of the target gesture, 0 without a hand.
        predicted_probability: Probability of the predicted gesture, None without a hand.
        landmarks: Landmarks (x, y) of each detected hand, 21 each, relative to the image, y downwards.
        num_implausible: Number of detected hands with a shape unlike real hands; None if it cannot be computed.
        nearest_train: Index of the nearest training image in its image set; None without training images.
        nearest_distance: Feature distance to that image.
        memorized: Whether that distance is less than that of 95 % of unseen real images.
        wrong_colors: Places of `colors.PLACES` whose color is not the one that the prompt names.
    """

    file_name: str
    target_gesture: str
    num_hands: int = Field(ge=0)
    handedness_score: Fraction | None
    predicted_gesture: str | None
    target_probability: Fraction
    predicted_probability: Fraction | None = None
    landmarks: tuple[tuple[tuple[float, float], ...], ...] = ()
    num_implausible: int | None = None
    nearest_train: int | None = None
    nearest_distance: float | None = None
    memorized: bool | None = None
    wrong_colors: tuple[str, ...] = ()

    @property
    def shows_target(self) -> bool:
        """Whether the image shows the gesture that it should."""
        return self.predicted_gesture == self.target_gesture


def classify_images(features: ImageFeatures, gesture: str | None, classifier: GestureClassifier) -> list[ImageResult]:
    """Classify the gesture of each image. `gesture` is the target of all images; None uses each record's own.

    Every hand is classified by itself. An image shows a two-handed gesture if a hand of it looks so, because MediaPipe
    often finds only one of two hands that touch; `thumb_index2` needs two hands that make `thumb_index`.
    """
    labels, probabilities = classifier.predict(features.landmarks, features.is_right)
    class_index = {name: index for index, name in enumerate(classifier.classes)}
    results = []
    for index, (name, record_gesture) in enumerate(zip(features.file_names, features.gestures, strict=True)):
        target = gesture or record_gesture
        column = class_index.get(hand_class(target))
        hand_probabilities = {
            hand: 0.0 if column is None else float(probabilities[hand, column])
            for hand in np.flatnonzero(features.image_index == index).tolist()
        }
        names = [labels[hand] for hand in hand_probabilities]
        best = max(
            hand_probabilities,
            key=lambda hand: (hand_probabilities[hand], features.handedness_score[hand]),
            default=None,
        )
        results.append(
            ImageResult(
                file_name=name,
                target_gesture=target,
                num_hands=len(hand_probabilities),
                handedness_score=None if best is None else float(features.handedness_score[best]),
                predicted_gesture=None if best is None else _name_gesture(labels[best], names),
                target_probability=0.0 if best is None else hand_probabilities[best],
                predicted_probability=None if best is None else float(probabilities[best].max()),
                landmarks=_round_landmarks(features.landmarks[list(hand_probabilities)]),
            )
        )
    return results


def _name_gesture(label: str, labels: Sequence[str]) -> str:
    """Return the gesture of an image whose decisive hand makes `label`, and whose hands make `labels`."""
    pairs = (pair for pair, single in SAME_HANDS.items() if single == label and labels.count(single) > 1)
    return next(pairs, label)


def _round_landmarks(landmarks: np.ndarray) -> tuple[tuple[tuple[float, float], ...], ...]:
    """The positions (x, y) of landmarks (M, 21, 3), to a 10,000th of the image: enough to draw them."""
    return tuple(tuple((round(float(x), 4), round(float(y), 4)) for x, y in hand) for hand in landmarks[:, :, :2])


def check_images(
    results: Sequence[ImageResult],
    real: ImageFeatures,
    fake: ImageFeatures,
    anatomy: Anatomy | None,
    train_features: np.ndarray | None,
) -> list[ImageResult]:
    """The results with what is wrong with each image besides its gesture."""
    findings: list[dict[str, Any]] = [{} for _ in results]
    if anatomy is not None:
        implausible = anatomy.find_implausible(fake.landmarks)
        for index, finding in enumerate(findings):
            finding["num_implausible"] = int(implausible[fake.image_index == index].sum())
    if train_features is not None:
        nearest, distances = find_nearest(fake.features, train_features)
        limit = memorization_limit(real.features, train_features)
        for finding, train_index, distance in zip(findings, nearest.tolist(), distances.tolist(), strict=True):
            finding |= {"nearest_train": train_index, "nearest_distance": distance, "memorized": distance < limit}
    faithful = check_colors(fake.colors, fake.color_words, real.colors, real.color_words)
    for index, finding in enumerate(findings):
        finding["wrong_colors"] = tuple(place for place, images in faithful.items() if images.get(index) is False)
    return [result.model_copy(update=finding) for result, finding in zip(results, findings, strict=True)]
