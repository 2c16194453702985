"""Stage II: train the fusion, then optimize each image's embedding, through the frozen denoiser (paper, section 3.3).

The images are independent of each other and the denoiser's weights need no gradient, so embeddings are optimized in
batches. Their losses are summed, because Adam's epsilon makes a mean differ from the sequential result.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from hand1000.config.settings import Stage2Settings
from hand1000.core.errors import Hand1000Error
from hand1000.core.progress import report_step
from hand1000.core.rng import derived_seed, shuffled_batch, torch_generator
from hand1000.hands.poses import HandPoses
from hand1000.models.backbone import Backbone
from hand1000.models.conditioning import Conditioning
from hand1000.models.flat_fusion import FlatFusion
from hand1000.models.fusion import Fusion, GestureFusion, double_fusion, gesture_indices
from hand1000.models.low_rank_fusion import LowRankFusion
from hand1000.storage.files import read_json, write_json
from hand1000.storage.tensor_rows import NewTensorRows, TensorRows, create_tensor_rows, select_rows
from hand1000.training.batches import sample_noisy_batch
from hand1000.training.checkpoint import load_checkpoint, save_checkpoint
from hand1000.training.context import TrainContext
from hand1000.training.cuda_graphs import TokenLosses
from hand1000.training.encoded_dataset import EncodedDataset
from hand1000.training.finite import LossScaler, all_finite, finite_metrics, not_finite_error
from hand1000.training.precision import configure_denoiser
from hand1000.training.single_image import EmbeddingOptimizer

_EMBEDDINGS = "embeddings.safetensors"


def train_fusion(
    base: Backbone,
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
        Hand1000Error: Several gestures for the flat fusion, or a backbone that does not support it; no feature of a
            gesture; or weights that are not finite.
    """
    settings.check_gestures(features)
    if settings.fusion == "flat":
        base.require("stage2.fusion: flat", base.source)
        ((gesture, feature),) = features.items()
        num_tokens, text_dim = data.text_embeddings.shape[1:]
        flat = FlatFusion(text_dim, num_tokens, gesture, derived_seed(context.seed, "fusion-start"))
        flat.feature.copy_(feature)
        return flat, []
    device = base.device
    configure_denoiser(base.denoiser, context.compute, frozen=True)
    pose_tensor = None if poses is None else poses.tensor()
    pose_dim = 0 if pose_tensor is None else pose_tensor.shape[1]
    fusion = _start_fusion(data, features, settings, pose_dim, context.seed)
    fusion.to(device)
    gesture_ids = gesture_indices(fusion, data.gestures)
    # The gradient on f is large and the same for every token; weight decay would pull the identity on e to zero.
    parameters = list(fusion.parameters())
    optimizer = torch.optim.Adam(parameters, lr=settings.fusion_learning_rate)
    scaler = LossScaler(device, context.compute)
    state = load_checkpoint(context.checkpoint, modules={"fusion": fusion}, optimizer=optimizer)
    scaler.load(state.tensors.get("scaler", {}))
    checkpoint_step = state.step
    token_losses = TokenLosses(base, context.compute)

    def save() -> None:
        nonlocal checkpoint_step
        state.tensors = {"scaler": scaler.tensors()}
        save_checkpoint(context.checkpoint, state, modules={"fusion": fusion}, optimizer=optimizer)
        checkpoint_step = state.step

    while state.step < settings.fusion_steps:
        indices = shuffled_batch(len(data.latents), settings.fusion_batch_size, state.step, context.seed, "fusion")
        batch_poses = None if pose_tensor is None else pose_tensor[indices].to(device)
        conditioning = data.conditioning[indices].to(device)
        h = double_fusion(conditioning.tokens, fusion, settings.lambda_, gesture_ids[indices], batch_poses)
        keys = [(state.step, position) for position in range(len(indices))]
        inputs = (data.latents[indices], conditioning.with_tokens(h), base.schedule, keys)
        batch = sample_noisy_batch(*inputs, seed=context.seed, stage="fusion").to(device)
        loss = token_losses(batch).mean()
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


def _start_fusion(
    data: EncodedDataset, features: Mapping[str, torch.Tensor], settings: Stage2Settings, pose_dim: int, seed: int
) -> GestureFusion | LowRankFusion:
    """Build the fusion as it is before the first step."""
    text_dim, stacked = data.text_embeddings.shape[-1], torch.stack(list(features.values()))
    generator = torch_generator(seed, "fusion-start")
    if settings.fusion == "low_rank":
        low_rank = LowRankFusion(text_dim, tuple(features), pose_dim, settings.fusion_rank)
        return low_rank.initialize(stacked, data.text_embeddings, generator)
    return GestureFusion(text_dim, tuple(features), pose_dim).initialize(stacked, generator)


def optimize_all_embeddings(
    base: Backbone,
    latents: torch.Tensor,
    start: Conditioning,
    image_keys: list[str],
    settings: Stage2Settings,
    context: TrainContext,
    *,
    out: Any = None,
) -> tuple[Any, list[dict]]:
    """Optimize each image's embedding from the fused h to h* (the paper's Stage II).

    A batch is finished before the next one begins, so an interrupted run loses at most one batch. The caller cuts
    shards at multiples of the batch size, so that any number of shards computes the same batches and the same bits.

    Args:
        base: Frozen base model.
        latents: Scaled latents, (N, C, h, w).
        start: Conditioning of the N images, whose tokens are the fused embeddings h.
        image_keys: Key of each image's noise.
        settings: Settings of Stage II; with the paper's loop nothing is optimized here.
        context: Seed, compute settings, checkpoints and progress after each batch.
        out: Where h* is written batch by batch, (N, L, D), a tensor or `NewTensorRows`; a new tensor by default.

    Returns:
        h*, (N, L, D) float32 on the CPU, which is `out`, and one row per batch with its first and last loss.
    """
    configure_denoiser(base.denoiser, context.compute, frozen=True)
    optimizer = EmbeddingOptimizer(base, context, settings.embedding_steps, settings.embedding_learning_rate)
    embeddings = torch.empty(start.tokens.shape) if out is None else out
    state, size = load_checkpoint(context.checkpoint), settings.embedding_batch_size
    if state.step:
        embeddings[: state.step] = state.tensors["refined"]["embeddings"]
        state.tensors = {}
    optimizes = bool(settings.embedding_steps) and not settings.paper_loop
    for first in range(state.step, len(latents), size):
        batch = slice(first, min(first + size, len(latents)))
        initial = start[batch].to("cpu", torch.float32)
        if not optimizes:
            embeddings[batch] = initial.tokens
            continue
        embeddings[batch], losses = optimizer.optimize(latents[batch], initial, image_keys[batch])
        state.step = batch.stop
        metrics = finite_metrics({"loss_first": losses[0], "loss": losses[-1]})
        state.history.append({"step": state.step} | metrics)
        if state.step < len(latents):
            state.tensors = {"refined": {"embeddings": select_rows(embeddings, slice(state.step))}}
            save_checkpoint(context.checkpoint, state)
        context.on_progress(state.step, len(latents), {name: metrics[name] for name in metrics if name == "loss"})
    return embeddings, state.history


@contextmanager
def create_embeddings(directory: Path, shape: tuple[int, ...], file_names: list[str]) -> Iterator[NewTensorRows]:
    """Create the files of the optimized embeddings h* of some images, (N, L, D), to be filled until the context ends.

    docs/architecture.md describes the files.
    """
    with create_tensor_rows(directory / _EMBEDDINGS, {"embeddings": (torch.float32, shape)}) as rows:
        yield rows["embeddings"]
    write_json(directory / "embeddings.json", {"file_names": file_names})


def load_embeddings(directories: list[Path], file_names: list[str]) -> TensorRows:
    """Return h* of the images `file_names`, (N, L, D), from shards in any order; rows are read when they are used.

    Raises:
        Hand1000Error: An image has no embedding, or a file is damaged.
    """
    shards, names = [], []
    for directory in directories:
        shards.append(TensorRows.open(directory / _EMBEDDINGS, "embeddings"))
        names += read_json(directory / "embeddings.json")["file_names"]
    rows = TensorRows.join(shards)
    position = {name: index for index, name in enumerate(names)}
    if len(names) != len(rows):
        raise Hand1000Error(f"{directories[0]}: {len(rows)} embeddings of {len(names)} images; run Stage II again")
    missing = [name for name in file_names if name not in position]
    if missing:
        raise Hand1000Error(f"{missing[0]}: no embedding ({len(missing)} images lack one); run Stage II for all shards")
    return rows.select([position[name] for name in file_names])
