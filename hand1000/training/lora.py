"""Low-rank adapters beside the frozen weights of the denoiser (Hu et al., 2021), through peft."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import ModelMixin
from diffusers.training_utils import cast_training_params
from safetensors import safe_open
from torch import nn

from hand1000.config.settings import LoraSettings
from hand1000.core.errors import Hand1000Error, one_line
from hand1000.core.rng import derived_seed
from hand1000.storage.files import write_bytes
from hand1000.storage.weights import read_tensors, require_complete, serialize_tensors
from hand1000.training.checkpoint import Tensors

ADAPTER_DIR = "lora"
"""Folder of the adapter inside a model's folder; the adapter is merged into the denoiser as well."""

ADAPTER_FILE = "pytorch_lora_weights.safetensors"

ADAPTER_METADATA = "lora_adapter_metadata"
"""Key under which diffusers looks for an adapter's settings."""


def add_adapter(denoiser: ModelMixin, settings: LoraSettings, seed: int) -> None:
    """Freeze `denoiser` in place and add a trainable float32 adapter.

    One factor of the adapter starts at random, the other at zero, so that the untrained adapter changes nothing.

    Raises:
        Hand1000Error: The denoiser has no layer with the name of a target.
    """
    from peft import LoraConfig

    denoiser.requires_grad_(False)
    for target in settings.targets:
        if not any(name == target or name.endswith(f".{target}") for name, _ in denoiser.named_modules()):
            raise Hand1000Error(f"stage3.lora.targets: the denoiser has no layer whose name ends with {target}")
    rank, alpha, targets = settings.rank, settings.alpha, list(settings.targets)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, init_lora_weights="gaussian")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "lora-start"))
        denoiser.add_adapter(config)
    cast_training_params(denoiser, torch.float32)


def save_adapter(denoiser: ModelMixin, name: str, folder: Path) -> None:
    """Write the adapter of `denoiser` into `folder`, for `load_lora_weights` of the stock pipeline.

    Its tensors have the prefix `name`, that of the denoiser in the pipeline.

    Equal adapters give equal bytes. diffusers would write peft's version, all settings of that version, which older
    ones refuse, and the targets in the order of a set, which differs between processes.
    """
    from peft import get_peft_model_state_dict

    config = denoiser.peft_config["default"]
    settings = {
        f"{name}.r": config.r,
        f"{name}.lora_alpha": config.lora_alpha,
        f"{name}.target_modules": sorted(config.target_modules),
        f"{name}.rank_pattern": {},
        f"{name}.alpha_pattern": {},
    }
    factors = get_peft_model_state_dict(denoiser, adapter_name="default")
    tensors = {f"{name}.{layer}": factor.detach().cpu().contiguous() for layer, factor in factors.items()}
    metadata = {"format": "pt", ADAPTER_METADATA: json.dumps(settings, sort_keys=True)}
    write_bytes(folder / ADAPTER_FILE, serialize_tensors(tensors, metadata))


@dataclass(frozen=True)
class Adapter:
    """An adapter as it was saved; `factors` are A, (rank, in), and B, (out, rank), of each layer, by name."""

    rank: int
    alpha: float
    factors: Tensors


def read_adapter(folder: Path, denoiser: nn.Module, name: str) -> Adapter:
    """Read the adapter that `save_adapter` wrote for a denoiser of this form and name.

    Raises:
        Hand1000Error: The file is missing or damaged, or a factor is missing or fits no layer of the denoiser.
    """
    path, kind = folder / ADAPTER_FILE, "an adapter"
    tensors = read_tensors(path, kind, "restore it from a copy")
    factors = {layer.removeprefix(f"{name}."): factor for layer, factor in tensors.items()}
    try:
        with safe_open(path, "pt") as file:
            settings = json.loads((file.metadata() or {})[ADAPTER_METADATA])
        rank, alpha = settings[f"{name}.r"], float(settings[f"{name}.lora_alpha"])
        if not isinstance(rank, int) or rank < 1 or not 0 < alpha < math.inf:
            raise ValueError(f"rank {rank!r:.40} and alpha {alpha!r:.40}")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        reason = f"its metadata {ADAPTER_METADATA} is missing or malformed ({one_line(error)[:100]})"
        raise Hand1000Error(f"{path}: cannot be loaded as {kind}: {reason}; restore it from a copy") from error
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, module in denoiser.named_modules():
        if any(f"{layer}.lora_{side}.weight" in factors for side in "AB") and isinstance(
            weight := getattr(module, "weight", None), torch.Tensor
        ):
            rows, columns, *kernel = weight.shape
            shapes[f"{layer}.lora_A.weight"] = (rank, columns, *kernel)
            shapes[f"{layer}.lora_B.weight"] = (rows, rank, *[1] * len(kernel))
    wrong = [(layer, value.shape, shapes[layer]) for layer, value in factors.items() if layer in shapes]
    require_complete(
        str(path),
        kind,
        shapes.keys() - factors.keys(),
        factors.keys() - shapes.keys(),
        [fault for fault in wrong if tuple(fault[1]) != fault[2]],
    )
    return Adapter(rank, alpha, factors)


def merge_adapter(denoiser: ModelMixin) -> None:
    """Merge the adapter of `denoiser` into its weights, in place: W + B A alpha / rank; nothing of peft remains."""
    denoiser.fuse_lora()
    denoiser.unload_lora()
    denoiser.requires_grad_(False).eval()
