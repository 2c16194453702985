"""Loading of the base model from a folder, a hub id or an `s3://` address, as the backbone that it is."""

from collections.abc import Collection, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hand1000.core.errors import Hand1000Error
from hand1000.models.backbone import Backbone, Feature
from hand1000.storage.hub import fetch_model_folder, open_model_file
from hand1000.storage.pretrained import check_config

if TYPE_CHECKING:
    import torch

INDEX = "model_index.json"

BACKBONES = {
    "sd": "hand1000.models.stable_diffusion.StableDiffusion",
    "sdxl": "hand1000.models.stable_diffusion_xl.StableDiffusionXL",
    "sd3": "hand1000.models.stable_diffusion_3.StableDiffusion3",
    "zimage": "hand1000.models.z_image.ZImage",
}
"""The class of each backbone, imported when it is needed, by its name in the index of a tuned model."""

DEFAULT_BACKBONE = "sd"
"""The backbone of a tuned model whose index names none."""

OWN_PIPELINE = "Hand1000Pipeline"
"""Class of a tuned model, whose index names the backbone too unless it is the default."""


def load_backbone_class(name: str) -> type[Backbone]:
    """Return the class of the backbone `name`."""
    module, _, class_name = BACKBONES[name].rpartition(".")
    backbone: type[Backbone] = getattr(import_module(module), class_name)
    return backbone


def read_backbone(path: Path, source: str) -> type[Backbone]:
    """Return the class of the backbone by the class of the pipeline in a model's index, the file `path`.

    Raises:
        Hand1000Error: The index is missing or malformed, or names a pipeline of another kind of model.
    """
    if not path.is_file():
        raise Hand1000Error(f"{source}: no diffusers folder: {INDEX} is missing")
    index = check_config(path)
    pipeline_class = index.get("_class_name")
    classes = [load_backbone_class(name) for name in BACKBONES]
    for backbone in classes:
        is_own = pipeline_class == OWN_PIPELINE and index.get("backbone", DEFAULT_BACKBONE) == backbone.name
        if is_own or pipeline_class in backbone.pipeline_classes:
            return backbone
    known = ", ".join(f"{backbone.title} ({backbone.pipeline_classes[0]})" for backbone in classes)
    named = f"pipeline, {pipeline_class!r:.60}"
    if pipeline_class == OWN_PIPELINE:
        named = f"backbone, {index.get('backbone')!r:.60}"
    raise Hand1000Error(f"{source}: its {named}, is not supported; choose a model of {known}")


def open_backbone(folder: Path, source: str) -> type[Backbone]:
    """Return the class of the backbone in a local `folder`, which has every part that its index does not leave out.

    Raises:
        Hand1000Error: See `read_backbone`, or a part is missing.
    """
    backbone = read_backbone(folder / INDEX, source)
    for name in backbone.part_names():
        if not (folder / name).is_dir() and not _is_left_out(backbone, check_config(folder / INDEX), name):
            raise Hand1000Error(f"{source}: its part {name} is missing; copy or download the model once more")
    return backbone


def _is_left_out(backbone: type[Backbone], index: Mapping[str, Any], name: str) -> bool:
    return name in backbone.optional_parts and index.get(name) in (None, [None, None])


def check_features(source: str, features: Collection[Feature]) -> None:
    """Check that a base model has `features`, by its index alone; without any it is not looked at.

    Raises:
        Hand1000Error: It does not have one of them, or is of a kind that is not supported.
    """
    if features:
        with open_model_file(source, INDEX) as path:
            backbone = read_backbone(path, source)
        for feature in features:
            backbone.require(feature, source)


def resolve_base_model(source: str) -> Path:
    """Return the local diffusers folder of `source`.

    Args:
        source: Folder, `s3://` address of a folder, or hub id with its revision, `owner/name@revision`.

    Raises:
        Hand1000Error: The model is missing, or the hub id has no revision.
    """
    folder = fetch_model_folder(source)
    if not (folder / INDEX).is_file():
        raise Hand1000Error(f"{source}: no diffusers folder: {INDEX} is missing")
    return folder


def read_resolution(source: str) -> int:
    """Read the side in pixels of the model's square images from the configurations alone.

    Raises:
        Hand1000Error: The model is of no known kind, or a configuration is missing or malformed.
    """
    folder = resolve_base_model(source)
    return open_backbone(folder, source).read_resolution(folder, source)


def load_base_model(
    source: str,
    device: "torch.device | str" = "cpu",
    *,
    denoiser_dtype: "torch.dtype | None" = None,
    denoiser_only: bool = False,
) -> Backbone:
    """Load a base model in float32.

    Args:
        source: Address of the model, see `resolve_base_model`.
        device: Device of the weights.
        denoiser_dtype: Another dtype of the denoiser; its weights are never in memory in float32.
        denoiser_only: Leave the other parts on the CPU, because training needs only the denoiser on the device.

    Raises:
        Hand1000Error: A part is missing, damaged or saved only as a pickle, the parts do not fit together, or the model
            is of a kind that is not supported.
    """
    import torch

    folder = resolve_base_model(source)
    backbone_class = open_backbone(folder, source)
    backbone_class.read_resolution(folder, source)
    index = check_config(folder / INDEX)
    parts: dict[str, Any] = {}
    for name in backbone_class.part_names():
        if _is_left_out(backbone_class, index, name):
            parts[name] = None
            continue
        dtype = denoiser_dtype if name == backbone_class.denoiser_name else None
        parts[name] = backbone_class.load_part(name, folder / name, source, dtype or torch.float32)
    backbone = backbone_class.of_parts(parts, index, source)
    backbone.check()
    for name, part in parts.items():
        if isinstance(part, torch.nn.Module):
            if not name.startswith("text_encoder"):
                part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            is_on_device = part is backbone.denoiser or not denoiser_only
            part.to(device if is_on_device else "cpu").requires_grad_(False).eval()
    return backbone
