"""The run-wide arguments that every training takes beside its data and its own settings."""

import dataclasses
from dataclasses import dataclass

from hand1000.config.settings import ComputeSettings
from hand1000.core.progress import CheckpointStore, NullCheckpointStore, ProgressCallback, noop_callback

FULL_PRECISION = ComputeSettings(
    precision="fp32",
    attention="sdpa",
    gradient_checkpointing=False,
    channels_last=True,
    compile=False,
    cuda_graphs=False,
)
"""Plain float32 training, right for small models and for a CPU."""


@dataclass(frozen=True, kw_only=True)
class TrainContext:
    """Seed, compute settings, checkpoints and progress of one training.

    `TrainContext(seed=0)` is enough for a short training in a notebook: it saves and reports nothing.

    Attributes:
        seed: Random seed of the run.
        compute: Precision, kernels and memory of the UNet.
        checkpoint: Store of the unfinished training's state.
        on_progress: Called after each step.
    """

    seed: int
    compute: ComputeSettings = FULL_PRECISION
    checkpoint: CheckpointStore = dataclasses.field(default_factory=NullCheckpointStore)
    on_progress: ProgressCallback = noop_callback
