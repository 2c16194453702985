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
    evaluate.add_argument("--config", default="default", help="whose `evaluation` and `seed` to use (default: default)")
    evaluate.add_argument("--out", type=Path, help="also write all measures, picture by picture, to this JSON file")
    evaluate.set_defaults(run=lambda options: _evaluate(options, show))


def _evaluate(options: argparse.Namespace, show: Show) -> None:
    from hand1000.gestures import phrase_of
    from hand1000.settings import load_settings

    if options.gesture:
        phrase_of(options.gesture)
    settings = load_settings(options.config)
    import tempfile

    from hand1000.data.imageset import read_image_set
    from hand1000.evaluation.anatomy import fit_anatomy
    from hand1000.evaluation.extractors import load_extractor
    from hand1000.evaluation.measure import measure
    from hand1000.evaluation.neighbours import diversity, memorised
    from hand1000.evaluation.observations import Observations, observe
    from hand1000.evaluation.plain import UNKNOWN, image_set_of, read_prompts
    from hand1000.hands.classifier import GestureClassifier
    from hand1000.storage.files import write_json

    extractor = load_extractor(settings.evaluation)
    confidence = settings.evaluation.min_detection_confidence
    prompts = read_prompts(options.prompts) if options.prompts else None

    with tempfile.TemporaryDirectory() as scratch:

        def look(folder: Path, name: str, texts: list[str] | None = None) -> tuple[Path, Observations]:
            # Where prompts say what was asked for, real pictures may show anything.
            gesture = options.gesture or (UNKNOWN if prompts and not texts else None)
            made = image_set_of(folder, Path(scratch) / name, gesture, texts)
            seen = observe(made, extractor=extractor, min_detection_confidence=confidence, progress=show(name))
            return made, seen

        drawn, fake = look(options.fake, "generated", prompts)
        _, real = look(options.real, "real")
        train = look(options.train, "trained on")[1] if options.train else None
        metrics = measure(
            real,
            fake,
            gesture=options.gesture,
            extractor=extractor,
            classifier=GestureClassifier.from_pretrained(),
            min_detection_confidence=confidence,
            seed=settings.seed,
        )
        texts = [record.text for record in read_image_set(drawn)]
    anatomy = fit_anatomy(real.landmarks)
    further = {
        "implausible_hands": anatomy.implausible(fake.landmarks) if anatomy and len(fake.landmarks) else None,
        "diversity": diversity(fake.features, texts),
        "memorised": None if train is None else memorised(fake.features, real.features, train.features),
    }
    shown = metrics.model_dump(mode="json", exclude={"pictures", "notes", "by_gesture"}) | further
    if len(metrics.by_gesture) > 1:
        for gesture, own in metrics.by_gesture.items():
            shown |= {f"{name}.{gesture}": value for name, value in own.model_dump().items()}
    width = max(map(len, shown))
    for name, value in shown.items():
        print(f"{name:{width}}  {_measured(value)}")
    for note in metrics.notes:
        print(f"note: {note}")
    if options.out:
        write_json(options.out, metrics.model_dump(mode="json") | further)


def _measured(value: dict | float | int | str | None) -> str:
    """A value of the measures, or a distance with its interval, as people read it."""
    if isinstance(value, dict):
        return f"{value['value']:.4g} (95 %: {value['low']:.4g} to {value['high']:.4g})"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "–" if value is None else str(value)
