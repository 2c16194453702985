"""The file of an adapter: equal bytes in every process, and a refusal by name of a damaged one."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from hand1000.config.settings import LoraSettings
from hand1000.core.errors import Hand1000Error
from hand1000.storage.digests import digest_file
from hand1000.storage.weights import serialize_tensors
from hand1000.training.lora import ADAPTER_FILE, add_adapter, read_adapter, save_adapter
from tests.support.mutated_models import WEIGHT_MUTATIONS
from tests.support.tiny_models import fresh_base

TARGETS = ["to_v", "to_q", "to_k", "to_out.0", "conv1", "ff.net.2"]


def save_random_adapter(folder: Path) -> None:
    unet = fresh_base().unet
    add_adapter(unet, LoraSettings(rank=2, alpha=3, targets=TARGETS), seed=0)
    save_adapter(unet, "unet", folder)


def test_an_adapter_has_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    save_random_adapter(tmp_path / "here")
    script = "import sys, pathlib, tests.training.test_lora as t; t.save_random_adapter(pathlib.Path(sys.argv[1]))"
    command, root = [sys.executable, "-c", script, str(tmp_path / "there")], Path(__file__).parents[2]
    subprocess.run(command, check=True, cwd=root, env={"PYTHONHASHSEED": "5", "PYTHONPATH": str(root), "HOME": "/tmp"})
    assert digest_file(tmp_path / "here" / ADAPTER_FILE) == digest_file(tmp_path / "there" / ADAPTER_FILE)
    with safe_open(tmp_path / "here" / ADAPTER_FILE, "pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["lora_adapter_metadata"]) == {
        "unet.alpha_pattern": {},
        "unet.lora_alpha": 3,
        "unet.r": 2,
        "unet.rank_pattern": {},
        "unet.target_modules": sorted(TARGETS),
    }


def test_the_bytes_of_tensors_do_not_depend_on_any_order() -> None:
    tensors = {"b": torch.arange(3.0), "a": torch.ones(2, 2, dtype=torch.float16)}
    data = serialize_tensors(tensors, {"y": "ü", "x": "1"})
    assert data == serialize_tensors(dict(sorted(tensors.items())), {"x": "1", "y": "ü"})


@pytest.mark.parametrize(
    "fault", [name for name in WEIGHT_MUTATIONS if name not in ("a pickle", "no file", "a folder")]
)
def test_a_damaged_adapter_is_refused(tmp_path: Path, fault: str) -> None:
    save_random_adapter(tmp_path)
    unet = fresh_base().unet
    assert read_adapter(tmp_path, unet, "unet").rank == 2
    WEIGHT_MUTATIONS[fault][0](tmp_path)
    with pytest.raises(Hand1000Error, match=r"pytorch_lora_weights\.safetensors: cannot be loaded as an adapter"):
        read_adapter(tmp_path, unet, "unet")


@pytest.mark.parametrize("settings", [None, "{", "[]", {}, {"unet.r": 0}, {"unet.r": "2"}, {"unet.lora_alpha": "NaN"}])
def test_settings_of_an_adapter_that_make_no_sense_are_refused(tmp_path: Path, settings: Any) -> None:
    save_random_adapter(tmp_path)
    path = tmp_path / ADAPTER_FILE
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if isinstance(settings, dict) and settings:
        settings = json.dumps({"unet.r": 2, "unet.lora_alpha": 3} | settings)
    metadata = {} if settings is None else {"lora_adapter_metadata": settings if isinstance(settings, str) else "{}"}
    path.write_bytes(serialize_tensors(tensors, metadata))
    with pytest.raises(Hand1000Error, match="its metadata lora_adapter_metadata is missing or malformed"):
        read_adapter(tmp_path, fresh_base().unet, "unet")
