"""The training of the small base model: it learns, continues to the same bits, and writes a plain folder."""

from pathlib import Path

import numpy as np
import pytest
import torch

from hand1000.config.pretraining import PretrainSettings, TrainingSchedule
from hand1000.models.base_model import load_base_model
from hand1000.models.small_base import build_tokenizer
from hand1000.training.context import TrainContext
from hand1000.training.pretrain_base import save_base, train_autoencoder, train_base, train_text_encoder
from tests.support.tiny_models import CrashingCheckpointStore, SimulatedKill

LENGTH = TrainingSchedule(steps=4, batch_size=2, learning_rate=1e-3, warmup_steps=2, ema_decay=0.9, checkpoint_every=2)
SETTINGS = PretrainSettings(
    seed=0,
    images=100,
    gesture_images=0,
    max_tilt=180,
    caption_dropout=0.5,
    autoencoder=LENGTH,
    text_encoder=LENGTH,
    base=LENGTH,
)
CAPTIONS = ["a red hand", "a blue wall", "a hand"]


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), dtype=np.uint8)


def test_pretraining_continues_to_the_same_bits(images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hand1000.training.loop.LOG_EVERY", 2)

    def run(folder: Path, dies: str = ""):
        """All three, or up to the first save of the one that dies."""

        def context(name: str) -> TrainContext:
            checkpoint = CrashingCheckpointStore(folder / name, crash_after=1 if name == dies else None)
            return TrainContext(seed=SETTINGS.seed, checkpoint=checkpoint)

        vae, _ = train_autoencoder(images, SETTINGS, context("autoencoder"))
        encoder, tokenizer, _ = train_text_encoder(images, CAPTIONS, vae, SETTINGS, context("text_encoder"))
        base, history = train_base(images, CAPTIONS, vae, encoder, tokenizer, SETTINGS, context("base"))
        return base, history

    base, history = run(tmp_path / "whole")
    for name in ("autoencoder", "text_encoder", "base"):
        with pytest.raises(SimulatedKill):
            run(tmp_path / "cut", dies=name)
    continued, same = run(tmp_path / "cut")
    for part in ("vae", "text_encoder", "unet"):
        weights = getattr(continued, part).state_dict()
        assert all(torch.equal(value, weights[name]) for name, value in getattr(base, part).state_dict().items())
    assert history == same and [row["step"] for row in history] == [2, 4]

    save_base(tmp_path / "base", base, SETTINGS, {"base": history}, CAPTIONS[:1])
    loaded = load_base_model(str(tmp_path / "base"))
    assert loaded.vae.config.scaling_factor == base.vae.config.scaling_factor != 1.0
    assert (tmp_path / "base" / "grid.png").is_file() and (tmp_path / "base" / "recipe.json").is_file()
    stored = sum(path.stat().st_size for path in (tmp_path / "base").rglob("*.safetensors"))
    assert stored < 16 * 2**20


def test_text_encoder_learns_to_match_captions_and_images() -> None:
    """Images of one colour each, named by a word that covers no more of the caption than any other."""
    from hand1000.models.small_base import build_text_encoder
    from hand1000.training.pretrain_base import ClipContrastiveLoss

    captions = [f"a photo of a {colour} sleeve" for colour in ("red", "green", "blue", "white")]
    tokenizer = build_tokenizer(captions)
    tokens = tokenizer(captions, padding="max_length", return_tensors="pt").input_ids
    torch.manual_seed(0)
    latents = torch.randn(4, 8, 1, 1).expand(4, 8, 16, 16)
    matcher = ClipContrastiveLoss(build_text_encoder(tokenizer))
    optimizer = torch.optim.AdamW(matcher.parameters(), lr=1e-3)
    losses = []
    for _ in range(30):
        losses.append(matcher(tokens, latents))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[0] > 1.0 and losses[-1] < 0.1
    with torch.no_grad():
        assert matcher(tokens, latents.flip(0)) > 1.0
