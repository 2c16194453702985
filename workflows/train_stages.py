"""Stages I, II and III: from captioned images to a tuned model."""

from functools import partial
from typing import NamedTuple

from flytekit import map_task, workflow
from flytekit.types.directory import FlyteDirectory

from hand1000.config.settings import Settings
from tasks.stage1 import average_hands, find_hands
from tasks.stage2 import encode_data, refine_embeddings, train_fusion
from tasks.stage3 import assemble_model, generate_class_images, train_unet


class TunedModel(NamedTuple):
    """What the stages leave."""

    feature: FlyteDirectory
    fusion: FlyteDirectory
    embeddings: list[FlyteDirectory]
    trained: FlyteDirectory
    model: FlyteDirectory


@workflow
def train_stages(
    dataset: FlyteDirectory,
    captions: list[FlyteDirectory],
    gesture: str,
    base_model: str,
    shard: list[int],
    shards: int,
    settings: Settings,
    run: str,
    root: str,
) -> TunedModel:
    """Teach the base model the gestures of a data set.

    Args:
        dataset: of `prepare_data`.
        captions: of `caption_images`, by shards.
        gesture: as `prepare_data` was given it.
        base_model: a diffusers folder, an `s3://` address, or a hub id with its revision.
        shard: 0 to shards - 1.
        shards: how many parts the map tasks cut their work into.
        settings: of the run.
        run: key of the MLflow run.
        root: the artifact root.
    """
    # Stage I: the feature of each gesture.
    landmarks = map_task(
        partial(find_hands, dataset=dataset, shards=shards, settings=settings.stage1, run=run, root=root)
    )(shard=shard)
    feature = average_hands(
        landmarks=landmarks, dataset=dataset, gesture=gesture, settings=settings.stage1, run=run, root=root
    )

    # Stage II: the fusion, then each image's embedding.
    prepared = encode_data(dataset=dataset, captions=captions, base_model=base_model, run=run, root=root)
    fusion = train_fusion(
        prepared=prepared,
        feature=feature,
        base_model=base_model,
        settings=settings.stage2,
        compute=settings.compute,
        seed=settings.seed,
        run=run,
        root=root,
    )
    embeddings = map_task(
        partial(
            refine_embeddings,
            prepared=prepared,
            feature=feature,
            fusion=fusion,
            base_model=base_model,
            shards=shards,
            settings=settings.stage2,
            compute=settings.compute,
            seed=settings.seed,
            run=run,
            root=root,
        )
    )(shard=shard)

    # Stage III: the UNet, and the model around it.
    prior = generate_class_images(prepared=prepared, base_model=base_model, settings=settings, run=run, root=root)
    trained = train_unet(
        prepared=prepared,
        fusion=fusion,
        embeddings=embeddings,
        prior=prior,
        base_model=base_model,
        settings=settings,
        run=run,
        root=root,
    )
    model = assemble_model(trained=trained, fusion=fusion, base_model=base_model, settings=settings, run=run, root=root)
    return TunedModel(feature=feature, fusion=fusion, embeddings=embeddings, trained=trained, model=model)
