"""The bounds on the work that a served model accepts."""

from pydantic import Field

from hand1000.config.base import FrozenSettings


class ServingLimits(FrozenSettings):
    """Bounds on one request and on the queue; every one has an option of `hand1000 serve`."""

    batch_size: int = Field(
        default=1, ge=1, le=64, description="Images drawn at a time; an image's last bits depend on this number alone."
    )
    max_queue: int = Field(default=64, ge=1, le=10_000, description="Requests that wait; further ones are refused.")
    max_images: int = Field(default=64, ge=1, le=256, description="Images of one request.")
    max_image_steps: int = Field(
        default=5000, ge=1, le=1_000_000, description="Images times sampling steps of one request."
    )
    max_prompt_length: int = Field(default=2000, ge=1, le=100_000, description="Characters of a prompt.")
    timeout_seconds: float = Field(
        default=120.0, gt=0, le=86_400, description="Seconds until a request that is not finished is given up."
    )
