"""The renderer of sample data: layout, determinism, splits, the cache and captions."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hand1000.core.errors import Hand1000Error
from hand1000.core.progress import noop_callback
from hand1000.data.render import dataset, people
from hand1000.data.render.dataset import render_dataset
from hand1000.data.render.people import make_person
from hand1000.data.render.rendered_image import make_image
from hand1000.data.render.scene import use_mitsuba
from hand1000.gestures import NO_GESTURE, PHRASES
from tests.support.hagrid_source import select

COUNTS = {"palm": {"train": 2, "val": 1, "test": 1}, NO_GESTURE: {"train": 2}}
SIZE = 64


def _files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def _records(root: Path, split: str, gesture: str) -> dict[str, dict]:
    return json.loads((root / "annotations" / split / f"{gesture}.json").read_text())


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A small dataset and the cache that holds its images."""
    folder = tmp_path_factory.mktemp("render")
    render_dataset(folder / "set", COUNTS, seed=3, size=SIZE, cache=folder / "cache", on_progress=noop_callback)
    return folder / "set", folder / "cache"


def test_layout_and_annotations_are_those_of_hagrid(rendered: tuple[Path, Path]) -> None:
    root, _ = rendered
    for gesture, splits in COUNTS.items():
        stems = set()
        for split, count in splits.items():
            records = _records(root, split, gesture)
            assert len(records) == count
            stems |= set(records)
            for stem, record in records.items():
                with Image.open(root / gesture / f"{stem}.jpg") as image:
                    assert image.format == "JPEG" and image.size == (SIZE, SIZE) and image.mode == "RGB"
                ((x, y, width, height),) = record["bboxes"]
                assert 0 <= x < x + width <= 1 and 0 <= y < y + height <= 1
                landmarks = np.array(record["hand_landmarks"][0])
                assert landmarks.shape == (21, 2)
                inside = (landmarks > [x - 0.03, y - 0.03]) & (landmarks < [x + width + 0.03, y + height + 0.03])
                assert inside.all()
                assert record["labels"] == [gesture]
                assert record["united_bbox"] is None and record["united_label"] is None
                assert not any(phrase in record["caption"] for phrase in PHRASES.values())
                assert record["meta"]["wall"] in record["caption"]
        assert {path.stem for path in (root / gesture).iterdir()} == stems


def test_images_depend_on_seed_split_gesture_and_index_only(rendered: tuple[Path, Path], tmp_path: Path) -> None:
    root, _ = rendered
    more = {"palm": {"train": 3}}
    render_dataset(
        tmp_path / "set",
        more,
        seed=3,
        size=SIZE,
        cache=tmp_path / "cache",
        workers=1,
        on_progress=noop_callback,
    )
    fewer, greater = _records(root, "train", "palm"), _records(tmp_path / "set", "train", "palm")
    assert list(greater)[:2] == list(fewer)
    for stem, record in fewer.items():
        assert greater[stem] == record
        name = f"palm/{stem}.jpg"
        assert (tmp_path / "set" / name).read_bytes() == (root / name).read_bytes()


def test_a_script_without_a_guarded_entry_renders_in_processes(tmp_path: Path) -> None:
    """Python 3.11 runs such a script again in each spawned process; the pool replaced them without an end."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom hand1000.data.render.dataset import render_dataset\n"
        "root = Path(sys.argv[1])\n"
        "render_dataset(root / 'set', {'palm': {'train': 2}}, seed=3, size=64, cache=root / 'cache', workers=2)\n"
        "print(__file__)\n"
    )
    command = [sys.executable, str(script), str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert finished.returncode == 0 and finished.stdout.splitlines() == [str(script)], finished.stderr
    assert len(list((tmp_path / "set" / "palm").iterdir())) == 2


def test_ctrl_c_ends_the_processes_without_a_traceback(tmp_path: Path) -> None:
    script = f"""
import signal
from pathlib import Path
from hand1000.core.interruption import install_handlers
from hand1000.data.render.dataset import render_dataset
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # A command in the background ignores it.
    install_handlers(exits=True)
    folder = Path({str(tmp_path)!r})
    render_dataset(folder / "root", {{"four": {{"train": 400}}}}, seed=0, size=64, cache=folder / "cache", workers=2)
"""
    (tmp_path / "script.py").write_text(script)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(tmp_path / "script.py")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True) as work:
        assert work.stderr is not None and work.stderr.readline().startswith("rendering: 0/400")
        while work.poll() is None and not list((tmp_path / "cache").glob("*/*.jpg")):
            time.sleep(0.1)
        os.killpg(work.pid, signal.SIGINT)
        rest = work.stderr.read()
    assert work.returncode == 130 and "Traceback" not in rest, rest


def test_the_cache_spares_rendering_and_resumes(
    rendered: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, cache = rendered
    missing: list[int] = []

    class NoPool:
        """A pool that refuses to work: whatever is missing was not in the cache."""

        def __init__(self, *_: object) -> None:
            pass

        def __enter__(self) -> "NoPool":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def imap_unordered(self, _: object, jobs: list, **__: object) -> Iterator[None]:
            missing.append(len(jobs))
            for job in jobs:
                yield dataset._render_to_cache(job)

    class Context:
        Pool = NoPool

    monkeypatch.setattr(dataset.multiprocessing, "get_context", lambda _: Context)
    render_dataset(tmp_path / "a", COUNTS, seed=3, size=SIZE, cache=cache, on_progress=noop_callback)
    assert missing == []
    # As if the process had been killed before the last record was written.
    next(cache.glob("*/*.json")).unlink()
    render_dataset(tmp_path / "b", COUNTS, seed=3, size=SIZE, cache=cache, on_progress=noop_callback)
    assert missing == [1]
    assert _files(tmp_path / "a") == _files(tmp_path / "b") == _files(root)
    assert not list(cache.rglob("*.part"))


def test_the_key_has_all_that_determines_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    base = dataset._Task(1, "train", "palm", 0, 64)
    others = [
        dataset._Task(2, "train", "palm", 0, 64),
        dataset._Task(1, "val", "palm", 0, 64),
        dataset._Task(1, "train", "fist", 0, 64),
        dataset._Task(1, "train", "palm", 1, 64),
        dataset._Task(1, "train", "palm", 0, 128),
    ]
    keys = {base.key, *(task.key for task in others)}
    assert len(keys) == 6
    monkeypatch.setattr(dataset, "RENDERER_VERSION", "another")
    assert base.key not in keys


def test_no_person_is_in_two_splits() -> None:
    names = {
        split: {dataset._sample_person(dataset._Task(1, split, "palm", index, 64)).user_id for index in range(300)}
        for split in dataset.SPLITS
    }
    assert not names["train"] & names["val"] and not names["train"] & names["test"] and not names["val"] & names["test"]
    assert all(len(users) < 300 for users in names.values()), "people should recur, as in HaGRID"


def test_mediapipe_finds_the_hands_where_they_are() -> None:
    hands = pytest.importorskip("mediapipe").solutions.hands
    use_mitsuba()
    gestures = ("palm", "ok", "call", "three2", "stop_inverted", "like")
    found, agreed = 0, 0
    with hands.Hands(static_image_mode=True, max_num_hands=1, min_detection_confidence=0.5) as detector:
        for number, gesture in enumerate(gestures):
            person = make_person("someone", np.random.default_rng(number))
            image = make_image(gesture, person, np.random.default_rng(number + 40), size=96, samples=16)
            large = Image.fromarray(image.pixels).resize((256, 256), Image.Resampling.LANCZOS)
            result = detector.process(np.array(large))
            if not result.multi_hand_landmarks:
                continue
            found += 1
            points = np.array([(point.x, point.y) for point in result.multi_hand_landmarks[0].landmark])
            error = np.linalg.norm(points - image.landmarks, axis=1).mean() / max(image.box[2:])
            assert error < 0.15, gesture
            # MediaPipe names the hand of a mirrored image, hence the other one in ours.
            side = {"Left": "right", "Right": "left"}[result.multi_handedness[0].classification[0].label]
            agreed += side == image.words.hand
    assert found >= len(gestures) - 1 and agreed >= found - 1


def test_a_source_of_two_handed_images_has_the_box_around_both(tmp_path: Path) -> None:
    counts = {"timeout": {"train": 1, "test": 1}}
    root = tmp_path / "set"
    render_dataset(root, counts, seed=3, size=32, cache=tmp_path, workers=1, on_progress=noop_callback)
    ((stem, record),) = _records(root, "train", "timeout").items()
    assert record["labels"] == ["timeout"] * 2 and record["united_label"] == ["timeout"]
    assert np.shape(record["hand_landmarks"]) == (2, 21, 2) and np.shape(record["bboxes"]) == (2, 4)
    selection = select(root, 1, 1, gesture="timeout")
    (item,) = selection.train
    assert item.file == f"timeout/{stem}.jpg" and item.hands == 2
    assert item.bbox == pytest.approx(record["united_bbox"][0]) and item.attributes["handedness"] == "both"


def test_captions_describe_the_image_and_no_gesture() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        words = people.Attributes(
            str(rng.choice(["left", "right", "both"])),
            str(rng.choice(list(people.SKINS))),
            str(rng.choice(list(people.SLEEVES))),
            str(rng.choice(list(people.WALLS))),
            str(rng.choice(list(people.LIGHTS))),
        )
        caption = people.describe(words, rng)
        hand = "two" if words.hand == "both" else words.hand
        assert {hand, words.skin, words.sleeve, words.wall} <= set(re.findall(r"[a-z]+", caption))
        assert "a orange" not in caption and "gesture" not in caption


@pytest.mark.parametrize(
    ("counts", "size", "fault"),
    [
        ({"wave": {"train": 1}}, 64, "wave"),
        ({"palm": {"dev": 1}}, 64, "dev"),
        ({"palm": {"train": -1}}, 64, "-1"),
        ({"palm": {"train": 1}}, 8, "size 8"),
    ],
)
def test_faulty_arguments_are_named(counts: dict, size: int, fault: str, tmp_path: Path) -> None:
    with pytest.raises(Hand1000Error, match=fault):
        render_dataset(tmp_path, counts, seed=1, size=size, cache=tmp_path / "cache")
    assert not list(tmp_path.iterdir())


def test_importing_the_renderer_is_cheap() -> None:
    heavy = ("mitsuba", "skimage", "scipy")
    code = f"import sys, hand1000.data.render.dataset; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout.strip() == "[]"
