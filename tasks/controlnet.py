"""The small ControlNet: depth maps of rendered hands, and its training."""

from flytekit.types.directory import FlyteDirectory

from hand1000.config.controlnet import ControlSettings
from tasks.context import BaseModelAddress, TaskContext
from tasks.decorators import artifact_task

GRID = 8
"""Number of depth maps in the image grid that shows what was learned."""


@artifact_task(key_by={"settings": ControlSettings.depth_key_fields})
def build_depth_pairs(context: TaskContext, images: FlyteDirectory, settings: ControlSettings) -> None:
    """The rendered images whose hands MediaPipe finds, and their depth maps."""
    from hand1000.hands.depth_pairs import build_depth_pairs

    options = settings.depth_key_fields()
    pairs = build_depth_pairs(context.download(images), on_progress=context.on_progress, **options)
    pairs.save(context.output_dir)


@artifact_task(key_by={"settings": ControlSettings.training_key_fields})
def train_controlnet(
    context: TaskContext, pairs: FlyteDirectory, base_model: BaseModelAddress, settings: ControlSettings
) -> None:
    """The ControlNet as a diffusers folder in half precision, with its recipe and an image grid."""
    from hand1000.core.devices import best_device
    from hand1000.hands.depth_pairs import DepthPairs
    from hand1000.models.base_model import load_base_model
    from hand1000.training.train_controlnet import save_controlnet, train_controlnet

    examples = DepthPairs.load(context.download(pairs))
    base = load_base_model(base_model, best_device())
    controlnet, history = train_controlnet(
        examples.with_mirrored(), base, settings, context.train_context(settings.seed)
    )
    save_controlnet(context.output_dir, controlnet, base, settings, history, examples.first(GRID))
