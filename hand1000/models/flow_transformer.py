"""What all backbones have in common whose denoiser is a flow-matching transformer."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hand1000.core.errors import Hand1000Error
from hand1000.models.backbone import Backbone
from hand1000.models.flow_schedule import FlowSchedule, make_flow_scheduler

if TYPE_CHECKING:
    import numpy as np
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler


class FlowTransformer(Backbone):
    """A transformer that predicts the velocity and into which the text enters by one layer with a bias."""

    denoiser_name = "transformer"

    transformer: Any

    @classmethod
    def make_scheduler(cls, config: Mapping[str, Any], source: str = "scheduler") -> "FlowMatchEulerDiscreteScheduler":
        """See `Backbone` and `make_flow_scheduler`."""
        return make_flow_scheduler(config, source)

    @property
    def schedule(self) -> FlowSchedule:
        """See `Backbone`."""
        return FlowSchedule(self.scheduler)

    def check_latent_scale(self) -> None:
        """Raise a Hand1000Error if the autoencoder has no scale and shift of its latents."""
        scale, shift = self.vae.config.scaling_factor, self.vae.config.get("shift_factor")
        if not isinstance(scale, int | float) or not 0 < scale < math.inf:
            raise Hand1000Error(f"{self.source}: vae: scaling_factor is {scale!r:.40}, not a positive number")
        if not isinstance(shift, int | float) or not math.isfinite(shift):
            raise Hand1000Error(f"{self.source}: vae: shift_factor is {shift!r:.40}, not a number")

    def check_sizes(self, config: Any, expected: Mapping[str, tuple[object, str]]) -> None:
        """Check sizes of a transformer's config.

        Args:
            config: The config.
            expected: The size that another part needs, and what that is, by name.

        Raises:
            Hand1000Error: A size is another one.
        """
        for name, (value, part) in expected.items():
            if config[name] != value:
                raise Hand1000Error(
                    f"{self.source}: transformer: {name} is {config[name]!r:.40}, but {part} are {value!r:.40}"
                )

    def encode_images(self, images: "np.ndarray", batch_size: int = 1) -> "torch.Tensor":
        """See `Backbone`; one image at a time, since a batch of 1,024 px would take tens of gigabytes."""
        return super().encode_images(images, 1)

    def decode(self, latents: "torch.Tensor") -> "np.ndarray":
        """See `Backbone`; one image at a time."""
        import numpy as np

        return np.concatenate([super(FlowTransformer, self).decode(latent[None]) for latent in latents])

    def fold(self, matrix: "torch.Tensor", shift: "torch.Tensor") -> None:
        """Fold A e + c into the one layer that reads the tokens: W (A e + c) + b = (W A) e + (W c + b)."""
        import torch

        (name,) = self.text_layers
        with torch.no_grad():
            layer = self.transformer.get_submodule(name)
            weight = layer.weight.double().cpu()
            layer.bias.add_((weight @ shift).to(layer.bias))
            layer.weight.copy_(weight @ matrix)
