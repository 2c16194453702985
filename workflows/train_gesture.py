"""One gesture or several in one model, from images to a registered model.

pyflyte run workflows/train_gesture.py train_gesture --inputs-file workflows/configs/demo.yaml
"""

from functools import partial

from flytekit import map_task, workflow

from hand1000.settings import Settings
from tasks.captioning import caption_images
from tasks.data import prepare_data
from tasks.evaluation import evaluate
from tasks.generation import draw_base, draw_tuned
from tasks.registration import Registered, register
from tasks.run import number_shards, open_run
from workflows.train_model import train_model


@workflow
def train_gesture(
    gesture: str, images: int, data: str, base_model: str, root: str, shards: int, settings: Settings
) -> Registered:
    """Teach the base model a gesture, measure it against the base model, register it as a candidate.

    Args:
        gesture: HaGRID's name of the gesture, such as `four`; or several with commas, `call,four,like`, for one model
            of all of them.
        images: training images of each gesture; the paper uses 1,000.
        data: `sample` for rendered hands, or a folder or `s3://` prefix of images.
        base_model: a diffusers folder, an `s3://` address, or a hub id with its revision.
        root: the artifact root, a folder or `s3://bucket/prefix`.
        shards: how many parts the map tasks cut their work into; it does not change the result.
        settings: everything else, see `hand1000 config show default`.
    """
    run = open_run(gesture=gesture, images=images, data=data, base_model=base_model, settings=settings, root=root)
    shard = number_shards(shards=shards)
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
    captions = map_task(partial(caption_images, dataset=dataset, shards=shards, run=run, root=root))(shard=shard)

    tuned = train_model(
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

    # The same prompts and seeds for both, measured against the held-out images.
    base_images = map_task(
        partial(
            draw_base,
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
            draw_tuned,
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
        base_images=base_images,
        tuned_images=tuned_images,
        settings=settings.evaluation,
        seed=settings.seed,
        run=run,
        root=root,
    )
    return register(
        dataset=dataset,
        feature=tuned.feature,
        fusion=tuned.fusion,
        embeddings=tuned.embeddings,
        model=tuned.model,
        base_images=base_images,
        tuned_images=tuned_images,
        evaluation=evaluation,
        gesture=gesture,
        base_model=base_model,
        settings=settings,
        run=run,
        root=root,
    )
