"""Models of the Hugging Face hub: pinned revisions, the files that are downloaded, and errors."""

import re
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import yaml
from huggingface_hub.errors import GatedRepoError
from huggingface_hub.utils import filter_repo_objects

from hand1000.core.errors import Hand1000Error
from hand1000.storage.hub import IGNORED, PINNED_REVISIONS, WEIGHTS, fetch_model_folder, model_identity

CONFIGS = Path(__file__).parents[2] / "workflows" / "configs"
SD35 = "stabilityai/stable-diffusion-3.5-medium"


def test_known_models_have_a_pinned_commit() -> None:
    assert all(re.fullmatch("[0-9a-f]{40}", revision) for revision in PINNED_REVISIONS.values())
    assert model_identity(SD35) == f"{SD35}@{PINNED_REVISIONS[SD35]}"
    with pytest.raises(Hand1000Error, match="me/model: pin the revision of the hub model, as in me/model@<commit>"):
        model_identity("me/model")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_base_model_of_each_inputs_file_is_pinned(path: Path) -> None:
    base_model = yaml.safe_load(path.read_text()).get("base_model", "models/small-base")
    assert base_model in PINNED_REVISIONS or (CONFIGS.parents[1] / base_model).is_dir()


def test_files_that_no_loader_reads_are_not_downloaded() -> None:
    """File names of the repositories of Stable Diffusion 1.5, XL and 3.5 medium."""
    read = [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/model.safetensors",
        "text_encoder_3/model-00001-of-00002.safetensors",
        "text_encoder_3/model.safetensors.index.json",
        "tokenizer/merges.txt",
        "tokenizer_3/tokenizer.json",
        "transformer/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    ]
    others = [
        "v1-5-pruned.safetensors",
        "v1-5-pruned-emaonly.ckpt",
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "safety_checker/model.safetensors",
        "sd_xl_base_1.0.safetensors",
        "vae_1_0/diffusion_pytorch_model.safetensors",
        "text_encoder/model.fp16.safetensors",
        "sd3.5_medium.safetensors",
        "sd3.5_medium_incl_clips_t5xxlfp8scaled.safetensors",
        "text_encoders/t5xxl_fp16.safetensors",
        "text_encoder_3/model.fp16-00001-of-00002.safetensors",
        "text_encoder_3/model.safetensors.index.fp16.json",
    ]
    chosen = filter_repo_objects([*read, *others], allow_patterns=WEIGHTS, ignore_patterns=IGNORED)
    assert list(chosen) == read


def test_a_model_that_asks_for_an_account_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> str:
        raise GatedRepoError.__new__(GatedRepoError)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(Hand1000Error) as error:
        fetch_model_folder(SD35)
    text = str(error.value)
    assert text.startswith(
        f"{SD35}: its publisher asks for an account; accept the terms at https://huggingface.co/{SD35}"
    )
    assert text.endswith("run `hf auth login` or set HF_TOKEN")
