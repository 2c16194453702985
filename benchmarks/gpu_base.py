"""A base model of 128 px with a larger UNet, trained on a GPU by the recipe of the small base model.

    .venv/bin/python -m benchmarks.gpu_base outline FOLDER [--config workflows/configs/pretrain-128.yaml]
    python -m benchmarks.gpu_base train FOLDER [--config workflows/configs/pretrain-128.yaml]

`outline` writes the untrained model, from which `benchmarks.gpu_trainings prepare` learns the size of the images and
the token limit. `train` renders the images on all cores and trains autoencoder, text encoder and UNet, as
`workflows/pretrain_base.py` does, without MediaPipe, Flyte and MLflow.
"""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hand1000.config.pretraining import PretrainSettings

TOKENIZER_OF = "models/small-base"
"""The model whose tokenizer knows the words of the captions; the one that is trained learns its own from them."""


def write_outline(folder: Path, settings: "PretrainSettings") -> None:
    """Write an untrained base model of the settings' size."""
    from hand1000.captions.token_limit import load_tokenizer
    from hand1000.models import small_base
    from hand1000.models.base_model import resolve_base_model
    from hand1000.models.stable_diffusion import StableDiffusion

    tokenizer = load_tokenizer(resolve_base_model(TOKENIZER_OF), TOKENIZER_OF)
    base = StableDiffusion(
        small_base.build_autoencoder(settings.image_size),
        small_base.build_text_encoder(tokenizer),
        tokenizer,
        small_base.build_unet(settings.image_size, settings.unet_channels, settings.unet_layers),
        small_base.build_scheduler(),
    )
    base.stock_pipeline().save_pretrained(folder)


def train(folder: Path, settings: "PretrainSettings") -> None:
    """Render the images into `folder` and train the base model beside them, in `folder/base`."""
    from hand1000.core.progress import ProgressBar
    from hand1000.data.synthetic import load_synthetic_images, render_synthetic_images
    from hand1000.training.context import TrainContext
    from hand1000.training.pretrain_base import save_base, train_autoencoder, train_base, train_text_encoder

    started, curves = time.monotonic(), {}

    def context(name: str) -> TrainContext:
        print(f"{name}: begins after {time.monotonic() - started:.0f} s", flush=True)
        return TrainContext(seed=settings.seed, on_progress=ProgressBar(name))

    images, size = folder / "images", settings.image_size
    counts = {"images": settings.images, "gesture_images": settings.gesture_images}
    render_synthetic_images(images, **counts, seed=settings.seed, size=size, on_progress=ProgressBar("images"))
    pixels, _ = load_synthetic_images(images, 180)
    autoencoder, curves["autoencoder"] = train_autoencoder(pixels, settings, context("autoencoder"))
    pixels, captions = load_synthetic_images(images, settings.max_tilt)
    encoder, tokenizer, curves["text_encoder"] = train_text_encoder(
        pixels, captions, autoencoder, settings, context("text_encoder")
    )
    base, curves["base"] = train_base(pixels, captions, autoencoder, encoder, tokenizer, settings, context("base"))
    save_base(folder / "base", base, settings, curves, captions[:8])
    print(f"done after {time.monotonic() - started:.0f} s: {folder / 'base'}", flush=True)


def main() -> None:
    """Run one of the commands."""
    import yaml

    from hand1000.config.pretraining import PretrainSettings

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["outline", "train"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--config", type=Path, default=Path("workflows/configs/pretrain-128.yaml"))
    options = parser.parse_args()
    settings = PretrainSettings.model_validate(yaml.safe_load(options.config.read_text())["settings"])
    (write_outline if options.command == "outline" else train)(options.folder, settings)


if __name__ == "__main__":
    main()
