"""Settings of the images that a model is trained on and measured against."""

from typing import Literal

from pydantic import Field

from hand1000.config.base import Fraction, FrozenSettings


class FilterSettings(FrozenSettings):
    """Filters of labelled images; an image without a label passes."""

    min_hand_size: Fraction = Field(
        description="Minimum longer side of the labelled box, as a share of the image's side; 0 accepts every box."
    )
    allow_border_hands: bool = Field(description="Whether the labelled box may touch the border of the image.")
    max_hands: int = Field(ge=1, le=100, description="Maximum number of labelled hands in an image.")
    min_detector_iou: Fraction = Field(
        description="Minimum IoU of the labelled box with a hand that MediaPipe detects; 0 skips the detection."
    )


class DataSettings(FrozenSettings):
    """Selection and cropping of the training and test images."""

    test_images: int = Field(ge=2, le=100_000, description="Number of test images per gesture, of people of their own.")
    max_unusable: Fraction = Field(description="Share of unusable images above which the run stops.")
    crop: Literal["hand", "center"] = Field(
        description="hand: a square that contains the labelled hand; center: the authors' crop, which may cut it off."
    )
    bbox_format: Literal["relative", "pixels"] = Field(
        default="relative",
        description="What boxes in metadata files are: x, y, width and height as shares of the image's sides, or in "
        "its pixels. HaGRID's annotations are always relative.",
    )
    max_pixels: int = Field(
        default=80_000_000,
        ge=1_000_000,
        le=178_000_000,
        description="Number of pixels above which an image is refused before it is decoded; Pillow allows no more.",
    )
    filters: FilterSettings
