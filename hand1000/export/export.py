"""Export of a fine-tuned model, with a card, to the file formats of other programs."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hand1000.captions.token_limit import fit_caption
from hand1000.core.errors import Hand1000Error, translate_write_errors
from hand1000.export.fold import fold_fusion, gesture_to_fold
from hand1000.export.former_names import add_text_model_prefix, write_tokenizer_files
from hand1000.export.lora import (
    MAX_SHIFT_ERROR,
    check_precision,
    final_norm,
    is_linear,
    lora_weights,
    shift_error,
)
from hand1000.export.lora_names import KohyaModel
from hand1000.export.measured import ExportMetrics
from hand1000.export.sampler import export_sampler
from hand1000.export.single_file import convert_to_ldm_keys
from hand1000.export.target import Form, Precision, check_target
from hand1000.gestures import gesture_phrase
from hand1000.models.backbone import Backbone
from hand1000.models.base_model import DEFAULT_BACKBONE
from hand1000.pipelines.pipeline_hand1000 import Hand1000Pipeline, load_pipeline
from hand1000.storage.files import replace_directory, replace_file, write_text
from hand1000.storage.scratch import process_scratch
from hand1000.training.checkpoint import Tensors
from hand1000.training.lora import ADAPTER_DIR

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def export_model(
    folder: Path,
    form: Form,
    out: Path,
    *,
    mu: float | None = None,
    gesture: str | None = None,
    precision: Precision = "float32",
    measured: ExportMetrics | None = None,
) -> None:
    """Write a fine-tuned model as a stock model of its kind, which needs no code of this project.

    Args:
        folder: Model folder.
        form: "diffusers", a folder for `from_pretrained` of the stock pipeline with the card in `README.md`;
            "single-file", a `.safetensors` file with the keys of the original release; or "lora", a `.safetensors`
            file with the model's adapter in kohya's format, to be loaded on top of the base model, or "lora-diffusers",
            the same with diffusers' names. The card of a file has the same name with the suffix `.md`.
        out: Folder or file to write, which must not exist. It is written atomically.
        mu: Weight of the text embedding against the fused one, 0 to 1; by default the model's.
        gesture: HaGRID's name of the gesture to fold in; by default the model's only one.
        precision: Type of the weights. float16 halves the size; the images then differ by its rounding.
        measured: What an export of the model loses, for the card; see `read_export_metrics`.

    Raises:
        Hand1000Error: `out` cannot be written, the gesture is ambiguous or unknown, the fusion cannot be folded, or the
            model has no adapter.
    """
    check_target(form, out, mu=mu, gesture=gesture)
    pipeline = load_pipeline(folder)
    mu = pipeline.sampler_settings(mu=mu).mu
    gesture = gesture_to_fold(pipeline, gesture)
    card = _card(pipeline, mu, gesture, form, measured, precision)
    dtype = getattr(torch, precision)
    if form == "diffusers":
        _write_folder(fold_fusion(pipeline, mu, gesture).to(dtype), card, out)
    elif form == "single-file":
        stock = fold_fusion(pipeline, mu, gesture).to(dtype)
        _write_file(convert_to_ldm_keys(stock), card, out, {"format": "pt"})
    elif (folder / ADAPTER_DIR).is_dir():
        weights, metadata = lora_weights(pipeline, folder / ADAPTER_DIR, mu, gesture, form)
        if not is_linear(pipeline):
            check_precision(final_norm(pipeline), precision)
        _write_file({name: value.to(dtype) for name, value in weights.items()}, card, out, metadata)
    else:
        raise Hand1000Error(
            f"{folder}: all weights of this model were trained, which no LoRA can hold; choose --to diffusers or "
            "single-file, or train with stage3.training_mode: lora"
        )


def _write_folder(stock: "DiffusionPipeline", card: str, out: Path) -> None:
    scratch = process_scratch(out.absolute().parent)
    with translate_write_errors(out):
        stock.save_pretrained(scratch / "model", safe_serialization=True)
        for tokenizer in (scratch / "model").glob("tokenizer*"):
            write_tokenizer_files(tokenizer)
        add_text_model_prefix(scratch / "model" / "text_encoder")
    write_text(scratch / "model" / "README.md", card)
    replace_directory(scratch / "model", out)


def _write_file(weights: Tensors, card: str, out: Path, metadata: dict[str, str]) -> None:
    from safetensors.torch import save_file

    write_text(out.with_suffix(".md"), card)
    # Never as bytes in memory, which would be a second copy of the model.
    scratch = process_scratch(out.absolute().parent) / out.name
    with translate_write_errors(out):
        save_file(weights, scratch, metadata=metadata)
        replace_file(scratch, out)


_SAMPLER_TITLES = {"ddim": "DDIM", "dpmpp_2m": "DPM++ 2M", "dpmpp_2m_sde": "DPM++ 2M SDE", "unipc": "UniPC"}
"""Samplers as other programs name them."""


def _card(
    pipeline: Hand1000Pipeline,
    mu: float,
    gesture: str,
    form: Form,
    measured: ExportMetrics | None,
    precision: Precision = "float32",
) -> str:
    phrase, settings = gesture_phrase(gesture), pipeline.config
    limit = pipeline.backbone.token_limit
    prompt = fit_caption(f"a photo of a hand, {phrase}", phrase, limit)
    steps = export_sampler(pipeline)["num_inference_steps"]
    backbone = pipeline.backbone
    stock = backbone.pipeline_classes[0]
    name = "Stable Diffusion" if backbone.name == DEFAULT_BACKBONE else backbone.title
    # The stock pipelines complain about parts that are missing unless they are named.
    missing = ["safety_checker"] if backbone.name == DEFAULT_BACKBONE else []
    missing += [name for name in backbone.optional_parts if getattr(backbone, name) is None]
    option = "".join(f", {name}=None" for name in missing)
    # transformers 5 loads its parts as they were saved and diffusers its own in float32, which few pipelines can mix.
    is_half = form == "diffusers" and precision == "float16"
    dtype = ", torch_dtype=torch.float16" if is_half else ""
    single = option if "unet" in backbone.part_names() else _name_parts_outside(backbone)
    load = {
        "diffusers": f'{stock}.from_pretrained("FOLDER"{option}{dtype})',
        "single-file": f'{stock}.from_single_file("FILE.safetensors"{single})',
        "lora": f'{stock}.from_pretrained("BASE MODEL"{option})\n    pipeline.load_lora_weights("FILE.safetensors")',
    }[form.removesuffix("-diffusers")]
    equal = f"Hand1000's for the same seed in {steps} steps"
    stock_scheduler = pipeline.backbone.schedule.stock_scheduler(settings.sampler)
    scheduler = type(stock_scheduler).__name__
    guidance = backbone.stock_guidance_scale(settings.guidance_scale)
    eta = [f"eta={settings.eta:g}"] if scheduler == "DDIMScheduler" else []
    title = "Euler" if scheduler == "FlowMatchEulerDiscreteScheduler" else _SAMPLER_TITLES[settings.sampler]
    parts = [
        f"# {name} for people {phrase}",
        f"This is a Hand1000 model as plain {name}. The fusion with the gesture is folded into "
        f"{'its cross-attention' if backbone.denoiser_name == 'unet' else 'the layer that reads the text'}, at "
        f"mu = {mu:g}. Every prompt must contain the phrase **{phrase}**.",
        f"The text encoder reads {limit.max_text_tokens} tokens, of which the phrase has "
        f"{limit.count(phrase) - limit.marks}. "
        "Programs cut a longer prompt at its end, most of them silently: shorten the words before the phrase.",
        "## Load",
        *_name_readers(backbone, form),
        f"{'    import torch' + chr(10) if is_half else ''}    from diffusers import {stock}\n\n"
        f"    pipeline = {load}\n"
        f'    pipeline("{prompt}", height={pipeline.resolution}, width={pipeline.resolution},\n'
        f"        {', '.join([f'guidance_scale={guidance:g}', *eta])},\n"
        f"        num_inference_steps={steps}).images[0]",
    ]
    if form == "diffusers":
        classes = [kind for kinds in backbone.part_classes.values() for kind in kinds]
        versions = "5" if any(kind.startswith(("T5", "Qwen")) for kind in classes) else "4.57 and 5"
        parts.append(
            f"The images are equal to {equal}, with the sampler of this folder, {title}, and without autoguidance. The "
            f"folder loads with transformers {versions}."
        )
    else:
        if form == "single-file" and single != option:
            others = "text encoders" if backbone.name == "sd3" else "text encoder and no autoencoder"
            parts.append(f"The file has no {others}. They are those of the base model.")
        parts += [
            f"The images are equal to {equal}, without autoguidance and with this sampler, {title}, which the file "
            "cannot hold:",
            f"    from diffusers import {scheduler}\n\n"
            f"    pipeline.scheduler = {scheduler}({_scheduler_arguments(stock_scheduler.config)})",
        ]
    if (
        form.startswith("lora")
        and backbone.name == DEFAULT_BACKBONE
        and not is_linear(pipeline)
        and (error := shift_error(final_norm(pipeline), "float16")) > MAX_SHIFT_ERROR
    ):
        parts.append(
            f"Use it in float32: in float16, rounding would change the gesture's shift by {error:.2g} of its length."
        )
    if steps != settings.num_inference_steps:
        parts.append(
            f"Hand1000 takes {settings.num_inference_steps} steps. With that number diffusers' sampler leaves the "
            f"schedule, so {steps} is named here instead."
        )
    if settings.autoguidance_scale > 1:
        parts.append(
            f"The Hand1000 model uses autoguidance with a scale of {settings.autoguidance_scale:g}, for which it has a "
            f"second {'UNet' if backbone.denoiser_name == 'unet' else 'transformer'}. Plain {name} has no "
            "autoguidance, so its images show the gesture less reliably. "
            "The metrics and images of the model's own report are with autoguidance and do not hold for this export."
        )
        parts += _describe_measured(measured, mu, gesture)
    parts += [
        "## Licence",
        "The licence of the base model applies to these weights (for Stable Diffusion 1.x: CreativeML OpenRAIL-M, for "
        "XL: CreativeML Open RAIL++-M, both with use restrictions), and so does that of the training images (for "
        "HaGRID: a variant of CC BY-SA 4.0). No safety checker is included.",
    ]
    return "\n\n".join(parts) + "\n"


def _name_readers(backbone: Backbone, form: Form) -> list[str]:
    """Say who reads a LoRA whose names diffusers does not know."""
    if form != "lora" or backbone.denoiser_name == "unet" or not isinstance(backbone.denoiser, KohyaModel):
        return []
    return [
        "The file has the names of kohya's trainer, which ComfyUI reads and diffusers does not: for these lines, "
        "export the model with `--to lora-diffusers`."
    ]


def _name_parts_outside(backbone: Backbone) -> str:
    """Arguments of `from_single_file` for what the file of a transformer does not hold."""
    outside = ("text_encoder", "tokenizer", *(["vae"] if backbone.name == "zimage" else []))
    names = [name for name in backbone.part_names() if name.startswith(outside)]
    return "".join(f", {name}={None if getattr(backbone, name) is None else name}" for name in names)


def _describe_measured(measured: ExportMetrics | None, mu: float, gesture: str) -> list[str]:
    """Paragraphs of the card on what was measured without autoguidance."""
    if measured is None or not measured.metrics:
        return ["How much this export loses was not measured."]
    if measured.mu != mu:
        return [f"How much it loses was measured at mu = {measured.mu:g} only, not at this export's {mu:g}."]
    selected = measured.select(gesture)
    return [
        f"Measured on the first {selected.n} test prompts of the gesture, with the same seeds, at this mu:",
        selected.table().markdown().strip(),
        "The difference is export - model, with its 95 % interval. ↓ lower is better, ↑ higher is better.",
    ]


def _scheduler_arguments(config: Mapping[str, Any]) -> str:
    names = ["beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type", "rescale_betas_zero_snr"]
    names += ["num_train_timesteps", "timestep_spacing", "clip_sample", "set_alpha_to_one", "steps_offset"]
    names += ["algorithm_type", "shift"]
    return ", ".join(f"{name}={config[name]!r}" for name in names if config.get(name) is not None)
