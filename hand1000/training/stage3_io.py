"""Inputs and outputs of Stage III: earlier artifacts become a trainer, trained weights become a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import ModelMixin
from safetensors.torch import save_file

from hand1000.config.settings import Settings, Stage3Settings
from hand1000.models.backbone import Backbone
from hand1000.models.base_model import load_base_model
from hand1000.models.fusion import Fusion, double_fusion, fused_null_embedding, gesture_indices
from hand1000.pipelines.pipeline_hand1000 import build_pipeline
from hand1000.storage.files import write_jsonl
from hand1000.storage.tensor_rows import TensorRows, select_rows
from hand1000.storage.weights import read_tensors, require_same_tensors
from hand1000.training.batches import TrainingSet
from hand1000.training.checkpoint import Tensors, load_trainable_parameters, trainable_parameters
from hand1000.training.context import TrainContext
from hand1000.training.distributed import SINGLE_PROCESS, DistributedContext
from hand1000.training.encoded_dataset import EncodedDataset
from hand1000.training.lora import ADAPTER_DIR, add_adapter, merge_adapter, save_adapter
from hand1000.training.precision import weight_dtype
from hand1000.training.prior import Prior
from hand1000.training.stage3 import Stage3Trainer
from hand1000.training.validation import IMAGES_DIR, build_validation, split_validation

_WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class Stage3Inputs:
    """Encoded images, fusion, optimized embeddings h* (N, L, D), and images of the base model if they are requested."""

    data: EncodedDataset
    fusion: Fusion
    embeddings: torch.Tensor | TensorRows
    prior: Prior | None = None


def load_base_for_training(source: str, device: torch.device, settings: Settings) -> Backbone:
    """Load the base model for Stage III: only its denoiser is on `device`, in float32 if all weights are trained."""
    trains_all = settings.stage3.training_mode == "full"
    dtype = torch.float32 if trains_all else weight_dtype(settings.compute)
    return load_base_model(source, device, denoiser_dtype=dtype, denoiser_only=True)


def setup_stage3(
    base: Backbone,
    inputs: Stage3Inputs,
    settings: Settings,
    context: TrainContext,
    output_dir: Path,
    distributed: DistributedContext = SINGLE_PROCESS,
) -> Stage3Trainer:
    """Build the trainer of Stage III; validation writes its images into `output_dir`."""
    data, fusion, lambda_ = inputs.data, inputs.fusion, settings.stage2.lambda_
    gesture_ids = gesture_indices(fusion, data.gestures)
    training, held_out = split_validation(data.user_ids, settings.stage3.validation.images, context.seed)
    validation = build_validation(base, data, held_out, fusion, settings, output_dir / IMAGES_DIR) if held_out else None
    # At inference both prompts of classifier-free guidance pass through the fusion, so a dropped caption does too.
    null_tokens = fused_null_embedding(data.empty_embedding, fusion, lambda_).detach()
    null_conditioning = data.null_conditioning.expand(len(null_tokens)).with_tokens(null_tokens)
    prior = None
    if inputs.prior is not None:
        # The captions of the prior are those of the images, in turn.
        prior_ids = gesture_ids[torch.arange(len(inputs.prior.latents)) % len(gesture_ids)]
        embeddings = double_fusion(inputs.prior.text_embeddings, fusion, lambda_, prior_ids).detach()
        conditioning = inputs.prior.conditioning.with_tokens(embeddings)
        prior = TrainingSet(inputs.prior.latents, conditioning, null_conditioning, prior_ids)
    return Stage3Trainer(
        base,
        TrainingSet(
            select_rows(data.latents, training),
            data.conditioning.with_tokens(inputs.embeddings).select(training),
            null_conditioning,
            gesture_ids[training],
            file_names=[data.file_names[index] for index in training],
        ),
        settings.stage3,
        context,
        prior=prior,
        validation=validation,
        distributed=distributed,
    )


def save_weights(weights: Tensors, history: Sequence[dict], folder: Path) -> None:
    """Write the result of a training into an existing folder."""
    save_file(weights, folder / _WEIGHTS)
    write_jsonl(folder / "history.jsonl", history)


def load_weights(folder: Path) -> Tensors:
    """Load the weights that `save_weights` wrote.

    Raises:
        Hand1000Error: The file is missing or damaged.
    """
    return read_tensors(folder / _WEIGHTS, "trained weights", "train again")


def load_trained_weights(denoiser: ModelMixin, settings: Stage3Settings, weights: Tensors) -> None:
    """Load the weights of a `Stage3Trainer` into the float32 denoiser of the base model; an adapter stays separate.

    Raises:
        Hand1000Error: The weights are those of another denoiser or of other settings.
    """
    if settings.training_mode == "lora":
        add_adapter(denoiser, settings.lora, seed=0)
        require_same_tensors(trainable_parameters(denoiser), weights, "the trained weights", "this denoiser's adapter")
        load_trainable_parameters(denoiser, weights)
    else:
        # Of buffers, such as the position embedding of Stable Diffusion 3, the base model's stay.
        require_same_tensors(dict(denoiser.named_parameters()), weights, "the trained weights", "this denoiser's")
        denoiser.load_state_dict(weights, strict=False)
    denoiser.requires_grad_(False)


def save_pipeline(base: Backbone, weights: Tensors, fusion: Fusion, settings: Settings, folder: Path) -> None:
    """Write the tuned model for `Hand1000Pipeline.from_pretrained`; a trained adapter is also written beside it.

    The base model must be in float32 and not the one that was trained. Its denoiser is changed in place, so that it is
    never held twice; the denoiser of autoguidance is written before.
    """
    denoiser, sampler = base.denoiser, settings.generation.sampler_defaults()
    guidance_scale = sampler.pop("autoguidance_scale")
    pipeline = build_pipeline(base, fusion=fusion, autoguidance_scale=1.0, **sampler)
    if guidance_scale > 1:
        denoiser.save_pretrained(folder / pipeline.guidance_name)
    load_trained_weights(denoiser, settings.stage3, weights)
    if settings.stage3.training_mode == "lora":
        save_adapter(denoiser, base.denoiser_name, folder / ADAPTER_DIR)
        merge_adapter(denoiser)
    pipeline.save_pretrained(folder)
    if guidance_scale > 1:
        pipeline.save_index_with_guidance(folder, guidance_scale)
