"""Rendering of a dataset in HaGRID's layout, with a cache of the rendered images."""

import contextlib
import hashlib
import io
import json
import multiprocessing
import os
import signal
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from multiprocessing import resource_tracker
from pathlib import Path

import numpy as np

from hand1000.core.errors import Hand1000Error, translate_write_errors
from hand1000.core.progress import ProgressBar, ProgressCallback
from hand1000.data.render.hands import check_gesture
from hand1000.data.render.people import Person, make_person
from hand1000.data.render.rendered_image import Box, make_image
from hand1000.data.render.scene import use_mitsuba
from hand1000.storage.files import write_bytes

RENDERER_VERSION = "4"
"""Version of the renderer; every change of the pixels raises it, so that older images in the cache are not reused."""

# Versions of single gestures whose pose changed later; the other images keep their version.
_POSE_VERSIONS = {"holy": "6", "ok": "5"}

SPLITS = ("train", "val", "test")

_NUM_PEOPLE = {"train": 600, "val": 150, "test": 150}
_MIN_SIZE, _MAX_SIZE = 32, 512


@dataclass(frozen=True)
class _Task:
    """Everything that determines one image."""

    seed: int
    split: str
    gesture: str
    index: int
    size: int

    @property
    def stem(self) -> str:
        """File name without its suffix: a uuid that does not depend on the size."""
        name = f"hand1000/{self.seed}/{self.split}/{self.gesture}/{self.index}"
        return str(uuid.uuid5(uuid.NAMESPACE_URL, name))

    @property
    def samples(self) -> int:
        """Paths per pixel: fewer in larger images, whose noise is finer and which take longer."""
        return 25 if self.size <= 96 else 16

    @property
    def key(self) -> str:
        """Name in the cache."""
        facts = {**asdict(self), "renderer": renderer_version(self.gesture), "samples": self.samples}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def image_in(self, cache: Path) -> Path:
        """Return the image file in `cache`; its record is beside it as JSON, written last."""
        return cache / self.key[:2] / f"{self.key}.jpg"


def renderer_version(gesture: str) -> str:
    """Return the version of the renderer for images of `gesture`."""
    return _POSE_VERSIONS.get(gesture, RENDERER_VERSION)


def default_cache() -> Path:
    """Return the folder of rendered images: `renders` in $HAND1000_CACHE, else in ~/.cache/hand1000."""
    folder = os.environ.get("HAND1000_CACHE")
    return (Path(folder) if folder else Path.home() / ".cache" / "hand1000") / "renders"


def _generator(*facts: int | str) -> np.random.Generator:
    digest = hashlib.sha256(json.dumps(facts).encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, np.uint32))


def _sample_person(task: _Task) -> Person:
    """Sample the person in the image from those of its split."""
    generator = _generator("member", task.seed, task.split, task.gesture, task.index)
    member = int(generator.integers(_NUM_PEOPLE[task.split]))
    # The split is part of a person's name, so that no person is in two splits.
    name = hashlib.sha256(json.dumps(["person", task.seed, task.split, member]).encode()).hexdigest()
    return make_person(name, _generator("person", task.seed, task.split, member))


def _render_to_cache(job: tuple[_Task, Path]) -> None:
    """Write the JPEG file of a task and its record in HaGRID's annotations."""
    from PIL import Image

    task, cache = job
    person = _sample_person(task)
    rng = _generator("picture", task.seed, task.split, task.gesture, task.index)  # codespell:ignore picture
    rendered = make_image(task.gesture, person, rng, size=task.size, samples=task.samples)
    buffer = io.BytesIO()
    Image.fromarray(rendered.pixels).save(buffer, "JPEG", quality=98, subsampling=0)
    words = asdict(rendered.words)
    handedness = words.pop("hand")
    two_handed = len(rendered.hand_boxes) > 1
    record = {
        "bboxes": [_round_box(box) for box in rendered.hand_boxes],
        "labels": [task.gesture] * len(rendered.hand_boxes),
        "united_bbox": [_round_box(rendered.box)] if two_handed else None,
        "united_label": [task.gesture] if two_handed else None,
        "user_id": person.user_id,
        "hand_landmarks": np.round(rendered.hand_landmarks, 6).tolist(),
        "meta": {**words, "handedness": handedness, "renderer_version": renderer_version(task.gesture)},
        "caption": rendered.caption,
    }
    write_bytes(task.image_in(cache), buffer.getvalue())
    write_bytes(task.image_in(cache).with_suffix(".json"), json.dumps(record).encode())


def _round_box(box: Box) -> list[float]:
    return [round(value, 6) for value in box]


@contextlib.contextmanager
def _main_module_hidden() -> Iterator[None]:
    """Start processes that do not import the main module, of which the workers need nothing.

    A spawned process runs a script again if its entry is not guarded by `__name__`. It would come to this very call,
    fail, and be replaced by the pool, again and again.
    """
    main = sys.modules["__main__"]
    hidden = {name: getattr(main, name) for name in ("__file__", "__spec__") if hasattr(main, name)}
    vars(main).update(dict.fromkeys(hidden))
    try:
        yield
    finally:
        vars(main).update(hidden)


@contextlib.contextmanager
def _without_sigint() -> Iterator[None]:
    """Start processes that a Ctrl-C does not reach: a terminal sends it to all, and this process ends its workers."""
    # Python starts this process with the first lock, and then unblocks SIGINT, whatever was blocked before.
    resource_tracker.ensure_running()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _fill_cache(tasks: list[_Task], cache: Path, workers: int, on_progress: ProgressCallback) -> None:
    missing = [task for task in tasks if not task.image_in(cache).with_suffix(".json").is_file()]
    on_progress(len(tasks) - len(missing), len(tasks))
    if not missing:
        return
    jobs = [(task, cache) for task in missing]
    # One thread per worker: the workers already use every core, and tiny images do not parallelize well.
    with contextlib.ExitStack() as stack:
        if workers == 1:
            use_mitsuba(threads=1)
            finished: Iterable[None] = map(_render_to_cache, jobs)
        else:
            with _main_module_hidden(), _without_sigint():
                pool = multiprocessing.get_context("spawn").Pool(min(workers, len(jobs)), use_mitsuba, (1,))
            # One by one: an image takes longer than its way to a worker, and the first one is reported when it is done.
            finished = stack.enter_context(pool).imap_unordered(_render_to_cache, jobs)
        for done, _ in enumerate(finished, len(tasks) - len(jobs) + 1):
            on_progress(done, len(tasks))


def render_dataset(
    root: Path,
    counts: Mapping[str, Mapping[str, int]],
    *,
    seed: int,
    size: int,
    cache: Path | None = None,
    workers: int | None = None,
    on_progress: ProgressCallback | None = None,
) -> None:
    """Render `<root>/<gesture>/<uuid>.jpg` and `<root>/annotations/<split>/<gesture>.json`, HaGRID's layout.

    An image depends on seed, split, gesture, index and size only: a greater count keeps the earlier images, and no
    person is in two splits. A run that was stopped continues from the cache.

    Args:
        root: Folder of the dataset.
        counts: Images per gesture (of HaGRID v2, or `no_gesture` for arbitrary poses) and split (train, val, test).
        seed: Random seed.
        size: Side of the square images in pixels, 32 to 512.
        cache: Folder that keeps rendered images, by default `default_cache()`.
        workers: Number of processes, by default one per core; 1 renders in this process.
        on_progress: Called with the number of images done and in all; by default a progress bar.

    Raises:
        Hand1000Error: A gesture or split is unknown, a count is negative, the size is out of range, or `root` or
            `cache` is not writable.
    """
    if not _MIN_SIZE <= size <= _MAX_SIZE:
        raise Hand1000Error(f"size {size}: choose {_MIN_SIZE} to {_MAX_SIZE} pixels")
    groups = {}
    for gesture, splits in counts.items():
        check_gesture(gesture)
        for split, count in splits.items():
            if split not in SPLITS:
                raise Hand1000Error(f"unknown split {split!r}; choose one of: {', '.join(SPLITS)}")
            if count < 0:
                raise Hand1000Error(f"{gesture}, {split}: {count} images; choose 0 or more")
            groups[split, gesture] = [_Task(seed, split, gesture, index, size) for index in range(count)]
    store = default_cache() if cache is None else cache
    tasks = [task for group in groups.values() for task in group]
    with translate_write_errors(store):
        _fill_cache(tasks, store, workers or os.cpu_count() or 1, on_progress or ProgressBar("rendering"))
    with translate_write_errors(root):
        for (split, gesture), group in groups.items():
            records = {}
            for task in group:
                source = task.image_in(store)
                write_bytes(root / gesture / f"{task.stem}.jpg", source.read_bytes())
                records[task.stem] = json.loads(source.with_suffix(".json").read_text(encoding="utf-8"))
            write_bytes(root / "annotations" / split / f"{gesture}.json", json.dumps(records, indent=1).encode())
