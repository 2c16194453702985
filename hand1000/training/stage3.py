"""Stage III: fine-tune the denoiser on the frozen optimized embeddings (paper, section 3.4)."""

import logging
from contextlib import closing
from functools import partial

import torch

from hand1000.config.settings import Stage3Settings
from hand1000.core.errors import Hand1000Error
from hand1000.core.interruption import uninterrupted_step
from hand1000.models.backbone import Backbone
from hand1000.training.batches import BatchSampler, TrainingBatch, TrainingSet, sample_ahead
from hand1000.training.checkpoint import (
    CheckpointWriter,
    Tensors,
    TrainingState,
    load_checkpoint,
    trainable_parameters,
)
from hand1000.training.context import TrainContext
from hand1000.training.cuda_graphs import RecordedFunction, add_gradients, may_record, set_gradients
from hand1000.training.distributed import SINGLE_PROCESS, DistributedContext
from hand1000.training.ema import EMA
from hand1000.training.finite import LossScaler, all_finite, finite_metrics, not_finite_error
from hand1000.training.lora import add_adapter
from hand1000.training.losses import diffusion_loss, min_snr_loss_weights
from hand1000.training.lr import get_lr
from hand1000.training.precision import autocast_context, build_optimizer, configure_denoiser
from hand1000.training.validation import Validation, should_stop_early, validation_losses

logger = logging.getLogger(__name__)


class Stage3Trainer:
    """Fine-tunes the denoiser of a base model in place: a second copy would not fit into memory.

    The batch of a step follows from the step's number alone, and the gradients of micro-batches and of processes add
    up to the gradient of the batch. The result therefore depends on neither, up to rounding, and an interrupted
    training may continue with other numbers of them.

    Args:
        base: Base model; not usable as such afterwards.
        data: Images of the gestures with their optimized embeddings.
        settings: Settings of Stage III.
        context: Seed, compute settings, checkpoints and progress.
        prior: Images of the base model, if `settings.prior` asks for them.
        validation: Validation on other images, if `settings.validation` asks for it.
        distributed: Processes that train together; only the main process saves, reports and generates images.

    Raises:
        Hand1000Error: Fewer images per batch than processes, or no layer matches a target of the adapter.
    """

    def __init__(
        self,
        base: Backbone,
        data: TrainingSet,
        settings: Stage3Settings,
        context: TrainContext,
        *,
        prior: TrainingSet | None = None,
        validation: Validation | None = None,
        distributed: DistributedContext = SINGLE_PROCESS,
    ) -> None:
        if settings.batch_size < distributed.size:
            raise Hand1000Error(
                f"stage3.batch_size: {settings.batch_size} images cannot be shared by {distributed.size} processes; "
                f"choose {distributed.size} or more"
            )
        self.denoiser = base.denoiser
        self.base, self.settings, self.context = base, settings, context
        self.validation, self.distributed = validation, distributed
        self.files = validation.folder if validation else None
        self.samplers = [(self._sampler(data, settings.batch_size, "unet"), 1.0)]
        if prior is not None:
            sampler = self._sampler(prior, settings.prior.batch_size, "unet-prior")
            self.samplers.append((sampler, settings.prior.weight))
        configure_denoiser(self.denoiser, context.compute, frozen=settings.training_mode == "lora")
        if settings.training_mode == "lora":
            add_adapter(self.denoiser, settings.lora, context.seed)
        else:
            self.denoiser.requires_grad_(True)
        self.denoiser.train()
        self.parameters = trainable_parameters(self.denoiser)
        self.ema = EMA(self.denoiser, settings.ema_decay)
        self.optimizer = build_optimizer(
            settings.optimizer,
            list(self.parameters.values()),
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
        )
        self.scaler = LossScaler(self.denoiser.device, context.compute)
        self.model = distributed.wrap_ddp(self.denoiser)
        self.recorded = self._make_recorded()
        self.micro_batch_size = settings.micro_batch_size
        self.global_step = self.checkpoint_step = 0
        self.history: list[dict] = []
        self.best: Tensors = {}
        self.checkpoint_writer = CheckpointWriter(context.checkpoint)

    def train(self) -> tuple[Tensors, list[dict]]:
        """Train from the last checkpoint to the last step, or until validation stops improving.

        Returns:
            The trained weights by name on the CPU (see `best_weights`), and one row per step with its loss.

        Raises:
            Interrupted: A signal came; the steps until then are saved.
        """
        try:
            with self.checkpoint_writer:
                self._train_steps()
        finally:
            # torch 2.13 destroys a process group without releasing the GIL if DDP's reducer holds it last, and waits
            # for gloo's threads, which may wait for the GIL. So the wrapper goes before the group.
            self.model = self.denoiser
        return self.best_weights(), self.history

    def _train_steps(self) -> None:
        self.load_checkpoint()
        settings, validation = self.settings, self.validation
        on_gpu = self.denoiser.device.type == "cuda"
        steps = range(self.global_step, settings.steps)
        with closing(sample_ahead(self.sample_batch, steps, in_thread=on_gpu)) as batches:
            for batch in batches:
                if should_stop_early(self.history, settings.validation.patience):
                    break
                self.train_step(batch)
                if validation and validation.is_due(self.global_step, settings.steps):
                    self.validate(validation)
                if self.distributed.is_main_process:
                    metrics = {name: value for name, value in self.history[-1].items() if name != "step"}
                    with uninterrupted_step():
                        self.context.on_progress(self.global_step, settings.steps, metrics)
                    self.checkpoint_writer.raise_error()
                self.distributed.raise_if_interrupted(partial(self.save_checkpoint, wait=True))
                is_due = self.global_step % settings.checkpoint_every == 0 and self.global_step < settings.steps
                if self.distributed.is_main_process and is_due:
                    self.save_checkpoint()

    def sample_batch(self, step: int) -> TrainingBatch:
        """All items of one step on the CPU: images of the gestures, then those of the prior, if there is one.

        Every process samples the same batch and computes its shard of it.
        """
        batches = []
        for sampler, weight in self.samplers:
            batch = sampler.sample(step)
            snr_weights = min_snr_loss_weights(self.base.schedule, batch.timesteps, self.settings.min_snr_gamma)
            batches.append(TrainingBatch(**vars(batch), loss_weights=snr_weights * (weight / sampler.batch_size)))
        return TrainingBatch.concatenate(batches)

    def train_step(self, batch: TrainingBatch) -> None:
        """Make one optimizer step.

        A step that overflows in fp16 is skipped and counted in its row of the history.

        Raises:
            Hand1000Error: A weight is not finite any more, or a gradient is not and the precision has no remedy.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = get_lr(self.global_step, self.settings, self.settings.lr_scheduler)
        loss, parameters = self.compute_gradients(batch), list(self.parameters.values())
        skipped = self.scaler.skipped
        grad_norm = self.scaler.step(self.optimizer, parameters, self.settings.max_grad_norm)
        self.global_step += 1
        if self.scaler.failed or not all_finite(parameters):
            what = "the gradient" if self.scaler.failed else "a weight"
            raise not_finite_error(what, self.global_step, self._item_names(), self.checkpoint_step)
        self.ema.update(self.global_step)
        row = finite_metrics({"loss": loss.item(), "grad_norm": grad_norm})
        if self.scaler.skipped > skipped:
            row["skipped_steps"] = self.scaler.skipped
        self.history.append({"step": self.global_step} | row)

    def compute_gradients(self, batch: TrainingBatch) -> torch.Tensor:
        """Accumulate the gradients of this process's shard by micro-batches.

        Where a GPU's memory is too small, the micro-batches are halved, for the following steps too. Several processes
        cannot do that, since they exchange gradients meanwhile.

        Returns:
            The loss of the whole batch, which a GPU may still be computing: whoever reads it waits.
        """
        while True:
            size = min(self.micro_batch_size, len(batch.latents))
            try:
                return self._accumulate_gradients(batch, size)
            except torch.OutOfMemoryError:
                if size == 1 or self.distributed.size > 1:
                    raise
            # Outside of the handler, whose traceback holds the tensors.
            self.micro_batch_size = size // 2
            logger.warning(
                "stage3.micro_batch_size: %d images do not fit into memory, trying %d", size, self.micro_batch_size
            )
            self.optimizer.zero_grad(set_to_none=True)
            self.recorded = self._make_recorded()
            if self.denoiser.device.type == "cuda":
                torch.cuda.empty_cache()

    def _accumulate_gradients(self, batch: TrainingBatch, size: int) -> torch.Tensor:
        device, shard = self.denoiser.device, self.distributed.shard(len(batch.latents))
        micro_batches = [batch.select(shard[start : start + size]) for start in range(0, len(shard), size)]
        total = torch.zeros((), device=device)
        sums: list[torch.Tensor] = []
        records = self.recorded.enabled
        for number, micro_batch in enumerate(micro_batches, start=1):
            if records:
                (loss,) = self.recorded(micro_batch.to(device))
                if len(micro_batches) > 1:
                    add_gradients(self.parameters.values(), sums)
            else:
                with self.distributed.no_sync_unless_last(self.model, is_last=number == len(micro_batches)):
                    (loss,) = self._micro_batch_gradients(micro_batch.to(device))
            total += loss
        if sums:
            set_gradients(self.parameters.values(), sums)
        return self.distributed.all_reduce_sum(total)

    def _micro_batch_gradients(self, batch: TrainingBatch) -> tuple[torch.Tensor]:
        """Add the gradients of a micro-batch on the denoiser's device, and return its part of the loss."""
        losses = diffusion_loss(self.base, batch, self.context.compute, denoiser=self.model, reduction="none")
        loss = (losses * batch.loss_weights).sum()
        # DDP averages gradients over the processes, but the shards are parts of one sum.
        self.scaler.scale(loss * self.distributed.size).backward()
        return (loss.detach(),)

    def validate(self, validation: Validation) -> None:
        """Measure the loss and generate images with the averaged weights; keep them if training may stop early."""
        self.denoiser.eval()
        with self.ema.swapped_in():
            loss = validation.loss(self.base, self.context, self.settings.micro_batch_size, self.distributed)
            if self.distributed.is_main_process:
                with autocast_context(self.denoiser.device, self.context.compute):
                    validation.save_images(self.global_step)
        self.denoiser.train()
        if self.settings.validation.patience and loss < min(validation_losses(self.history), default=float("inf")):
            self.best = self._averaged_weights()
        self.history[-1] |= finite_metrics({"validation_loss": loss})

    def best_weights(self) -> Tensors:
        """The averaged weights of the best validation if training may stop early, otherwise those of the last step.

        They are on the CPU; `load_trained_weights` loads them into a denoiser.
        """
        return self.best or self._averaged_weights()

    def save_checkpoint(self, *, wait: bool = False) -> None:
        """Save everything that the next step depends on; with `wait` it is written when this returns."""
        tensors = {
            "weights": self.parameters,
            "average": self.ema.tensors if self.settings.ema_decay else {},
            "best": self.best,
            "scaler": self.scaler.tensors(),
        }
        state = TrainingState(self.global_step, self.history, tensors)
        self.checkpoint_writer.save(state, optimizer=self.optimizer, files=self.files, wait=wait)
        self.checkpoint_step = self.global_step

    def load_checkpoint(self) -> None:
        """Continue an interrupted training, if there is one."""
        targets = {"weights": self.parameters, "average": self.ema.tensors}
        state = load_checkpoint(self.context.checkpoint, optimizer=self.optimizer, targets=targets, files=self.files)
        self.global_step = self.checkpoint_step = state.step
        self.history = state.history
        self.best = state.tensors.get("best", {})
        self.scaler.load(state.tensors.get("scaler", {}))

    def _averaged_weights(self) -> Tensors:
        return {
            name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, value in self.ema.tensors.items()
        }

    def _make_recorded(self) -> RecordedFunction[TrainingBatch]:
        # Several processes exchange gradients during the backward pass, which is not recorded.
        enabled = self.distributed.size == 1 and may_record(self.context.compute, self.denoiser.device)
        return RecordedFunction(self._micro_batch_gradients, list(self.parameters.values()), enabled=enabled)

    def _item_names(self) -> list[str]:
        """Name the images of the step that was made last."""
        sampler, _ = self.samplers[0]
        names = sampler.data.file_names
        return [names[index] if names else str(index) for index in sampler.indices(self.global_step - 1)]

    def _sampler(self, data: TrainingSet, batch_size: int, stage: str) -> BatchSampler:
        return BatchSampler(
            data,
            batch_size,
            self.base.schedule,
            self.context.seed,
            stage,
            timestep_sampling=self.settings.timestep_sampling,
            caption_dropout=self.settings.caption_dropout,
        )
