"""Stage II: train the fusion, then optimize each image's embedding, both through the frozen UNet (paper, section 3.3).

The images are independent of each other and the UNet's weights need no gradient, so embeddings are optimized in
batches. Their losses are summed, because Adam's epsilon makes a mean differ from the sequential result.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from hand1000.config.settings import Stage2Settings
from hand1000.core.errors import Hand1000Error
from hand1000.core.progress import report_step
from hand1000.core.rng import derived_seed, shuffled_batch, torch_generator
from hand1000.hands.poses import HandPoses
from hand1000.models.base_model import BaseModel
from hand1000.models.flat_fusion import FlatFusion
from hand1000.models.fusion import Fusion, GestureFusion, double_fusion, gesture_indices
from hand1000.storage.files import read_json, write_json
from hand1000.training.batches import sample_noisy_batch
from hand1000.training.checkpoint import load_checkpoint, save_checkpoint
from hand1000.training.context import TrainContext
from hand1000.training.encoded_dataset import EncodedDataset
from hand1000.training.finite import LossScaler, all_finite, finite_metrics, not_finite_error
from hand1000.training.losses import diffusion_loss
from hand1000.training.precision import configure_unet
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
    """Train the fusion layer over all images; a flat fusion is built but not trained.

    Args:
        base: Frozen base model.
        data: Encoded training images and captions.
        features: Feature f of each gesture by the gesture's name, (63,) each, from Stage I.
        settings: Settings of Stage II.
        context: Seed, compute settings, checkpoints and progress.
        poses: Poses of the hands in the order of the images; without them every hand has the mean pose.

    Returns:
        The trained fusion on the CPU, and the step and mean loss of every step.

    Raises:
        Hand1000Error: Several gestures for the flat fusion, no feature of a gesture, or weights that are not finite.
    """
    settings.check_gestures(features)
    num_tokens, text_dim = data.text_embeddings.shape[1:]
    if settings.fusion == "flat":
        ((gesture, feature),) = features.items()
        flat = FlatFusion(text_dim, num_tokens, gesture, derived_seed(context.seed, "fusion-start"))
        flat.feature.copy_(feature)
        return flat, []
    device = base.unet.device
    configure_unet(base.unet, context.compute, frozen=True)
    pose_tensor = None if poses is None else poses.tensor()
    fusion = GestureFusion(text_dim, tuple(features), 0 if pose_tensor is None else pose_tensor.shape[1])
    fusion.initialize(torch.stack(list(features.values())), torch_generator(context.seed, "fusion-start"))
    fusion.to(device)
    gesture_ids = gesture_indices(fusion, data.gestures)
    # The gradient on f is large and the same for every token; weight decay would pull the identity on e to zero.
    parameters = list(fusion.parameters())
    optimizer = torch.optim.Adam(parameters, lr=settings.fusion_learning_rate)
    scaler = LossScaler(device, context.compute)
    state = load_checkpoint(context.checkpoint, modules={"fusion": fusion}, optimizer=optimizer)
    scaler.load(state.tensors.get("scaler", {}))
    checkpoint_step = state.step

    def save() -> None:
        nonlocal checkpoint_step
        state.tensors = {"scaler": scaler.tensors()}
        save_checkpoint(context.checkpoint, state, modules={"fusion": fusion}, optimizer=optimizer)
        checkpoint_step = state.step

    while state.step < settings.fusion_steps:
        indices = shuffled_batch(len(data.latents), settings.fusion_batch_size, state.step, context.seed, "fusion")
        batch_poses = None if pose_tensor is None else pose_tensor[indices].to(device)
        h = double_fusion(
            data.text_embeddings[indices].to(device), fusion, settings.lambda_, gesture_ids[indices], batch_poses
        )
        keys = [(state.step, position) for position in range(len(indices))]
        batch = sample_noisy_batch(
            data.latents[indices], h, base.scheduler, keys, seed=context.seed, stage="fusion"
        ).to(device)
        loss = diffusion_loss(base.unet, base.scheduler, batch, context.compute)
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        skipped = scaler.skipped
        scaler.step(optimizer, parameters)
        state.step += 1
        if scaler.failed or not all_finite(parameters):
            what = "the gradient" if scaler.failed else "a weight of the fusion"
            raise not_finite_error(what, state.step, [data.file_names[index] for index in indices], checkpoint_step)
        metrics = finite_metrics({"loss": loss.item()})
        if scaler.skipped > skipped:
            metrics["skipped_steps"] = scaler.skipped
        state.history.append({"step": state.step} | metrics)
        report_step(context.on_progress, state.step, settings.fusion_steps, metrics, save=save)
        if state.step % settings.checkpoint_every == 0 and state.step < settings.fusion_steps:
            save()
    return fusion.requires_grad_(False).cpu(), state.history


def optimize_all_embeddings(
    base: BaseModel,
    latents: torch.Tensor,
    start: torch.Tensor,
    image_keys: list[str],
    settings: Stage2Settings,
    context: TrainContext,
) -> tuple[torch.Tensor, list[dict]]:
    """Optimize each image's embedding from the fused h to h* (the paper's Stage II).

    A batch is finished before the next one begins, so an interrupted run loses at most one batch. The caller cuts
    shards at multiples of the batch size, so that any number of shards computes the same batches and the same bits.

    Args:
        base: Frozen base model.
        latents: Scaled latents, (N, C, h, w).
        start: Fused embeddings h of the images, (N, L, D).
        image_keys: Key of each image's noise.
        settings: Settings of Stage II; with the paper's loop nothing is optimized here.
        context: Seed, compute settings, checkpoints and progress after each batch.

    Returns:
        h*, (N, L, D) float32 on the CPU, and one row per batch with its first and last loss.
    """
    configure_unet(base.unet, context.compute, frozen=True)
    embeddings = start.float().cpu().clone()
    state = load_checkpoint(context.checkpoint)
    if state.step:
        embeddings[: state.step] = state.tensors["refined"]["embeddings"]
    while state.step < len(latents) and settings.embedding_steps and not settings.paper_loop:
        batch = slice(state.step, min(state.step + settings.embedding_batch_size, len(latents)))
        embeddings[batch], losses = optimize_embeddings(
            base,
            latents[batch],
            embeddings[batch],
            image_keys[batch],
            context,
            steps=settings.embedding_steps,
            learning_rate=settings.embedding_learning_rate,
        )
        state.step = batch.stop
        metrics = finite_metrics({"loss_first": losses[0], "loss": losses[-1]})
        state.history.append({"step": state.step} | metrics)
        if state.step < len(latents):
            state.tensors = {"refined": {"embeddings": embeddings[: state.step]}}
            save_checkpoint(context.checkpoint, state)
        context.on_progress(state.step, len(latents), {name: metrics[name] for name in metrics if name == "loss"})
    return embeddings, state.history


def save_embeddings(directory: Path, embeddings: torch.Tensor, file_names: list[str]) -> None:
    """Write the optimized embeddings h* of some images, (N, L, D); docs/architecture.md describes the files."""
    save_file({"embeddings": embeddings.contiguous()}, directory / "embeddings.safetensors")
    write_json(directory / "embeddings.json", {"file_names": file_names})


def load_embeddings(directories: list[Path], file_names: list[str]) -> torch.Tensor:
    """Load h* of the images `file_names`, (N, L, D), from shards in any order.

    Raises:
        Hand1000Error: An image has no embedding.
    """
    embeddings: dict[str, torch.Tensor] = {}
    for directory in directories:
        names = read_json(directory / "embeddings.json")["file_names"]
        embeddings.update(zip(names, load_file(directory / "embeddings.safetensors")["embeddings"], strict=True))
    missing = [name for name in file_names if name not in embeddings]
    if missing:
        raise Hand1000Error(f"{missing[0]}: no embedding ({len(missing)} images lack one); run Stage II for all shards")
    return torch.stack([embeddings[name] for name in file_names])
