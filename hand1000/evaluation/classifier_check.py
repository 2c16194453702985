"""A check of the gesture classifier: how often it names the gesture of the real test images, which is known."""

from collections.abc import Sequence

from pydantic import Field
from scipy.stats import binomtest

from hand1000.config.base import Fraction, FrozenSettings
from hand1000.core.tables import format_number
from hand1000.evaluation.image_results import ImageResult


class ClassifierCheck(FrozenSettings):
    """The classifier's accuracy on the real test images of one gesture in which a hand was found.

    Attributes:
        hands: Number of these images.
        correct: Number of those whose gesture the classifier names.
        min_accuracy: Accuracy below which it judges no generated image of the gesture.
    """

    hands: int = Field(ge=0)
    correct: int = Field(ge=0)
    min_accuracy: Fraction

    @property
    def accuracy(self) -> float | None:
        """The share of the images that it names; None without an image."""
        return self.correct / self.hands if self.hands else None

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the accuracy (Wilson); 0 to 1 without an image."""
        if not self.hands:
            return 0.0, 1.0
        bounds = binomtest(self.correct, self.hands).proportion_ci(method="wilson")
        return float(bounds.low), float(bounds.high)

    @property
    def is_reliable(self) -> bool:
        """Whether it may judge; without a real hand, nothing speaks against it."""
        return self.accuracy is None or self.accuracy >= self.min_accuracy

    @property
    def summary(self) -> str:
        """The accuracy in words, such as "0.95 of 40 real hands (0.83 to 0.99)"."""
        if self.accuracy is None:
            return "no real hand to check it on"
        low, high = self.interval
        return (
            f"{format_number(self.accuracy)} of {self.hands} real hands ({format_number(low)} to {format_number(high)})"
        )

    @property
    def reason(self) -> str:
        """Why nothing is concluded about the gesture; "" if it may judge."""
        if self.is_reliable:
            return ""
        return (
            f"undecided: the gesture classifier names {self.summary}, fewer than evaluation.min_classifier_accuracy "
            f"{self.min_accuracy:g}; train one with `hand1000 classifier train`"
        )


def check_classifier(
    real: Sequence[ImageResult], gestures: Sequence[str], min_accuracy: float
) -> dict[str, ClassifierCheck]:
    """Return the check of each of the gestures that the real images show."""
    checks = {}
    shown = {result.target_gesture for result in real}
    for gesture in (name for name in gestures if name in shown):
        rows = [result for result in real if result.target_gesture == gesture and result.num_hands]
        correct = sum(result.shows_target for result in rows)
        checks[gesture] = ClassifierCheck(hands=len(rows), correct=correct, min_accuracy=min_accuracy)
    return checks
