"""The sampler's settings: the one list from which the pipeline, the command line and the served model derive theirs."""

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, ValidationError, model_validator

from hand1000.config.base import Fraction, FrozenSettings
from hand1000.core.errors import Hand1000Error

GuidanceScale = Annotated[float, Field(ge=1, le=50, description="Scale of classifier-free guidance; 1 disables it.")]
SamplerName = Literal["ddim", "dpmpp_2m", "dpmpp_2m_sde", "unipc"]
Eta = Annotated[
    Fraction,
    Field(description="Share of fresh noise in each step of the sampler ddim: 0 is DDIM, 1 is DDPM; others ignore it."),
]
InferenceSteps = Annotated[int, Field(ge=1, le=1000, description="Number of sampling steps.")]


class SamplerSettings(FrozenSettings):
    """How a model generates an image: the defaults of a saved model, and what a call may override."""

    mu: Fraction = Field(description="Weight of the text embedding against the fused one; it may differ from lambda.")
    guidance_scale: GuidanceScale
    autoguidance_scale: float = Field(
        ge=1, le=10, description="Scale of the guidance away from the UNet before Stage III; 1 disables it."
    )
    autoguidance_interval: Annotated[list[Fraction], Field(min_length=2, max_length=2)] = Field(
        description="Part of the noise schedule in which autoguidance acts, as two shares of it; 0 is the clean end."
    )
    fuse_null_prompt: bool = Field(
        description="Whether guidance leads away from the fused embedding of the empty prompt, or from its plain one."
    )
    sampler: SamplerName = Field(
        description="ddim; DPM-Solver++ of order 2 without or with fresh noise in each step; or UniPC."
    )
    eta: Eta
    num_inference_steps: InferenceSteps

    @model_validator(mode="after")
    def _interval_ascends(self) -> Self:
        low, high = self.autoguidance_interval
        if low >= high:
            raise ValueError(f"autoguidance_interval: {low} is not below {high}; give the lower end first")
        return self

    def with_call_values(self, **values: Any) -> Self:
        """Return the settings of one call.

        Args:
            values: The call's own values by field; None stands for the model's default.

        Raises:
            Hand1000Error: A value is out of range.
        """
        own = {name: value for name, value in values.items() if value is not None}
        try:
            return self.model_validate(self.model_dump() | own)
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0]) if first["loc"] else "autoguidance_interval"
            value = own.get(name, getattr(self, name))
            raise Hand1000Error(f"{name}: {value} is out of range; choose {describe_range(name)}") from error


CALL_FIELDS = tuple(name for name in SamplerSettings.model_fields if name != "fuse_null_prompt")
"""The fields that a call may override; `fuse_null_prompt` is fixed when a model is trained."""


def check_call_values(**values: Any) -> None:
    """Check the values of one call, by field, without a model; None stands for the model's default.

    Raises:
        Hand1000Error: A value is out of range.
    """
    model = SamplerSettings(
        mu=0.5,
        guidance_scale=1,
        autoguidance_scale=1,
        autoguidance_interval=[0, 1],
        fuse_null_prompt=True,
        sampler="ddim",
        eta=0,
        num_inference_steps=1,
    )
    model.with_call_values(**values)


def describe_range(name: str) -> str:
    """Return the range of a field of `CALL_FIELDS` in words, such as "1 to 50"."""
    if name == "autoguidance_interval":
        return "two ends within 0 to 1, the lower first"
    if name == "sampler":
        return f"one of {', '.join(get_args(SamplerName))}"
    bounds: dict[str, float] = {}
    for bound in SamplerSettings.model_fields[name].metadata:
        bounds |= {side: getattr(bound, side) for side in ("ge", "le") if hasattr(bound, side)}
    return f"{bounds['ge']} to {bounds['le']}"
