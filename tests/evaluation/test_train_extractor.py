"""The training script of the small feature extractor."""

import numpy as np
import pytest
import torch

from hand1000.data.synthetic import RenderedHands
from hand1000.evaluation.extractors import SmallExtractor
from hand1000.evaluation.hand_crops import resize
from hand1000.evaluation.train_extractor import CORRUPTIONS, corrupt, random_crop, train_extractor
from tests.support.rendered_hands import rendered_hands


def test_features_move_with_the_amount_of_corruption() -> None:
    extractor = SmallExtractor.from_pretrained()
    images = np.stack([hand.pixels for hand in rendered_hands()])
    features = extractor(images)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    for index, corruption in enumerate(CORRUPTIONS):
        distances = []
        for amount in (0.0, 0.4, 1.0):
            amounts = torch.zeros(len(images), len(CORRUPTIONS))
            amounts[:, index] = amount
            bad = corrupt(pixels, amounts, torch.Generator().manual_seed(1)).round().to(torch.uint8)
            distances.append(np.linalg.norm(extractor(bad.permute(0, 2, 3, 1).numpy()) - features, axis=1).mean())
        assert 5 * distances[0] < distances[1] and 1.5 * distances[1] < distances[2], corruption


def test_landmarks_follow_the_crop() -> None:
    places = np.random.default_rng(0).uniform(0.3, 0.7, (16, 21, 2)).astype(np.float32)
    images = torch.zeros(16, 3, 96, 96)
    axis = (torch.arange(96) + 0.5) / 96
    for index, (x, y) in enumerate(places[:, 0]):  # A soft spot at the first landmark.
        images[index] = 255 * torch.exp(-((axis - x) ** 2 + (axis[:, None] - y) ** 2) / (2 * 0.03**2))
    moved, landmarks, mirrored = random_crop(images, torch.from_numpy(places), torch.Generator().manual_seed(0))
    assert 3 < mirrored.sum() < 13
    inside = ((landmarks[:, 0] > 0.1) & (landmarks[:, 0] < 0.9)).all(dim=1)
    assert inside.sum() > 8
    for hand, (x, y) in zip(moved[inside], landmarks[inside, 0], strict=True):
        weights = hand[0] / hand[0].sum()
        assert float((weights.sum(dim=0) * axis).sum()) == pytest.approx(float(x), abs=0.03)
        assert float((weights.sum(dim=1) * axis).sum()) == pytest.approx(float(y), abs=0.03)


def test_training_is_reproducible_and_standardizes_features() -> None:
    examples = rendered_hands()
    facts = [
        {
            "skin": "tan",
            "sleeve": "red",
            "wall": "blue",
            "light": "dim",
            "handedness": "right" if hand.right else "left",
        }
        for hand in examples
    ]
    hands = RenderedHands(
        np.stack([resize(hand.pixels[None], 64)[0].permute(1, 2, 0).byte().numpy() for hand in examples]),
        [hand.gesture for hand in examples],
        [hand.landmarks[None].astype(np.float32) for hand in examples],
        facts,
    )
    first, second, other = (train_extractor(hands, seed=seed, steps=3, batch_size=8)[0] for seed in (1, 1, 2))
    features = first(hands.images)
    assert np.array_equal(features, second(hands.images)) and not np.allclose(features, other(hands.images))
    assert np.allclose(features.mean(axis=0), 0, atol=1e-3) and np.allclose(features.std(axis=0, ddof=1), 1, atol=1e-2)
