"""The fusion of the caption's text embedding with the gesture feature (paper, section 3.3).

Notation, as in `docs/method.md`:
    e       text embedding, last hidden state of the text encoder      (B, L, D)
    f       mean hand gesture feature                                  (63,)
    g       fused embedding, FC([e ; f]) token by token                (B, L, D)
    h       double-fused embedding, lambda*e + (1 - lambda)*g          (B, L, D)
"""

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

FEATURE_DIM = 63
"""21 landmarks by x, y, z."""


class GestureFusion(ModelMixin, ConfigMixin):
    """A per-token linear map of [e ; f], D + 63 to D, that holds the gesture feature it was trained with.

    It starts as the identity on e and near zero on f, so that an untrained fusion changes nothing that matters.

    Args:
        text_dim: D, the width of the text encoder.
        gesture: HaGRID's name of the gesture.
    """

    @register_to_config
    def __init__(self, text_dim: int = 768, gesture: str = "") -> None:
        super().__init__()
        self.linear = nn.Linear(text_dim + FEATURE_DIM, text_dim)
        self.register_buffer("feature", torch.zeros(FEATURE_DIM))

    @torch.no_grad()
    def initialise(self, feature: torch.Tensor, generator: torch.Generator) -> "GestureFusion":
        """Set the gesture feature (63,) and the start: identity on e, 0.001 normal on f, no bias."""
        self.feature.copy_(feature)
        self.linear.bias.zero_()
        self.linear.weight.copy_(torch.eye(*self.linear.weight.shape))
        text_dim = self.config.text_dim
        self.linear.weight[:, text_dim:] = 1e-3 * torch.randn(text_dim, FEATURE_DIM, generator=generator)
        return self

    def forward(self, text_embeddings: torch.Tensor) -> torch.Tensor:
        """g = FC([e ; f]), (B, L, D) to (B, L, D)."""
        feature = self.feature.to(text_embeddings.dtype).expand(*text_embeddings.shape[:-1], FEATURE_DIM)
        return self.linear(torch.cat([text_embeddings, feature], dim=-1))


def double_fusion(text_embeddings: torch.Tensor, fusion: GestureFusion, weight: float) -> torch.Tensor:
    """h = weight*e + (1 - weight)*g: lambda in Stage II, mu at inference. (B, L, D) to (B, L, D)."""
    return weight * text_embeddings + (1 - weight) * fusion(text_embeddings)
