"""The training loop of the authors' scripts, which runs Stages II and III image by image."""

import torch

from hand1000.config.settings import Stage2Settings, Stage3Settings
from hand1000.core.interruption import uninterrupted_step
from hand1000.core.progress import report_step
from hand1000.models.backbone import Backbone
from hand1000.models.conditioning import Conditioning
from hand1000.storage.tensor_rows import TensorRows
from hand1000.training.checkpoint import Tensors, load_checkpoint, save_checkpoint
from hand1000.training.context import TrainContext
from hand1000.training.precision import configure_denoiser
from hand1000.training.single_image import FinetuneOptions, finetune_on_image, optimize_embeddings

SHARED_NOISE_KEY = "every image"
"""Key of the noise instead of the image's name: the authors reset their seed, so all images see the same noise."""


def train_interleaved(
    base: Backbone,
    latents: torch.Tensor,
    start: torch.Tensor | TensorRows,
    stage2: Stage2Settings,
    stage3: Stage3Settings,
    context: TrainContext,
) -> tuple[Tensors, list[dict]]:
    """Optimize an image's embedding through the current UNet, fine-tune the UNet on it, then go on to the next image.

    Every image has its own optimizers. Images are not batched, and the UNet that Stage II calls frozen changes from
    image to image; `stage2.optimize_all_embeddings` and `stage3.Stage3Trainer` are free of both faults.

    Args:
        base: Base model, whose UNet is trained in place.
        latents: Scaled latents of the training images, (N, C, h, w).
        start: Fused embeddings h of the images, (N, L, D).
        stage2: Steps and learning rate of an image's embedding.
        stage3: Steps and learning rate of the UNet on one image.
        context: Seed, compute settings (float32), checkpoints and progress, which is reported after each image.

    Returns:
        The UNet's weights by name on the CPU, and one row per image with its first and last loss of both stages.

    Raises:
        Hand1000Error: The base model is not one of Stable Diffusion 1.x.
    """
    base.require("stage2.paper_loop", base.source)
    unet = base.denoiser
    configure_denoiser(unet, context.compute, frozen=False)
    unet.train()
    options = FinetuneOptions(stage3.steps, stage3.learning_rate, stage3.weight_decay, stage3.max_grad_norm)
    state = load_checkpoint(context.checkpoint, modules={"unet": unet})

    def save() -> None:
        save_checkpoint(context.checkpoint, state, modules={"unet": unet})

    while state.step < len(latents):
        image = slice(state.step, state.step + 1)
        with uninterrupted_step():  # A few seconds, after which the UNet is one image further.
            unet.requires_grad_(False)
            embeddings, embedding_losses = optimize_embeddings(
                base,
                latents[image],
                Conditioning(start[image]),
                [SHARED_NOISE_KEY],
                context,
                steps=stage2.embedding_steps,
                learning_rate=stage2.embedding_learning_rate,
            )
            unet.requires_grad_(True)
            unet_losses = finetune_on_image(
                base, latents[image], Conditioning(embeddings), SHARED_NOISE_KEY, context, options
            )
        state.step += 1
        losses = _first_and_last("embedding_loss", embedding_losses) | _first_and_last("loss", unet_losses)
        state.history.append({"step": state.step} | losses)
        last_losses = {name: value for name, value in losses.items() if name.endswith("loss")}
        report_step(context.on_progress, state.step, len(latents), last_losses, save=save)
        if state.step % stage3.checkpoint_every == 0 and state.step < len(latents):
            save()
    return {name: value.cpu().contiguous() for name, value in unet.state_dict().items()}, state.history


def _first_and_last(name: str, losses: list[float]) -> dict[str, float]:
    return {f"{name}_first": losses[0], name: losses[-1]} if losses else {}
