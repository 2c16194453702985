"""Classifier-free guidance and autoguidance of a sampling."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from hand1000.config.sampler import SamplerSettings
from hand1000.models.backbone import Backbone
from hand1000.models.conditioning import Conditioning
from hand1000.models.schedule import Timestep


@dataclass(frozen=True)
class GuidedPredictor:
    """The guided prediction of one call, for B images.

    Attributes:
        backbone: Backbone whose denoiser predicts.
        conditioning: Conditioning of the prompts, on the denoiser's device.
        null_conditioning: That of the null prompt, for classifier-free guidance (Ho & Salimans, 2022); None is off.
        weak_denoiser: Denoiser from whose prediction autoguidance leads away (Karras et al., 2024, arXiv 2406.02507).
        settings: Scales of both, and the part of the noise schedule in which autoguidance acts.
    """

    backbone: Backbone
    conditioning: Conditioning
    null_conditioning: Conditioning | None
    weak_denoiser: Any
    settings: SamplerSettings

    def __call__(self, latents: torch.Tensor, timestep: Timestep) -> torch.Tensor:
        """Return the prediction of noisy latents, (B, C, h, w) to (B, C, h, w)."""
        t = torch.tensor(timestep, device=latents.device)
        if self.null_conditioning is None:
            return self._autoguided(self.backbone.predict(latents, t, self.conditioning), latents, t, timestep)
        null, prediction = self.backbone.predict(torch.cat([latents, latents]), t, self._both).chunk(2)
        return null + self.settings.guidance_scale * (self._autoguided(prediction, latents, t, timestep) - null)

    @cached_property
    def _both(self) -> Conditioning:
        assert self.null_conditioning is not None
        return Conditioning.cat([self.null_conditioning, self.conditioning])

    def _autoguided(
        self, prediction: torch.Tensor, latents: torch.Tensor, t: torch.Tensor, timestep: Timestep
    ) -> torch.Tensor:
        start, end = self.settings.autoguidance_interval
        if self.settings.autoguidance_scale == 1 or not start <= self.backbone.schedule.noise_share(timestep) < end:
            return prediction
        weak = self.backbone.predict(latents, t, self.conditioning, self.weak_denoiser)
        return weak + self.settings.autoguidance_scale * (prediction - weak)
