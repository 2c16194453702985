"""The initial weights by which a fusion reads the gesture features."""

import torch

from hand1000.hands.stage1 import FEATURE_DIM

GESTURE_SCALE = 1.0
"""Initial RMS of the gesture-specific component of g for models of several gestures; text embeddings have RMS 1."""

POSE_SCALE = 1.0
"""Initial RMS of V d."""


def initial_feature_map(
    features: torch.Tensor, text_dim: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the initial W_f (D, 63) and b (D,), with which f moves a token by W_f f + b.

    For one gesture W_f is normal and small, and b zero. For several the shifts are equally far apart, at an RMS of
    `GESTURE_SCALE`: otherwise the UNet would confuse hands that differ by one finger, such as `four` and `palm`.
    """
    if len(features) == 1:
        return 1e-3 * torch.randn(text_dim, FEATURE_DIM, generator=generator), torch.zeros(text_dim)
    codes = torch.linalg.qr(torch.randn(text_dim, len(features), generator=generator)).Q.T
    codes = codes - codes.mean(dim=0)
    codes *= GESTURE_SCALE / codes.square().mean().sqrt()
    mean = features.mean(dim=0)
    # Solve W_f (f - mean f) = code; K - 1 directions are independent, the last singular value is rounding.
    solution = torch.linalg.pinv((features - mean).double(), rtol=1e-6) @ codes.double()
    weight = solution.T.float()
    return weight, -weight @ mean
