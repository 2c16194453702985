"""Properties of all readers: what goes in is used or counted by name."""

import json
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from hand1000.core.errors import Hand1000Error
from hand1000.data import problem_kinds
from hand1000.data.boxes import MAX_OVERHANG, UnusableBoxError, parse_box
from hand1000.data.items import IssueLog
from hand1000.data.sources.opening import open_dataset
from hand1000.data.sources.reader import ImageReader
from tests.support.layouts import png

FILES = tuple(f"{index}.png" for index in range(5))
PIXELS = {name: png(index) for index, name in enumerate(FILES)}

numbers = st.floats(-1, 3) | st.integers(-1, 30) | st.sampled_from([float("nan"), float("inf"), True])
boxes = st.none() | st.text(max_size=3) | st.lists(numbers, max_size=5)
lines = st.fixed_dictionaries(
    {"file_name": st.sampled_from([*FILES, "missing.png", "../out.png"])},
    optional={
        "text": st.none() | st.sampled_from(["a man", "a woman", ""]) | st.integers(),
        "caption": st.none() | st.sampled_from(["a man", "a child"]),
        "user_id": st.none() | st.sampled_from(["p", "q"]) | st.integers(0, 2) | st.lists(st.integers(), max_size=1),
        "gesture": st.sampled_from(["four", "ok"]),
        "bbox": boxes,
        "mood": st.just("good"),
    },
)


def read(write):
    """The images of what `write` puts into a new folder, with the log; None where the source is refused by name."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        issues = IssueLog(folder, quiet=True)
        try:
            train, test = ImageReader(open_dataset(folder), issues).read("four")
            return [*train, *(test or ())], issues
        except Hand1000Error as error:
            assert folder in str(error) and "\n" not in str(error)
            return None


def counts(issues):
    return {problem.kind: problem.count for problem in issues.problems}


@settings(max_examples=150, deadline=None)
@given(st.lists(lines, max_size=8))
def test_every_line_of_a_metadata_file_is_used_or_counted(rows):
    def write(folder):
        for name, data in PIXELS.items():
            (folder / name).write_bytes(data)
        (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))

    if (result := read(write)) is None:
        return
    items, issues = result
    count, used = counts(issues), {item.file: item for item in items}
    by_file = {name: [row for row in rows if row["file_name"] == name] for name in {row["file_name"] for row in rows}}

    def is_of_gesture(file_rows):
        gestures = {row["gesture"] for row in file_rows if "gesture" in row}
        return not gestures or "four" in gestures

    # Images: used, skipped by name, or of another gesture.
    expected = [name for name in FILES if is_of_gesture(by_file.get(name, []))]
    assert sorted([*used, *(skipped.file.removeprefix("four/") for skipped in issues.unusable)]) == expected
    # Lines: every one that may be of the gesture and has no image is counted.
    lost = [row for row in rows if row["file_name"] not in FILES and row.get("gesture") in (None, "four")]
    assert count.get(problem_kinds.NO_IMAGE, 0) == len(lost)
    for name, item in used.items():
        file_rows = by_file.get(name, [])
        # Captions: all of them, in order.
        texts = [next((row[key] for key in ("text", "caption") if isinstance(row.get(key), str) and row[key]), None)
                 for row in file_rows]  # fmt: skip
        captions = tuple(dict.fromkeys(text for text in texts if text))
        assert (item.captions or ((item.caption,) if item.caption else ())) == captions
        # People: the one that is named.
        people = {str(row["user_id"]) for row in file_rows if isinstance(row.get("user_id"), str | int)}
        assert {item.user_id} == people or (not people and len(item.user_id) == 64)
    # Captions that are no text, and those in a further column.
    not_text = sum(isinstance(row.get("text"), int) for row in rows)
    assert count.get(problem_kinds.BAD_CAPTION, 0) == not_text
    further = sum(bool(isinstance(row.get("text"), str) and row["text"] and row.get("caption")) for row in rows)
    assert count.get(problem_kinds.SECOND_CAPTION, 0) == further
    # Boxes of images that are used: in use, counted as unusable, or counted as contradicting.
    given_boxes = [row for name in used for row in by_file.get(name, []) if row.get("bbox") not in (None, "", [])]
    usable: dict[str, set] = {}
    unusable = 0
    for row in given_boxes:
        try:
            usable.setdefault(row["file_name"], set()).add(parse_box(row["bbox"]))
        except UnusableBoxError:
            unusable += 1
    assert count.get(problem_kinds.BAD_BOX, 0) == unusable
    assert count.get(problem_kinds.TWO_BOXES, 0) == sum(len(values) > 1 for values in usable.values())
    for name, item in used.items():
        values = usable.get(name, set())
        assert item.bbox == (next(iter(values)) if len(values) == 1 else None)
    assert (problem_kinds.UNKNOWN_COLUMN in count) == any("mood" in row for row in rows)


annotations = st.fixed_dictionaries(
    {
        "bboxes": st.lists(st.lists(st.floats(-1, 2), min_size=4, max_size=4), max_size=2),
        "user_id": st.sampled_from(["p", "q", "", None]),
    },
    optional={"labels": st.lists(st.sampled_from(["four", "no_gesture"]), max_size=2)},
)


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(st.sampled_from([*"01234", "missing"]), annotations, min_size=1),
    st.dictionaries(st.sampled_from([*"01234", "missing"]), annotations),
)
def test_every_annotation_of_hagrid_is_used_or_counted(train, test):
    def write(folder):
        (folder / "four").mkdir()
        for name, data in PIXELS.items():
            (folder / "four" / name).write_bytes(data)
        for split, entries in (("train", train), ("test", test)):
            (folder / "annotations" / split).mkdir(parents=True)
            (folder / "annotations" / split / "four.json").write_text(json.dumps(entries))

    items, issues = read(write)
    named = (set(train) | set(test)) - {"missing"}
    assert len(items) + len(issues.unusable) == len(named) == issues.num_images
    assert counts(issues).get(problem_kinds.SECOND_ANNOTATION, 0) == len((set(train) & set(test)) - {"missing"})
    missing = [warning for warning in issues.warnings if "are missing: missing" in warning]
    assert len(missing) == ("missing" in train) + ("missing" in test)
    assert any("have no annotation" in warning for warning in issues.warnings) == (len(named) < len(FILES))

    def has_box(entry):
        return "four" in entry.get("labels", [])

    for item in items:
        entries = [split[item.key] for split in (train, test) if item.key in split]
        assert (item.bbox is not None) in {has_box(entry) for entry in entries}


NAMES = ["a.png", "b.png", "._c.png", "a.txt", "c.txt", "d.json", "e.svg", "x.md"]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(NAMES), unique=True))
def test_every_file_is_read_or_counted(names):
    def write(folder):
        for index, name in enumerate(names):
            (folder / name).write_bytes(png(index) if name in ("a.png", "b.png") else b"a man")

    result = read(write)
    images = [name for name in names if name in ("a.png", "b.png")]
    if not images:
        assert result is None
        return
    items, issues = result
    beside = ["a.txt"] if {"a.txt", "a.png"} <= set(names) else []
    rest = set(names) - set(images) - set(beside) - {"._c.png"}
    assert sorted(item.file for item in items) == sorted(images)
    assert counts(issues).get(problem_kinds.UNKNOWN_FILE, 0) == len(rest)
    captions = {item.file: item.caption for item in items}
    assert captions.get("a.png") == ("a man" if beside else None) and captions.get("b.png") is None


@settings(max_examples=300, deadline=None)
@given(st.lists(st.floats(-2, 3, allow_nan=False), min_size=4, max_size=4))
def test_a_box_is_inside_the_image_or_refused(value):
    x, y, width, height = value
    far = min(x, y) < -MAX_OVERHANG or max(x + width, y + height) > 1 + MAX_OVERHANG
    try:
        box = parse_box(value)
    except UnusableBoxError:
        outside = min(x + width, y + height) <= 0 or max(x, y) >= 1
        assert min(width, height) < 1e-9 or far or outside
        return
    assert not far and all(0 <= part <= 1 for part in box) and box[2] > 0 and box[3] > 0
    assert box[0] + box[2] <= 1 + 1e-9 and box[1] + box[3] <= 1 + 1e-9
    if max(value[2] * 200, value[3] * 100) > 1:
        parse_box([part * side for part, side in zip(value, (200, 100, 200, 100), strict=True)], (200, 100))
