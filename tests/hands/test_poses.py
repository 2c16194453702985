"""The poses of single hands relative to the mean hand, and their use in the fusion."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hand1000.config.settings import load_settings
from hand1000.core.errors import Hand1000Error
from hand1000.hands.landmarks import Landmarks
from hand1000.hands.poses import HandPoses, fit_poses
from hand1000.hands.stage1 import compute_mean_feature, gesture_feature
from hand1000.models.fusion import GestureFusion, double_fusion, load_fusion
from hand1000.models.fusion_start import POSE_SCALE
from hand1000.training.context import TrainContext
from hand1000.training.stage2 import train_fusion
from tests.support.tiny_models import LATENT, TOKENS, WIDTH, encoded_dataset, fresh_base

HANDS, COMPONENTS = 60, 2
NAMES = tuple(f"{index:03d}.png" for index in range(HANDS))


def hands(missed: tuple[int, ...] = ()) -> tuple[Landmarks, np.ndarray]:
    """Right hands of several places and sizes that bend in two directions, and how far each bends, (HANDS, 2)."""
    generator = np.random.default_rng(0)
    mean = generator.normal(0, 0.3, (21, 3))
    mean[0] = 0
    mean[[5, 9, 13, 17]] *= 0.5 / np.linalg.norm(mean[[5, 9, 13, 17]], axis=1, keepdims=True)
    # The palm, which determines the size of a hand, does not bend.
    directions = generator.normal(size=(2, 21, 3))
    directions[:, [0, 5, 9, 13, 17]] = 0
    bends = generator.normal(size=(HANDS, 2))
    shapes = mean + np.einsum("nr,rjk->njk", bends * [0.2, 0.1], directions)
    places = np.column_stack([generator.uniform(0.3, 0.7, (HANDS, 2)), np.zeros(HANDS)])
    found = np.array([index not in missed for index in range(HANDS)])
    landmarks = places[:, None] + generator.uniform(0.2, 0.4, (HANDS, 1, 1)) * shapes
    rows = np.where(found[:, None, None], landmarks, 0.0).astype(np.float32)
    return Landmarks(rows, found, found.astype(np.float32), np.ones(HANDS, bool), NAMES), bends


def fitted(landmarks: Landmarks, components: int = COMPONENTS, kind: str = "normalized") -> HandPoses:
    feature = compute_mean_feature(landmarks, gesture="four", kind=kind, max_missed=0.5)
    return fit_poses(landmarks, dict.fromkeys(NAMES, "four"), [feature], components)


def test_components_describe_the_bending_and_the_placement() -> None:
    landmarks, bends = hands()
    poses = fitted(landmarks)
    assert poses.poses.shape == (HANDS, COMPONENTS + 3) and poses.components.shape == (COMPONENTS, 63)
    assert poses.poses.mean(axis=0) == pytest.approx(0, abs=1e-4)
    assert poses.poses.std(axis=0) == pytest.approx(1, abs=1e-3)
    features = gesture_feature(landmarks, kind="normalized")
    assert np.allclose(features.mean(axis=0) + poses.poses[:, :COMPONENTS] @ poses.components, features, atol=1e-4)
    correlations = (
        np.abs(np.corrcoef(poses.poses[:, 0], bends[:, 0])[0, 1]),
        np.corrcoef(poses.poses[:, COMPONENTS], landmarks.landmarks[:, 0, 0])[0, 1],
    )
    assert min(correlations) > 0.9
    fewer = fitted(landmarks, 1)
    assert np.allclose(fewer.poses[:, 0], poses.poses[:, 0], atol=1e-5)


def test_missed_hands_are_mean_hands_and_outliers_are_ignored() -> None:
    landmarks, _ = hands(missed=(3,))
    poses = fitted(landmarks)
    assert not poses.poses[3].any() and poses.poses[4].any()
    outlier = landmarks.landmarks.copy()
    outlier[7, 1:] = outlier[7, :1] + 0.4 * np.random.default_rng(9).normal(size=(20, 3))
    with_outlier = fitted(replace(landmarks, landmarks=outlier))
    others = [index for index in range(HANDS) if index != 7]
    correlations = [
        abs(np.corrcoef(with_outlier.poses[others, r], poses.poses[others, r])[0, 1]) for r in range(COMPONENTS)
    ]
    assert min(correlations) > 0.98 and np.abs(with_outlier.poses).max() <= 4


def test_each_gesture_has_poses_about_its_own_mean() -> None:
    landmarks, _ = hands()
    gesture_by_image = {name: ("ok", "four")[index % 2] for index, name in enumerate(NAMES)}
    moved = landmarks.landmarks.copy()
    moved[::2, 8] += [0.1, 0, 0]
    both = replace(landmarks, landmarks=moved)
    features = [
        compute_mean_feature(
            both.select([n for n in NAMES if gesture_by_image[n] == gesture]),
            gesture=gesture,
            kind="normalized",
            max_missed=0,
        )
        for gesture in ("four", "ok")
    ]
    poses = fit_poses(both, gesture_by_image, features, COMPONENTS)
    assert poses.gestures == ("four", "ok")
    for start in (0, 1):
        assert poses.poses[start::2].mean(axis=0) == pytest.approx(0, abs=1e-4)


def test_two_very_different_hands_are_enough_for_poses() -> None:
    landmarks, _ = hands()
    gesture_by_image = dict.fromkeys(NAMES, "four") | dict.fromkeys(NAMES[:2], "ok")
    enlarged = landmarks.landmarks.copy()
    enlarged[0] = enlarged[0, :1] + 30 * (enlarged[0] - enlarged[0, :1])
    landmarks = replace(landmarks, landmarks=enlarged)
    parts = {
        gesture: landmarks.select([name for name in NAMES if gesture_by_image[name] == gesture])
        for gesture in ("four", "ok")
    }
    features = [
        compute_mean_feature(part, gesture=gesture, kind="normalized", max_missed=0) for gesture, part in parts.items()
    ]
    assert np.isfinite(fit_poses(landmarks, gesture_by_image, features, COMPONENTS).poses).all()


def test_without_components_or_variation_all_hands_are_mean() -> None:
    landmarks, _ = hands()
    assert fitted(landmarks, 0).poses.shape == (HANDS, 0) and fitted(landmarks, 0).tensor() is None
    assert not fitted(landmarks, kind="none").poses[:, :COMPONENTS].any()


def test_poses_are_saved_and_loaded_in_any_order(tmp_path: Path) -> None:
    poses = fitted(hands()[0])
    poses.save(tmp_path)
    loaded = HandPoses.load(tmp_path).select([NAMES[5], NAMES[2]])
    assert np.array_equal(loaded.poses, poses.poses[[5, 2]]) and loaded.file_names == (NAMES[5], NAMES[2])
    (tmp_path / "poses.safetensors").write_bytes(b"nothing")
    with pytest.raises(Hand1000Error, match="poses.safetensors.*run Stage I again"):
        HandPoses.load(tmp_path)


def test_a_pose_adds_to_the_fusion_and_0_is_the_mean_hand(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    text, feature = torch.randn(3, TOKENS, WIDTH, generator=generator), torch.randn(1, 63, generator=generator)
    gesture_ids, poses = torch.zeros(3, dtype=torch.long), torch.randn(3, 5, generator=generator)
    paper = GestureFusion(WIDTH, ("four",)).initialize(feature, torch.Generator().manual_seed(1))
    posed = GestureFusion(WIDTH, ("four",), 5).initialize(feature, torch.Generator().manual_seed(1))
    assert torch.equal(posed(text, gesture_ids), paper(text, gesture_ids))
    assert torch.equal(posed(text, gesture_ids, torch.zeros(3, 5)), paper(text, gesture_ids))
    columns = posed.pose.weight.detach()
    assert torch.allclose(columns.T @ columns, torch.eye(5) * POSE_SCALE**2 * WIDTH / 5, atol=1e-4)
    h = double_fusion(text, posed, 0.7, gesture_ids, poses)
    change = 0.3 * poses @ columns.T
    assert torch.allclose(h - double_fusion(text, paper, 0.7, gesture_ids), change[:, None].expand_as(h), atol=1e-5)
    posed.save_pretrained(tmp_path)
    assert torch.equal(load_fusion(tmp_path)(text, gesture_ids, poses), posed(text, gesture_ids, poses))


def test_stage_two_trains_the_weights_of_the_poses() -> None:
    poses = fitted(hands()[0]).select(NAMES[:4])
    generator = torch.Generator().manual_seed(1)
    default = load_settings("default")

    def train(steps: int) -> GestureFusion:
        fusion, _ = train_fusion(
            fresh_base(),
            encoded_dataset(
                torch.randn(4, 4, LATENT, LATENT, generator=generator),
                torch.randn(4, TOKENS, WIDTH, generator=generator),
            ),
            {"four": torch.zeros(63)},
            default.stage2.model_copy(update={"fusion_steps": steps, "fusion_batch_size": 2}),
            TrainContext(seed=0),
            poses=poses,
        )
        return fusion

    start, end = train(0), train(3)
    assert start.config.pose_dim == COMPONENTS + 3
    assert not torch.equal(start.pose.weight, end.pose.weight)
