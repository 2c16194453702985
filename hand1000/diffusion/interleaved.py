"""The authors' loop, kept so that their figures can be reproduced: Stages II and III image by image."""

import torch

from hand1000.diffusion.base_model import BaseModel
from hand1000.diffusion.compute import fit_unet
from hand1000.diffusion.losses import denoising_errors
from hand1000.diffusion.progress import Checkpoint, StepReport
from hand1000.diffusion.stage2 import refine_batch
from hand1000.diffusion.training_state import Tensors, keep, resume
from hand1000.randomness import noise_and_timesteps
from hand1000.settings import ComputeSettings, Stage2Settings, Stage3Settings

_ANY = "every image"
"""What keys the draws instead of an image: the authors reset their seed, so that all images see the same noise."""


def train_interleaved(
    base: BaseModel,
    latents: torch.Tensor,
    start: torch.Tensor,
    stage2: Stage2Settings,
    stage3: Stage3Settings,
    compute: ComputeSettings,
    *,
    seed: int,
    checkpoint: Checkpoint,
    report: StepReport,
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
        compute: how the UNet is computed; in float32.
        seed: of the draws, which are the same for each image.
        checkpoint: where the state of an unfinished training lies.
        report: is given every image.

    Returns:
        The UNet's weights by name, on the CPU, and a row an image: its first and last loss of either stage.
    """
    device = base.unet.device
    unet = base.unet
    fit_unet(unet, compute, frozen=False)
    unet.train()
    done, _, history = resume(checkpoint, modules={"unet": unet})
    while done < len(latents):
        image = slice(done, done + 1)
        unet.requires_grad_(False)
        refined, embedding_losses = refine_batch(base, latents[image], start[image], [_ANY], stage2, compute, seed)
        unet.requires_grad_(True)
        unet_losses = _tune(base, latents[image].to(device), refined.to(device), stage3, seed)
        done += 1
        history.append({"step": done, **_ends("embedding_loss", embedding_losses), **_ends("loss", unet_losses)})
        report(done, len(latents), {name: value for name, value in history[-1].items() if name.endswith("loss")})
        if done % stage3.checkpoint_every == 0 and done < len(latents):
            keep(checkpoint, step=done, modules={"unet": unet}, history=history)
    return {name: value.cpu().contiguous() for name, value in unet.state_dict().items()}, history


def _tune(
    base: BaseModel, latents: torch.Tensor, embeddings: torch.Tensor, settings: Stage3Settings, seed: int
) -> list[float]:
    """Tune the UNet in place on one image."""
    optimizer = torch.optim.AdamW(base.unet.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    losses = []
    for step in range(settings.steps):
        noise, timesteps = noise_and_timesteps(
            tuple(latents.shape[1:]), seed, "unet", [(_ANY, step)], base.scheduler.config.num_train_timesteps
        )
        loss = denoising_errors(
            base.unet, base.scheduler, latents, embeddings, noise.to(latents), timesteps.to(latents.device)
        ).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(base.unet.parameters(), settings.max_grad_norm)
        optimizer.step()
        losses.append(loss.item())
    return losses


def _ends(name: str, losses: list[float]) -> dict[str, float]:
    return {f"{name}_first": losses[0], name: losses[-1]} if losses else {}
