"""Settings of the images that a model is trained on and measured against."""

from typing import Literal

from pydantic import Field

from hand1000.config.base import Fraction, FrozenSettings


class FilterSettings(FrozenSettings):
    """Which labelled pictures are fit to train on and to measure against; a picture without a label passes."""

    min_hand_size: Fraction = Field(
        description="Minimum longer side of the labelled box, as a share of the image's side; 0 accepts every box."
    )
    allow_border_hands: bool = Field(description="Whether the labelled box may touch the picture's border.")
    max_hands: int = Field(ge=1, le=100, description="Labelled hands in a picture at most.")
    min_detector_iou: Fraction = Field(
        description="Least overlap (intersection over union) of the labelled box with a hand that MediaPipe finds, 0.1 "
        "for any hand there; 0 does not ask MediaPipe."
    )


class DataSettings(FrozenSettings):
    """Which images are trained on and measured against."""

    test_images: int = Field(
        ge=2, le=100_000, description="Held-out images of each gesture, of people who are not in training."
    )
    max_unusable: Fraction = Field(description="Share of unusable images above which the run stops.")
    crop: Literal["hand", "center"] = Field(
        description="hand: a square that holds the labelled hand; center: the authors', which may cut it off."
    )
    filters: FilterSettings
