"""The parts and settings of a model folder, read by this project's own loaders.

diffusers would import whatever library `model_index.json` names, so that file is only read as data here.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hand1000.captions.chat_tokenizer import load_token_limit
from hand1000.captions.token_limit import check_prompt
from hand1000.config.sampler import SamplerName, SamplerSettings
from hand1000.core.errors import Hand1000Error
from hand1000.gestures import find_gesture_in_prompt, gesture_phrase
from hand1000.models.backbone import Backbone, sampler_features
from hand1000.models.base_model import INDEX, read_backbone
from hand1000.models.fusion import load_fusion, read_gestures
from hand1000.storage.pretrained import check_config

_OPTIONAL = ("fusion",)
_FORMER_NAMES = {"guide": "guidance_unet", "fuse_empty_prompt": "fuse_null_prompt"}
"""Parts, which are folders too, and settings of version 0.1, and their present names."""


def guidance_name(backbone: type[Backbone]) -> str:
    """Return the name of the part that is the denoiser of autoguidance."""
    return f"guidance_{backbone.denoiser_name}"


@dataclass(frozen=True)
class ModelIndex:
    """What a model folder consists of.

    Attributes:
        backbone: The class of its backbone.
        parts: Folders of the parts by name.
        settings: The sampler's settings.
        values: All values of `model_index.json`.
    """

    backbone: type[Backbone]
    parts: dict[str, Path]
    settings: dict[str, Any]
    values: Mapping[str, Any]


def read_index(folder: Path) -> ModelIndex:
    """Read what a model folder consists of.

    Raises:
        Hand1000Error: `model_index.json` is missing or malformed, or a part is missing or of another class.
    """
    path = folder / INDEX
    backbone = read_backbone(path, str(folder))
    classes = _classes(backbone)
    optional = (*_OPTIONAL, guidance_name(backbone), *backbone.optional_parts)
    parts: dict[str, Path] = {}
    settings: dict[str, Any] = {}
    values = check_config(path)
    for former, value in values.items():
        name = _FORMER_NAMES.get(former, former)
        if name in SamplerSettings.model_fields:
            settings[name] = value
        if name not in classes or (name in optional and value in (None, [None, None])):
            continue
        class_name = value[1] if isinstance(value, list) and len(value) == 2 else None
        if not isinstance(class_name, str) or (classes[name] and class_name not in classes[name]):
            known = " or ".join(classes[name]) or "any scheduler"
            raise Hand1000Error(f"{path}: {former} is {value!r:.80}, not {known}; choose a model of this project")
        parts[name] = folder / former
    if missing := [name for name in classes if name not in parts and name not in optional]:
        raise Hand1000Error(f"{path}: names no {', '.join(missing)}; restore it from a copy")
    return ModelIndex(backbone, parts, settings, values)


def _classes(backbone: type[Backbone]) -> Mapping[str, Collection[str]]:
    """Classes of each part; a scheduler may be of any, because only its noise schedule is read."""
    guidance = {guidance_name(backbone): backbone.part_classes[backbone.denoiser_name]}
    return {**backbone.part_classes, "fusion": ("GestureFusion", "LowRankFusion", "FlatFusion"), **guidance}


def check_prompt_of_folder(folder: Path, prompt: str, gesture: str | None) -> None:
    """Check a prompt as the model's pipeline does, and that it has the gesture's phrase, without loading its weights.

    Raises:
        Hand1000Error: The model does not know the gesture, the prompt lacks its phrase, or the text encoder does not
            read it; or a file is missing or damaged.
    """
    paths = read_index(folder).parts
    limit = load_token_limit(folder, str(folder))
    if "fusion" not in paths:
        check_prompt(prompt, "", limit)
        return
    known = read_gestures(paths["fusion"])
    if gesture is not None and gesture not in known:
        raise Hand1000Error(f"gesture {gesture!r}: this model knows {', '.join(known)} only")
    chosen = find_gesture_in_prompt(prompt, known) if gesture is None else gesture
    check_prompt(prompt, gesture_phrase(chosen), limit, need_phrase=True)


def check_sampler_of_folder(folder: Path, sampler: SamplerName | None, eta: float | None) -> None:
    """Check that a model has the sampler of a call, without loading its weights; None stands for the model's own.

    Raises:
        Hand1000Error: It has not, or `model_index.json` is missing or malformed.
    """
    if sampler is None and eta is None:
        return
    index = read_index(folder)
    own_sampler, own_eta = index.settings.get("sampler", "ddim"), index.settings.get("eta", 0.0)
    for feature in sampler_features(sampler or own_sampler, own_eta if eta is None else eta):
        index.backbone.require(feature, str(folder))


def load_parts(backbone: type[Backbone], paths: Mapping[str, Path], dtype: torch.dtype) -> dict[str, Any]:
    """Load the parts of a model from their folders, by name.

    Raises:
        Hand1000Error: A file is missing or damaged.
    """
    parts: dict[str, Any] = {}
    for name, path in paths.items():
        if name == "fusion":
            parts[name] = load_fusion(path, dtype)
        else:
            part = backbone.denoiser_name if name == guidance_name(backbone) else name
            parts[name] = backbone.load_part(part, path, str(path.parent), dtype)
    return parts


def check_parts_of_pipeline(source: str, pipeline: Any) -> None:
    """Raise a Hand1000Error if two parts of a pipeline do not fit together."""
    backbone = pipeline.backbone
    backbone.check(*[pipeline.guidance_denoiser] if pipeline.guidance_denoiser is not None else [])
    if pipeline.fusion is not None:
        width, expected = pipeline.fusion.config.text_dim, backbone.text_dim
        if width != expected:
            raise Hand1000Error(f"{source}: fusion: text_dim is {width}, but the text encoder's width is {expected}")
