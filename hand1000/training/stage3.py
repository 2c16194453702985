"""Stage III: fine-tune the UNet on the frozen optimised embeddings (paper, section 3.4)."""

import torch
from diffusers import UNet2DConditionModel

from hand1000.config.settings import Stage3Settings
from hand1000.core.errors import Hand1000Error
from hand1000.core.progress import CheckpointStore
from hand1000.models.base_model import BaseModel
from hand1000.training.batches import TrainingBatch, TrainingSet, sample_batch
from hand1000.training.checkpoint import (
    EMA,
    Tensors,
    load_checkpoint,
    load_trained,
    save_checkpoint,
    trained_parameters,
)
from hand1000.training.context import TrainContext
from hand1000.training.distributed import SINGLE_PROCESS, DistributedContext
from hand1000.training.lora import add_adapter
from hand1000.training.losses import diffusion_loss
from hand1000.training.lr import get_lr
from hand1000.training.precision import autocast_context, build_optimizer, configure_unet, make_grad_scaler
from hand1000.training.validation import Validation, should_stop_early, validation_losses


def train_unet(
    base: BaseModel,
    examples: TrainingSet,
    empty_embeddings: torch.Tensor,
    settings: Stage3Settings,
    context: TrainContext,
    *,
    prior: TrainingSet | None = None,
    validation: Validation | None = None,
    processes: DistributedContext = SINGLE_PROCESS,
) -> tuple[Tensors, list[dict]]:
    """Fine-tune the UNet of `base` in place: a copy would not fit beside it at Stable Diffusion's size.

    What a step sees is keyed by its number alone, and the gradients of micro-batches and of processes add up to the
    batch's: the result depends on neither, to rounding, and an interrupted training may go on with other numbers.

    Args:
        base: the base model; of no use afterwards.
        examples: of the gesture.
        empty_embeddings: h of the empty prompt for each gesture, (K, L, D), which stands in for a dropped caption: at
            inference both prompts of the guidance pass through the same fusion.
        settings: what is trained, how long and how fast.
        context: Seed, compute settings, checkpoints and progress.
        prior: pictures of the base model, if `settings.prior` asks for them.
        validation: a look at images that are not among the examples, if `settings.validation` asks for it.
        processes: that train together; all but the first only lend a hand.

    Returns:
        The weights that were trained, averaged or those of the best look, by name, on the CPU (`load_trained_weights`
        puts them to use), and the loss of every step.

    Raises:
        Hand1000Error: fewer images in a batch than processes, or adapters for layers that are not there.
    """
    if settings.batch_size < processes.size:
        raise Hand1000Error(
            f"stage3.batch_size: {settings.batch_size} images cannot be shared by {processes.size} processes; "
            f"choose {processes.size} or more"
        )
    training = _Training(base, settings, context, processes, validation)
    training.resume(context.checkpoint)
    while training.step < settings.steps and not should_stop_early(training.history, settings.validation.patience):
        training.advance(
            sample_batch(training.step, examples, prior, empty_embeddings, settings, base.scheduler, context.seed)
        )
        done = training.step
        if validation and (done % settings.validation.every == 0 or done == settings.steps):
            training.look(validation)
        if processes.leads:
            row = training.history[-1]
            context.on_progress(done, settings.steps, {name: value for name, value in row.items() if name != "step"})
            if done % settings.checkpoint_every == 0 and done < settings.steps:
                training.keep(context.checkpoint)
    return training.result(), training.history


class _Training:
    """What the steps change: weights, their average, the optimiser's moments, and what was measured."""

    def __init__(
        self,
        base: BaseModel,
        settings: Stage3Settings,
        context: TrainContext,
        processes: DistributedContext,
        validation: Validation | None,
    ) -> None:
        self.base, self.settings, self.compute, self.processes = base, settings, context.compute, processes
        self.unet = base.unet
        configure_unet(self.unet, context.compute, frozen=settings.training_mode == "lora")
        if settings.training_mode == "lora":
            add_adapter(self.unet, settings.lora, context.seed)
        else:
            self.unet.requires_grad_(True)
        self.unet.train()
        self.trained = trained_parameters(self.unet)
        self.average = EMA(self.unet, settings.ema_decay)
        self.optimizer = build_optimizer(
            settings.optimizer,
            list(self.trained.values()),
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
        )
        self.scaler = make_grad_scaler(self.unet.device, context.compute)
        self.model = processes.together(self.unet)
        self.files = validation.folder if validation else None
        self.step = 0
        self.history: list[dict] = []
        self.best: Tensors = {}

    def resume(self, checkpoint: CheckpointStore) -> None:
        """Go on where a training was interrupted, if one was."""
        self.step, kept, self.history = load_checkpoint(checkpoint, optimizer=self.optimizer, files=self.files)
        load_trained(self.unet, kept.get("weights", {}))
        self.average.load(kept.get("average", {}))
        self.best = kept.get("best", {})
        if kept.get("scaler"):
            self.scaler.load_state_dict({name: value.item() for name, value in kept["scaler"].items()})

    def keep(self, checkpoint: CheckpointStore) -> None:
        """Save all of it."""
        tensors = {
            "weights": self.trained,
            "average": self.average.tensors if self.settings.ema_decay else {},
            "best": self.best,
            "scaler": {name: torch.tensor(value) for name, value in self.scaler.state_dict().items()},
        }
        save_checkpoint(
            checkpoint,
            step=self.step,
            tensors={name: group for name, group in tensors.items() if group},
            optimizer=self.optimizer,
            history=self.history,
            files=self.files,
        )

    def advance(self, items: TrainingBatch) -> None:
        """Take one step on `items`."""
        for group in self.optimizer.param_groups:
            group["lr"] = get_lr(
                self.step,
                peak=self.settings.learning_rate,
                steps=self.settings.steps,
                warmup_steps=self.settings.warmup_steps,
                decay=self.settings.lr_scheduler,
            )
        loss = self._backward(items)
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(list(self.trained.values()), self.settings.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.average.update(self.step)
        self.history.append({"step": self.step, "loss": loss})

    def _backward(self, items: TrainingBatch) -> float:
        """Add the gradients of this process's share to the weights', a micro-batch at a time; the whole step's loss."""
        device, size = self.unet.device, self.settings.micro_batch_size
        mine = self.processes.share(len(items.latents))
        parts = [items.take(mine[start : start + size], device) for start in range(0, len(mine), size)]
        total = torch.zeros((), device=device)
        for part in parts:
            with self.processes.exchanging(self.model, last=part is parts[-1]):
                with autocast_context(device, self.compute):
                    errors = diffusion_loss(
                        self.model,
                        self.base.scheduler,
                        part.latents,
                        part.conditions,
                        part.noise,
                        part.timesteps,
                        part.weights,
                    )
                loss = (errors * part.shares).sum()
                # Between processes the gradients' mean is taken, but these are parts of one sum.
                self.scaler.scale(loss * self.processes.size).backward()
            total += loss.detach()
        return self.processes.sum(total).item()

    def look(self, validation: Validation) -> None:
        """Measure and draw with the averaged weights; keep them if training may end before its last step."""
        self.unet.eval()
        with self.average.in_place():
            loss = validation.loss(self.base, self.compute, self.settings.micro_batch_size, self.processes)
            if self.processes.leads:
                with autocast_context(self.unet.device, self.compute):
                    validation.save_pictures(self.step)
        self.unet.train()
        if self.settings.validation.patience and loss < min(validation_losses(self.history), default=float("inf")):
            self.best = self._averaged()
        self.history[-1]["validation_loss"] = loss

    def result(self) -> Tensors:
        """The weights of the best look if one is kept, else the averaged ones, on the CPU."""
        return self.best or self._averaged()

    def _averaged(self) -> Tensors:
        return {
            name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, value in self.average.tensors.items()
        }


def load_trained_weights(unet: UNet2DConditionModel, settings: Stage3Settings, weights: Tensors) -> None:
    """Put what `train_unet` returned into the base model's UNet, float32, in place; an adapter stays beside it."""
    if settings.training_mode == "lora":
        add_adapter(unet, settings.lora, seed=0)
        load_trained(unet, weights)
    else:
        unet.load_state_dict(weights)
    unet.requires_grad_(False)
