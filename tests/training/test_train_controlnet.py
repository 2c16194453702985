"""Training of a ControlNet on depth maps of hands."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel
from PIL import Image

from hand1000.config.controlnet import ControlSettings
from hand1000.config.pretraining import TrainingSchedule
from hand1000.core.errors import Hand1000Error
from hand1000.hands.depth_pairs import DepthPairs
from hand1000.pipelines.controlnet import load_controlnet
from hand1000.training.context import TrainContext
from hand1000.training.train_controlnet import save_controlnet, train_controlnet
from tests.support.tiny_models import CrashingCheckpointStore, SimulatedKill, fresh_base

RECIPE = ControlSettings(
    seed=0,
    images=6,
    gesture_images=0,
    max_tilt=180,
    min_detection_confidence=0.5,
    max_error=1.0,
    caption_dropout=0.5,
    hand_weight=4.0,
    schedule=TrainingSchedule(
        steps=4, batch_size=2, learning_rate=1e-2, warmup_steps=2, ema_decay=0.5, checkpoint_every=2
    ),
)


def tiny_pairs() -> DepthPairs:
    """Gray images with a bright square, whose place is the hand's."""
    images, depths = np.full((4, 32, 32, 3), 60, np.uint8), np.zeros((4, 32, 32), np.uint8)
    boxes = []
    for index, (row, column) in enumerate([(0, 0), (0, 16), (16, 0), (16, 16)]):
        images[index, row : row + 16, column : column + 16] = 220
        depths[index, row : row + 16, column : column + 16] = 255
        boxes.append([column / 32, row / 32, 0.5, 0.5])
    return DepthPairs(images, depths, np.array(boxes, np.float32), ("a hand",) * 4)


def test_training_resumes_bit_exactly_and_keeps_the_base_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hand1000.training.loop.LOG_EVERY", 2)
    base = fresh_base()
    before = {name: value.clone() for name, value in base.unet.state_dict().items()}

    def run(folder: Path, crash_after: int | None = None) -> tuple[ControlNetModel, list[dict]]:
        context = TrainContext(seed=RECIPE.seed, checkpoint=CrashingCheckpointStore(folder, crash_after=crash_after))
        return train_controlnet(tiny_pairs(), base, RECIPE, context)

    whole, history = run(tmp_path / "whole")
    with pytest.raises(SimulatedKill):
        run(tmp_path / "cut", crash_after=1)
    resumed, same_history = run(tmp_path / "cut")
    assert history == same_history and [row["step"] for row in history] == [2, 4]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert all(torch.equal(value, before[name]) for name, value in base.unet.state_dict().items())
    assert any(whole.state_dict()[name].any() for name in whole.state_dict() if name.startswith("controlnet_mid"))

    (tmp_path / "net").mkdir()
    save_controlnet(tmp_path / "net", whole, base, RECIPE, history, tiny_pairs().first(2))
    loaded = load_controlnet(str(tmp_path / "net"))
    assert loaded.dtype == torch.float32 and not any(parameter.requires_grad for parameter in loaded.parameters())
    with Image.open(tmp_path / "net" / "grid.png") as grid:
        assert grid.size == (4 + 2 * 36, 4 + 3 * 36)
    with pytest.raises(Hand1000Error, match="ControlNet"):
        load_controlnet(str(tmp_path))
