"""Doors of models: folders of which one file is damaged, and adapters. What is accepted must also generate."""

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from hand1000.config.settings import LoraSettings
from hand1000.models.base_model import load_base_model
from hand1000.pipelines.pipeline_hand1000 import load_pipeline
from hand1000.training.lora import ADAPTER_FILE, add_adapter, read_adapter, save_adapter
from tests.fuzzing.harness import Door
from tests.fuzzing.mutations import damage_bytes, damage_value, odd_value
from tests.support.mutated_models import CONFIG_MUTATIONS, WEIGHT_MUTATIONS
from tests.support.tiny_models import TEXTS, fresh_base, save_gesture_model

WEIGHTS = ("vae", "text_encoder", "unet", "fusion", "guidance_unet")
DOCUMENTS = (
    "model_index.json",
    "scheduler/scheduler_config.json",
    "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json",
    *(f"{part}/config.json" for part in WEIGHTS),
)


class Damage(NamedTuple):
    """What is done to a file below the model's folder, by a random generator of this seed."""

    kind: str
    file: str
    seed: int


def _make_damage(rng: random.Random) -> Damage:
    kind = rng.choice(("bytes", "value", "value", "value", "odd value", "header", "weights", "config", "remove"))
    if kind in ("header", "weights", "config"):
        file = rng.choice(WEIGHTS)
    else:
        file = rng.choice((*DOCUMENTS, *WEIGHTS)) if kind in ("bytes", "remove") else rng.choice(DOCUMENTS)
    return Damage(kind, file, rng.randrange(2**32))


def _weights(folder: Path) -> Path:
    return next(folder.glob("*.safetensors"))


def _damage_header(path: Path, rng: random.Random) -> None:
    """Damage the listing of the tensors in a safetensors file, with a fitting length."""
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = damage_value(rng, json.loads(data[8 : 8 + length]))
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def _apply(damage: Damage, folder: Path) -> None:
    rng = random.Random(damage.seed)
    path = folder / damage.file
    if path.is_dir() and damage.kind in ("bytes", "remove"):
        path = _weights(path)
    if damage.kind == "bytes":
        path.write_bytes(damage_bytes(rng, path.read_bytes()))
    elif damage.kind == "remove":
        path.unlink()
    elif damage.kind in ("value", "odd value"):
        value = json.loads(path.read_text())
        changed: Any = damage_value(rng, value)
        if damage.kind == "odd value" and isinstance(value, dict):
            changed = value | {rng.choice(sorted(value)): odd_value(rng)}
        path.write_bytes(json.dumps(changed).encode("utf-8", "surrogatepass"))
    elif damage.kind == "header":
        _damage_header(_weights(path), rng)
    elif damage.kind == "weights":
        rng.choice(list(WEIGHT_MUTATIONS.values()))[0](path)
    else:
        rng.choice(list(CONFIG_MUTATIONS.values()))(path)


def _load_model(damage: Damage, folder: Path) -> None:
    torch.set_num_threads(1)  # A forked process must not use the threads of its parent.
    _apply(damage, save_gesture_model(folder / "model"))
    pipeline = load_pipeline(folder / "model")
    pipeline(TEXTS[0], num_inference_steps=1, generator=torch.Generator().manual_seed(0))


def _load_base(damage: Damage, folder: Path) -> None:
    torch.set_num_threads(1)
    _apply(damage, save_gesture_model(folder / "model"))
    load_base_model(str(folder / "model"))


def _load_adapter(damage: Callable[[Path, random.Random], None], seed: int, folder: Path) -> None:
    torch.set_num_threads(1)
    unet = fresh_base().unet
    add_adapter(unet, LoraSettings(rank=2, alpha=3, targets=["to_q", "conv1"]), seed=0)
    save_adapter(unet, "unet", folder)
    damage(folder, random.Random(seed))
    read_adapter(folder, fresh_base().unet, "unet")


ADAPTER_DAMAGES: dict[str, Callable[[Path, random.Random], None]] = {
    "bytes": lambda folder, rng: (folder / ADAPTER_FILE).write_bytes(  # type: ignore[dict-item, return-value]
        damage_bytes(rng, (folder / ADAPTER_FILE).read_bytes())
    ),
    "header": lambda folder, rng: _damage_header(folder / ADAPTER_FILE, rng),
    "settings": lambda folder, rng: _damage_settings(folder / ADAPTER_FILE, rng),
    "weights": lambda folder, rng: rng.choice(list(WEIGHT_MUTATIONS.values()))[0](folder),
}


def _damage_settings(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    settings = damage_value(rng, json.loads(header["__metadata__"]["lora_adapter_metadata"]))
    header["__metadata__"]["lora_adapter_metadata"] = json.dumps(settings)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


DOORS = [
    Door("model folder", _make_damage, _load_model, weight=0.3),
    Door("base model folder", _make_damage, _load_base, weight=0.3),
    Door(
        "adapter file",
        lambda rng: (rng.choice(sorted(ADAPTER_DAMAGES)), rng.randrange(2**32)),
        lambda value, folder: _load_adapter(ADAPTER_DAMAGES[value[0]], value[1], folder),
        weight=0.3,
    ),
]
