"""What a retrained model must reach before a reviewer is asked to look at it."""

from typing import Annotated

from pydantic import Field

from hand1000.config.base import Fraction, FrozenSettings


class GateSettings(FrozenSettings):
    """Bounds of its measures on the held-out pictures."""

    min_gesture_accuracy: Fraction
    min_detection_rate: Fraction
    max_kid_h_increase: Annotated[float, Field(ge=0, le=1000)] = Field(
        description="How far KID-H may lie above the champion's; there is no such gate for a first model."
    )
