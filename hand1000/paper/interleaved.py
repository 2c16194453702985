"""The authors' loop, kept so that their figures can be reproduced: Stages II and III image by image."""

import torch

from hand1000.config.settings import Stage2Settings, Stage3Settings
from hand1000.models.base_model import BaseModel
from hand1000.training.checkpoint import Tensors, load_checkpoint, save_checkpoint
from hand1000.training.context import TrainContext
from hand1000.training.precision import configure_unet
from hand1000.training.single_image import finetune_on_image, optimize_embeddings

SHARED_NOISE_KEY = "every image"
"""What keys the draws instead of an image: the authors reset their seed, so that all images see the same noise."""


def train_interleaved(
    base: BaseModel,
    latents: torch.Tensor,
    start: torch.Tensor,
    stage2: Stage2Settings,
    stage3: Stage3Settings,
    context: TrainContext,
) -> tuple[Tensors, list[dict]]:
    """Refine an image's embedding through the UNet as it is by then, tune the UNet on it, go on to the next image.

    Each image has its own optimisers. Nothing is computed in parallel here, and what "frozen" means in Stage II
    changes from image to image; `stage2.refine_embeddings` and `stage3.train_unet` do it right.

    Args:
        base: the base model; its UNet is trained in place, so it is of no use afterwards.
        latents: of the training images, scaled, (N, C, h, w).
        start: h of the images, (N, L, D).
        stage2: steps and rate of an image's embedding.
        stage3: steps and rate of the UNet on one image.
        context: Seed of the noise, which is the same for each image, compute settings (float32), checkpoints and
            progress, which is called after each image.

    Returns:
        The UNet's weights by name, on the CPU, and a row an image: its first and last loss of either stage.
    """
    unet = base.unet
    configure_unet(unet, context.compute, frozen=False)
    unet.train()
    done, _, history = load_checkpoint(context.checkpoint, modules={"unet": unet})
    while done < len(latents):
        image = slice(done, done + 1)
        unet.requires_grad_(False)
        refined, embedding_losses = optimize_embeddings(
            base,
            latents[image],
            start[image],
            [SHARED_NOISE_KEY],
            context,
            steps=stage2.embedding_steps,
            learning_rate=stage2.embedding_learning_rate,
        )
        unet.requires_grad_(True)
        unet_losses = finetune_on_image(
            base,
            latents[image],
            refined,
            SHARED_NOISE_KEY,
            context,
            steps=stage3.steps,
            learning_rate=stage3.learning_rate,
            weight_decay=stage3.weight_decay,
            max_grad_norm=stage3.max_grad_norm,
        )
        done += 1
        history.append({"step": done, **_ends("embedding_loss", embedding_losses), **_ends("loss", unet_losses)})
        context.on_progress(
            done, len(latents), {name: value for name, value in history[-1].items() if name.endswith("loss")}
        )
        if done % stage3.checkpoint_every == 0 and done < len(latents):
            save_checkpoint(context.checkpoint, step=done, modules={"unet": unet}, history=history)
    return {name: value.cpu().contiguous() for name, value in unet.state_dict().items()}, history


def _ends(name: str, losses: list[float]) -> dict[str, float]:
    return {f"{name}_first": losses[0], name: losses[-1]} if losses else {}
