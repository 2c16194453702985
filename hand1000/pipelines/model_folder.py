"""The parts and settings of a model folder, read by this project's own loaders.

diffusers would import whatever library `model_index.json` names, so that file is only read as data here.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel

from hand1000.captions.token_limit import TokenLimit, check_prompt, load_tokenizer
from hand1000.config.sampler import SamplerSettings
from hand1000.core.errors import Hand1000Error
from hand1000.gestures import find_gesture_in_prompt, gesture_phrase
from hand1000.models.base_model import check_parts
from hand1000.models.fusion import load_fusion, read_gestures
from hand1000.models.noise_schedule import make_noise_scheduler
from hand1000.storage.pretrained import check_config, load_model

INDEX = "model_index.json"

_CLASSES: Mapping[str, Collection[str]] = {
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
    "unet": ("UNet2DConditionModel",),
    "scheduler": (),
    "fusion": ("GestureFusion", "LowRankFusion", "FlatFusion"),
    "guidance_unet": ("UNet2DConditionModel",),
}
"""Classes of each part; a scheduler may be of any, because only its noise schedule is read."""

_OPTIONAL = ("fusion", "guidance_unet")
_FORMER_NAMES = {"guide": "guidance_unet", "fuse_empty_prompt": "fuse_null_prompt"}
"""Parts, which are folders too, and settings of version 0.1, and their present names."""


def read_index(folder: Path) -> tuple[dict[str, Path], dict[str, Any]]:
    """Return the folders of the parts of a model by name, and its sampler's settings.

    Raises:
        Hand1000Error: `model_index.json` is missing or malformed, or a part is missing or of another class.
    """
    path = folder / INDEX
    parts: dict[str, Path] = {}
    settings: dict[str, Any] = {}
    for former, value in check_config(path).items():
        name = _FORMER_NAMES.get(former, former)
        if name in SamplerSettings.model_fields:
            settings[name] = value
        if name not in _CLASSES or (name in _OPTIONAL and value in (None, [None, None])):
            continue
        class_name = value[1] if isinstance(value, list) and len(value) == 2 else None
        if not isinstance(class_name, str) or (_CLASSES[name] and class_name not in _CLASSES[name]):
            known = " or ".join(_CLASSES[name]) or "any scheduler"
            raise Hand1000Error(f"{path}: {former} is {value!r:.80}, not {known}; choose a model of this project")
        parts[name] = folder / former
    if missing := [name for name in _CLASSES if name not in parts and name not in _OPTIONAL]:
        raise Hand1000Error(f"{path}: names no {', '.join(missing)}; restore it from a copy")
    return parts, settings


def check_prompt_of_folder(folder: Path, prompt: str, gesture: str | None) -> None:
    """Check a prompt as the model's pipeline does, and that it has the gesture's phrase, without loading its weights.

    Raises:
        Hand1000Error: The model does not know the gesture, the prompt lacks its phrase, or the text encoder does not
            read it; or a file is missing or damaged.
    """
    paths, _ = read_index(folder)
    limit = TokenLimit.of(load_tokenizer(folder, str(folder)))
    if "fusion" not in paths:
        check_prompt(prompt, "", limit)
        return
    known = read_gestures(paths["fusion"])
    if gesture is not None and gesture not in known:
        raise Hand1000Error(f"gesture {gesture!r}: this model knows {', '.join(known)} only")
    chosen = find_gesture_in_prompt(prompt, known) if gesture is None else gesture
    check_prompt(prompt, gesture_phrase(chosen), limit, need_phrase=True)


def load_parts(folder: Path, paths: Mapping[str, Path], dtype: torch.dtype) -> dict[str, Any]:
    """Load the parts of a model from their folders, by name.

    Raises:
        Hand1000Error: A file is missing or damaged.
    """
    parts: dict[str, Any] = {}
    for name, path in paths.items():
        if name == "vae":
            parts[name] = load_model(AutoencoderKL, path, "an autoencoder", torch_dtype=dtype)
        elif name == "text_encoder":
            parts[name] = load_model(CLIPTextModel, path, "a text encoder of CLIP", dtype=dtype)
        elif name in ("unet", "guidance_unet"):
            parts[name] = load_model(UNet2DConditionModel, path, "a UNet", torch_dtype=dtype)
        elif name == "tokenizer":
            parts[name] = load_tokenizer(folder, str(folder))
        elif name == "scheduler":
            parts[name] = make_noise_scheduler(check_config(path / "scheduler_config.json"), str(folder))
        else:
            parts[name] = load_fusion(path, dtype)
    return parts


def check_parts_of_pipeline(source: str, pipeline: Any) -> None:
    """Raise a Hand1000Error if two parts of a pipeline do not fit together."""
    guidance = [pipeline.guidance_unet] if pipeline.guidance_unet is not None else []
    check_parts(source, pipeline.vae, pipeline.text_encoder, pipeline.unet, *guidance)
    if pipeline.fusion is not None:
        width, expected = pipeline.fusion.config.text_dim, pipeline.text_encoder.config.hidden_size
        if width != expected:
            raise Hand1000Error(f"{source}: fusion: text_dim is {width}, but the text encoder's width is {expected}")
