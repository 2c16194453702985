"""The noise schedule of a base model: its betas and prediction type, read from the scheduler config of any class."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hand1000.core.errors import Hand1000Error, one_line

if TYPE_CHECKING:
    from diffusers import DDIMScheduler

_BETAS = ("beta_start", "beta_end", "beta_schedule")
_SCHEDULE = ("num_train_timesteps", *_BETAS, "trained_betas", "prediction_type", "rescale_betas_zero_snr")
PREDICTION_TYPES = ("epsilon", "v_prediction")
_MAX_TIMESTEPS = 100_000


def make_noise_scheduler(config: Mapping[str, Any], source: str = "scheduler") -> "DDIMScheduler":
    """Make a new DDIM scheduler from the betas and the prediction type of a scheduler config.

    Nothing else is read but whether the timesteps are spaced "trailing": a config of another class (Euler, UniPC,
    PNDM) lacks keys such as `clip_sample`, whose defaults in diffusers clip latents, which are not within -1..1. The
    other values are those of Stable Diffusion 1.x. The scheduler belongs to the caller, because diffusers' pipelines
    change the config of theirs.

    Args:
        config: `scheduler_config.json`, or the `config` of a scheduler.
        source: What the errors name.

    Raises:
        Hand1000Error: The config has no betas, as that of a flow-matching model, or a prediction type that training
            does not know.
    """
    from diffusers import DDIMScheduler

    if not config.get("trained_betas") and any(config.get(name) is None for name in _BETAS):
        raise Hand1000Error(
            f"{source}: the scheduler config has no {', '.join(_BETAS)}; choose a model of Stable Diffusion 1.x"
        )
    schedule = {name: config[name] for name in _SCHEDULE if config.get(name) is not None}
    prediction_type = schedule.get("prediction_type", PREDICTION_TYPES[0])
    if prediction_type not in PREDICTION_TYPES:
        raise Hand1000Error(
            f"{source}: prediction_type {prediction_type!r} is not one of {', '.join(PREDICTION_TYPES)}"
        )
    if schedule.get("rescale_betas_zero_snr") and prediction_type == "epsilon":
        raise Hand1000Error(
            f"{source}: rescale_betas_zero_snr needs prediction_type v_prediction: pure noise says nothing about the "
            "image"
        )
    num_timesteps = schedule.get("num_train_timesteps", 1)
    if not isinstance(num_timesteps, int) or not 1 <= num_timesteps <= _MAX_TIMESTEPS:
        raise Hand1000Error(
            f"{source}: not a noise schedule of DDIM: num_train_timesteps is {num_timesteps!r:.40}, not 1 to "
            f"{_MAX_TIMESTEPS}"
        )
    try:
        scheduler = DDIMScheduler(
            **schedule,
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
            timestep_spacing="trailing" if config.get("timestep_spacing") == "trailing" else "leading",
        )
        signal = scheduler.alphas_cumprod
        if signal.shape != (scheduler.config.num_train_timesteps,) or not bool(((signal >= 0) & (signal <= 1)).all()):
            raise ValueError("its betas are not one number of 0 to 1 for each timestep")
    except Exception as error:
        # Values of wrong types make PyTorch raise errors of every kind.
        raise Hand1000Error(f"{source}: not a noise schedule of DDIM: {one_line(error)[:200]}") from error
    return scheduler
