"""The command `hand1000 evaluate`: any two folders of pictures, real and generated."""

import argparse
from collections.abc import Callable
from pathlib import Path

Show = Callable[[str], Callable[[int, int], None]]


def add_evaluate_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", show: Show) -> None:
    """Add it to the commands of `hand1000`; `show` makes a progress line of a title."""
    evaluate = commands.add_parser("evaluate", help="measure generated pictures against real ones")
    evaluate.add_argument("real", type=Path, metavar="REAL_DIR", help="pictures, or an image set with metadata.jsonl")
    evaluate.add_argument("fake", type=Path, metavar="FAKE_DIR", help="the same, generated")
    evaluate.add_argument("--gesture", help="that all were to show (default: of each picture what its record says)")
    evaluate.add_argument(
        "--prompts", type=Path, metavar="FILE", help="a line for each generated picture, in the order of their names"
    )
    evaluate.add_argument("--train", type=Path, metavar="DIR", help="what was trained on, to see what is memorised")
    evaluate.add_argument("--paper", action="store_true", help="also FID and KID by the authors' arithmetic")
    evaluate.add_argument("--config", default="default", help="whose `evaluation` and `seed` to use (default: default)")
    evaluate.add_argument("--out", type=Path, help="also write all measures, picture by picture, to this JSON file")
    evaluate.set_defaults(run=lambda options: _evaluate(options, show))


def _evaluate(options: argparse.Namespace, show: Show) -> None:
    from hand1000.config.settings import load_settings
    from hand1000.gestures import gesture_phrase

    if options.gesture:
        gesture_phrase(options.gesture)
    settings = load_settings(options.config)
    import tempfile

    from hand1000.captions.metrics import Clip
    from hand1000.core.rng import numpy_generator
    from hand1000.evaluation.extractors import load_extractor
    from hand1000.evaluation.features import ImageFeatures, extract_features, extract_image_features
    from hand1000.evaluation.folders import UNKNOWN, import_plain_folder, read_prompts
    from hand1000.evaluation.metrics import compute_metrics
    from hand1000.hands.classifier import GestureClassifier
    from hand1000.paper.metrics import paper_fid, paper_kid
    from hand1000.storage.files import write_json

    extractor = load_extractor(settings.evaluation)
    confidence = settings.evaluation.min_detection_confidence
    clip = Clip(settings.evaluation.clip) if settings.evaluation.clip else None
    prompts = read_prompts(options.prompts) if options.prompts else None

    with tempfile.TemporaryDirectory() as scratch:

        def made_of(folder: Path, name: str, texts: list[str] | None = None) -> Path:
            # Where prompts say what was asked for, other pictures may show anything.
            gesture = options.gesture or (UNKNOWN if prompts and not texts else None)
            return import_plain_folder(folder, Path(scratch) / name, gesture, texts)

        def look(folder: Path, name: str, texts: list[str] | None = None) -> ImageFeatures:
            made = made_of(folder, name, texts)
            return extract_features(
                made, extractor=extractor, min_detection_confidence=confidence, clip=clip, progress=show(name)
            )

        real, fake = look(options.real, "real"), look(options.fake, "generated", prompts)
        metrics = compute_metrics(
            real,
            fake,
            gesture=options.gesture,
            extractor=extractor,
            classifier=GestureClassifier.from_pretrained(),
            min_detection_confidence=confidence,
            seed=settings.seed,
            train=extract_image_features(made_of(options.train, "trained on"), extractor) if options.train else None,
        )
    theirs = {}
    if options.paper:
        generator = numpy_generator(settings.seed, "paper")
        theirs["paper_fid"] = paper_fid(real.features, fake.features)
        theirs["paper_kid"] = paper_kid(real.features, fake.features, generator)
    shown = metrics.model_dump(mode="json", exclude={"pictures", "notes", "by_gesture"}) | theirs
    if len(metrics.by_gesture) > 1:
        for gesture, own in metrics.by_gesture.items():
            shown |= {f"{name}.{gesture}": value for name, value in own.model_dump().items()}
    for place in shown.pop("faithfulness"):
        shown[f"faithfulness.{place}"] = metrics.faithfulness[place]
        shown[f"real_faithfulness.{place}"] = metrics.real_faithfulness[place]
    del shown["real_faithfulness"]
    width = max(map(len, shown))
    for name, value in shown.items():
        print(f"{name:{width}}  {_measured(value)}")
    for note in metrics.notes:
        print(f"note: {note}")
    if options.out:
        write_json(options.out, metrics.model_dump(mode="json") | theirs)


def _measured(value: dict | float | int | str | None) -> str:
    """A value of the measures, or a distance with its interval, as people read it."""
    if isinstance(value, dict):
        return f"{value['value']:.4g} (95 %: {value['low']:.4g} to {value['high']:.4g})"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "–" if value is None else str(value)
