"""The ControlNet with which HandRefiner repairs the small base model's hands: about half an hour on two cores.

pyflyte run workflows/train_controlnet.py train_controlnet_on_depths --inputs-file workflows/configs/controlnet.yaml
"""

from flytekit import workflow

from hand1000.config.controlnet import ControlSettings
from hand1000.models.small_base import IMAGE_SIZE
from tasks.context import Artifact
from tasks.controlnet import build_depth_pairs, train_controlnet
from tasks.pretraining import render_pretraining_images
from tasks.start_run import check_controlnet_inputs


@workflow
def train_controlnet_on_depths(settings: ControlSettings, base_model: str, root: str) -> Artifact:
    """Render hands in arbitrary poses, make depth maps of those that MediaPipe finds, and train on the pairs.

    Args:
        settings: The recipe.
        base_model: A folder, an `s3://` address or a pinned hub id; its UNet stays as it is.
        root: The artifact root; the result, a diffusers folder, is copied from there to `models/small-controlnet`.
    """
    run = check_controlnet_inputs(base_model=base_model, root=root)
    images = render_pretraining_images(
        images=settings.images,
        gesture_images=settings.gesture_images,
        image_size=IMAGE_SIZE,
        seed=settings.seed,
        run=run,
    )
    pairs = build_depth_pairs(images=images, settings=settings, run=run)
    return train_controlnet(pairs=pairs, base_model=base_model, settings=settings, run=run)
