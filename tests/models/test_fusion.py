"""The fusion layer of one and of several gestures."""

from pathlib import Path

import pytest
import torch

from hand1000.config.settings import load_settings
from hand1000.core.errors import Hand1000Error
from hand1000.models.fusion import GestureFusion, double_fusion, gesture_indices, load_fusion
from hand1000.models.fusion_start import GESTURE_SCALE
from tests.support.mixed_dataset import GESTURES, mixed_dataset
from tests.support.tiny_models import TOKENS, WIDTH
from tests.support.tiny_pipelines import fusion_of

IMAGES = 5
GESTURE_IDS = torch.zeros(IMAGES, dtype=torch.long)
"""Index of each image's gesture."""


@pytest.fixture
def text() -> torch.Tensor:
    """Text embeddings of the images."""
    return torch.randn(IMAGES, TOKENS, WIDTH, generator=torch.Generator().manual_seed(1))


def test_fusion_starts_near_the_identity_on_the_text(text) -> None:
    fusion = fusion_of("four")
    assert torch.allclose(fusion(text, GESTURE_IDS), text, atol=0.1)
    assert not torch.equal(fusion(text, GESTURE_IDS), text)
    fusion.features.zero_()
    assert torch.equal(fusion(text, GESTURE_IDS), text)


def test_double_fusion_weights_text_against_gesture(text) -> None:
    fusion = fusion_of("four")
    assert torch.equal(double_fusion(text, fusion, 1.0, GESTURE_IDS), text)
    assert torch.allclose(
        double_fusion(text, fusion, 0.25, GESTURE_IDS), 0.25 * text + 0.75 * fusion(text, GESTURE_IDS)
    )


def test_several_gestures_start_apart_and_one_at_the_text() -> None:
    generator = torch.Generator().manual_seed(3)
    text, several = torch.randn(1, TOKENS, WIDTH, generator=generator), torch.randn(3, 63, generator=generator)
    several[1] = several[0] + 0.01 * several[1]
    fusion = GestureFusion(WIDTH, ("four", "ok", "call")).initialize(several, generator)
    codes = (fusion(text.expand(3, -1, -1), torch.arange(3)) - text).detach()
    assert codes.square().mean().sqrt() == pytest.approx(GESTURE_SCALE, rel=1e-3)
    apart = torch.cdist(codes[:, 0], codes[:, 0])[~torch.eye(3, dtype=torch.bool)]
    assert apart.max() < 1.01 * apart.min()  # However alike two hands are.
    assert codes.mean(dim=0).abs().max() < 1e-4  # On average nothing is added to the text.
    one = GestureFusion(WIDTH, ("four",)).initialize(several[:1], generator)
    assert (one(text, torch.zeros(1, dtype=torch.long)) - text).abs().max() < 0.05


def test_each_row_is_fused_with_its_own_feature(tmp_path: Path) -> None:
    text = mixed_dataset().text_embeddings
    fusion = fusion_of("four", "ok", strong=True)
    fused = double_fusion(text, fusion, 0.3, gesture_indices(fusion, GESTURES))
    for row, gesture in enumerate(GESTURES):
        alone = fusion_of(gesture, strong=True)
        expected = double_fusion(text[row : row + 1], alone, 0.3, torch.zeros(1, dtype=torch.long))
        assert torch.allclose(fused[row], expected[0], atol=1e-5)
    swapped = double_fusion(text, fusion, 0.3, 1 - gesture_indices(fusion, GESTURES))
    assert (fused - swapped).abs().amax(dim=(1, 2)).min() > 0.1
    with pytest.raises(Hand1000Error, match="gesture 'like': this model knows four, ok only"):
        gesture_indices(fusion, ["four", "like"])
    fusion.save_pretrained(tmp_path)
    loaded = load_fusion(tmp_path)
    assert loaded.gestures == ("four", "ok") and torch.equal(loaded.features, fusion.features)


def test_flat_fusion_holds_one_gesture() -> None:
    stage2 = load_settings("paper").stage2
    stage2.check_gestures(["four"])
    with pytest.raises(Hand1000Error, match=r"stage2\.fusion: flat holds one gesture, not four, ok; choose per_token"):
        stage2.check_gestures(["four", "ok"])
