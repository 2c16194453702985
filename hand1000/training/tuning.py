"""From what the stages before left to a tuned model: Stage III as the settings ask for it."""

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from hand1000.config.settings import Settings
from hand1000.models.base_model import BaseModel, load_base_model
from hand1000.models.fusion import Fusion, double_fusion, fused_null_embedding, gesture_indices
from hand1000.paper.interleaved import train_interleaved
from hand1000.pipelines.generation import generate
from hand1000.pipelines.pipeline_hand1000 import build_pipeline
from hand1000.storage.files import write_jsonl
from hand1000.training.batches import TrainingSet
from hand1000.training.checkpoint import Tensors
from hand1000.training.context import TrainContext
from hand1000.training.distributed import DistributedContext
from hand1000.training.encoded_dataset import FULL_IMAGE_BOX, EncodedDataset
from hand1000.training.lora import merge_adapter, save_adapter
from hand1000.training.model_folder import ADAPTER
from hand1000.training.precision import weight_dtype
from hand1000.training.prior import Prior
from hand1000.training.stage3 import load_trained_weights, train_unet
from hand1000.training.validation import IMAGES_DIR, Validation, split_validation

_WEIGHTS = "weights.safetensors"


def load_base_for_training(source: str, device: torch.device, settings: Settings) -> BaseModel:
    """The base model as `tune_unet` takes it: only its UNet on `device`, in the precision in which it is needed."""
    trained = settings.stage3.training_mode == "full"
    return load_base_model(
        source, device, unet_dtype=torch.float32 if trained else weight_dtype(settings.compute), unet_only=True
    )


def tune_unet(
    base: BaseModel,
    data: EncodedDataset,
    fusion: Fusion,
    refined: torch.Tensor,
    prior: Prior | None,
    settings: Settings,
    context: TrainContext,
    *,
    out: Path,
    processes: DistributedContext,
) -> tuple[Tensors, list[dict]]:
    """Train the UNet of `base` in place.

    Args:
        base: the base model; of no use afterwards.
        data: the training images.
        fusion: as Stage II left it.
        refined: h* of the images, (N, L, D).
        prior: pictures of the base model, if the settings ask for them.
        settings: of the run.
        context: Seed, compute settings, checkpoints and progress.
        out: Folder that gets the validation images.
        processes: that train together.

    Returns:
        The trained weights by name (see `stage3.train_unet`) and what was measured at each step.
    """
    if settings.stage2.paper_loop:
        return train_interleaved(base, data.latents, refined, settings.stage2, settings.stage3, context)

    lambda_ = settings.stage2.lambda_
    shown = gesture_indices(fusion, data.gestures)
    training, looked_at = split_validation(data.user_ids, settings.stage3.validation.images, context.seed)
    validation = None
    if looked_at:
        folder = out / IMAGES_DIR
        folder.mkdir()
        drawn = looked_at[: settings.stage3.validation.images_drawn]
        texts, gestures = ([part[index] for index in drawn] for part in (data.texts, data.gestures))
        options = settings.generation.sampler_defaults() | {"autoguidance_scale": 1.0}
        pipeline = build_pipeline(base, fusion=copy.deepcopy(fusion), **options)
        pipeline.set_progress_bar_config(disable=True)

        def draw() -> list[Image.Image]:
            # Between looks the rest of the model would only take memory from the training.
            pipeline.to(base.unet.device)
            try:
                return list(generate(pipeline, texts, range(len(texts)), gestures=gestures))
            finally:
                base.vae.to("cpu")
                base.text_encoder.to("cpu")

        validation = Validation(
            latents=data.latents[looked_at],
            embeddings=double_fusion(data.text_embeddings[looked_at], fusion, lambda_, shown[looked_at]).detach(),
            settings=settings.stage3.validation,
            seed=context.seed,
            draw=draw,
            folder=folder,
        )
    preserved = None
    if prior is not None:
        # Its captions are those of the images, in turn.
        theirs = shown[torch.arange(len(prior.latents)) % len(shown)]
        embeddings = double_fusion(prior.text_embeddings, fusion, lambda_, theirs).detach()
        preserved = TrainingSet(prior.latents, embeddings, theirs, torch.tensor(FULL_IMAGE_BOX).expand(len(theirs), 4))
    return train_unet(
        base,
        TrainingSet(data.latents[training], refined[training], shown[training], data.boxes[training]),
        fused_null_embedding(data.empty_embedding, fusion, lambda_).detach(),
        settings.stage3,
        context,
        prior=preserved,
        validation=validation,
        processes=processes,
    )


def save_weights(weights: Tensors, history: Sequence[dict], folder: Path) -> None:
    """Write what `tune_unet` returned into an existing folder; `load_weights` reads the weights again."""
    save_file(weights, folder / _WEIGHTS)
    write_jsonl(folder / "history.jsonl", history)


def load_weights(folder: Path) -> Tensors:
    """The weights that `save_weights` wrote."""
    return load_file(folder / _WEIGHTS)


def save_pipeline(base: BaseModel, weights: Tensors, fusion: Fusion, settings: Settings, folder: Path) -> None:
    """Write the tuned model, which `Hand1000Pipeline.from_pretrained` loads; an adapter, if one was trained, beside it.

    Args:
        base: the base model anew, float32 on the CPU.
        weights: of `tune_unet`.
        fusion: as Stage II left it.
        settings: of the run.
        folder: an existing one.
    """
    unet = copy.deepcopy(base.unet)
    load_trained_weights(unet, settings.stage3, weights)
    if settings.stage3.training_mode == "lora":
        save_adapter(unet, folder / ADAPTER)
        merge_adapter(unet)
    build_pipeline(base, unet=unet, fusion=fusion, **settings.generation.sampler_defaults()).save_pretrained(folder)
