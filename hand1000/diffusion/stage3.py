"""Stage III: fine-tune the UNet on the frozen optimised embeddings (paper, section 3.4)."""

import copy

import torch

from hand1000.diffusion.base_model import BaseModel
from hand1000.diffusion.losses import denoising_errors
from hand1000.diffusion.progress import Checkpoint, StepReport
from hand1000.diffusion.schedules import learning_rate_at, middling_timesteps
from hand1000.diffusion.training_state import ExponentialAverage, keep, resume
from hand1000.randomness import noise_and_timesteps, shuffled_batch, torch_generator
from hand1000.settings import Stage3Settings


def train_unet(
    base: BaseModel,
    latents: torch.Tensor,
    embeddings: torch.Tensor,
    empty_embedding: torch.Tensor,
    settings: Stage3Settings,
    *,
    seed: int,
    checkpoint: Checkpoint,
    report: StepReport,
):
    """Fine-tune all weights of the UNet.

    Args:
        base: the base model; its UNet is copied, not changed.
        latents: of the training images, scaled, (N, C, h, w).
        embeddings: h* of Stage II, (N, L, D), frozen.
        empty_embedding: h of the empty prompt, (L, D), which stands in for a dropped caption: at inference both
            prompts of the guidance pass through the same fusion.
        settings: steps, rates, dropout, average.
        seed: of the run.
        checkpoint: where the state of an unfinished training lies.
        report: is given every step.

    Returns:
        The averaged UNet on the CPU and the loss of every step.
    """
    device, num_train_timesteps = base.unet.device, base.scheduler.config.num_train_timesteps
    unet = copy.deepcopy(base.unet).requires_grad_(True).train()
    average = ExponentialAverage(unet, settings.ema_decay)
    optimizer = torch.optim.AdamW(
        unet.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    modules = {"unet": unet, "average": average.module}
    step, _, history = resume(checkpoint, modules=modules, optimizer=optimizer)
    while step < settings.steps:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(
                step,
                peak=settings.learning_rate,
                steps=settings.steps,
                warmup_steps=settings.warmup_steps,
                decay=settings.learning_rate_decay,
            )
        batch = shuffled_batch(len(latents), settings.batch_size, step, seed, "unet")
        noise, timesteps = noise_and_timesteps(
            tuple(latents.shape[1:]),
            seed,
            "unet",
            [(step, place) for place in range(len(batch))],
            num_train_timesteps,
        )
        if settings.timesteps == "logit_normal":
            timesteps = middling_timesteps(len(batch), num_train_timesteps, seed, "unet", step)
        dropped = torch.rand(len(batch), generator=torch_generator(seed, "unet-dropout", step))
        condition = torch.where((dropped < settings.caption_dropout)[:, None, None], empty_embedding, embeddings[batch])
        loss = denoising_errors(
            unet,
            base.scheduler,
            latents[batch].to(device),
            condition.to(device),
            noise.to(device),
            timesteps.to(device),
        ).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), settings.max_grad_norm)
        optimizer.step()
        step += 1
        average.update(unet, step)
        history.append({"step": step, "loss": loss.item()})
        report(step, settings.steps, {"loss": history[-1]["loss"]})
        if step % settings.checkpoint_every == 0 and step < settings.steps:
            keep(checkpoint, step=step, modules=modules, optimizer=optimizer, history=history)
    return average.module.cpu(), history
