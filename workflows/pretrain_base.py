"""The small base model that ships, from scratch: hours on two cores; a stopped run continues where it was.

pyflyte run workflows/pretrain_base.py pretrain_base --inputs-file workflows/configs/pretrain.yaml
"""

from flytekit import workflow

from hand1000.config.pretraining import PretrainSettings
from tasks.context import Artifact
from tasks.pretraining import render_pretraining_images, train_autoencoder, train_base, train_text_encoder
from tasks.start_run import untracked_run


@workflow
def pretrain_base(settings: PretrainSettings, root: str) -> Artifact:
    """Render hands in arbitrary poses, train an autoencoder on them, then a text encoder, then a UNet.

    Args:
        settings: The recipe.
        root: The artifact root; the result, a diffusers folder, is copied from there to `models/small-base`.
    """
    run = untracked_run(root=root)
    images = render_pretraining_images(
        images=settings.images,
        gesture_images=settings.gesture_images,
        image_size=settings.image_size,
        seed=settings.seed,
        run=run,
    )
    autoencoder = train_autoencoder(images=images, settings=settings, run=run)
    text_encoder = train_text_encoder(images=images, autoencoder=autoencoder, settings=settings, run=run)
    return train_base(images=images, autoencoder=autoencoder, text_encoder=text_encoder, settings=settings, run=run)
