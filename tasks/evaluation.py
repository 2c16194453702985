"""Measure the pictures of the base model and of the tuned one against the held-out images."""

from functools import partial

from flytekit.types.directory import FlyteDirectory

from hand1000.config.settings import EvaluationSettings
from tasks.context import Artifact, TaskContext, cluster_task, run_cached


@cluster_task()
def evaluate(
    dataset: FlyteDirectory,
    base_images: list[FlyteDirectory],
    tuned_images: list[FlyteDirectory],
    settings: EvaluationSettings,
    seed: int,
    run: str,
    root: str,
) -> Artifact:
    """`base.json`, `tuned.json` and `table.txt`; the held-out images are looked at once for both."""
    from hand1000.captions.metrics import Clip
    from hand1000.data.join import merge_image_sets
    from hand1000.evaluation.base_vs_tuned import compare_table
    from hand1000.evaluation.extractors import load_extractor
    from hand1000.evaluation.features import extract_features, extract_image_features
    from hand1000.evaluation.metrics import compute_metrics
    from hand1000.hands.classifier import GestureClassifier
    from hand1000.storage.files import write_json, write_text

    classifier = GestureClassifier.from_pretrained()
    extractor = load_extractor(settings)
    clip = Clip(settings.clip) if settings.clip else None

    def build(work: TaskContext) -> None:
        look = partial(
            extract_features,
            extractor=extractor,
            min_detection_confidence=settings.min_detection_confidence,
            clip=clip,
            progress=work.report,
        )
        real = look(work.read(dataset) / "test")
        train = extract_image_features(work.read(dataset) / "train", extractor)
        metrics = {}
        for name, parts in (("base", base_images), ("tuned", tuned_images)):
            pictures = merge_image_sets([work.read(part) for part in parts], work.out.with_name(name))
            metrics[name] = compute_metrics(
                real,
                look(pictures),
                classifier=classifier,
                extractor=extractor,
                seed=seed,
                train=train,
                min_detection_confidence=settings.min_detection_confidence,
            )
            write_json(work.out / f"{name}.json", metrics[name].model_dump(mode="json"))
        write_text(work.out / "table.txt", compare_table(metrics["base"], metrics["tuned"]))

    return run_cached(
        "evaluate",
        root=root,
        run=run,
        build=build,
        inputs={
            "dataset": dataset,
            "base_images": base_images,
            "tuned_images": tuned_images,
            "classifier": classifier.sha256,
            "extractor": extractor.sha256,
            "settings": settings.model_copy(update={"clip": clip.name if clip else ""}),
            "seed": seed,
        },
    )
