"""The fusion of the caption's text embedding with the gesture feature (paper, section 3.3).

Notation, as in `docs/method.md`:
    e       text embedding, last hidden state of the text encoder      (B, L, D)
    f       mean hand gesture feature, of each of K gestures            (K, 63)
    d       how an image's own hand differs from the mean one           (B, R)
    g       fused embedding, FC([e ; f]) token by token, and of d       (B, L, D)
    h       double-fused embedding, lambda*e + (1 - lambda)*g          (B, L, D)
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from hand1000.core.errors import Hand1000Error
from hand1000.core.rng import torch_generator
from hand1000.storage.files import read_json

FEATURE_DIM = 63
"""21 landmarks by x, y, z."""

GESTURE_SCALE = 1.0
"""Of several gestures, the root mean square of what tells them apart in g as the fusion starts; e's own is about 1."""

POSE_SCALE = 1.0
"""The same of what d adds to g."""

ROWS = 128
"""Of the flat fusion's weights, drawn at a time: 30 MB at Stable Diffusion 1.x size."""


class GestureFusion(ModelMixin, ConfigMixin):
    """A per-token linear map of [e ; f], D + 63 to D, that holds the gesture features it was trained with.

    It starts as the identity on e. For one gesture, where f is a constant, it starts near zero on f, so that an
    untrained fusion changes nothing that matters. For several, f must tell them apart from the start: nothing in Stage
    II makes it grow, since the base model knows no gestures, and the UNet would learn to draw any of them for each.

    With R numbers of the pose (`hand1000.hands.poses`) g = FC([e ; f]) + V d. Training gives each image its own d; at
    inference d is 0, the mean hand, which f is.

    Args:
        text_dim: D, the width of the text encoder.
        gestures: HaGRID's names of the K gestures.
        pose_dim: R; 0 is the paper's fusion.
    """

    @register_to_config
    def __init__(self, text_dim: int = 768, gestures: Sequence[str] = (), pose_dim: int = 0) -> None:
        super().__init__()
        self.linear = nn.Linear(text_dim + FEATURE_DIM, text_dim)
        self.register_buffer("features", torch.zeros(len(gestures), FEATURE_DIM))
        if pose_dim:
            self.pose = nn.Linear(pose_dim, text_dim, bias=False)

    @property
    def gestures(self) -> tuple[str, ...]:
        """The names, in the order of the features."""
        return tuple(self.config.gestures)

    @torch.no_grad()
    def initialize(self, features: torch.Tensor, generator: torch.Generator) -> "GestureFusion":
        """Set the gesture features f, (K, 63), and the start.

        For one gesture g = e + 0.001 W_f f with W_f normal. For several g = e + W_f (f - mean f), whose second part is
        of the size `GESTURE_SCALE` and as far from one gesture to any other: hands that differ by a finger, as those of
        `four` and `palm`, must not lie closer than others, or the UNet takes one for the other.

        The columns of V start at right angles and equally long, so that of d of mean square 1 V d is of the size
        `POSE_SCALE`.
        """
        self.features.copy_(features)
        text_dim = self.config.text_dim
        if len(features) == 1:
            of_feature = 1e-3 * torch.randn(text_dim, FEATURE_DIM, generator=generator)
            self.linear.bias.zero_()
        else:
            codes = torch.linalg.qr(torch.randn(text_dim, len(features), generator=generator)).Q.T
            codes = codes - codes.mean(dim=0)
            codes *= GESTURE_SCALE / codes.square().mean().sqrt()
            mean = features.mean(dim=0)
            # W_f that maps each f - mean f to its code; beyond rounding there are K - 1 directions.
            solved = torch.linalg.pinv((features - mean).double(), rtol=1e-6) @ codes.double()
            of_feature = solved.T.float()
            self.linear.bias.copy_(-of_feature @ mean)
        self.linear.weight.copy_(torch.eye(*self.linear.weight.shape))
        self.linear.weight[:, text_dim:] = of_feature
        if self.config.pose_dim:
            length = POSE_SCALE * (text_dim / self.config.pose_dim) ** 0.5
            nn.init.orthogonal_(self.pose.weight, length, generator=generator)
        return self

    def forward(
        self, text_embeddings: torch.Tensor, gestures: torch.Tensor, poses: torch.Tensor | None = None
    ) -> torch.Tensor:
        """G = FC([e ; f]) + V d, (B, L, D) to (B, L, D).

        Args:
            text_embeddings: e.
            gestures: which of the K each row shows, 0..K-1, (B,).
            poses: d, (B, R); None is the mean hand.
        """
        features = self.features.to(text_embeddings.dtype)[gestures]
        features = features[:, None].expand(-1, text_embeddings.shape[1], -1)
        fused = self.linear(torch.cat([text_embeddings, features], dim=-1))
        return fused if poses is None else fused + self.pose(poses.to(text_embeddings))[:, None]


class FlatFusion(ModelMixin, ConfigMixin):
    """The authors' fusion: one random linear map of all tokens and f at once, L*D + 63 to L*D, never trained.

    At Stable Diffusion 1.x size it has 3.5 billion weights, 14 GB. They are drawn anew from the seed whenever they are
    needed, some rows at a time, as PyTorch starts a linear layer: evenly within 1/sqrt(L*D + 63).

    Args:
        text_dim: D.
        num_tokens: L.
        gesture: HaGRID's name of the gesture.
        seed: of the weights.
    """

    @register_to_config
    def __init__(self, text_dim: int = 768, num_tokens: int = 77, gesture: str = "", seed: int = 0) -> None:
        super().__init__()
        self.register_buffer("feature", torch.zeros(FEATURE_DIM))

    @property
    def gestures(self) -> tuple[str, ...]:
        """The one name."""
        return (self.config.gesture,)

    @torch.no_grad()
    def forward(self, text_embeddings: torch.Tensor, gestures: torch.Tensor) -> torch.Tensor:
        """G = FC([vec(e) ; f]), (B, L, D) to (B, L, D); one pass over the weights, whatever B.

        `gestures` is all 0, since there is only one.
        """
        size = self.config.num_tokens * self.config.text_dim
        inputs = torch.cat([text_embeddings.flatten(1), self.feature.expand(len(text_embeddings), -1)], dim=1)
        bound = inputs.shape[1] ** -0.5
        parts = []
        for first in range(0, size, ROWS):
            generator = torch_generator(self.config.seed, "flat-fusion", first)
            rows = torch.rand(min(ROWS, size - first), inputs.shape[1] + 1, generator=generator)
            rows = (rows * 2 - 1).mul_(bound).to(inputs)
            parts.append(torch.nn.functional.linear(inputs, rows[:, :-1], rows[:, -1]))
        return torch.cat(parts, dim=1).view_as(text_embeddings)


Fusion = GestureFusion | FlatFusion


def load_fusion(folder: Path) -> Fusion:
    """The fusion that was saved in `folder`, of either kind."""
    kinds: dict[str, type[Fusion]] = {"GestureFusion": GestureFusion, "FlatFusion": FlatFusion}
    return kinds[read_json(folder / "config.json")["_class_name"]].from_pretrained(folder)


def gesture_indices(fusion: Fusion, gestures: Sequence[str]) -> torch.Tensor:
    """Which of the fusion's gestures each of `gestures` is, (B,) int64.

    Raises:
        Hand1000Error: one that the fusion was not trained with.
    """
    known = fusion.gestures
    for gesture in gestures:
        if gesture not in known:
            raise Hand1000Error(f"gesture {gesture!r}: this model knows {', '.join(known)} only")
    return torch.tensor([known.index(gesture) for gesture in gestures], dtype=torch.long)


def double_fusion(
    text_embeddings: torch.Tensor,
    fusion: Fusion,
    weight: float,
    gestures: torch.Tensor,
    poses: torch.Tensor | None = None,
) -> torch.Tensor:
    """H = weight*e + (1 - weight)*g: lambda in Stage II, mu at inference. (B, L, D) to (B, L, D).

    Args:
        text_embeddings: e, (B, L, D).
        fusion: that makes g.
        weight: 0..1.
        gestures: which of the fusion's each row shows, (B,), see `gesture_indices`.
        poses: d, (B, R), of a fusion that takes them; None is the mean hand.
    """
    given = () if poses is None else (poses,)
    return weight * text_embeddings + (1 - weight) * fusion(text_embeddings, gestures, *given)


def fused_null_embedding(empty_embedding: torch.Tensor, fusion: Fusion, weight: float) -> torch.Tensor:
    """H of the empty prompt for each of the fusion's gestures, (L, D) to (K, L, D)."""
    every = torch.arange(len(fusion.gestures))
    return double_fusion(empty_embedding.expand(len(every), -1, -1), fusion, weight, every)
