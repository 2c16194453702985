"""Images to landmarks, PNG files and the evaluation of folders, beside the authors' loop, MediaPipe and Pillow.

The photographs are rendered hands, enlarged to 1920 x 1440 pixels with grain; they are made once and kept. The authors'
loop is written from the paper's scripts: each file is decoded whole, and MediaPipe Hands looks at one after another.
Raw MediaPipe is what nobody can be faster than who uses it: its own solution on decoded images, in two threads.
"""

import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.authors import STAGE1
from benchmarks.photographs import GESTURE, NUM_TEST, Photos
from benchmarks.published import find_script, load_parts
from benchmarks.rows import BenchOptions, Comparison, Row, failed_row, log_start, measure_row
from hand1000.config.settings import load_settings
from hand1000.data.imageset import read_image_set
from hand1000.data.prepare import prepare_image_sets
from hand1000.data.selection import ImageFilter, select_images
from hand1000.data.sources.opening import open_dataset
from hand1000.hands.detection import detect_hands
from hand1000.hands.detector import HandDetector, suppress_stderr

_HANDS = 12
_CONFIDENCE = 0.5
_RESOLUTION = 512
_ROOT = Path(__file__).parents[1]

_PROFILE = (
    "equal means that no hand is missed that the authors find; processor time of an image in ms: decoding at half size "
    "6, resizing 7, writing 6, reading 4, detection 13, in the authors' loop decoding 14, detection 13; with nothing "
    "but the detection, one thread would be 2.1x as fast as theirs"
)


def measure_rows(options: BenchOptions) -> Iterator[Row]:
    """Yield the rows of images to landmarks, of PNG files and of `hand1000 evaluate`."""
    if options.short:
        with tempfile.TemporaryDirectory() as folder:
            yield from _measure(Photos(Path(folder), 4, 2, 384), 6, options)
    else:
        yield from _measure(Photos(_ROOT / "build/bench/photos", 60, _HANDS, 1440), 1000, options)


def _measure(photos: Photos, num_evaluated: int, options: BenchOptions) -> Iterator[Row]:
    height, width, _ = photos.pixels[0].shape
    script = find_script(options.peers, STAGE1)
    yield measure_row(
        Comparison(
            f"images to landmarks, {photos.count} JPEGs of {width} x {height} (crop, store, detect)",
            f"the authors' {STAGE1 if script else 'loop'}, one by one, which stores no crops",
            run_product=partial(find_landmarks, photos),
            run_peer=partial(run_published_loop, script, photos.paths)
            if script
            else partial(run_authors_loop, photos.paths),
            is_equal=lambda found, peer: all(ours or not theirs for ours, theirs in zip(found, peer, strict=True)),
            goal=2.5,
            note=_PROFILE,
        ),
        options,
    )
    # Not at the top: a former build, whose package this module also runs with, has no such function.
    from hand1000.data.png import encode_png

    crops = [np.asarray(Image.fromarray(pixels).resize((_RESOLUTION, _RESOLUTION))) for pixels in photos.pixels]
    yield measure_row(
        Comparison(
            f"hands with both scores in {photos.count} images of {_RESOLUTION} px",
            "raw MediaPipe, which has no scores, in two threads",
            run_product=partial(_detect_in_threads, crops),
            run_peer=partial(_detect_by_solution, crops),
            is_equal=lambda ours, theirs: ours == theirs,
            goal=0.9,
        ),
        options,
    )
    yield measure_row(
        Comparison(
            f"writing and reading {photos.count} PNG files of {_RESOLUTION} px",
            "Pillow at its default level",
            run_product=lambda: [_decode(encode_png(crop)) for crop in crops],
            run_peer=lambda: [_decode(_encode_by_pillow(crop)) for crop in crops],
            is_equal=lambda ours, theirs: (
                all(map(np.array_equal, ours, theirs)) and all(map(np.array_equal, ours, crops))
            ),
            goal=3,
        ),
        options,
    )
    if options.short and not options.before:  # Nothing to compare that an evaluation's own tests do not.
        return
    if options.before:
        yield _prepare_row(photos, options.before, options)
    with tempfile.TemporaryDirectory() as scratch:
        folders = [Path(scratch) / name for name in ("real", "generated")]
        for seed, folder in enumerate(folders):
            _write_small_images(photos.pixels, folder, num_evaluated, seed)
        work = f"hand1000 evaluate, 2 x {num_evaluated:,} images of 64 px"
        small = [np.asarray(Image.open(path)) for folder in folders for path in sorted(folder.iterdir())]
        yield measure_row(
            Comparison(
                work,
                "one pass of raw MediaPipe in two threads",
                run_product=partial(_evaluate, _ROOT, folders),
                run_peer=partial(_detect_by_solution, [_enlarge(image) for image in small]),
                goal=0.7,
                note="`hand1000 evaluate` includes the start of Python, imports, crops and the feature extractor; "
                "on two threads of one core these take what raw MediaPipe leaves free",
            ),
            options,
        )
        yield _evaluate_again(work, folders, options)
        if options.before:
            yield measure_row(
                Comparison(
                    work,
                    "the former build",
                    run_product=partial(_evaluate, _ROOT, folders),
                    run_peer=partial(_evaluate, options.before, folders),
                    is_equal=_are_metrics_equal,
                    goal=3,
                ),
                options,
            )


def _prepare_row(photos: Photos, before: Path, options: BenchOptions) -> Row:
    """Compare the seconds of preparing and detecting with those of a former build, in processes that take turns."""
    name, peer = f"{photos.count} JPEGs prepared and detected", "the former build"
    log_start(name, peer)
    ours: list[float] = []
    former: list[float] = []
    try:
        for repeat in range(3):
            sides = [(_ROOT, ours), (before.resolve(), former)]
            for checkout, seconds in sides if repeat % 2 == 0 else sides[::-1]:
                seconds.append(_time_preparation(checkout, photos))
    except subprocess.CalledProcessError as error:
        return failed_row(name, peer, error)
    return Row(name, peer, tuple(ours), tuple(former), goal=6, note=_PROFILE)


def _time_preparation(checkout: Path, photos: Photos) -> float:
    """Return the seconds of `find_landmarks` with the package of a checkout, without the imports."""
    code = (
        "import sys, time; from pathlib import Path; from benchmarks.photographs import Photos; "
        "from benchmarks.images import find_landmarks; photos = Photos(Path(sys.argv[1]), int(sys.argv[2]), 0, 0); "
        "begun = time.perf_counter(); find_landmarks(photos); print(time.perf_counter() - begun)"
    )
    # Of this package only the benchmarks come from here.
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "benchmarks").symlink_to(_ROOT / "benchmarks")
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(checkout), folder])}
        command = [sys.executable, "-c", code, str(photos.folder), str(photos.count)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder, env=environment)
    return float(done.stdout.splitlines()[-1])


def find_landmarks(photos: Photos) -> list[bool]:
    """Prepare the image sets and detect the hands, as the workflow does; whether each training image has one."""
    settings = load_settings("default").data
    selection = select_images(
        open_dataset(photos.folder),
        (GESTURE,),
        num_train=photos.count,
        num_test=NUM_TEST,
        seed=0,
        filters=ImageFilter(settings.filters.model_copy(update={"allow_border_hands": True, "min_hand_size": 0})),
    )
    with tempfile.TemporaryDirectory() as folder:
        prepare_image_sets(selection, Path(folder), settings, resolution=_RESOLUTION, seed=0)
        directory = Path(folder) / "train"
        landmarks = detect_hands(directory, read_image_set(directory), min_detection_confidence=_CONFIDENCE)
    return landmarks.select(sorted(landmarks.file_names)).found.tolist()


def run_authors_loop(paths: Sequence[Path]) -> list[bool]:
    """Decode each image whole and detect one hand in it, one image after another; whether each has one."""
    from mediapipe.python.solutions.hands import Hands

    found = []
    with suppress_stderr(), Hands(static_image_mode=True, max_num_hands=1) as solution:
        for path in paths:
            with Image.open(path) as image:
                found.append(solution.process(np.asarray(image.convert("RGB"))).multi_hand_landmarks is not None)
    return found


def run_published_loop(script: Path, paths: Sequence[Path]) -> list[bool]:
    """Run the function of the authors' script on each image, one after another; whether each has a hand."""
    import cv2
    import mediapipe

    with suppress_stderr():
        parts = load_parts(script, ("mp_hands", "hands", "extract_features"), {"mp": mediapipe, "cv2": cv2})
        with parts["hands"]:
            return [parts["extract_features"](str(path)) is not None for path in paths]


def _detect_in_threads(images: Sequence[np.ndarray]) -> list[list[Any]]:
    def detect(part: Sequence[np.ndarray]) -> list[list[Any]]:
        with HandDetector(_CONFIDENCE, 2) as detector:
            return [[hand.landmarks.tolist() for hand in detector.detect_with_scores(image).hands] for image in part]

    return _run_halves(detect, images)


def _detect_by_solution(images: Sequence[np.ndarray]) -> list[list[Any]]:
    from mediapipe.python.solutions.hands import Hands

    def detect(part: Sequence[np.ndarray]) -> list[list[Any]]:
        with Hands(static_image_mode=True, max_num_hands=2) as solution:
            hands = [solution.process(image).multi_hand_landmarks or [] for image in part]
        return [[[[point.x, point.y, point.z] for point in hand.landmark] for hand in image] for image in hands]

    with suppress_stderr():
        return _run_halves(detect, images)


def _run_halves(detect: Any, images: Sequence[np.ndarray]) -> list[Any]:
    middle = len(images) // 2
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(detect, (images[:middle], images[middle:]))
    return [*first, *second]


def _encode_by_pillow(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _decode(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def _enlarge(image: np.ndarray) -> np.ndarray:
    """Enlarge a small image as the product does before MediaPipe looks at it."""
    return np.asarray(Image.fromarray(image).resize((256, 256), Image.Resampling.BICUBIC))


def _write_small_images(photos: Sequence[np.ndarray], folder: Path, count: int, seed: int) -> None:
    """Write crops of the photographs at 64 pixels, each another one."""
    folder.mkdir()
    generator = np.random.default_rng(seed)
    for index in range(count):
        image = Image.fromarray(photos[index % len(photos)])
        side = int(image.height * generator.uniform(0.85, 1.0))
        left, top = (int(generator.uniform(0.3, 0.7) * (extent - side)) for extent in image.size)
        small = image.resize(
            (64, 64), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side), reducing_gap=2
        )
        small.save(folder / f"{index:04d}.png")


def _evaluate(checkout: Path, folders: Sequence[Path], *options: str) -> dict[str, Any]:
    """Run `hand1000 evaluate` of a checkout in a process, and return the metrics."""
    scratch = folders[0].parent
    out = scratch / "metrics.json"
    command = [sys.executable, "-m", "hand1000.cli.main", "evaluate", *map(str, folders), "--gesture", GESTURE]
    environment = {**os.environ, "PYTHONPATH": str(checkout.resolve())}
    # Not in a folder with artifacts, whose features would be recalled.
    subprocess.run(
        [*command, "--out", str(out), *options], check=True, capture_output=True, cwd=scratch, env=environment
    )
    return json.loads(out.read_text())


def _evaluate_again(work: str, folders: Sequence[Path], options: BenchOptions) -> Row:
    """Compare the second evaluation of the same images with the first one; equal are all metrics."""
    name, peer = f"{work}, again", "the first time"
    log_start(name, peer)
    results: list[dict[str, Any]] = []
    seconds: list[float] = []
    try:
        for _ in range(4):
            begun = time.perf_counter()
            results.append(_evaluate(_ROOT, folders, "--root", str(folders[0].parent / "root")))
            seconds.append(time.perf_counter() - begun)
    except subprocess.CalledProcessError as error:
        return failed_row(name, peer, error)
    first, *again = seconds
    equal = all(result == results[0] for result in results)
    return Row(name, peer, tuple(again), (first,), goal=3, equal=equal)


def _are_metrics_equal(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """Whether all numbers agree to 1e-4: convolutions in one thread add up in another order than in two."""
    names = ("fid", "fid_h", "hand_conf", "detection_rate", "gesture_accuracy", "palm_score", "implausible_hand_rate")
    return all(np.isclose(ours[name], theirs[name], rtol=1e-4) for name in names)
