"""The paper's comparison: six methods on the same prompts and seeds, evaluated the same way.

pyflyte run workflows/compare_methods.py compare_methods --inputs-file workflows/configs/compare.yaml
"""

from functools import partial
from typing import Any

from flytekit import dynamic, map_task, workflow
from flytekit.types.directory import FlyteDirectory

from hand1000.config.comparison import ComparisonSettings, plain_finetuning
from hand1000.gestures import parse_gestures
from hand1000.models.backbone import required_features
from hand1000.models.base_model import check_features
from tasks.baselines import imagic_base, imagic_tuned, refine_hands
from tasks.build_dataset import caption_images
from tasks.comparison import evaluate_methods, write_comparison
from tasks.context import RunContext
from tasks.evaluation import extract_real_features
from tasks.generation import generate_base, generate_tuned
from tasks.prepare_data import prepare_data
from tasks.resources import resources_table
from tasks.start_run import start_run
from workflows.train_stages import train_stages


@dynamic(**resources_table().pod_of("compare_all_gestures").options())
def compare_all_gestures(
    gestures: str, images: int, data: str, base_model: str, root: str, shards: int, settings: ComparisonSettings
) -> FlyteDirectory:
    """Generate with and evaluate every method on every gesture, each with its own models; put all side by side."""
    check_features(base_model, required_features(settings.common))
    check_features(settings.hand_refiner.inpainting_model or base_model, ["HandRefiner"])
    evaluations, runs = {}, []
    for gesture in parse_gestures(gestures):
        source = {"gesture": gesture, "images": images, "data": data, "base_model": base_model}
        common = settings.common
        dataset = prepare_data(**source, settings=common.data, seed=common.seed, run=RunContext(root=root))
        # Each training has a run of its own in MLflow, as their stages have the same names.
        plain = plain_finetuning(common)
        run, plain_run = (
            start_run(**source, settings=trained, root=root, dataset=dataset) for trained in (common, plain)
        )
        evaluations[gesture] = compare_gesture(source, list(range(shards)), settings, run, plain_run)
        runs += [run, plain_run]
    return write_comparison(gestures=evaluations, runs=runs, run=RunContext(root=root))


def compare_gesture(
    source: dict[str, Any], shard: list[int], settings: ComparisonSettings, run: RunContext, plain_run: RunContext
) -> FlyteDirectory:
    """One gesture's part of the graph."""
    common, plain, base_model = settings.common, plain_finetuning(settings.common), source["base_model"]
    sharded: dict[str, Any] = {"shards": len(shard), "run": run}
    dataset = prepare_data(**source, settings=common.data, seed=common.seed, run=run)
    captioning = {"dataset": dataset, "settings": common.captions, "base_model": base_model, "keep_captions": True}
    captions = map_task(partial(caption_images, **captioning, **sharded))(shard=shard)

    # What has to be trained: Hand1000, and plain fine-tuning without the gesture.
    training = {"dataset": dataset, "captions": captions, "gesture": source["gesture"], "base_model": base_model}
    training |= {"shard": shard, "shards": len(shard)}
    hand1000_model = train_stages(**training, settings=common, run=run)
    plain_model = train_stages(**training, settings=plain, run=plain_run)

    # The methods that generate from a prompt and a seed.
    prompts = {"dataset": dataset, "captions": captions, "seed": common.seed, **sharded}
    plain_prompts = prompts | {"settings": plain.generation, "run": plain_run}
    prompts |= {"settings": common.generation}
    sd = map_task(partial(generate_base, base_model=base_model, **prompts))(shard=shard)
    sd_tuned = map_task(partial(generate_tuned, model=plain_model.model, **plain_prompts))(shard=shard)
    hand1000 = map_task(partial(generate_tuned, model=hand1000_model.model, **prompts))(shard=shard)

    # The methods that edit another one's images.
    imagic: dict[str, Any] = {"imagic": settings.imagic, "settings": plain.generation, "compute": common.compute}
    imagic |= {"seed": common.seed, "run": run}
    sd_imagic = map_task(partial(imagic_base, base_model=base_model, **imagic))(images=sd, shard=shard)
    sd_tuned_imagic = map_task(partial(imagic_tuned, model=plain_model.model, **imagic))(images=sd_tuned, shard=shard)
    refiner: dict[str, Any] = {"base_model": base_model, "refiner": settings.hand_refiner, "run": run}
    sd_handrefiner = map_task(partial(refine_hands, settings=common.generation, **refiner))(images=sd, shard=shard)

    return evaluate_methods(
        real_features=extract_real_features(dataset=dataset, captions=captions, settings=common.evaluation, run=run),
        images={
            "sd": sd,
            "sd_tuned": sd_tuned,
            "sd_imagic": sd_imagic,
            "sd_tuned_imagic": sd_tuned_imagic,
            "sd_handrefiner": sd_handrefiner,
            "hand1000": hand1000,
        },
        trained={
            "sd_tuned": [plain_model.trained],
            "sd_tuned_imagic": [plain_model.trained],
            "hand1000": [hand1000_model.fusion, hand1000_model.trained],
        },
        embeddings=hand1000_model.embeddings,
        settings=common.evaluation,
        seed=common.seed,
        run=run,
    )


@workflow
def compare_methods(
    gestures: str, images: int, data: str, base_model: str, root: str, shards: int, settings: ComparisonSettings
) -> FlyteDirectory:
    """Compare the methods on each of `gestures`, such as `call,four,like`; other inputs are those of `train_gesture`.

    Returns:
        The folder of `comparison.html`, `comparison.json`, `tables.md` and `images.png`.
    """
    return compare_all_gestures(
        gestures=gestures, images=images, data=data, base_model=base_model, root=root, shards=shards, settings=settings
    )
