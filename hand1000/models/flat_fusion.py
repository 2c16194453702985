"""The fusion of the authors' scripts, used by the preset `paper`."""

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch.nn.functional import linear

from hand1000.core.rng import torch_generator
from hand1000.hands.stage1 import FEATURE_DIM

_ROWS = 128
"""Rows of the weights in memory at once: 30 MB at Stable Diffusion 1.x size."""


class FlatFusion(ModelMixin, ConfigMixin):
    """One random linear map of all tokens and f at once, L*D + 63 to L*D, that is never trained.

    At Stable Diffusion 1.x size it has 3.5 billion weights, 14 GB. Each use draws them from the seed again, some rows
    at a time, with PyTorch's initialization of a linear layer: uniform within 1/sqrt(L*D + 63).

    Args:
        text_dim: Width D of the text encoder.
        num_tokens: Number L of tokens.
        gesture: HaGRID's name of the gesture.
        seed: Random seed of the weights.
    """

    @register_to_config
    def __init__(self, text_dim: int = 768, num_tokens: int = 77, gesture: str = "", seed: int = 0) -> None:
        super().__init__()
        self.register_buffer("feature", torch.zeros(FEATURE_DIM))

    @property
    def gestures(self) -> tuple[str, ...]:
        """The name of the only gesture."""
        return (self.config.gesture,)

    @torch.no_grad()
    def forward(self, text_embeddings: torch.Tensor, gesture_ids: torch.Tensor) -> torch.Tensor:
        """Compute g = FC([vec(e) ; f]), (B, L, D) to (B, L, D), in one pass over the weights; `gesture_ids` are 0."""
        size = self.config.num_tokens * self.config.text_dim
        inputs = torch.cat([text_embeddings.flatten(1), self.feature.expand(len(text_embeddings), -1)], dim=1)
        bound = inputs.shape[1] ** -0.5
        outputs = []
        for start in range(0, size, _ROWS):
            generator = torch_generator(self.config.seed, "flat-fusion", start)
            rows = torch.rand(min(_ROWS, size - start), inputs.shape[1] + 1, generator=generator)
            rows = (rows * 2 - 1).mul_(bound).to(inputs)
            outputs.append(linear(inputs, rows[:, :-1], rows[:, -1]))
        return torch.cat(outputs, dim=1).view_as(text_embeddings)
