"""Stages I, II and III: from captioned images to a tuned model."""

from functools import partial
from typing import NamedTuple

from flytekit import map_task, workflow
from flytekit.types.directory import FlyteDirectory

from hand1000.config.settings import Settings
from tasks.context import RunContext
from tasks.stage1 import compute_gesture_feature, find_hands
from tasks.stage2 import encode_dataset, optimize_embeddings, train_fusion
from tasks.stage3 import assemble_model, generate_class_images, train_unet


class TunedModel(NamedTuple):
    """The artifacts of the three stages."""

    feature: FlyteDirectory
    fusion: FlyteDirectory
    embeddings: list[FlyteDirectory]
    trained: FlyteDirectory
    model: FlyteDirectory


@workflow
def train_stages(  # noqa: PLR0913 (Flyte signature)
    dataset: FlyteDirectory,
    captions: list[FlyteDirectory],
    gesture: str,
    base_model: str,
    shard: list[int],
    shards: int,
    settings: Settings,
    run: RunContext,
) -> TunedModel:
    """Teach the base model the gestures of a dataset, the artifact of `prepare_data`.

    `captions` are the artifacts of `caption_images` by shards; the other inputs are those of `train_gesture`.
    """
    # Stage I: the feature of each gesture.
    hands = partial(find_hands, dataset=dataset, shards=shards, settings=settings.stage1, run=run)
    landmarks = map_task(hands)(shard=shard)
    feature = compute_gesture_feature(
        landmarks=landmarks, dataset=dataset, gesture=gesture, settings=settings.stage1, run=run
    )

    # Stage II: the fusion, then each image's embedding.
    encoded = encode_dataset(dataset=dataset, captions=captions, base_model=base_model, run=run)
    stage2 = {"encoded": encoded, "feature": feature, "base_model": base_model, "run": run}
    fusion = train_fusion(settings=settings.stage2, compute=settings.compute, seed=settings.seed, **stage2)
    optimize = partial(
        optimize_embeddings, settings=settings.stage2, compute=settings.compute, seed=settings.seed, **stage2
    )
    embeddings = map_task(partial(optimize, fusion=fusion, shards=shards))(shard=shard)

    # Stage III: the UNet, and the model around it.
    stage3 = {"base_model": base_model, "settings": settings, "run": run}
    class_images = generate_class_images(encoded=encoded, **stage3)
    trained = train_unet(encoded=encoded, fusion=fusion, embeddings=embeddings, class_images=class_images, **stage3)
    model = assemble_model(trained=trained, fusion=fusion, **stage3)
    return TunedModel(feature=feature, fusion=fusion, embeddings=embeddings, trained=trained, model=model)
