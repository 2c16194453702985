"""The small base model from scratch: render images, train autoencoder, text encoder and UNet."""

from collections.abc import Mapping
from typing import Any

from flytekit.types.directory import FlyteDirectory

from hand1000.config.pretraining import PretrainSettings
from hand1000.storage.files import read_jsonl, write_jsonl
from tasks.context import RunContext, TaskContext
from tasks.decorators import artifact_task


def renderer_version(run: RunContext, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The version of the renderer, on which rendered images depend."""
    from hand1000.data.render.dataset import RENDERER_VERSION

    return {"renderer": RENDERER_VERSION}


@artifact_task(load=renderer_version)
def render_pretraining_images(
    context: TaskContext, images: int, gesture_images: int, image_size: int, seed: int
) -> None:
    """Hands in arbitrary poses, and a few of each gesture, in HaGRID's layout."""
    from hand1000.data.synthetic import render_synthetic_images

    render_synthetic_images(
        context.output_dir,
        size=image_size,
        images=images,
        gesture_images=gesture_images,
        seed=seed,
        on_progress=context.on_progress,
    )


@artifact_task(key_by={"settings": PretrainSettings.autoencoder_key_fields})
def train_autoencoder(context: TaskContext, images: FlyteDirectory, settings: PretrainSettings) -> None:
    """`vae/` and its history."""
    from hand1000.data.synthetic import load_synthetic_images
    from hand1000.training.pretrain_base import train_autoencoder

    examples, _ = load_synthetic_images(context.download(images), 180)
    autoencoder, history = train_autoencoder(examples, settings, context.train_context(settings.seed))
    autoencoder.save_pretrained(context.output_dir / "vae")
    write_jsonl(context.output_dir / "history.jsonl", history)


@artifact_task(key_by={"settings": PretrainSettings.text_encoder_key_fields})
def train_text_encoder(
    context: TaskContext, images: FlyteDirectory, autoencoder: FlyteDirectory, settings: PretrainSettings
) -> None:
    """`text_encoder/`, `tokenizer/` and the history."""
    from diffusers import AutoencoderKL

    from hand1000.data.synthetic import load_synthetic_images
    from hand1000.storage.pretrained import load_model
    from hand1000.training.pretrain_base import train_text_encoder

    examples, captions = load_synthetic_images(context.download(images), settings.max_tilt)
    vae = load_model(AutoencoderKL, context.download(autoencoder) / "vae", "an autoencoder")
    encoder, tokenizer, history = train_text_encoder(
        examples, captions, vae, settings, context.train_context(settings.seed)
    )
    encoder.save_pretrained(context.output_dir / "text_encoder")
    tokenizer.save_pretrained(context.output_dir / "tokenizer")
    write_jsonl(context.output_dir / "history.jsonl", history)


@artifact_task(key_by={"settings": PretrainSettings.base_key_fields})
def train_base(
    context: TaskContext,
    images: FlyteDirectory,
    autoencoder: FlyteDirectory,
    text_encoder: FlyteDirectory,
    settings: PretrainSettings,
) -> None:
    """The base model as a diffusers folder in half precision, with recipe, loss curves and an image grid."""
    from diffusers import AutoencoderKL
    from transformers import CLIPTextModel, CLIPTokenizer

    from hand1000.data.synthetic import load_synthetic_images
    from hand1000.storage.pretrained import load_model, load_part
    from hand1000.training.pretrain_base import save_base, train_base

    examples, captions = load_synthetic_images(context.download(images), settings.max_tilt)
    parts = {"autoencoder": context.download(autoencoder), "text_encoder": context.download(text_encoder)}
    vae = load_model(AutoencoderKL, parts["autoencoder"] / "vae", "an autoencoder")
    encoder = load_model(CLIPTextModel, parts["text_encoder"] / "text_encoder", "a text encoder")
    tokenizer = load_part(CLIPTokenizer, parts["text_encoder"] / "tokenizer", "a tokenizer")
    base, history = train_base(
        examples, captions, vae, encoder, tokenizer, settings, context.train_context(settings.seed)
    )
    curves = {name: [row for _, row in read_jsonl(part / "history.jsonl")] for name, part in parts.items()}
    save_base(context.output_dir, base, settings, curves | {"base": history}, captions[:8])
