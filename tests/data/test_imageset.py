"""The image set: its records and its metadata."""

import json

import pytest

from hand1000.core.errors import Hand1000Error
from hand1000.data.imageset import ImageRecord, read_image_set, write_metadata

FOUR = "making four fingers up hand gesture"


def record(name: str = "a.png", **fields) -> ImageRecord:
    values = {"text": f"a man, {FOUR}", "caption": "a man", "captioner": "dataset", "gesture": "four"}
    values |= {"user_id": "u1", "source": "0" * 64, "bbox": (0.1, 0.2, 0.3, 0.4)}
    return ImageRecord(**({"file_name": name} | values | fields))


def test_records_are_read_back_sorted_by_name(tmp_path):
    records = [record("b.png", bbox=None, attributes={"skin": "dark"}), record("a.png", seed=7)]
    for image in records:
        (tmp_path / image.file_name).touch()
    write_metadata(tmp_path, records)
    assert read_image_set(tmp_path) == records[::-1]
    first, second = map(json.loads, (tmp_path / "metadata.jsonl").read_text().splitlines())
    assert "attributes" not in first and "seed" not in second and second["bbox"] is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": 1}, "line 2: text"),
        ({"more": 1}, "line 2: more"),
        ({"bbox": [0, 0, 2, 1]}, "line 2: bbox.2"),
        ({"source": "abc"}, "line 2: source"),
        ({"file_name": "../a.png"}, "line 2: file_name"),
        ({"file_name": "a.png"}, "line 2: a.png appears twice"),
        ({"file_name": "c.png"}, "line 2: no such image: c.png"),
    ],
)
def test_the_error_names_a_malformed_record(tmp_path, change, message):
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    lines = [record("a.png").model_dump(mode="json"), record("b.png").model_dump(mode="json") | change]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(Hand1000Error, match=f"metadata.jsonl: {message}"):
        read_image_set(tmp_path)


def test_the_error_names_a_folder_without_metadata(tmp_path):
    with pytest.raises(Hand1000Error, match="metadata.jsonl: no such file"):
        read_image_set(tmp_path / "nowhere")
