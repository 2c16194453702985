"""A model of Hand1000 as the files that other programs read, with a card."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hand1000.core.errors import Hand1000Error, translate_write_errors
from hand1000.export.fold import fold_fusion, gesture_to_fold
from hand1000.export.lora import kohya_weights
from hand1000.export.single_file import convert_to_ldm_keys
from hand1000.gestures import gesture_phrase
from hand1000.pipelines.pipeline_hand1000 import LIMITS, Hand1000Pipeline, load_pipeline
from hand1000.storage.files import replace_directory, write_bytes, write_text
from hand1000.storage.scratch import process_scratch
from hand1000.training.checkpoint import Tensors
from hand1000.training.model_folder import ADAPTER

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

Form = Literal["diffusers", "single-file", "lora"]


def export_model(folder: Path, form: Form, out: Path, *, mu: float | None = None, gesture: str | None = None) -> None:
    """Write a tuned model as plain Stable Diffusion that needs nothing of this project.

    Args:
        folder: of the model.
        form: "diffusers", a folder that `StableDiffusionPipeline.from_pretrained` loads, its card in `README.md`;
            "single-file", one `.safetensors` with the names of the original release; or "lora", one with kohya's
            names for a model's adapter, to be loaded beside the base model. The card of a file lies beside it, `.md`.
        out: the folder or file; nothing may be there yet. It is whole or not there.
        mu: weight of the text embedding against the fused one, 0..1; by default the model's.
        gesture: which of the model's gestures is folded in; by default the only one.

    Raises:
        Hand1000Error: not a model's folder, `out` exists or has another suffix, no space is left, the gesture is none
            of the model's or not chosen of several, the fusion cannot be folded (`fold.fold_fusion`,
            `kohya.kohya_weights`), or the model has no adapter.
    """
    pipeline = load_pipeline(folder)
    mu = pipeline.config.mu if mu is None else mu
    low, high = LIMITS["mu"]
    if not low <= mu <= high:
        raise Hand1000Error(f"mu: {mu} is out of range; choose {low} to {high}")
    if out.exists():
        raise Hand1000Error(f"{out}: exists already; choose another name, or remove it")
    if form != "diffusers" and out.suffix != ".safetensors":
        raise Hand1000Error(f"{out}: the file's name must end in .safetensors")
    gesture = gesture_to_fold(pipeline, gesture)
    card = _card(pipeline, mu, gesture, form)
    if form == "diffusers":
        _write_folder(fold_fusion(pipeline, mu, gesture), card, out)
    elif form == "single-file":
        _write_file(convert_to_ldm_keys(fold_fusion(pipeline, mu, gesture)), card, out)
    elif (folder / ADAPTER).is_dir():
        _write_file(kohya_weights(pipeline, folder / ADAPTER, mu, gesture), card, out)
    else:
        raise Hand1000Error(
            f"{folder}: all weights of this model were tuned, which no LoRA can hold; choose --to diffusers or "
            "single-file, or train with stage3.training_mode: lora"
        )


def _write_folder(stock: "StableDiffusionPipeline", card: str, out: Path) -> None:
    scratch = process_scratch(out.absolute().parent)
    with translate_write_errors(out):
        stock.save_pretrained(scratch / "model", safe_serialization=True)
    write_text(scratch / "model" / "README.md", card)
    replace_directory(scratch / "model", out)


def _write_file(weights: Tensors, card: str, out: Path) -> None:
    from safetensors.torch import save

    write_text(out.with_suffix(".md"), card)
    write_bytes(out, save(weights, metadata={"format": "pt"}))


def _card(pipeline: Hand1000Pipeline, mu: float, gesture: str, form: Form) -> str:
    phrase = gesture_phrase(gesture)
    settings = pipeline.config
    load = {
        "diffusers": 'StableDiffusionPipeline.from_pretrained("FOLDER", safety_checker=None)',
        "single-file": 'StableDiffusionPipeline.from_single_file("FILE.safetensors", safety_checker=None)',
        "lora": 'StableDiffusionPipeline.from_pretrained("BASE MODEL", safety_checker=None)\n'
        '    pipeline.load_lora_weights("FILE.safetensors")',
    }[form]
    folded = "the cross-attention" if form == "lora" else "the text encoder and the cross-attention"
    parts = [
        f"# Stable Diffusion that draws people {phrase}",
        f"A model of Hand1000 as plain Stable Diffusion: the fusion with the gesture is folded into {folded}, at mu = "
        f"{mu:g}. Every prompt must hold the phrase **{phrase}**.",
        "## Load",
        "    from diffusers import StableDiffusionPipeline\n\n"
        f"    pipeline = {load}\n"
        f'    pipeline("a photo of a hand, {phrase}", guidance_scale={settings.guidance_scale:g},\n'
        f"        eta={settings.eta:g}, num_inference_steps={settings.num_inference_steps}).images[0]",
        f"The pictures are Hand1000's for the same seed, with the sampler {type(pipeline.scheduler).__name__} and "
        "autoguidance 1.",
    ]
    if settings.autoguidance_scale > 1:
        parts.append(
            f"The model itself draws with autoguidance {settings.autoguidance_scale:g}, for which it holds a second "
            "UNet. Plain Stable Diffusion has no such thing, so these pictures are less sure of the gesture."
        )
    parts += [
        "## Licence",
        "That of the base model it was tuned from, whose terms go with its weights (for Stable Diffusion 1.x: "
        "CreativeML OpenRAIL-M, with its use restrictions), and that of the images it was tuned on (for HaGRID: a "
        "variant of CC BY-SA 4.0). There is no safety checker within.",
    ]
    return "\n\n".join(parts) + "\n"
