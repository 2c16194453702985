"""From images to a tuned model that is measured against its base model."""

from functools import partial
from typing import NamedTuple

from flytekit import map_task, workflow
from flytekit.types.directory import FlyteDirectory

from hand1000.config.settings import Settings
from tasks.captioning import caption_images
from tasks.evaluation import evaluate
from tasks.generation import generate_base, generate_tuned
from tasks.mlflow_run import shard_indices
from tasks.prepare_data import prepare_data
from workflows.train_stages import train_stages


class EvaluatedModel(NamedTuple):
    """What comes of it: the data, what the stages left, and what was drawn and found."""

    dataset: FlyteDirectory
    captions: list[FlyteDirectory]
    feature: FlyteDirectory
    fusion: FlyteDirectory
    embeddings: list[FlyteDirectory]
    trained: FlyteDirectory
    model: FlyteDirectory
    base_images: list[FlyteDirectory]
    tuned_images: list[FlyteDirectory]
    evaluation: FlyteDirectory


@workflow
def train_and_evaluate(
    gesture: str, images: int, data: str, base_model: str, root: str, shards: int, settings: Settings, run: str
) -> EvaluatedModel:
    """Teach the base model a gesture and measure both on the same prompts and seeds.

    Args:
        gesture, images, data, base_model, root, shards, settings: as `train_gesture` takes them.
        run: key of the MLflow run.
    """
    shard = shard_indices(shards=shards)
    dataset = prepare_data(
        gesture=gesture,
        images=images,
        data=data,
        base_model=base_model,
        settings=settings.data,
        seed=settings.seed,
        run=run,
        root=root,
    )
    captions = map_task(
        partial(
            caption_images,
            dataset=dataset,
            settings=settings.captions,
            base_model=base_model,
            shards=shards,
            run=run,
            root=root,
        )
    )(shard=shard)
    tuned = train_stages(
        dataset=dataset,
        captions=captions,
        gesture=gesture,
        base_model=base_model,
        shard=shard,
        shards=shards,
        settings=settings,
        run=run,
        root=root,
    )
    base_images = map_task(
        partial(
            generate_base,
            base_model=base_model,
            dataset=dataset,
            captions=captions,
            shards=shards,
            settings=settings.generation,
            seed=settings.seed,
            run=run,
            root=root,
        )
    )(shard=shard)
    tuned_images = map_task(
        partial(
            generate_tuned,
            model=tuned.model,
            dataset=dataset,
            captions=captions,
            shards=shards,
            settings=settings.generation,
            seed=settings.seed,
            run=run,
            root=root,
        )
    )(shard=shard)
    evaluation = evaluate(
        dataset=dataset,
        captions=captions,
        base_images=base_images,
        tuned_images=tuned_images,
        settings=settings.evaluation,
        seed=settings.seed,
        run=run,
        root=root,
    )
    return EvaluatedModel(
        dataset=dataset,
        captions=captions,
        feature=tuned.feature,
        fusion=tuned.fusion,
        embeddings=tuned.embeddings,
        trained=tuned.trained,
        model=tuned.model,
        base_images=base_images,
        tuned_images=tuned_images,
        evaluation=evaluation,
    )
