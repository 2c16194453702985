"""The fusion of low rank: linear in the tokens, and its direction v."""

import itertools
from pathlib import Path

import pytest
import torch

from hand1000.models.base_model import load_base_model
from hand1000.models.encoding import encode_penultimate
from hand1000.models.fusion import double_fusion, load_fusion
from hand1000.models.fusion_start import GESTURE_SCALE
from hand1000.models.low_rank_fusion import LowRankFusion, fit_direction
from tests.support.short_demo import ROOT

D, RANK = 24, 4


@pytest.fixture
def captions() -> torch.Tensor:
    """Embeddings of captions, (N, L, D), that have a common part, as those of a text encoder do."""
    generator = torch.Generator().manual_seed(0)
    mean = 3 * torch.randn(D, generator=generator)
    return mean + torch.randn(50, 7, D, generator=generator)


def fusion_of(captions: torch.Tensor, *gestures: str, pose_dim: int = 0) -> LowRankFusion:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(len(gestures), 63, generator=generator)
    return LowRankFusion(D, gestures, pose_dim, RANK).initialize(features, captions, generator)


def test_direction_has_the_same_product_with_every_token(captions) -> None:
    direction = fit_direction(captions[:25].flatten(0, 1))
    shares = captions[25:] @ direction
    assert (shares - 1).square().mean().sqrt() < 0.15
    # Its terms are no larger than their sum, so that rounding to half precision keeps it.
    assert (captions.square().mean(dim=(0, 1)) * direction.square()).sum().sqrt() < 1
    constant = torch.ones(9, D)
    assert torch.allclose(constant @ fit_direction(constant), torch.ones(9), atol=2e-3)


def test_direction_holds_for_other_captions_of_a_trained_encoder() -> None:
    """The second to last hidden states, as of Stable Diffusion XL: no layer norm puts them on a plane."""
    base = load_base_model(str(ROOT / "models" / "small-base"))
    colors = ("red", "blue", "gray", "green")
    words = itertools.product(("left", "right"), ("tan", "dark", "pale", "brown"), colors, colors)
    captions = [f"a photo of a {hand} hand with {skin} skin and a {sleeve} sleeve in front of a {wall} wall, making ok "
                f"hand gesture" for hand, skin, sleeve, wall in words]  # fmt: skip
    tokens, _ = encode_penultimate(base.parts["text_encoder"], base.tokenizer, captions)
    direction = fit_direction(tokens[::2].flatten(0, 1))
    shares = tokens[1::2] @ direction
    assert (shares - 1).square().mean().sqrt() < 0.1
    # Half precision keeps them: the terms of the sum are small.
    assert (tokens.square().mean(dim=(0, 1)) * direction.square()).sum().sqrt() < 2


def test_a_new_fusion_changes_little_and_separates_gestures(captions) -> None:
    one = fusion_of(captions, "four")
    ids = torch.zeros(50, dtype=torch.long)
    assert 0 < (one(captions, ids) - captions).abs().max() < 0.2
    two, scale = fusion_of(captions, "four", "ok"), captions.square().mean(dim=2).sqrt().median()
    codes = torch.stack([(two(captions, ids + index) - captions).mean(dim=(0, 1)) for index in (0, 1)])
    assert codes.square().mean().sqrt().item() == pytest.approx(float(GESTURE_SCALE * scale), rel=0.05)


@pytest.mark.parametrize("mu", [0.0, 0.3])
def test_trained_fusion_is_a_product_of_small_factors(captions, mu, tmp_path: Path) -> None:
    fusion = fusion_of(captions, "four", "ok")
    generator = torch.Generator().manual_seed(2)
    for parameter in fusion.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    fusion.save_pretrained(tmp_path)
    loaded = load_fusion(tmp_path)
    assert isinstance(loaded, LowRankFusion) and loaded.gestures == ("four", "ok")
    left, right = loaded.factors("ok")
    assert left.shape == (D, RANK + 1) and right.shape == (RANK + 1, D)
    with torch.no_grad():
        h = double_fusion(captions, fusion, mu, torch.ones(50, dtype=torch.long))
    expected = captions.double() + (1 - mu) * captions.double() @ right.T @ left.T
    assert torch.allclose(h.double(), expected, atol=1e-4)
    # Without a constant term, an empty negative prompt of zeros stays one.
    assert not fusion(torch.zeros(1, 7, D), torch.zeros(1, dtype=torch.long)).any()


def test_each_pose_moves_the_tokens(captions) -> None:
    fusion = fusion_of(captions, "four", pose_dim=3)
    ids, poses = torch.zeros(2, dtype=torch.long), torch.tensor([[0.0, 0, 0], [1, -1, 1]])
    plain, posed = fusion(captions[:2], ids), fusion(captions[:2], ids, poses)
    assert torch.equal(plain[0], posed[0]) and not torch.allclose(plain[1], posed[1], atol=0.1)
