"""Settings of the quality gates that a new model must pass before a reviewer is asked."""

from typing import Annotated, Literal

from pydantic import Field

from hand1000.config.base import FrozenSettings

Bound = Annotated[float, Field(ge=0, le=1000)]


class GateBounds(FrozenSettings):
    """Bounds of one metric; null disables one."""

    threshold: Bound | None = Field(
        description="Minimum of a metric that should be high, maximum of one that should be low."
    )
    max_loss: Bound | None = Field(description="How much worse than the champion the model may be.")


class GeneralGateBounds(FrozenSettings):
    """Bounds of one metric of prompts that do not ask for the gesture; null disables one."""

    max_loss_to_base: Bound | None = Field(description="How much worse than the base model the model may be.")
    max_loss: Bound | None = Field(description="How much worse than the champion the model may be.")


class GateSettings(FrozenSettings):
    """Bounds of the metrics on the test prompts and on prompts without the gesture; docs/review.md explains them.

    Some are relative to the base model: diversity is a share of the base model's intra-prompt distance, and
    `general_kid` and `general_kid_h` are the distances to the base model's images and hands of the same prompts.
    """

    on_failed_gate: Literal["fail", "register"] = Field(
        description="fail: the run ends with an error after it has registered the model; register: it ends well."
    )
    gesture_accuracy: GateBounds
    detection_rate: GateBounds
    kid_h: GateBounds
    implausible_hand_rate: GateBounds
    memorization_rate: GateBounds
    diversity: GateBounds
    color_faithfulness: GateBounds
    general_detection_rate: GeneralGateBounds
    general_color_faithfulness: GeneralGateBounds
    general_kid: GateBounds
    general_kid_h: GateBounds
    general_leak_rate: GeneralGateBounds
    other_gesture_accuracy: GeneralGateBounds
    other_gesture_leak_rate: GeneralGateBounds
