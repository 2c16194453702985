"""Evaluation of the images of the base model and of the tuned one against the test images."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from flytekit.types.directory import FlyteDirectory

from hand1000.config.settings import EvaluationSettings
from hand1000.storage.files import read_json, write_json, write_text
from tasks.context import RunContext, TaskContext
from tasks.decorators import artifact_task

if TYPE_CHECKING:
    from hand1000.evaluation.features import ImageFeatures
    from hand1000.evaluation.general import GeneralMetrics


def load_evaluator(run: RunContext, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The models that the input `settings` names, not loaded yet; their digests decide in its place."""
    from hand1000.evaluation.identity import EvaluatorSource

    return {"evaluator": EvaluatorSource(inputs["settings"])}


@artifact_task(load=load_evaluator, excluded=("settings",))
def extract_real_features(
    context: TaskContext, dataset: FlyteDirectory, captions: list[FlyteDirectory], settings: EvaluationSettings
) -> None:
    """The features of the real images, to which every evaluation on this dataset compares."""
    from hand1000.data.captioning import read_captioned_split

    folder = context.download(dataset)
    records = read_captioned_split(folder, "test", context.download_all(captions))
    evaluator = context.loaded["evaluator"].load()
    evaluator.extract_real(folder, context.on_progress, records).save(context.output_dir)


@artifact_task(load=load_evaluator, excluded=("settings",))
def evaluate(  # noqa: PLR0913 (Flyte signature)
    context: TaskContext,
    real_features: FlyteDirectory,
    base_images: list[FlyteDirectory],
    champion_images: list[FlyteDirectory],
    tuned_images: list[FlyteDirectory],
    general_images: FlyteDirectory,
    export_images: FlyteDirectory,
    settings: EvaluationSettings,
    seed: int,
) -> None:
    """Metrics of each model, `base.json`, `tuned.json` and perhaps `champion.json`; `paired.json` and `table.txt`.

    If there are images of prompts without the gesture, also `general_base.json` and so on, and `other_base.json` and so
    on of prompts that name other gestures. `export.json` compares the tuned model with its export, or says why there is
    nothing to compare.
    """
    from hand1000.data.imageset import merge_image_sets
    from hand1000.evaluation.base_vs_tuned import comparison_text
    from hand1000.evaluation.evaluator import RealFeatures
    from hand1000.evaluation.exported import compare_export
    from hand1000.evaluation.general import OTHER_GESTURES, compute_general_metrics
    from hand1000.evaluation.paired_metrics import EvaluatedImages, compare_models
    from hand1000.export.measured import EXPORT_METRICS, ExportMetrics

    evaluator, real = context.loaded["evaluator"].load(), RealFeatures.load(context.download(real_features))
    extract = partial(evaluator.extract, on_progress=context.on_progress, store=context.run.open_store())
    models: dict[str, EvaluatedImages] = {}
    for name, shards in (("base", base_images), ("tuned", tuned_images), ("champion", champion_images)):
        if shards:
            images = merge_image_sets(context.download_all(shards), context.scratch_dir(name))
            features = extract(images)
            models[name] = EvaluatedImages(features, evaluator.compute(real, features, seed=seed))
            write_json(context.output_dir / f"{name}.json", models[name].metrics)
    general: dict[str, dict[str, tuple[ImageFeatures, GeneralMetrics]]] = {"general": {}, "other": {}}
    trained = set(models["tuned"].features.gestures)
    parent = context.download(general_images)
    for kind, folders in (("general", parent), ("other", parent / OTHER_GESTURES)):
        for name in ("base", "tuned", "champion"):
            if (folders / name).is_dir():
                features = extract(folders / name)
                metrics = compute_general_metrics(features, real, evaluator.classifier, trained)
                general[kind][name] = features, metrics
                write_json(context.output_dir / f"{kind}_{name}.json", metrics)
    paired = compare_models(real, models, general["general"], seed, general["other"])
    write_json(context.output_dir / "paired.json", paired)
    exported = context.download(export_images)
    export = ExportMetrics.model_validate(read_json(exported / EXPORT_METRICS))
    if not export.note:
        features = extract(exported)
        rows = compare_export(
            real, models["tuned"].features, features, partial(evaluator.compute, real, seed=seed), seed
        )
        export = export.model_copy(update={"metrics": rows})
    write_json(context.output_dir / EXPORT_METRICS, export)
    table = comparison_text(models["base"].metrics, models["tuned"].metrics)
    write_text(context.output_dir / "table.txt", table)
