"""The fusion of low rank without a constant term, which a LoRA holds exactly whatever the text encoder."""

from collections.abc import Sequence

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from hand1000.hands.stage1 import FEATURE_DIM
from hand1000.models.fusion_start import POSE_SCALE, initial_feature_map

RIDGE = 1e-3
"""Regularization of the direction v, relative to the mean square of an embedding's numbers."""

MAX_CAPTIONS = 128
"""Captions that v is fitted to: some thousand tokens, several times as many as v has numbers."""


class LowRankFusion(ModelMixin, ConfigMixin):
    """A map of each token e of which everything is linear in e: g = e + U V e + (v.e)(W_f f + b + P d).

    Attentions without biases, and the LoRA files of most programs, cannot carry a constant. So the gesture's shift is
    multiplied by v.e, which is near 1 for every token: the direction v is fitted to the captions before Stage II and
    then fixed. W_e = I + U V has the rank R, so that a file of the fusion is small at any width: of 64, it takes 58 MB
    in half precision at Stable Diffusion XL's size.

    Args:
        text_dim: Width D of the text embeddings.
        gestures: HaGRID's names of the K gestures.
        pose_dim: Numbers per pose d; 0 is none.
        rank: Rank R of U V.
    """

    @register_to_config
    def __init__(self, text_dim: int = 2048, gestures: Sequence[str] = (), pose_dim: int = 0, rank: int = 64) -> None:
        super().__init__()
        self.down = nn.Linear(text_dim, rank, bias=False)
        self.up = nn.Linear(rank, text_dim, bias=False)
        self.shift = nn.Linear(FEATURE_DIM, text_dim)
        self.register_buffer("features", torch.zeros(len(gestures), FEATURE_DIM))
        self.register_buffer("direction", torch.zeros(text_dim))
        if pose_dim:
            self.pose = nn.Linear(pose_dim, text_dim, bias=False)

    @property
    def gestures(self) -> tuple[str, ...]:
        """The names in the order of the features."""
        return tuple(self.config.gestures)

    @torch.no_grad()
    def initialize(
        self, features: torch.Tensor, text_embeddings: torch.Tensor, generator: torch.Generator
    ) -> "LowRankFusion":
        """Set the gesture features f, (K, 63), the direction v and the initial weights.

        U starts at zero, and the gesture's shift as that of `GestureFusion`, in proportion to the text embeddings.

        Args:
            features: Gesture features.
            text_embeddings: Embeddings of captions like those of the training, (N, L, D).
            generator: Source of the initial weights.
        """
        tokens = text_embeddings[:: -(-len(text_embeddings) // MAX_CAPTIONS)].flatten(0, 1)
        self.features.copy_(features)
        self.direction.copy_(fit_direction(tokens))
        # The first token of CLIP and a few of its numbers are many times as large as all others. Some backbones fill up
        # with zeros.
        sizes = tokens.square().mean(dim=1).sqrt()
        scale = sizes[sizes > 0].median()
        weight, bias = initial_feature_map(features, self.config.text_dim, generator)
        self.shift.weight.copy_(weight * scale)
        self.shift.bias.copy_(bias * scale)
        nn.init.normal_(self.down.weight, std=self.config.text_dim**-0.5, generator=generator)
        nn.init.zeros_(self.up.weight)
        if self.config.pose_dim:
            length = POSE_SCALE * (self.config.text_dim / self.config.pose_dim) ** 0.5
            nn.init.orthogonal_(self.pose.weight, float(length * scale), generator=generator)
        return self

    def forward(
        self, text_embeddings: torch.Tensor, gesture_ids: torch.Tensor, poses: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Compute g, (B, L, D) to (B, L, D); the arguments are those of `GestureFusion.forward`."""
        shift = self.shift(self.features.to(text_embeddings.dtype)[gesture_ids])
        if poses is not None:
            shift = shift + self.pose(poses.to(text_embeddings))
        share = text_embeddings @ self.direction.to(text_embeddings.dtype)
        return text_embeddings + self.up(self.down(text_embeddings)) + share[..., None] * shift[:, None]

    @torch.no_grad()
    def factors(self, gesture: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Return Q (D, R + 1) and P (R + 1, D), float64 on the CPU, with g = e + Q P e for one gesture."""
        up, down, direction = (part.double().cpu() for part in (self.up.weight, self.down.weight, self.direction))
        shift = self.shift(self.features[self.gestures.index(gesture)]).double().cpu()
        return torch.cat([up, shift[:, None]], dim=1), torch.cat([down, direction[None]])


def fit_direction(tokens: torch.Tensor) -> torch.Tensor:
    """Return the vector v, (D,) float32, for which v.e is nearest to 1 over the tokens e, (N, D), by ridge regression.

    The penalty keeps v short, so that v.e is not a small difference of large terms, which rounding would change.
    """
    tokens = tokens.double().cpu()
    moment = tokens.T @ tokens / len(tokens)
    moment.diagonal().add_(RIDGE * moment.diagonal().mean())
    return torch.linalg.solve(moment, tokens.mean(dim=0)).float()
