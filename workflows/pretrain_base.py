"""The small base model that ships, from nothing: hours on two cores, in as many goes as need be.

pyflyte run workflows/pretrain_base.py pretrain_base --inputs-file workflows/configs/pretrain.yaml
"""

from flytekit import workflow

from hand1000.config.pretraining import PretrainSettings
from tasks.context import Artifact
from tasks.pretraining import render_pretraining_images, train_autoencoder, train_base, train_text_encoder


@workflow
def pretrain_base(settings: PretrainSettings, root: str) -> Artifact:
    """Render hands in arbitrary poses, train an autoencoder on them, then a text encoder, then a UNet.

    Args:
        settings: the recipe.
        root: the artifact root; the result, a diffusers folder, is copied from there to `models/small-base`.
    """
    pictures = render_pretraining_images(
        images=settings.images, gesture_images=settings.gesture_images, seed=settings.seed, root=root
    )
    autoencoder = train_autoencoder(pictures=pictures, settings=settings, root=root)
    text_encoder = train_text_encoder(pictures=pictures, autoencoder=autoencoder, settings=settings, root=root)
    return train_base(
        pictures=pictures, autoencoder=autoencoder, text_encoder=text_encoder, settings=settings, root=root
    )
