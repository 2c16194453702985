"""Evaluation of the images of the base model and of the fine-tuned model against the test images."""

from flytekit.types.directory import FlyteDirectory

from hand1000.config.settings import EvaluationSettings
from tasks.context import Artifact, TaskContext, cluster_task, run_cached


@cluster_task()
def evaluate(
    dataset: FlyteDirectory,
    captions: list[FlyteDirectory],
    base_images: list[FlyteDirectory],
    tuned_images: list[FlyteDirectory],
    settings: EvaluationSettings,
    seed: int,
    run: str,
    root: str,
) -> Artifact:
    """Write `base.json`, `tuned.json` and `table.txt`; the features of the test images are extracted once for both."""
    from hand1000.data.captioning import read_captioned_split
    from hand1000.data.join import merge_image_sets
    from hand1000.evaluation.base_vs_tuned import comparison_text
    from hand1000.evaluation.evaluator import Evaluator
    from hand1000.storage.files import write_json, write_text

    evaluator = Evaluator.from_settings(settings)

    def build(work: TaskContext) -> None:
        records = read_captioned_split(work.read(dataset), "test", [work.read(part) for part in captions])
        real = evaluator.extract_real(work.read(dataset), work.report, records)
        metrics = {}
        for name, parts in (("base", base_images), ("tuned", tuned_images)):
            images = merge_image_sets([work.read(part) for part in parts], work.out.with_name(name))
            fake = evaluator.extract(images, work.report)
            metrics[name] = evaluator.compute(real, fake, seed=seed)
            write_json(work.out / f"{name}.json", metrics[name])
        write_text(work.out / "table.txt", comparison_text(metrics["base"], metrics["tuned"]))

    return run_cached(
        "evaluate",
        root=root,
        run=run,
        build=build,
        inputs={
            "dataset": dataset,
            "captions": captions,
            "base_images": base_images,
            "tuned_images": tuned_images,
            "seed": seed,
            **evaluator.cache_key_fields(),
        },
    )
