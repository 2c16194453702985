"""Sources of pictures: HaGRID's layout, or a folder of one's own pictures.

HaGRID (v1 and v2): `<root>/<gesture>/<uuid>.jpg` and `<root>/annotations/{train,val,test}/<gesture>.json`, an object
by uuid. Own pictures: files in `<root>/<gesture>/` or in `<root>/` itself, with or without a Hugging Face
imagefolder's `metadata.jsonl` beside them; or in `<root>/train/` and `<root>/test/`, as a published data set has them.
"""

import logging
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from hand1000.data.imageset import METADATA, BBox
from hand1000.data.selection import Filter, Selection, SourceItem, Unusable, choose
from hand1000.errors import Hand1000Error
from hand1000.gestures import phrase_of
from hand1000.settings import FilterSettings, validation_message
from hand1000.storage.digests import digest_bytes, digest_file
from hand1000.storage.files import read_json, read_jsonl

logger = logging.getLogger(__name__)

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
ANNOTATIONS = "annotations"
_NAMED = 3
# What HaGRID v2 guesses of a person's age, gender and origin: not needed here, so it is not carried along.
_GUESSES = frozenset({"age", "gender", "race"})

Box = tuple[float, float, float, float]


class _Annotation(BaseModel):
    """One picture's entry; HaGRID's other fields are passed over. `caption` and `meta` are the sample data's own."""

    model_config = ConfigDict(extra="ignore")

    bboxes: list[Box]
    labels: list[str]
    user_id: str = Field(min_length=1)
    united_bbox: Box | list[Box] | None = None
    united_label: str | list[str] | None = None
    leading_hand: str | None = None
    caption: str | None = None
    meta: dict[str, JsonValue] | None = None


class _MetadataLine(BaseModel):
    """A line of an imagefolder's metadata; other columns are passed over."""

    model_config = ConfigDict(extra="ignore")

    file_name: str
    text: str | None = None
    caption: str | None = None
    gesture: str | None = None
    user_id: str | None = None
    bbox: Box | None = None


def select_images(
    root: Path, gesture: str, *, num_train: int, num_test: int, seed: int, filters: FilterSettings
) -> Selection:
    """Choose the pictures of `gesture` to train on and those to measure against.

    HaGRID's division is kept: training draws from `train` and `val`, the test from `test`; that of a published data
    set is kept too. Other sources have none, so people are drawn; in a folder of one's own pictures each picture counts
    as a person unless `user_id` says otherwise. How pictures are drawn: `hand1000.data.selection.choose`.

    Args:
        root: the source's folder.
        gesture: HaGRID's name of the gesture.
        num_train: training pictures; with fewer at hand all are taken, which is told as a warning.
        num_test: test pictures.
        seed: of the draw.
        filters: which labelled pictures are passed over; the selection's `filtered` tells how many.

    Raises:
        Hand1000Error: no such folder or gesture, or too few pictures. Annotations that are malformed are passed over
            and told in the selection's `unusable`, files of them in its `warnings`.
    """
    phrase_of(gesture)
    if not root.is_dir():
        raise Hand1000Error(f"{root}: no such folder; give the folder that holds the pictures")
    train: list[SourceItem]
    test: list[SourceItem] | None
    problems = _Problems()
    if (root / ANNOTATIONS).is_dir():
        train, test = _read_hagrid(root, gesture, problems)
    elif all((root / split).is_dir() for split in ("train", "test")):
        train, test = (_read_own(root / split, gesture) for split in ("train", "test"))
    else:
        train, test = _read_own(_folder_of_own(root, gesture), gesture), None
    source = f"{root}: {gesture}"
    fit = Filter(filters)
    train, test = fit(train), None if test is None else fit(test)
    problems.warnings += [f"{count} pictures filtered: {reason}" for reason, count in fit.counts.items() if count]
    try:
        chosen = choose(train, test, num_train=num_train, num_test=num_test, seed=seed, source=source)
    except Hand1000Error as error:
        said = [*problems.warnings, *(f"{one.file}: {one.reason}" for one in problems.unusable)]
        raise Hand1000Error(f"{error}{f' ({len(said)} passed over, the first: {said[0]})' if said else ''}") from error
    return replace(
        chosen, warnings=(*chosen.warnings, *problems.warnings), unusable=tuple(problems.unusable),
        filtered=tuple(fit.counts.items()),
    )


@dataclass
class _Problems:
    """What is wrong with a source but does not stop the work; how much of it is borne is decided later."""

    warnings: list[str] = field(default_factory=list)
    unusable: list[Unusable] = field(default_factory=list)

    def warn(self, where: Path, text: str) -> None:
        # Without the root: the warning is kept in the data set, which is named by its content.
        self.warnings.append(f"{where.parent.name}/{where.name}: {text}")
        logger.warning("%s: %s", where, text)


def _read_hagrid(
    root: Path, gesture: str, problems: _Problems
) -> tuple[list[SourceItem], list[SourceItem] | None]:
    files = {split: root / ANNOTATIONS / split / f"{gesture}.json" for split in ("train", "val", "test")}
    if not (root / gesture).is_dir() or not any(file.is_file() for file in files.values()):
        present = sorted(
            {file.stem for file in root.glob(f"{ANNOTATIONS}/*/*.json") if (root / file.stem).is_dir()}
        )
        raise Hand1000Error(
            f"{root}: no pictures and annotations of {gesture!r}; "
            + (f"there are: {', '.join(present)}" if present else "it holds no gesture at all")
        )
    pictures = {path.stem: path for path in _pictures(root / gesture)}
    items = {split: _annotated(file, gesture, pictures, problems) for split, file in files.items() if file.is_file()}
    known = {item.path for part in items.values() for item in part} | {root / one.file for one in problems.unusable}
    if without := sorted(path.name for path in pictures.values() if path not in known):
        problems.warn(root / gesture, f"{len(without)} pictures have no annotation: {', '.join(without[:_NAMED])}")
    # By key: a picture that two files name is one picture.
    train = list({item.key: item for split in ("train", "val") for item in items.get(split, [])}.values())
    test = items.get("test", [])
    return (train, test) if train and test else (train + test, None)


def _annotated(file: Path, gesture: str, pictures: dict[str, Path], problems: _Problems) -> list[SourceItem]:
    try:
        entries = read_json(file)
        if not isinstance(entries, dict):
            raise Hand1000Error(f"{file}: not an object of annotations by picture")
    except Hand1000Error as error:
        problems.warn(file, f"passed over: {str(error).removeprefix(f'{file}: ')}")
        return []
    items, absent = [], []
    for name, entry in entries.items():
        # Only these are read any further: HaGRID is often fetched in part, and a name becomes a file's name.
        if name not in pictures:
            absent.append(name)
            continue
        try:
            items.append(_annotated_item(name, pictures[name], gesture, entry))
        except Hand1000Error as error:
            problems.unusable.append(Unusable(file=f"{gesture}/{pictures[name].name}", reason=str(error)))
            logger.warning("%s: %s: passed over: %s", file, name, error)
    if absent:
        problems.warn(file, f"{len(absent)} of {len(entries)} pictures are not there: {', '.join(absent[:_NAMED])}")
    return items


def _annotated_item(name: str, path: Path, gesture: str, entry: Any) -> SourceItem:
    try:
        annotation = _Annotation.model_validate(entry)
    except ValidationError as error:
        raise Hand1000Error(validation_message(error, "annotation")) from error
    attributes = {key: value for key, value in (annotation.meta or {}).items() if key not in _GUESSES}
    if annotation.leading_hand in ("left", "right"):
        attributes.setdefault("handedness", annotation.leading_hand)
    return SourceItem(
        key=_safe(name),
        path=path,
        gesture=gesture,
        user_id=annotation.user_id,
        bbox=_labelled_box(annotation, gesture),
        hands=len(annotation.bboxes),
        caption=annotation.caption,
        attributes=attributes or None,
    )


def _labelled_box(annotation: _Annotation, gesture: str) -> BBox | None:
    """The box of the hand that makes the gesture, the largest of several, or of both hands for those of two."""
    if len(annotation.bboxes) != len(annotation.labels):
        raise Hand1000Error(f"annotation: {len(annotation.bboxes)} bboxes but {len(annotation.labels)} labels")
    # v2 writes a gesture of two hands as lists of one box and one label.
    united_labels = annotation.united_label or []
    united_boxes = annotation.united_bbox or []
    labels = [united_labels] if isinstance(united_labels, str) else united_labels
    boxes = [united_boxes] if isinstance(united_boxes, tuple) else united_boxes
    united = [box for box, label in zip(boxes, labels, strict=False) if label == gesture]
    single = [box for box, label in zip(annotation.bboxes, annotation.labels, strict=True) if label == gesture]
    inside = [box for box in map(_inside, united or single) if box is not None]
    if (united or single) and not inside:
        raise Hand1000Error("annotation: the hand's box lies outside the picture")
    return max(inside, key=lambda box: box[2] * box[3], default=None)


def _inside(box: Box) -> BBox | None:
    """The part of a box that lies within the picture, where there is one; annotators drew some across the border."""
    x, y, w, h = box
    x0, y0, x1, y1 = (min(max(value, 0.0), 1.0) for value in (x, y, x + w, y + h))
    return (x0, y0, x1 - x0, y1 - y0) if x1 > x0 and y1 > y0 else None


def _folder_of_own(root: Path, gesture: str) -> Path:
    if (root / gesture).is_dir():
        return root / gesture
    if _pictures(root):
        return root
    present = sorted(path.name for path in root.iterdir() if path.is_dir() and _pictures(path))
    raise Hand1000Error(
        f"{root}: no pictures of {gesture!r}; " + (f"there are: {', '.join(present)}" if present else "it is empty")
    )


def _read_own(folder: Path, gesture: str) -> list[SourceItem]:
    paths = {path.name: path for path in _pictures(folder)}
    lines = _read_metadata(folder / METADATA, paths) if (folder / METADATA).is_file() else {}
    stems = Counter(path.stem for path in paths.values())
    items = []
    for name, path in paths.items():
        line = lines.get(name, _MetadataLine(file_name=name))
        if line.gesture not in (None, gesture):
            continue
        items.append(
            SourceItem(
                key=_safe(path.stem if stems[path.stem] == 1 else name),  # a.jpg and a.png are two pictures.
                path=path,
                gesture=gesture,
                # Named by its content, so that copies of one picture are never on both sides.
                user_id=line.user_id or digest_file(path),
                bbox=_inside(line.bbox) if line.bbox else None,
                caption=line.caption or line.text,
            )
        )
    if not items:
        present = sorted({line.gesture for line in lines.values() if line.gesture})
        raise Hand1000Error(f"{folder}: no pictures of {gesture!r}; there are: {', '.join(present) or 'none at all'}")
    return items


def _read_metadata(path: Path, pictures: Mapping[str, Path]) -> dict[str, _MetadataLine]:
    lines = {}
    for number, row in read_jsonl(path):
        try:
            line = _MetadataLine.model_validate(row)
        except ValidationError as error:
            raise Hand1000Error(validation_message(error, f"{path}: line {number}")) from error
        if line.file_name not in pictures:
            raise Hand1000Error(f"{path}: line {number}: no such picture beside it: {line.file_name}")
        lines[line.file_name] = line
    return lines


def _pictures(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def _safe(name: str) -> str:
    """`name` as part of a file name; where that changes it, with a digest so that no two names become one."""
    safe = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:80]
    return safe if safe == name else f"{safe}-{digest_bytes(name.encode())[:8]}"
