"""Extraction of the features of image sets."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hand1000.core.errors import Hand1000Error
from hand1000.evaluation.extractors import SmallExtractor
from hand1000.evaluation.features import ImageFeatures, extract_features
from hand1000.evaluation.hand_crops import crop_hands
from hand1000.evaluation.metrics import compute_metrics
from hand1000.hands.classifier import GestureClassifier
from hand1000.hands.detector import Hand
from hand1000.models.clip import Clip
from tests.support.evaluation import compute, extract
from tests.support.rendered_hands import render_hand, rendered_hands, write_image_set
from tests.support.tiny_captioners import save_clip


def test_crop_features_are_those_of_the_hands(real, fake) -> None:
    extractor = SmallExtractor.from_pretrained()
    assert fake.image_index.tolist() == [0, 1, 2] and fake.file_names == ("000.png", "001.png", "002.png", "003.png")
    crop = crop_hands(rendered_hands()[1].pixels, [Hand(real.landmarks[1], 1.0, True)], 64)
    assert np.allclose(extractor(crop)[0], real.crop_features[1], atol=1e-4)
    assert np.allclose(extractor(rendered_hands()[1].pixels[None])[0], real.features[1], atol=1e-4)


def test_saved_features_give_the_same_metrics(real, fake, tmp_path: Path) -> None:
    real.save(tmp_path)
    loaded = ImageFeatures.load(tmp_path)
    assert compute(loaded, fake) == compute(real, fake)
    with pytest.raises(Hand1000Error, match="the same way"):
        compute(replace(real, min_detection_confidence=0.9), fake)
    (tmp_path / "image_features.safetensors").write_bytes(b"broken")
    with pytest.raises(Hand1000Error, match="not valid image_features.*extract them again"):
        ImageFeatures.load(tmp_path)


def test_each_image_is_decoded_once(fake_folder, fake, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    decode = Image.open

    def record(path, *args, **options):
        opened.append(Path(path).name)
        return decode(path, *args, **options)

    monkeypatch.setattr(Image, "open", record)
    steps: list[tuple[int, int]] = []
    extract(fake_folder, lambda done, total, _: steps.append((done, total)))
    assert sorted(opened) == list(fake.file_names) and steps[-1] == (4, 4)


def test_clip_compares_each_image_with_its_prompt(tmp_path: Path) -> None:
    clip = Clip(str(save_clip(tmp_path / "clip")))
    extractor = SmallExtractor.from_pretrained()
    records = write_image_set(tmp_path / "set", [render_hand("palm", number) for number in range(3)])
    seen = extract_features(tmp_path / "set", extractor=extractor, min_detection_confidence=0.5, clip=clip)
    images, texts = clip.embed([tmp_path / "set" / one.file_name for one in records], [one.text for one in records])
    assert seen.clip_similarity == pytest.approx((images * texts).sum(1).numpy(), abs=1e-5)
    metrics = compute_metrics(seen, seen, classifier=GestureClassifier.from_pretrained(), seed=0)
    assert metrics.clip_score == pytest.approx(100 * seen.clip_similarity.clip(0).mean())
    assert metrics.intra_prompt_distance is not None and metrics.intra_prompt_distance > 0
