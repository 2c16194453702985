"""The same eight images in every layout that the readers know: two of each person, with a box and a caption each."""

import csv
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

NUM_IMAGES = 8
BOX = [0.25, 0.25, 0.5, 0.5]


def image(index: int) -> Image.Image:
    """An image that no other index has."""
    return Image.fromarray(np.random.default_rng(index).integers(0, 256, (24, 24, 3), np.uint8))


def facts(index: int, **more: Any) -> dict[str, Any]:
    """What a line says about an image, with its person, caption and box."""
    return {"user_id": f"p{index // 2}", "text": f"a person in room {index}", "bbox": BOX} | more


def write_images(folder: Path, indices: range | list[int] = range(NUM_IMAGES)) -> None:
    """Save images as `<index>.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in indices:
        image(index).save(folder / f"{index}.png")


def jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write JSON Lines."""
    path.write_text("\n".join(map(json.dumps, rows)))


def png(index: int) -> bytes:
    """The bytes of an image's PNG file."""
    buffer = io.BytesIO()
    image(index).save(buffer, "png")
    return buffer.getvalue()


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a file to a tar."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def _plain(root: Path) -> None:
    write_images(root)


def _beside(root: Path) -> None:
    write_images(root)
    jsonl(root / "metadata.jsonl", [facts(index, file_name=f"{index}.png") for index in range(NUM_IMAGES)])


def _above(root: Path) -> None:
    write_images(root / "four")
    jsonl(root / "metadata.jsonl", [facts(index, file_name=f"four/{index}.png") for index in range(NUM_IMAGES)])


def _above_split(root: Path) -> None:
    write_images(root / "train", range(6))
    write_images(root / "test", range(6, 8))
    rows = [facts(index, file_name=f"{'train' if index < 6 else 'test'}/{index}.png") for index in range(NUM_IMAGES)]
    jsonl(root / "metadata.jsonl", rows)


def _split_folders(root: Path) -> None:
    for split, indices in (("train", range(6)), ("test", range(6, 8))):
        write_images(root / split, indices)
        jsonl(root / split / "metadata.jsonl", [facts(index, file_name=f"{index}.png") for index in indices])


def _csv(root: Path) -> None:
    write_images(root)
    with open(root / "metadata.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["file_name", "prompt", "user_id", "bbox"])
        writer.writeheader()
        for index in range(NUM_IMAGES):
            row = facts(index)
            writer.writerow(
                {"file_name": f"{index}.png", "prompt": row["text"], "user_id": row["user_id"], "bbox": json.dumps(BOX)}
            )


def _parquet(root: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    write_images(root)
    rows = [facts(index, file_name=f"{index}.png") for index in range(NUM_IMAGES)]
    pq.write_table(pa.Table.from_pylist(rows), root / "metadata.parquet")


def _texts(root: Path) -> None:
    write_images(root)
    for index in range(NUM_IMAGES):
        (root / f"{index}.txt").write_text(f"a person in room {index}\n")


def _kohya(root: Path) -> None:
    write_images(root / "10_four")
    for index in range(NUM_IMAGES):
        (root / "10_four" / f"{index}.caption").write_text(f"a person in room {index}\n")


def _annotations(root: Path, folder: str, indices: range, caption: bool) -> None:
    (root / folder).mkdir(parents=True, exist_ok=True)
    entries = {}
    for index in indices:
        row = facts(index)
        entry = {"bboxes": [BOX], "labels": ["four"], "user_id": row["user_id"], "leading_hand": "right"}
        entries[str(index)] = entry | ({"caption": row["text"]} if caption else {})
    (root / folder / "four.json").write_text(json.dumps(entries))


def _hagrid_v2(root: Path) -> None:
    write_images(root / "four")
    _annotations(root, "annotations/train", range(4), False)
    _annotations(root, "annotations/val", range(4, 6), False)
    _annotations(root, "annotations/test", range(6, 8), False)


def _hagrid_v1(root: Path) -> None:
    write_images(root / "train_val_four", range(6))
    write_images(root / "test" / "four", range(6, 8))
    _annotations(root, "ann_train_val", range(6), False)
    _annotations(root, "ann_test", range(6, 8), False)


def _hagrid_sample(root: Path) -> None:
    write_images(root / "hagrid_30k" / "train_val_four")
    _annotations(root, "ann_train_val", range(NUM_IMAGES), False)


def _webdataset(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for shard in range(2):
        with tarfile.open(root / f"shard-{shard:04d}.tar", "w") as tar:
            for index in range(shard * 4, shard * 4 + 4):
                row = facts(index)
                add_member(tar, f"{index:04d}.png", png(index))
                add_member(tar, f"{index:04d}.txt", row.pop("text").encode())
                add_member(tar, f"{index:04d}.json", json.dumps(row).encode())


def _embedded(root: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (root / "data").mkdir(parents=True)
    for split, indices in (("train", range(6)), ("test", range(6, 8))):
        rows = [{"image": {"bytes": png(index), "path": f"{index}.png"}, **facts(index)} for index in indices]
        pq.write_table(pa.Table.from_pylist(rows), root / "data" / f"{split}-00000-of-00001.parquet", row_group_size=2)


CAPTIONS, BOXES, PEOPLE, SPLIT = "captions", "boxes", "people", "split"

LAYOUTS: dict[str, tuple[Callable[[Path], None], set[str]]] = {
    "plain images": (_plain, set()),
    "metadata.jsonl beside the images": (_beside, {CAPTIONS, BOXES, PEOPLE}),
    "metadata.jsonl above the images": (_above, {CAPTIONS, BOXES, PEOPLE}),
    "metadata.jsonl above train/ and test/": (_above_split, {CAPTIONS, BOXES, PEOPLE, SPLIT}),
    "train/ and test/ with a metadata file each": (_split_folders, {CAPTIONS, BOXES, PEOPLE, SPLIT}),
    "metadata.csv": (_csv, {CAPTIONS, BOXES, PEOPLE}),
    "metadata.parquet": (_parquet, {CAPTIONS, BOXES, PEOPLE}),
    "texts beside the images": (_texts, {CAPTIONS}),
    "kohya folders": (_kohya, {CAPTIONS}),
    "HaGRID, annotations/": (_hagrid_v2, {BOXES, PEOPLE, SPLIT}),
    "HaGRID version 1, ann_train_val/ and ann_test/": (_hagrid_v1, {BOXES, PEOPLE, SPLIT}),
    "HaGRID's sample of 30,000": (_hagrid_sample, {BOXES, PEOPLE}),
    "webdataset tars": (_webdataset, {CAPTIONS, BOXES, PEOPLE}),
    "Parquet with embedded images": (_embedded, {CAPTIONS, BOXES, PEOPLE, SPLIT}),
}
"""Writer of each layout, by its name in docs/data.md, and what the layout says of the images."""
