"""Lines about images: their columns, several lines for one image, and lines that fit no image."""

import json

import pytest

from hand1000.core.errors import Hand1000Error
from hand1000.data import problem_kinds
from hand1000.data.prepare import draw_caption
from tests.support.hagrid_source import people, select, write_hagrid
from tests.support.layouts import BOX, facts, jsonl, write_images


def read(root, **options):
    """The images by file, and the names of each kind of problem."""
    from hand1000.data.items import IssueLog
    from hand1000.data.sources.opening import open_dataset
    from hand1000.data.sources.reader import ImageReader

    issues = IssueLog(str(root))
    train, test = ImageReader(open_dataset(root), issues, **options).read("four")
    return {item.file: item for item in [*train, *(test or ())]}, issues


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "a hand"},
        {"caption": "a hand"},
        {"text": "a hand"},
        {"captions": ["a hand"]},
        {"text": None, "caption": " a hand "},
    ],
)
def test_a_caption_may_be_in_any_of_its_columns(tmp_path, row):
    write_images(tmp_path, range(2))
    jsonl(tmp_path / "metadata.jsonl", [{"file_name": "0.png", **row}])
    items, issues = read(tmp_path)
    assert (items["0.png"].caption, items["0.png"].captioned_by) == ("a hand", "metadata.jsonl")
    assert items["0.png"].provenance == "0.png; metadata.jsonl: line 1" and not issues.problems


@pytest.mark.parametrize(
    ("row", "box"),
    [
        ({"bbox": BOX}, BOX),
        ({"bboxes": [BOX]}, BOX),
        ({"bboxes": [[0, 0, 0.1, 0.1], BOX], "labels": ["four", "no_gesture"]}, [0, 0, 0.1, 0.1]),
        ({"objects": {"bbox": [BOX], "categories": [0]}}, BOX),
        ({"objects": {"bbox": [[0, 0, 1, 1], BOX], "categories": ["ok", "four"]}}, BOX),
        ({"objects": {"bbox": []}}, None),
        ({"bbox": None}, None),
    ],
)
def test_a_box_may_be_in_any_of_its_columns(tmp_path, row, box):
    write_images(tmp_path, range(2))
    jsonl(tmp_path / "metadata.jsonl", [{"file_name": "0.png", **row}])
    items, issues = read(tmp_path)
    assert items["0.png"].bbox == (tuple(box) if box else None) and not issues.problems


def test_boxes_in_pixels_are_refused_or_converted(tmp_path):
    write_images(tmp_path, range(2))
    jsonl(tmp_path / "metadata.jsonl", [{"file_name": "0.png", "bbox": [6, 6, 12, 12]}])
    items, issues = read(tmp_path)
    assert items["0.png"].bbox is None
    (problem,) = issues.problems
    assert problem.kind == problem_kinds.BAD_BOX and "set data.bbox_format to pixels" in problem.names[0]
    items, issues = read(tmp_path, bbox_format="pixels")
    assert items["0.png"].bbox == (0.25, 0.25, 0.5, 0.5) and not issues.problems


def test_each_unusable_box_is_counted_and_named(tmp_path):
    write_images(tmp_path)
    boxes = [
        [0, 0, 5, 5],
        [float("nan"), 0, 1, 1],
        [0, 0, 0, 1],
        [2, 2, 1, 1],
        "x",
        [0, 0, 1],
        [-0.1, 0, 0.5, 0.5],
        BOX,
    ]
    jsonl(tmp_path / "metadata.jsonl", [{"file_name": f"{i}.png", "bbox": box} for i, box in enumerate(boxes)])
    items, issues = read(tmp_path)
    assert [items[f"{i}.png"].bbox for i in range(8)] == [None] * 6 + [(0.0, 0.0, 0.4, 0.5), tuple(BOX)]
    (problem,) = issues.problems
    assert (problem.kind, problem.count) == (problem_kinds.BAD_BOX, 6) and problem.names[0].startswith(
        "0.png: metadata.jsonl:"
    )


def test_several_captions_are_kept_and_one_is_drawn_by_the_seed(tmp_path):
    write_images(tmp_path, range(2))
    rows = [{"file_name": "0.png", "text": text} for text in ("a man", "a woman", "a man")]
    jsonl(tmp_path / "metadata.jsonl", rows)
    (tmp_path / "0.txt").write_text("a child\na friend\n")
    items, issues = read(tmp_path)
    assert items["0.png"].captions == ("a man", "a woman", "a child", "a friend") and not issues.problems
    assert {draw_caption(items["0.png"], seed) for seed in range(40)} == set(items["0.png"].captions)
    assert draw_caption(items["0.png"], 3) == draw_caption(items["0.png"], 3)
    assert draw_caption(items["1.png"], 3) == ""


def test_lines_that_contradict_are_counted_and_named(tmp_path):
    write_images(tmp_path, range(4))
    rows = [
        {"file_name": "0.png", "bbox": BOX},
        {"file_name": "0.png", "bbox": [0, 0, 1, 1]},
        {"file_name": "1.png", "user_id": "a"},
        {"file_name": "1.png", "user_id": "b"},
        {"file_name": "2.png", "gesture": "four"},
        {"file_name": "2.png", "gesture": "ok"},
        {"file_name": "3.png", "user_id": ["a"]},
    ]
    jsonl(tmp_path / "metadata.jsonl", rows)
    items, issues = read(tmp_path)
    assert list(items) == ["0.png"] and items["0.png"].bbox is None
    assert {problem.kind: problem.count for problem in issues.problems} == {
        problem_kinds.TWO_BOXES: 1, problem_kinds.TWO_PEOPLE: 1, problem_kinds.TWO_GESTURES: 1,
        problem_kinds.BAD_PERSON: 1,
    }  # fmt: skip
    assert [skipped.file for skipped in issues.unusable] == ["four/1.png", "four/2.png", "four/3.png"]


def test_one_person_is_never_on_both_sides(tmp_path):
    """The people are in a file above the two folders; before, everyone was a person of their own."""
    write_images(tmp_path / "train", range(6))
    write_images(tmp_path / "test", range(6, 8))
    rows = [facts(i, file_name=f"{'train' if i < 6 else 'test'}/{i}.png", user_id=f"p{i % 7}") for i in range(8)]
    jsonl(tmp_path / "metadata.jsonl", rows)
    chosen = select(tmp_path, 6, 1)
    assert not people(chosen.train) & people(chosen.test) and people(chosen.test) == {"p6"}
    (problem,) = chosen.problems
    assert (problem.kind, problem.names) == (problem_kinds.IN_BOTH_SPLITS, ("test/7.png: p0",))


def test_lines_that_name_people_and_fit_no_image_stop_the_run(tmp_path):
    write_images(tmp_path / "four")
    jsonl(tmp_path / "metadata.jsonl", [facts(i, file_name=f"{i}.png") for i in range(8)])
    with pytest.raises(
        Hand1000Error, match=r"line 1: 0.png: no such image, of 8 lines .* correct file_name \(with its"
    ):
        select(tmp_path, 6, 2)
    jsonl(tmp_path / "metadata.jsonl", [facts(i, file_name=f"four/{i}.png") for i in range(9)])
    assert [problem.kind for problem in select(tmp_path, 6, 2).problems] == [problem_kinds.NO_IMAGE]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metadata.jsonl", '{"text": "a"}', "line 1: no file_name"),
        ("metadata.jsonl", "x", "line 1: not JSON"),
        ("metadata.csv", "image,text\n0.png,a\n", "line 2: no file_name"),
        ("metadata.csv", "file_name,text\n0.png,a,b\n", "line 2: not as many cells"),
        ("metadata.parquet", "x", "cannot be read as Parquet"),
    ],
)
def test_a_malformed_metadata_file_is_named(tmp_path, name, content, message):
    write_images(tmp_path, range(2))
    (tmp_path / name).write_text(content)
    with pytest.raises(Hand1000Error, match=f"{name}.*{message}"):
        read(tmp_path)


def test_captions_beside_hagrids_annotations_are_read(tmp_path):
    write_hagrid(tmp_path, {"u": 2, "v": 2})
    (tmp_path / "four" / "train-u-0.txt").write_text("a hand")
    (tmp_path / "four" / "notes.md").write_text("x")
    jsonl(tmp_path / "metadata.jsonl", [{"file_name": "four/train-v-0.jpg", "text": "a fist", "user_id": "w"}])
    items, issues = read(tmp_path)
    assert items["four/train-u-0.jpg"].caption == "a hand" and items["four/train-v-0.jpg"].caption == "a fist"
    assert items["four/train-v-0.jpg"].user_id == "v"
    assert [problem.kind for problem in issues.problems] == [
        problem_kinds.UNKNOWN_FILE,
        problem_kinds.BESIDE_ANNOTATIONS,
    ]


def test_a_second_annotation_of_an_image_is_counted(tmp_path):
    write_hagrid(tmp_path, {"u": 2}, "train")
    write_hagrid(tmp_path, {"w": 2}, "test")
    file = tmp_path / "annotations/test/four.json"
    file.write_text(
        json.dumps(json.loads(file.read_text()) | {"train-u-0": {"bboxes": [], "labels": [], "user_id": "x"}})
    )
    _, issues = read(tmp_path)
    assert [str(problem) for problem in issues.problems] == [
        "second annotation of an image: 1 (annotations/test/four.json: train-u-0); keep one; the first is used"
    ]


def test_texts_that_cannot_be_read_are_counted(tmp_path):
    write_images(tmp_path, range(4))
    (tmp_path / "0.txt").write_bytes("ein Mann".encode("utf-16"))
    (tmp_path / "1.txt").write_bytes(b"x" * (1 << 21))
    (tmp_path / "2.json").write_text("{")
    (tmp_path / "3.json").write_text(json.dumps({"caption": "a man", "user_id": 3.0}))
    items, issues = read(tmp_path)
    assert {problem.kind: problem.names for problem in issues.problems} == {
        problem_kinds.BAD_CAPTION: ("0.txt", "1.txt"),
        problem_kinds.BAD_LINE: ("2.json",),
        problem_kinds.BAD_PERSON: ("2.png: 2.json",),
        problem_kinds.NO_PERSON: ("0.png", "1.png"),
    }
    assert (items["3.png"].user_id, items["3.png"].caption, items["3.png"].captioned_by) == (
        "3",
        "a man",
        ".json files",
    )


def test_people_in_folders_of_their_own_are_found_by_the_metadata(tmp_path):
    for person in range(4):
        write_images(tmp_path / f"p{person}", range(2 * person, 2 * person + 2))
    jsonl(tmp_path / "metadata.jsonl", [facts(i, file_name=f"p{i // 2}\\{i}.png") for i in range(8)])
    chosen = select(tmp_path, 6, 2)
    assert len(chosen.train) == 6 and not people(chosen.train) & people(chosen.test) and not chosen.problems
