"""From images to a tuned model that is evaluated against its base model and the champion."""

from functools import partial
from typing import NamedTuple

from flytekit import map_task, workflow
from flytekit.types.directory import FlyteDirectory

from hand1000.config.settings import Settings
from tasks.build_dataset import caption_images
from tasks.context import RunContext
from tasks.evaluation import evaluate, extract_real_features
from tasks.generation import generate_base, generate_champion, generate_export, generate_general, generate_tuned
from tasks.prepare_data import prepare_data
from tasks.start_run import shard_indices
from workflows.train_stages import train_stages


class EvaluatedModel(NamedTuple):
    """The data, the artifacts of the stages, the generated images and their evaluation."""

    dataset: FlyteDirectory
    captions: list[FlyteDirectory]
    feature: FlyteDirectory
    fusion: FlyteDirectory
    embeddings: list[FlyteDirectory]
    trained: FlyteDirectory
    model: FlyteDirectory
    base_images: list[FlyteDirectory]
    champion_images: list[FlyteDirectory]
    tuned_images: list[FlyteDirectory]
    general_images: FlyteDirectory
    evaluation: FlyteDirectory


@workflow
def train_and_evaluate(  # noqa: PLR0913 (Flyte signature)
    gesture: str,
    images: int,
    data: str,
    base_model: str,
    shards: int,
    champion: str,
    champion_shard: list[int],
    data_seed: int,
    settings: Settings,
    run: RunContext,
) -> EvaluatedModel:
    """Teach the base model a gesture and evaluate both, and the champion, on the same prompts and seeds.

    `champion` is a registered version and `champion_shard` the shards of its images, "" and none without one.
    `data_seed` selects and splits the images, everything else takes `settings.seed`; for the other inputs see
    `train_gesture`.
    """
    shard = shard_indices(shards=shards)
    source = {"gesture": gesture, "images": images, "data": data, "base_model": base_model}
    dataset = prepare_data(**source, settings=settings.data, seed=data_seed, run=run)
    captioning = {"dataset": dataset, "settings": settings.captions, "base_model": base_model, "keep_captions": True}
    captions = map_task(partial(caption_images, shards=shards, run=run, **captioning))(shard=shard)
    tuned = train_stages(
        dataset=dataset,
        captions=captions,
        gesture=gesture,
        base_model=base_model,
        shard=shard,
        shards=shards,
        settings=settings,
        run=run,
    )
    prompts = {"dataset": dataset, "captions": captions, "shards": shards, "run": run}
    base = partial(generate_base, base_model=base_model, settings=settings.generation, seed=settings.seed, **prompts)
    base_images = map_task(base)(shard=shard)
    # Not shared with `base`: flytekit resolves a promise such as `settings.seed` only once.
    own = partial(generate_tuned, model=tuned.model, settings=settings.generation, seed=settings.seed, **prompts)
    tuned_images = map_task(own)(shard=shard)
    former = partial(generate_champion, champion=champion, settings=settings.generation, seed=settings.seed, **prompts)
    champion_images = map_task(former)(shard=champion_shard)
    general_images = generate_general(
        base_model=base_model,
        champion=champion,
        model=tuned.model,
        dataset=dataset,
        captions=captions,
        images=settings.evaluation.general_images,
        other_gesture_images=settings.evaluation.other_gesture_images,
        settings=settings.generation,
        seed=settings.seed,
        run=run,
    )
    export_images = generate_export(
        model=tuned.model,
        dataset=dataset,
        captions=captions,
        images=settings.evaluation.export_images,
        settings=settings.generation,
        seed=settings.seed,
        run=run,
    )
    real_features = extract_real_features(dataset=dataset, captions=captions, settings=settings.evaluation, run=run)
    evaluation = evaluate(
        real_features=real_features,
        base_images=base_images,
        champion_images=champion_images,
        tuned_images=tuned_images,
        general_images=general_images,
        export_images=export_images,
        settings=settings.evaluation,
        seed=settings.seed,
        run=run,
    )
    return EvaluatedModel(
        dataset=dataset,
        captions=captions,
        **tuned._asdict(),
        base_images=base_images,
        champion_images=champion_images,
        tuned_images=tuned_images,
        general_images=general_images,
        evaluation=evaluation,
    )
