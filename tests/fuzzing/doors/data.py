"""Doors of a data provider: metadata, annotations, captions, prompts and the names of files."""

import csv
import functools
import io
import json
import os
import random
from pathlib import Path
from typing import Any

from PIL import Image

from hand1000.data.imageset import read_image_set
from hand1000.data.items import IssueLog
from hand1000.data.sources.reader import ImageReader
from hand1000.evaluation.folders import import_images, read_prompts
from hand1000.gestures import gesture_phrase
from hand1000.storage.sources import open_source
from tests.fuzzing.harness import Door, RefusedError
from tests.fuzzing.mutations import ODD_TEXTS, damage_bytes, damage_text, damage_value

IMAGES = 4
ROWS: list[dict[str, Any]] = [
    {
        "file_name": f"{index}.png",
        "text": f"a person in room {index}",
        "bbox": [0.25, 0.25, 0.5, 0.5],
        "user_id": f"p{index // 2}",
        "gesture": "four",
    }
    for index in range(IMAGES)
]
RECORDS = [
    {"file_name": f"{index}.png", "text": "a hand", "caption": "a", "captioner": "none", "gesture": "four"}
    | {"user_id": "p", "source": "0" * 64}
    for index in range(IMAGES)
]
ANNOTATIONS = {
    str(index): {
        "bboxes": [[0.25, 0.25, 0.5, 0.5]],
        "labels": ["four"],
        "user_id": f"p{index // 2}",
        "united_bbox": [[0.1, 0.1, 0.5, 0.5]],
        "united_label": ["four"],
        "leading_hand": "left",
        "meta": {"age": [20], "race": ["x"]},
    }
    for index in range(IMAGES)
}


@functools.cache
def _png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (24, 24), "red").save(buffer, "png")
    return buffer.getvalue()


def _encode(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _make_lines(rng: random.Random, rows: list[dict[str, Any]]) -> bytes:
    kind = rng.randrange(6)
    damaged = damage_value(rng, rows)
    rows_left = damaged if isinstance(damaged, list) else []
    lines = [json.dumps(row).encode() if kind == 1 else _encode(row) for row in rows_left]
    data = b"\n".join(lines)
    if kind == 0:
        data = damage_bytes(rng, b"\n".join(map(_encode, rows)))
    if kind == 2:
        data += rng.choice(
            (b"\n" + b"[" * 100_000, b'\n{"file_name": "0.png", "a": ' + b"9" * 5000 + b"}", b"\n\\", b"\n5")
        )
    return data


def _make_csv(rng: random.Random) -> bytes:
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(ROWS[0])
    rows = damage_value(rng, [[str(value) for value in row.values()] for row in ROWS])
    writer.writerows(row for row in rows if isinstance(row, list)) if isinstance(rows, list) else None
    data = buffer.getvalue().encode("utf-8", "surrogatepass")
    kind = rng.randrange(4)
    return damage_bytes(rng, data) if kind == 0 else data + b"x" * 200_000 if kind == 1 and rng.random() < 0.2 else data


def _make_json(rng: random.Random, value: Any) -> bytes:
    data = _encode(value)
    if rng.random() < 0.3:
        return damage_bytes(rng, data)
    return _encode(damage_value(rng, value))


def _read(folder: Path, gesture: str) -> None:
    issues = IssueLog(str(folder), quiet=True)
    items = ImageReader(open_source(folder), issues).read_all(gesture)
    if not items or issues.problems or issues.unusable or issues.warnings:
        problems = [
            *map(str, issues.problems),
            *issues.warnings,
            *(f"{skip.file}: {skip.reason}" for skip in issues.unusable),
        ]
        for text in problems:
            if "\n" in text or len(text) > 2000:
                raise AssertionError(f"a problem of {len(text)} characters: {text[:200]!r}")
        raise RefusedError("; ".join(problems)[:1000] or "no images")


def _beside(name: str) -> Any:
    """Return a call that puts the input beside four images, as the file `name`."""

    def call(data: bytes, folder: Path) -> None:
        for index in range(IMAGES):
            (folder / f"{index}.png").write_bytes(_png())
        (folder / name).write_bytes(data)
        _read(folder, "four" if name.startswith("metadata") else "")

    return call


def _read_annotations(data: bytes, folder: Path) -> None:
    (folder / "annotations/train").mkdir(parents=True)
    (folder / "four").mkdir()
    for index in range(IMAGES):
        (folder / f"four/{index}.png").write_bytes(_png())
    (folder / "annotations/train/four.json").write_bytes(data)
    _read(folder, "four")


def _read_records(data: bytes, folder: Path) -> None:
    (folder / "metadata.jsonl").write_bytes(data)
    for index in range(IMAGES):
        (folder / f"{index}.png").write_bytes(_png())
    list(read_image_set(folder))


def _make_prompts(rng: random.Random) -> bytes:
    text = f"a hand, {gesture_phrase('four')}\n" * IMAGES
    text = damage_text(rng, text) if rng.random() < 0.7 else text
    return (
        damage_bytes(rng, text.encode("utf-8", "surrogatepass"))
        if rng.random() < 0.5
        else text.encode("utf-8", "replace")
    )


def _read_prompts(data: bytes, folder: Path) -> None:
    (folder / "prompts.txt").write_bytes(data)
    prompts = read_prompts(folder / "prompts.txt")
    (folder / "images").mkdir()
    for index in range(len(prompts)):
        (folder / f"images/{index}.png").write_bytes(_png())
    list(read_image_set(import_images(folder / "images", folder / "set", None, prompts)))


def _make_names(rng: random.Random) -> list[bytes]:
    names = [os.fsencode(text) for text in ODD_TEXTS if "\ud800" not in text and "\ud83d" not in text]
    names += [b"\xff", b"a\xe9", b"\xc3", b"x" * 250]
    return [name.replace(b"/", b"_").replace(b"\0", b"_")[:240] for name in rng.sample(names, 4)]


def _read_names(names: list[bytes], folder: Path) -> None:
    for index, name in enumerate(names):
        kind = index % 4
        path = os.path.join(os.fsencode(folder), name + (b".png", b".txt", b".json", b"")[kind])
        if os.path.lexists(path) or name in (b"", b".", b".."):
            continue
        if kind == 3:
            os.mkdir(path)
            path = os.path.join(path, b"1.png")
        with open(path, "wb") as file:
            file.write(_png() if kind in (0, 3) else b"{}")
    _read(folder, "")


DOORS = [
    Door("metadata.jsonl", lambda rng: _make_lines(rng, ROWS), _beside("metadata.jsonl")),
    Door("metadata.csv", _make_csv, _beside("metadata.csv")),
    Door("JSON beside an image", lambda rng: _make_json(rng, ROWS[0]), _beside("0.json")),
    Door("caption beside an image", lambda rng: damage_bytes(rng, b"a person\nin a room"), _beside("0.txt")),
    Door("annotations", lambda rng: _make_json(rng, ANNOTATIONS), _read_annotations),
    Door("records of an image set", lambda rng: _make_lines(rng, RECORDS), _read_records),
    Door(
        "prompts file",
        lambda rng: _make_prompts(rng),
        _read_prompts,
    ),
    Door("file names", _make_names, _read_names),
]
