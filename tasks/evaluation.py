"""Evaluation of the images of the base model and of the tuned one against the test images."""

from collections.abc import Mapping
from typing import Any

from flytekit.types.directory import FlyteDirectory

from hand1000.config.settings import EvaluationSettings
from hand1000.storage.files import write_json, write_text
from tasks.context import RunContext, TaskContext
from tasks.decorators import artifact_task


def load_evaluator(run: RunContext, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The models that the input `settings` names; their digests decide in its place."""
    from hand1000.evaluation.evaluator import Evaluator

    return {"evaluator": Evaluator.from_settings(inputs["settings"])}


@artifact_task(load=load_evaluator, excluded=("settings",))
def extract_real_features(
    context: TaskContext, dataset: FlyteDirectory, captions: list[FlyteDirectory], settings: EvaluationSettings
) -> None:
    """The features of the real images, to which every evaluation on this dataset compares."""
    from hand1000.data.captioning import read_captioned_split

    folder = context.download(dataset)
    records = read_captioned_split(folder, "test", context.download_all(captions))
    context.loaded["evaluator"].extract_real(folder, context.on_progress, records).save(context.output_dir)


@artifact_task(load=load_evaluator, excluded=("settings",))
def evaluate(
    context: TaskContext,
    real_features: FlyteDirectory,
    base_images: list[FlyteDirectory],
    tuned_images: list[FlyteDirectory],
    settings: EvaluationSettings,
    seed: int,
) -> None:
    """`base.json`, `tuned.json` and `table.txt`."""
    from hand1000.data.imageset import merge_image_sets
    from hand1000.evaluation.base_vs_tuned import comparison_text
    from hand1000.evaluation.evaluator import RealFeatures

    evaluator, real = context.loaded["evaluator"], RealFeatures.load(context.download(real_features))
    metrics = {}
    for name, shards in (("base", base_images), ("tuned", tuned_images)):
        images = merge_image_sets(context.download_all(shards), context.scratch_dir(name))
        metrics[name] = evaluator.compute(real, evaluator.extract(images, context.on_progress), seed=seed)
        write_json(context.output_dir / f"{name}.json", metrics[name])
    write_text(context.output_dir / "table.txt", comparison_text(metrics["base"], metrics["tuned"]))
