"""Loading of the base model."""

from pathlib import Path

import pytest
import torch

from hand1000.core.errors import Hand1000Error
from hand1000.models.base_model import load_base_model, read_resolution
from tests.support.tiny_models import LATENT, save_tiny_base


def test_base_model_loads_or_names_what_is_missing(tmp_path: Path) -> None:
    folder = save_tiny_base(tmp_path / "base")
    assert read_resolution(str(folder)) == 4 * LATENT
    base = load_base_model(str(folder))
    assert not any(parameter.requires_grad for parameter in base.unet.parameters())
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(Hand1000Error, match="cannot be loaded"):
        load_base_model(str(folder))
    with pytest.raises(Hand1000Error, match=r"model_index\.json is missing"):
        load_base_model(str(tmp_path))
    with pytest.raises(Hand1000Error, match="pin the revision"):
        load_base_model("somebody/some-model")


def test_the_shipped_base_model_loads_and_is_small_enough() -> None:
    folder = Path(__file__).parents[2] / "models" / "small-base"
    base = load_base_model(str(folder))
    assert base.unet.dtype == torch.float32 and base.tokenizer.model_max_length == 48
    assert sum(path.stat().st_size for path in folder.rglob("*.safetensors")) < 16 * 2**20
    assert not [path for path in folder.rglob("*") if path.suffix in (".bin", ".pt", ".ckpt", ".pkl")]
