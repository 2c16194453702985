"""The command `hand1000 evaluate`, which compares any two folders of images."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hand1000.evaluation.metrics import Metrics

DEFAULT_ROOT = "artifacts"


def add_evaluate_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `evaluate` to the commands of `hand1000`."""
    evaluate = commands.add_parser("evaluate", help="evaluate generated images against real ones")
    evaluate.add_argument("real", type=Path, metavar="REAL_DIR", help="images in any layout of docs/data.md")
    evaluate.add_argument("fake", type=Path, metavar="FAKE_DIR", help="the generated images, likewise")
    evaluate.add_argument("--gesture", help="requested gesture of all images (default: that of each image's record)")
    evaluate.add_argument(
        "--prompts", type=Path, metavar="FILE", help="one prompt per line for each generated image, in order of names"
    )
    evaluate.add_argument("--train", type=Path, metavar="DIR", help="training images, to measure memorization")
    evaluate.add_argument("--paper", action="store_true", help="also compute FID and KID as the authors do")
    evaluate.add_argument("--config", default="default", help="settings for `evaluation` and `seed` (default: default)")
    evaluate.add_argument(
        "--root",
        metavar="DIR|s3://",
        help="artifact root that keeps the features of the images, so that the next evaluation of the same ones only "
        "computes the metrics (default: artifacts, if there is such a folder)",
    )
    evaluate.add_argument("--out", type=Path, help="also write all metrics, with those of each image, to a JSON file")
    evaluate.set_defaults(run=_evaluate)


def _evaluate(options: argparse.Namespace) -> None:
    from hand1000.config.settings import load_settings
    from hand1000.gestures import gesture_phrase

    if options.gesture:
        gesture_phrase(options.gesture)
    settings = load_settings(options.config)
    import tempfile

    from hand1000.core.progress import ProgressBar
    from hand1000.core.rng import numpy_generator
    from hand1000.data.imageset import read_image_set
    from hand1000.evaluation.evaluator import Evaluator
    from hand1000.evaluation.features import ImageFeatures, extract_image_features
    from hand1000.evaluation.folders import UNKNOWN_GESTURE, import_images, read_prompts
    from hand1000.evaluation.metrics import compute_metrics
    from hand1000.paper.metrics import paper_fid, paper_kid
    from hand1000.storage.artifacts import open_store
    from hand1000.storage.files import write_json

    evaluator = Evaluator.from_settings(settings.evaluation)
    root = options.root or (DEFAULT_ROOT if Path(DEFAULT_ROOT).is_dir() else None)
    store = open_store(root) if root else None
    prompts = read_prompts(options.prompts) if options.prompts else None

    with tempfile.TemporaryDirectory() as scratch:

        def import_folder(folder: Path, name: str, texts: list[str] | None = None) -> Path:
            # If prompts name the gestures of the generated images, the other images may show any gesture.
            gesture = options.gesture or (UNKNOWN_GESTURE if prompts and not texts else None)
            return import_images(folder, Path(scratch) / name, gesture, texts)

        def extract(folder: Path, name: str, texts: list[str] | None = None) -> ImageFeatures:
            imported = import_folder(folder, name, texts)
            # The digests of the files that the user has, by which `hand1000 data forget` can find them.
            keys = [record.source for record in read_image_set(imported)] if imported != folder else None
            return evaluator.extract(imported, ProgressBar(name), store=store, keys=keys)

        real, fake = extract(options.real, "real"), extract(options.fake, "generated", prompts)
        train = import_folder(options.train, "train") if options.train else None
        metrics = compute_metrics(
            real,
            fake,
            classifier=evaluator.classifier,
            seed=settings.seed,
            gesture=options.gesture,
            train_features=extract_image_features(train, evaluator.extractor) if train else None,
            min_classifier_accuracy=evaluator.min_classifier_accuracy,
        )
    paper_metrics = {}
    if options.paper:
        generator = numpy_generator(settings.seed, "paper")
        paper_metrics["paper_fid"] = paper_fid(real.features, fake.features)
        paper_metrics["paper_kid"] = paper_kid(real.features, fake.features, generator)
    values = _flatten(metrics) | paper_metrics
    width = max(map(len, values))
    for name, value in values.items():
        print(f"{name:{width}}  {_format_metric(value)}")
    for note in metrics.notes:
        print(f"note: {note}")
    if options.out:
        write_json(options.out, metrics.model_dump(mode="json") | paper_metrics)


def _flatten(metrics: "Metrics") -> dict[str, Any]:
    """The metrics by name, with the gesture or the place at the end of the names that need one."""
    values = metrics.model_dump(mode="json", exclude={"images", "notes", "by_gesture", "classifier_checks"})
    if len(metrics.by_gesture) > 1:
        for gesture, gesture_metrics in metrics.by_gesture.items():
            values |= {f"{name}.{gesture}": value for name, value in gesture_metrics.model_dump().items()}
    values |= {f"classifier.{gesture}": check.summary for gesture, check in metrics.classifier_checks.items()}
    for name in ("color_faithfulness", "real_color_faithfulness"):
        values |= {f"{name}.{place}": value for place, value in values.pop(name).items()}
    return values


def _format_metric(value: dict | float | int | str | None) -> str:
    """Format a metric for display, a distance with its interval."""
    from hand1000.core.tables import format_number

    if isinstance(value, dict):
        return f"{value['value']:.4g} (95 %: {value['low']:.4g} to {value['high']:.4g})"
    return format_number(value) if value is None or isinstance(value, float) else str(value)
