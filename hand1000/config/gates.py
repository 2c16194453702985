"""Settings of the quality gates that a retrained model must pass before a reviewer is asked."""

from pydantic import Field

from hand1000.config.base import Fraction, FrozenSettings


class GateSettings(FrozenSettings):
    """Thresholds of the metrics on the test images."""

    min_gesture_accuracy: Fraction = Field(description="Minimum share of images that show the requested gesture.")
    min_detection_rate: Fraction = Field(description="Minimum share of images in which a hand is detected.")
    max_kid_h_increase: float = Field(ge=0, le=1000, description="Maximum increase of KID-H over the champion's.")
