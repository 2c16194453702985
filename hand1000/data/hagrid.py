"""HaGRID's layout, versions 1 and 2, full-size or 512 px.

`<root>/<gesture>/<uuid>.jpg` and `<root>/annotations/{train,val,test}/<gesture>.json`, an object by uuid. Annotations
are read a block at a time: of a million pictures only the names are ever in memory.
"""

import itertools
import sys
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Annotated, Any

import msgspec

from hand1000.core.errors import Hand1000Error
from hand1000.data.imageset import BBox
from hand1000.data.items import SUFFIXES, Box, IssueLog, SourceImage, clip_box, safe_key
from hand1000.storage.json_stream import MalformedJsonError, iter_members
from hand1000.storage.sources import Source

ANNOTATIONS = "annotations"
_SPLITS = ("train", "val", "test")
_NAMED = 3
# What HaGRID v2 guesses of a person's age, gender and origin: not needed here, so it is not carried along.
_GUESSES = frozenset({"age", "gender", "race"})


class _Annotation(msgspec.Struct, gc=False):
    """One picture's entry; `caption` and `meta` are the sample data's own.

    HaGRID's other fields, the landmarks above all, are passed over without being decoded.
    """

    bboxes: list[Box]
    labels: list[str]
    user_id: Annotated[str, msgspec.Meta(min_length=1)]
    united_bbox: list[Any] | None = None
    united_label: str | list[str] | None = None
    leading_hand: str | None = None
    caption: str | None = None
    meta: dict[str, Any] | None = None

    def united(self) -> list[tuple[Box, str]]:
        """The boxes around two hands that make one gesture, each with its label."""
        if not self.united_bbox or not self.united_label:
            return []
        # v2 writes them as lists of one box and one label.
        boxes = self.united_bbox if isinstance(self.united_bbox[0], list) else [self.united_bbox]
        labels = [self.united_label] if isinstance(self.united_label, str) else self.united_label
        return list(zip(msgspec.convert(boxes, list[Box]), labels, strict=False))


_annotation = msgspec.json.Decoder(_Annotation)


def read_hagrid(
    source: Source, gesture: str, problems: IssueLog
) -> tuple[Iterator[SourceImage], Iterator[SourceImage] | None]:
    """The pictures of `gesture` to train on (`train` and `val`) and to measure against (`test`), to be read in order.

    Without pictures in one of the two the source has no division: all are in the first, and the second is None. What
    is malformed or does not belong together goes to `problems`.

    Raises:
        Hand1000Error: the source has no pictures or no annotations of `gesture`; the message names those it has.
    """
    present = {split: set(source.list_files(f"{ANNOTATIONS}/{split}")) for split in _SPLITS}
    files = {split: f"{ANNOTATIONS}/{split}/{gesture}.json" for split in _SPLITS}
    files = {split: file for split, file in files.items() if file in present[split]}
    pictures = _Pictures(source, gesture, problems)
    if not files or not pictures.suffixes:
        annotated = {PurePosixPath(file).stem for part in present.values() for file in part}
        both = sorted(annotated & set(source.list_folders()))
        raise Hand1000Error(
            f"{source.root}: no pictures and annotations of {gesture!r}; "
            + (f"there are: {', '.join(both)}" if both else "it holds no gesture at all")
        )
    parts = {split: pictures.annotated(file) for split, file in files.items()}
    train = itertools.chain.from_iterable(parts[split] for split in ("train", "val") if split in parts)
    test = iter(parts.get("test", ()))
    first_train, first_test = next(train, None), next(test, None)
    rest = pictures.left_over()
    if first_train is None or first_test is None:
        first = first_train or first_test
        return itertools.chain([first] if first else [], train, test, rest), None
    return itertools.chain([first_train], train), itertools.chain([first_test], test, rest)


class _Pictures:
    """The names of a gesture's pictures, joined to their annotations."""

    def __init__(self, source: Source, gesture: str, problems: IssueLog) -> None:
        self._source, self._gesture, self._problems = source, gesture, problems
        self.suffixes: dict[str, str] = {}
        """Each picture's suffix by its name, "" once its annotation was read."""
        for file in source.list_files(gesture):
            name, dot, suffix = file.rpartition("/")[2].rpartition(".")
            if f".{suffix.lower()}" in SUFFIXES:
                self.suffixes[name] = max(sys.intern(dot + suffix), self.suffixes.get(name, ""))

    def annotated(self, file: str) -> Iterator[SourceImage]:
        """The pictures that an annotation file names and that are there."""
        absent: list[str] = []
        missing = entries = 0
        try:
            with self._source.local_path(file) as path, open(path, "rb") as stream:
                for name, entry in iter_members(stream):
                    entries += 1
                    suffix = self.suffixes.get(name)
                    # Only these are decoded: HaGRID is often fetched in part, and a name becomes a file's name.
                    if suffix is None:
                        missing += 1
                        absent += [name] if missing <= _NAMED else []
                    elif suffix:  # A picture that two files name is one picture.
                        self.suffixes[name] = ""
                        picture = f"{self._gesture}/{name}{suffix}"
                        try:
                            yield _annotated_item(name, picture, self._gesture, entry)
                        except (msgspec.DecodeError, Hand1000Error) as error:
                            self._problems.pass_over(self._gesture, picture, f"annotation: {error}")
        except MalformedJsonError as error:
            self._problems.warn(file, f"passed over{f' after {entries} pictures' if entries else ''}: {error}")
        if missing:
            self._problems.warn(file, f"{missing} of {entries} pictures are not there: {', '.join(absent)}")

    def left_over(self) -> Iterator[SourceImage]:
        """No item; tells of pictures without an annotation once all annotations were read."""
        left = [f"{name}{suffix}" for name, suffix in self.suffixes.items() if suffix]
        if left:
            named = ", ".join(sorted(left)[:_NAMED])
            self._problems.warn(self._gesture, f"{len(left)} pictures have no annotation: {named}")
        return
        yield


def _annotated_item(name: str, file: str, gesture: str, entry: msgspec.Raw) -> SourceImage:
    annotation = _annotation.decode(entry)
    attributes = (
        {key: value for key, value in annotation.meta.items() if key not in _GUESSES} if annotation.meta else {}
    )
    if annotation.leading_hand in ("left", "right"):
        attributes.setdefault("handedness", annotation.leading_hand)
    return SourceImage(
        key=safe_key(name),
        file=file,
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
        raise Hand1000Error(f"{len(annotation.bboxes)} bboxes but {len(annotation.labels)} labels")
    united = [box for box, label in annotation.united() if label == gesture] if annotation.united_bbox else None
    labelled = united or [
        box for box, label in zip(annotation.bboxes, annotation.labels, strict=True) if label == gesture
    ]
    within = [part for box in labelled if (part := clip_box(box))]
    if labelled and not within:
        raise Hand1000Error("the hand's box lies outside the picture")
    return max(within, key=lambda box: box[2] * box[3]) if within else None
