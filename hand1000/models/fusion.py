"""The fusion of the caption's text embedding with the gesture feature (paper, section 3.3).

Notation, as in `docs/method.md`:
    e       text embedding, last hidden state of the text encoder      (B, L, D)
    f       mean hand gesture feature of each of K gestures             (K, 63)
    d       deviation of an image's hand from the mean hand             (B, R)
    g       fused embedding, FC([e ; f]) per token, plus V d            (B, L, D)
    h       double-fused embedding, lambda*e + (1 - lambda)*g          (B, L, D)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from hand1000.core.errors import Hand1000Error
from hand1000.gestures import PHRASES
from hand1000.hands.stage1 import FEATURE_DIM
from hand1000.models.flat_fusion import FlatFusion
from hand1000.models.fusion_start import POSE_SCALE, initial_feature_map
from hand1000.models.low_rank_fusion import LowRankFusion
from hand1000.storage.pretrained import check_config, load_model


class GestureFusion(ModelMixin, ConfigMixin):
    """A linear map of [e ; f] per token, D + 63 to D, with the gesture features it is trained with.

    It starts as the identity on e. For one gesture, where f is a constant, it starts near zero on f, so that an
    untrained fusion changes almost nothing. For several gestures f must separate them from the start: nothing in Stage
    II makes the separation grow, because the base model knows no gestures, and the UNet would mix them up.

    With R numbers per pose (`hand1000.hands.poses`), g = FC([e ; f]) + V d. Training uses each image's own d; at
    inference d is 0, the mean hand f.

    Args:
        text_dim: Width D of the text encoder.
        gestures: HaGRID's names of the K gestures.
        pose_dim: Numbers R per pose; 0 is the paper's fusion.
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
        """The names in the order of the features."""
        return tuple(self.config.gestures)

    @torch.no_grad()
    def initialize(self, features: torch.Tensor, generator: torch.Generator) -> "GestureFusion":
        """Set the gesture features f, (K, 63), and the initial weights.

        For one gesture g = e + 0.001 W_f f with a normal W_f. For several g = e + W_f (f - mean f), where the second
        term has RMS `GESTURE_SCALE` and every two gestures are equally far apart: otherwise the UNet would confuse
        hands that differ by one finger, such as `four` and `palm`.

        The columns of V start orthogonal and equally long, so that V d of a d of RMS 1 has RMS `POSE_SCALE`.
        """
        self.features.copy_(features)
        text_dim = self.config.text_dim
        feature_weight, bias = initial_feature_map(features, text_dim, generator)
        self.linear.bias.copy_(bias)
        self.linear.weight.copy_(torch.eye(*self.linear.weight.shape))
        self.linear.weight[:, text_dim:] = feature_weight
        if self.config.pose_dim:
            length = POSE_SCALE * (text_dim / self.config.pose_dim) ** 0.5
            nn.init.orthogonal_(self.pose.weight, length, generator=generator)
        return self

    def forward(
        self, text_embeddings: torch.Tensor, gesture_ids: torch.Tensor, poses: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Compute g = FC([e ; f]) + V d, (B, L, D) to (B, L, D).

        Args:
            text_embeddings: Text embeddings e.
            gesture_ids: Index of each row's gesture, 0..K-1, (B,).
            poses: Deviations d, (B, R); None is the mean hand.
        """
        features = self.features.to(text_embeddings.dtype)[gesture_ids]
        features = features[:, None].expand(-1, text_embeddings.shape[1], -1)
        fused = self.linear(torch.cat([text_embeddings, features], dim=-1))
        return fused if poses is None else fused + self.pose(poses.to(text_embeddings))[:, None]


Fusion = GestureFusion | LowRankFusion | FlatFusion


_CLASSES: dict[object, type[Fusion]] = {
    "GestureFusion": GestureFusion,
    "LowRankFusion": LowRankFusion,
    "FlatFusion": FlatFusion,
}


def read_gestures(folder: Path) -> tuple[str, ...]:
    """Read the gestures of a fusion from its configuration alone, in the order of the features.

    Raises:
        Hand1000Error: The configuration is missing or is none of a fusion.
    """
    path = folder / "config.json"
    config = check_config(path)
    name = config.get("_class_name")
    if not isinstance(name, str) or name not in _CLASSES:
        raise Hand1000Error(f"{path}: _class_name is {name!r:.60}, not one of {', '.join(map(str, _CLASSES))}")
    names = [config.get("gesture")] if name == "FlatFusion" else config.get("gestures")
    if not isinstance(names, list) or not names or any(gesture not in PHRASES for gesture in map(str, names)):
        raise Hand1000Error(f"{path}: {names!r:.80} are not gestures; restore the file from a copy")
    return tuple(names)


def load_fusion(folder: Path, dtype: torch.dtype = torch.float32) -> Fusion:
    """Load a fusion of either class from the folder it was saved in.

    Raises:
        Hand1000Error: A file is missing or damaged, or it is no fusion.
    """
    read_gestures(folder)
    fusion_class = _CLASSES[check_config(folder / "config.json")["_class_name"]]
    fusion: Fusion = load_model(fusion_class, folder, "a fusion", torch_dtype=dtype)
    return fusion


def gesture_indices(fusion: Fusion, gestures: Sequence[str]) -> torch.Tensor:
    """The indices of `gestures` among those of the fusion, (B,) int64.

    Raises:
        Hand1000Error: The fusion is not trained with a gesture.
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
    gesture_ids: torch.Tensor,
    poses: torch.Tensor | None = None,
) -> torch.Tensor:
    """Compute h = weight*e + (1 - weight)*g, (B, L, D) to (B, L, D).

    Args:
        text_embeddings: Text embeddings e, (B, L, D).
        fusion: Fusion that computes g.
        weight: lambda in Stage II, mu at inference, 0..1.
        gesture_ids: Index of each row's gesture, (B,), see `gesture_indices`.
        poses: Deviations d, (B, R), for a fusion with poses; None is the mean hand.
    """
    fused = fusion(text_embeddings, gesture_ids) if poses is None else fusion(text_embeddings, gesture_ids, poses)
    return weight * text_embeddings + (1 - weight) * fused


@dataclass(frozen=True)
class FusedEmbeddings:
    """The embeddings h of N images, (N, L, D), which are computed when their rows are used; see `double_fusion`."""

    text_embeddings: Any  # (N, L, D), a tensor or `TensorRows`
    fusion: Fusion
    weight: float
    gesture_ids: torch.Tensor  # (N,)
    poses: torch.Tensor | None = None  # (N, R)

    @property
    def shape(self) -> tuple[int, ...]:
        """That of a tensor, (N, L, D)."""
        return tuple(self.text_embeddings.shape)

    def __len__(self) -> int:
        return len(self.gesture_ids)

    @torch.no_grad()
    def __getitem__(self, rows: slice | Sequence[int]) -> torch.Tensor:
        # A copy, because products of the same numbers at another alignment in memory may be rounded otherwise.
        poses = None if self.poses is None else self.poses[rows].clone()
        return double_fusion(self.text_embeddings[rows], self.fusion, self.weight, self.gesture_ids[rows], poses)


def fused_null_embedding(null_embedding: torch.Tensor, fusion: Fusion, weight: float) -> torch.Tensor:
    """Compute h of the empty prompt for each of the fusion's gestures, (L, D) to (K, L, D)."""
    gesture_ids = torch.arange(len(fusion.gestures))
    return double_fusion(null_embedding.expand(len(gesture_ids), -1, -1), fusion, weight, gesture_ids)
