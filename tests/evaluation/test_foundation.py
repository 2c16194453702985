"""DINOv2's and CLIP's features, by random weights of the real classes: nothing can be downloaded here."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    BitImageProcessorPil,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    Dinov2Config,
    Dinov2Model,
)

from hand1000.config.settings import load_settings
from hand1000.core.errors import Hand1000Error
from hand1000.evaluation.distances import clip_distance
from hand1000.evaluation.extractors import SmallExtractor, load_extractor
from hand1000.evaluation.features import extract_features
from hand1000.evaluation.metrics import compute_metrics
from hand1000.hands.classifier import GestureClassifier
from hand1000.models.clip import Clip
from tests.support.rendered_hands import render_hand, write_image_set
from tests.support.tiny_captioners import save_clip

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 8, "image_size": 32}


@pytest.fixture(params=["dinov2", "clip"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A model's folder behind the name of its kind, as the settings have it."""
    torch.manual_seed(0)
    if request.param == "clip":
        CLIPVisionModelWithProjection(
            CLIPVisionConfig(**SIZES, intermediate_size=32, projection_dim=12)
        ).save_pretrained(tmp_path / "model")
        CLIPImageProcessorPil().save_pretrained(tmp_path / "model")
    else:
        Dinov2Model(Dinov2Config(**SIZES)).save_pretrained(tmp_path / "model")
        BitImageProcessorPil().save_pretrained(tmp_path / "model")
    return f"{request.param}:{tmp_path / 'model'}"


def test_pictures_are_measured_by_their_features(source: str, tmp_path: Path) -> None:
    settings = load_settings("default").evaluation.model_copy(update={"feature_extractor": source})
    extractor = load_extractor(settings)
    images = np.random.default_rng(0).integers(0, 255, (3, 48, 48, 3), dtype=np.uint8)
    features = extractor(images)
    assert features.shape == (3, extractor.num_features) and features.dtype == np.float32
    assert np.allclose(extractor(images[1:2]), features[1:2], atol=1e-5) and not np.allclose(features[0], features[1])

    for name, numbers in (("real", range(3)), ("fake", range(3, 6))):
        write_image_set(tmp_path / name, [render_hand("palm", number) for number in numbers])
    real, fake = (
        extract_features(tmp_path / name, extractor=extractor, min_detection_confidence=0.5)
        for name in ("real", "fake")
    )
    metrics = compute_metrics(real, fake, classifier=GestureClassifier.from_pretrained(), seed=0)
    assert metrics.fid > 0 and metrics.extractor == source.partition(":")[0]
    assert (metrics.cmmd is not None) == (metrics.extractor == "clip")


def test_another_network_is_refused(tmp_path: Path) -> None:
    SmallExtractor.from_pretrained().save_pretrained(tmp_path)
    settings = load_settings("default").evaluation
    with pytest.raises(Hand1000Error, match="cannot be loaded as dinov2"):
        load_extractor(settings.model_copy(update={"feature_extractor": f"dinov2:{tmp_path}"}))


def test_cmmd_is_its_definition() -> None:
    draws = np.random.default_rng(0)
    x, y = draws.normal(size=(5, 6)), draws.normal(size=(7, 6))
    total = 0.0
    for first, second, weight in ((x, x, 1), (y, y, 1), (x, y, -2)):
        for a in first:
            for b in second:
                a_, b_ = a / np.linalg.norm(a), b / np.linalg.norm(b)
                total += weight * np.exp(-np.sum((a_ - b_) ** 2) / 200) / (len(first) * len(second))
    assert clip_distance(x, y) == pytest.approx(1000 * total)
    assert clip_distance(x, 3 * x) == pytest.approx(0, abs=1e-9)


def test_clip_scores_each_picture_by_its_prompt(tmp_path: Path) -> None:
    clip = Clip(str(save_clip(tmp_path / "clip")))
    extractor = SmallExtractor.from_pretrained()
    records = write_image_set(tmp_path / "set", [render_hand("palm", number) for number in range(3)])
    seen = extract_features(tmp_path / "set", extractor=extractor, min_detection_confidence=0.5, clip=clip)
    images, texts = clip.embed([tmp_path / "set" / one.file_name for one in records], [one.text for one in records])
    assert seen.clip_similarity == pytest.approx((images * texts).sum(1).numpy(), abs=1e-5)
    metrics = compute_metrics(seen, seen, classifier=GestureClassifier.from_pretrained(), seed=0)
    assert metrics.clip_score == pytest.approx(100 * seen.clip_similarity.clip(0).mean())
    assert metrics.intra_prompt_distance is not None and metrics.intra_prompt_distance > 0
