"""Stage II: train the fusion, then refine each image's embedding, both through the frozen UNet (paper, section 3.3).

The UNet's weights never need a gradient here, and the images are independent of each other: they are batched, and
their losses are summed, since Adam's epsilon makes a mean differ from the sequential result.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from hand1000.config.settings import Stage2Settings
from hand1000.core.errors import Hand1000Error
from hand1000.core.rng import derived_seed, noise_and_timesteps, shuffled_batch, torch_generator
from hand1000.hands.poses import HandPoses
from hand1000.models.base_model import BaseModel
from hand1000.models.fusion import FlatFusion, Fusion, GestureFusion, double_fusion, gesture_indices
from hand1000.storage.files import read_json, write_json
from hand1000.training.checkpoint import load_checkpoint, save_checkpoint
from hand1000.training.context import TrainContext
from hand1000.training.encoded_dataset import EncodedDataset
from hand1000.training.losses import diffusion_loss
from hand1000.training.precision import autocast_context, configure_unet
from hand1000.training.single_image import optimize_embeddings


def train_fusion(
    base: BaseModel,
    data: EncodedDataset,
    features: Mapping[str, torch.Tensor],
    settings: Stage2Settings,
    context: TrainContext,
    *,
    poses: HandPoses | None = None,
) -> tuple[Fusion, list[dict]]:
    """Train the fusion layer over all images; the flat one is only put together.

    Args:
        base: the frozen base model.
        data: The encoded training images and captions.
        features: The feature f of each gesture by its name, (63,) each, from Stage I.
        settings: The settings of Stage II.
        context: Seed, compute settings, checkpoints and progress.
        poses: The hands' poses in the order of the images; without them every hand has the mean pose.

    Returns:
        The trained fusion and the loss of every step, averaged over its batch.

    Raises:
        Hand1000Error: several gestures for the flat fusion, or an image of one that has no feature.
    """
    settings.check_gestures(features)
    latents, text_embeddings = data.latents, data.text_embeddings
    tokens, width = text_embeddings.shape[1:]
    if settings.fusion == "flat":
        ((gesture, feature),) = features.items()
        flat = FlatFusion(width, tokens, gesture, derived_seed(context.seed, "fusion-start"))
        flat.feature.copy_(feature)
        return flat, []
    device = base.unet.device
    configure_unet(base.unet, context.compute, frozen=True)
    own = None if poses is None else poses.tensor()
    fusion = GestureFusion(width, tuple(features), 0 if own is None else own.shape[1])
    fusion.initialise(torch.stack(list(features.values())), torch_generator(context.seed, "fusion-start"))
    fusion.to(device)
    shown = gesture_indices(fusion, data.gestures)
    # On f the gradient is the same at every token and large; weight decay would pull the identity on e to zero.
    optimizer = torch.optim.Adam(fusion.parameters(), lr=settings.fusion_learning_rate)
    step, _, history = load_checkpoint(context.checkpoint, modules={"fusion": fusion}, optimizer=optimizer)
    while step < settings.fusion_steps:
        batch = shuffled_batch(len(latents), settings.fusion_batch_size, step, context.seed, "fusion")
        noise, timesteps = noise_and_timesteps(
            tuple(latents.shape[1:]),
            context.seed,
            "fusion",
            [(step, place) for place in range(len(batch))],
            base.scheduler.config.num_train_timesteps,
        )
        posed = None if own is None else own[batch].to(device)
        h = double_fusion(text_embeddings[batch].to(device), fusion, settings.lambda_, shown[batch], posed)
        with autocast_context(device, context.compute):
            loss = diffusion_loss(
                base.unet, base.scheduler, latents[batch].to(device), h, noise.to(device), timesteps.to(device)
            ).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        step += 1
        history.append({"step": step, "loss": loss.item()})
        context.on_progress(step, settings.fusion_steps, {"loss": history[-1]["loss"]})
        if step % settings.checkpoint_every == 0 and step < settings.fusion_steps:
            save_checkpoint(
                context.checkpoint, step=step, modules={"fusion": fusion}, optimizer=optimizer, history=history
            )
    return fusion.requires_grad_(False).cpu(), history


def optimize_all_embeddings(
    base: BaseModel,
    latents: torch.Tensor,
    start: torch.Tensor,
    image_keys: list[str],
    settings: Stage2Settings,
    context: TrainContext,
) -> tuple[torch.Tensor, list[dict]]:
    """Optimise each image's embedding from where the fusion puts it, h, to h* (the paper's Stage II).

    A batch is finished before the next begins, so an interrupted run loses at most one batch. The caller cuts shards at
    multiples of the batch size: then 1 and 3 shards compute the same batches, hence the same bits.

    Args:
        base: the frozen base model.
        latents: scaled, (N, C, h, w).
        start: h of the images, (N, L, D).
        image_keys: a name an image, that keys its draws.
        settings: steps, batch size, learning rate.
        context: Seed, compute settings, checkpoints and progress; progress is called after each batch.

    Returns:
        h*, (N, L, D), float32 on the CPU, and the mean loss of every step over the batch, a dictionary an entry.
    """
    configure_unet(base.unet, context.compute, frozen=True)
    finished = start.float().cpu().clone()
    done, tensors, history = load_checkpoint(context.checkpoint)
    if done:
        finished[:done] = tensors["refined"]["embeddings"]
    while done < len(latents) and settings.embedding_steps and not settings.paper_loop:
        batch = slice(done, min(done + settings.embedding_batch_size, len(latents)))
        finished[batch], losses = optimize_embeddings(
            base,
            latents[batch],
            finished[batch],
            image_keys[batch],
            context,
            steps=settings.embedding_steps,
            learning_rate=settings.embedding_learning_rate,
        )
        done = batch.stop
        history.append({"step": done, "loss_first": losses[0], "loss": losses[-1]})
        context.on_progress(done, len(latents), {"loss": losses[-1]})
        if done < len(latents):
            save_checkpoint(
                context.checkpoint, step=done, tensors={"refined": {"embeddings": finished[:done]}}, history=history
            )
    return finished, history


def save_embeddings(directory: Path, embeddings: torch.Tensor, file_names: list[str]) -> None:
    """Write h* of some images in the shape "Embeddings" of docs/architecture.md."""
    save_file({"embeddings": embeddings.contiguous()}, directory / "embeddings.safetensors")
    write_json(directory / "embeddings.json", {"file_names": file_names})


def load_embeddings(directories: list[Path], file_names: list[str]) -> torch.Tensor:
    """h* of the images `file_names`, (N, L, D), from the shards that hold them in any order.

    Raises:
        Hand1000Error: an image has no embedding.
    """
    parts: dict[str, torch.Tensor] = {}
    for directory in directories:
        names = read_json(directory / "embeddings.json")["file_names"]
        parts.update(zip(names, load_file(directory / "embeddings.safetensors")["embeddings"], strict=True))
    missing = [name for name in file_names if name not in parts]
    if missing:
        raise Hand1000Error(f"{missing[0]}: no embedding ({len(missing)} images lack one); run Stage II for all shards")
    return torch.stack([parts[name] for name in file_names])
