"""Rendering of a data set in HaGRID's own layout."""

import contextlib
import hashlib
import io
import json
import multiprocessing
import os
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hand1000.core.errors import Hand1000Error, translate_write_errors
from hand1000.data.render.people import Person, make_person
from hand1000.data.render.picture import make_picture
from hand1000.data.render.poses import check_gesture
from hand1000.data.render.scene import use_mitsuba

RENDERER_VERSION = "4"
"""Raised whenever a change alters the pictures; pictures cached under another version are not reused."""

# Gestures whose pose alone changed since; the other pictures stay as they are.
_POSE_VERSIONS = {"ok": "5"}

SPLITS = ("train", "val", "test")

_POOLS = {"train": 600, "val": 150, "test": 150}


@dataclass(frozen=True)
class _Task:
    """What determines a picture."""

    seed: int
    split: str
    gesture: str
    index: int
    size: int

    @property
    def stem(self) -> str:
        """The picture's uuid; it does not depend on the size."""
        name = f"hand1000/{self.seed}/{self.split}/{self.gesture}/{self.index}"
        return str(uuid.uuid5(uuid.NAMESPACE_URL, name))

    @property
    def key(self) -> str:
        """The picture's name in the cache."""
        facts = {**asdict(self), "renderer": version_of(self.gesture), "samples": samples_for(self.size)}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def version_of(gesture: str) -> str:
    """The version of the renderer by which pictures of `gesture` were made."""
    return _POSE_VERSIONS.get(gesture, RENDERER_VERSION)


def samples_for(size: int) -> int:
    """Paths per pixel at `size`: fewer in larger pictures, whose noise is finer and which cost more."""
    return 25 if size <= 96 else 16


def default_cache() -> Path:
    """The folder that keeps rendered pictures: `renders` below $HAND1000_CACHE, else below ~/.cache/hand1000."""
    folder = os.environ.get("HAND1000_CACHE")
    return (Path(folder) if folder else Path.home() / ".cache" / "hand1000") / "renders"


def _generator(*facts: int | str) -> np.random.Generator:
    digest = hashlib.sha256(json.dumps(facts).encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, np.uint32))


def _replace(path: Path, content: bytes) -> None:
    """Write `path` so that it is either whole or absent, whenever the process is killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _person(task: _Task) -> Person:
    """Who is in the picture: one of the pool of the task's split."""
    member = int(_generator("member", task.seed, task.split, task.gesture, task.index).integers(_POOLS[task.split]))
    # The split is part of a person's name, hence nobody is in two splits.
    name = hashlib.sha256(json.dumps(["person", task.seed, task.split, member]).encode()).hexdigest()
    return make_person(name, _generator("person", task.seed, task.split, member))


def _render(task: _Task) -> tuple[bytes, dict[str, Any]]:
    """The JPEG file of `task` and its record in HaGRID's annotation."""
    from PIL import Image

    person = _person(task)
    rng = _generator("picture", task.seed, task.split, task.gesture, task.index)
    picture = make_picture(task.gesture, person, rng, size=task.size, samples=samples_for(task.size))
    buffer = io.BytesIO()
    Image.fromarray(picture.pixels).save(buffer, "JPEG", quality=98, subsampling=0)
    words = picture.words
    record = {
        "bboxes": [[round(value, 6) for value in picture.box]],
        "labels": [task.gesture],
        "united_bbox": None,
        "united_label": None,
        "user_id": person.user_id,
        "hand_landmarks": [np.round(picture.landmarks, 6).tolist()],
        "meta": {
            "skin": words.skin,
            "sleeve": words.sleeve,
            "wall": words.wall,
            "light": words.light,
            "handedness": words.hand,
            "renderer_version": version_of(task.gesture),
        },
        "caption": picture.caption,
    }
    return buffer.getvalue(), record


def _start_worker() -> None:
    # One thread a worker: the workers already use every core, and tiny pictures do not split well.
    use_mitsuba(threads=1)


def _to_cache(job: tuple[_Task, Path]) -> None:
    task, cache = job
    image, record = _render(task)
    folder = cache / task.key[:2]
    _replace(folder / f"{task.key}.jpg", image)
    # The record comes last: its presence tells that the picture is complete.
    _replace(folder / f"{task.key}.json", json.dumps(record).encode())


def _show(done: int, total: int) -> None:
    if done % 50 == 0 or done == total:
        print(f"\rrendering {done}/{total}", end="\n" if done == total else "", flush=True)


def _fill_cache(tasks: list[_Task], cache: Path, workers: int, progress: Callable[[int, int], None]) -> None:
    missing = [task for task in tasks if not (cache / task.key[:2] / f"{task.key}.json").is_file()]
    progress(len(tasks) - len(missing), len(tasks))
    if not missing:
        return
    jobs = [(task, cache) for task in missing]
    with contextlib.ExitStack() as stack:
        if workers == 1:
            _start_worker()
            finished: Iterable[None] = map(_to_cache, jobs)
        else:
            pool = multiprocessing.get_context("spawn").Pool(min(workers, len(jobs)), _start_worker)
            chunk = min(8, 1 + len(jobs) // (4 * workers))
            finished = stack.enter_context(pool).imap_unordered(_to_cache, jobs, chunksize=chunk)
        for done, _ in enumerate(finished, len(tasks) - len(jobs) + 1):
            progress(done, len(tasks))


def render_dataset(
    root: Path,
    counts: Mapping[str, Mapping[str, int]],
    *,
    seed: int,
    size: int,
    cache: Path | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Render `<root>/<gesture>/<uuid>.jpg` and `<root>/annotations/<split>/<gesture>.json` as HaGRID lays them out.

    `counts` tells for each gesture (of HaGRID v1, or `no_gesture` for arbitrary poses) how many pictures each of
    train, val and test holds. Pictures are `size` pixels square (32 to 512) and depend on `seed`, split, gesture,
    index and `size` only: a greater count keeps the earlier pictures, and no person is in two splits.
    `progress` is called with the pictures done and all; by default they are printed. Rendered pictures are kept in
    `cache` (default: `default_cache()`), so a run that was ended goes on where it was. `workers` is the number of
    processes, by default one per core; 1 renders in this process. With more, a script must guard its entry with
    `if __name__ == "__main__"`, since workers are spawned.

    Raises:
        Hand1000Error: an unknown gesture or split, a count below 0, a size out of range, or `root` or `cache` can
            not be written.
    """
    if not 32 <= size <= 512:
        raise Hand1000Error(f"size {size}: pictures are rendered at 32 to 512 pixels; choose a size in that range")
    for gesture, splits in counts.items():
        check_gesture(gesture)
        for split, count in splits.items():
            if split not in SPLITS:
                raise Hand1000Error(f"unknown split {split!r}; choose one of: {', '.join(SPLITS)}")
            if count < 0:
                raise Hand1000Error(f"{gesture}, {split}: {count} pictures; choose 0 or more")
    groups = {
        (split, gesture): [_Task(seed, split, gesture, index, size) for index in range(count)]
        for gesture, splits in counts.items()
        for split, count in splits.items()
    }
    store = default_cache() if cache is None else cache
    tasks = [task for group in groups.values() for task in group]
    with translate_write_errors(store):
        _fill_cache(tasks, store, workers or os.cpu_count() or 1, progress or _show)
    with translate_write_errors(root):
        for (split, gesture), group in groups.items():
            records = {}
            for task in group:
                source = store / task.key[:2] / f"{task.key}.jpg"
                _replace(root / gesture / f"{task.stem}.jpg", source.read_bytes())
                records[task.stem] = json.loads(source.with_suffix(".json").read_text(encoding="utf-8"))
            _replace(root / "annotations" / split / f"{gesture}.json", json.dumps(records, indent=1).encode())
