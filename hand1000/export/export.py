"""Export of a fine-tuned model, with a card, to the file formats of other programs."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hand1000.core.errors import Hand1000Error, translate_write_errors
from hand1000.export.fold import fold_fusion, gesture_to_fold
from hand1000.export.former_names import add_text_model_prefix, write_tokenizer_files
from hand1000.export.lora import kohya_weights
from hand1000.export.single_file import convert_to_ldm_keys
from hand1000.gestures import gesture_phrase
from hand1000.pipelines.pipeline_hand1000 import Hand1000Pipeline, load_pipeline
from hand1000.storage.files import replace_directory, write_bytes, write_text
from hand1000.storage.scratch import process_scratch
from hand1000.training.checkpoint import Tensors
from hand1000.training.lora import ADAPTER_DIR

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

Form = Literal["diffusers", "single-file", "lora"]


def export_model(folder: Path, form: Form, out: Path, *, mu: float | None = None, gesture: str | None = None) -> None:
    """Write a fine-tuned model as plain Stable Diffusion, which needs no code of this project.

    Args:
        folder: Model folder.
        form: "diffusers", a folder for `StableDiffusionPipeline.from_pretrained` with the card in `README.md`;
            "single-file", a `.safetensors` file with the keys of the original release; or "lora", a `.safetensors`
            file with the model's adapter in kohya's format, to be loaded on top of the base model. The card of a file
            has the same name with the suffix `.md`.
        out: Folder or file to write, which must not exist. It is written atomically.
        mu: Weight of the text embedding against the fused one, 0 to 1; by default the model's.
        gesture: HaGRID's name of the gesture to fold in; by default the model's only one.

    Raises:
        Hand1000Error: `out` cannot be written, the gesture is ambiguous or unknown, the fusion cannot be folded, or the
            model has no adapter.
    """
    pipeline = load_pipeline(folder)
    mu = pipeline.sampler_settings(mu=mu).mu
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
    elif (folder / ADAPTER_DIR).is_dir():
        _write_file(kohya_weights(pipeline, folder / ADAPTER_DIR, mu, gesture), card, out)
    else:
        raise Hand1000Error(
            f"{folder}: all weights of this model were trained, which no LoRA can hold; choose --to diffusers or "
            "single-file, or train with stage3.training_mode: lora"
        )


def _write_folder(stock: "StableDiffusionPipeline", card: str, out: Path) -> None:
    scratch = process_scratch(out.absolute().parent)
    with translate_write_errors(out):
        stock.save_pretrained(scratch / "model", safe_serialization=True)
        write_tokenizer_files(scratch / "model" / "tokenizer")
        add_text_model_prefix(scratch / "model" / "text_encoder")
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
        f"# Stable Diffusion for people {phrase}",
        f"This is a Hand1000 model as plain Stable Diffusion. The fusion with the gesture is folded into {folded}, at "
        f"mu = {mu:g}. Every prompt must contain the phrase **{phrase}**.",
        "## Load",
        "    from diffusers import StableDiffusionPipeline\n\n"
        f"    pipeline = {load}\n"
        f'    pipeline("a photo of a hand, {phrase}", guidance_scale={settings.guidance_scale:g},\n'
        f"        eta={settings.eta:g}, num_inference_steps={settings.num_inference_steps}).images[0]",
        "The images are equal to Hand1000's for the same seed, with the sampler "
        f"{type(pipeline.scheduler).__name__} and without autoguidance.",
    ]
    if settings.autoguidance_scale > 1:
        parts.append(
            f"The Hand1000 model uses autoguidance with a scale of {settings.autoguidance_scale:g}, for which it has a "
            "second UNet. Plain Stable Diffusion has no autoguidance, so its images show the gesture less reliably."
        )
    parts += [
        "## Licence",
        "The licence of the base model applies to these weights (for Stable Diffusion 1.x: CreativeML OpenRAIL-M, with "
        "its use restrictions), and so does that of the training images (for HaGRID: a variant of CC BY-SA 4.0). No "
        "safety checker is included.",
    ]
    return "\n\n".join(parts) + "\n"
