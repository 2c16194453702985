"""What a run cost, as far as it is known."""

from collections.abc import Mapping

from hand1000.config.settings import Settings
from hand1000.core.tables import format_number

REGISTRATION = "register"
"""Stage that writes the report, so that its own duration is not known yet."""


def finished_stages(seconds: Mapping[str, float]) -> dict[str, float]:
    """The stages whose duration is known, in seconds."""
    return {stage: duration for stage, duration in seconds.items() if stage != REGISTRATION and duration > 0}


def describe_costs(settings: Settings, num_images: int, seconds: Mapping[str, float]) -> dict[str, str]:
    """The throughput of Stage III and of the generation, by name; `num_images` is the number of generated images."""
    trained_images = settings.stage3.steps * settings.stage3.batch_size
    counts = {"train_unet": ("Stage III", trained_images), "generate_tuned": ("generation", num_images)}
    return {
        f"{title}, images per second": format_number(count / seconds[stage])
        for stage, (title, count) in counts.items()
        if seconds.get(stage)
    }
