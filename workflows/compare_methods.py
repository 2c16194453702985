"""The paper's comparison: six systems, the same prompts and seeds, measured alike.

pyflyte run workflows/compare_methods.py compare_methods --inputs-file workflows/configs/compare.yaml
"""

from functools import partial
from typing import Any

from flytekit import dynamic, map_task, workflow
from flytekit.types.directory import FlyteDirectory

from hand1000.config.comparison import ComparisonSettings, plain_finetuning
from hand1000.gestures import parse_gestures
from tasks.baselines import imagic_base, imagic_tuned, refine_hands
from tasks.captioning import caption_images
from tasks.comparison import measure_systems, write_comparison
from tasks.generation import generate_base, generate_tuned
from tasks.mlflow_run import start_run
from tasks.prepare_data import prepare_data
from tasks.resources import resources_table
from workflows.train_stages import train_stages


@dynamic(**resources_table().pod_of("compare_all_gestures").options())
def compare_all_gestures(
    gestures: str, images: int, data: str, base_model: str, root: str, shards: int, settings: ComparisonSettings
) -> dict[str, FlyteDirectory]:
    """Draw and measure every system on every gesture; each gesture has its own models."""
    return {
        gesture: compare_gesture(gesture, images, data, base_model, root, shards, settings)
        for gesture in parse_gestures(gestures)
    }


def compare_gesture(
    gesture: str, images: int, data: str, base_model: str, root: str, shards: int, settings: ComparisonSettings
) -> FlyteDirectory:
    """The part of the graph that is one gesture's."""
    tuned, plain = settings.common, plain_finetuning(settings.common)
    inputs = {"gesture": gesture, "images": images, "data": data, "base_model": base_model, "root": root}
    run = start_run(**inputs, settings=tuned)
    common = {"run": run, "root": root}
    shard = list(range(shards))
    dataset = prepare_data(**inputs, settings=tuned.data, seed=tuned.seed, run=run)
    captions = map_task(
        partial(
            caption_images,
            dataset=dataset,
            settings=tuned.captions,
            base_model=base_model,
            shards=shards,
            **common,
        )
    )(shard=shard)

    # What has to be trained: Hand1000, and the same without the gesture.
    training = {"dataset": dataset, "captions": captions, "gesture": gesture, "base_model": base_model}
    training |= {"shard": shard, "shards": shards, **common}
    hand1000 = train_stages(**training, settings=tuned)
    sd_tuned = train_stages(**training, settings=plain)

    # Those that draw from a prompt and a seed.
    prompts = {"dataset": dataset, "captions": captions, "shards": shards, "seed": tuned.seed, **common}
    sd = map_task(partial(generate_base, base_model=base_model, settings=tuned.generation, **prompts))(shard=shard)
    of_tuned = map_task(partial(generate_tuned, model=sd_tuned.model, settings=plain.generation, **prompts))(
        shard=shard
    )
    of_hand1000 = map_task(partial(generate_tuned, model=hand1000.model, settings=tuned.generation, **prompts))(
        shard=shard
    )

    # Those that work on another one's pictures.
    editing: dict[str, Any] = {"imagic": settings.imagic, "settings": plain.generation, "compute": tuned.compute}
    editing |= {"seed": tuned.seed, **common}
    sd_imagic = map_task(partial(imagic_base, base_model=base_model, **editing))(pictures=sd, shard=shard)
    tuned_imagic = map_task(partial(imagic_tuned, model=sd_tuned.model, **editing))(pictures=of_tuned, shard=shard)

    refiner: dict[str, Any] = {"base_model": base_model, "refiner": settings.hand_refiner}
    sd_handrefiner = map_task(partial(refine_hands, settings=tuned.generation, **refiner, **common))(
        pictures=sd, shard=shard
    )

    return measure_systems(
        dataset=dataset,
        captions=captions,
        pictures={
            "sd": sd,
            "sd_tuned": of_tuned,
            "sd_imagic": sd_imagic,
            "sd_tuned_imagic": tuned_imagic,
            "sd_handrefiner": sd_handrefiner,
            "hand1000": of_hand1000,
        },
        trained={
            "sd_tuned": [sd_tuned.trained],
            "sd_tuned_imagic": [sd_tuned.trained],
            "hand1000": [hand1000.fusion, hand1000.trained],
        },
        embeddings=hand1000.embeddings,
        settings=tuned.evaluation,
        seed=tuned.seed,
        **common,
    )


@workflow
def compare_methods(
    gestures: str, images: int, data: str, base_model: str, root: str, shards: int, settings: ComparisonSettings
) -> FlyteDirectory:
    """Compare the systems on each gesture and put all of it side by side.

    Args:
        gestures: with commas, such as `call,four,like,mute,ok,palm`.
        images, data, base_model, root, shards: as `train_gesture` takes them.
        settings: of the models and of each method.

    Returns:
        the folder of `comparison.html`, `comparison.json`, `tables.md` and `pictures.png`.
    """
    found = compare_all_gestures(
        gestures=gestures,
        images=images,
        data=data,
        base_model=base_model,
        root=root,
        shards=shards,
        settings=settings,
    )
    return write_comparison(gestures=found, root=root)
