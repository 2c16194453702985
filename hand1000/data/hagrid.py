"""Reader of HaGRID's layout, versions 1 and 2, in full size or with 512 px.

`<root>/<gesture>/<uuid>.jpg` are the images and `<root>/annotations/{train,val,test}/<gesture>.json` their
annotations, an object by uuid. The annotations are read in blocks: of a million images only the names are in memory.
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
_MAX_LISTED = 3
# Guesses of HaGRID v2 about a person's age, gender and origin, which nothing here needs.
_GUESSED_FIELDS = frozenset({"age", "gender", "race"})


class _Annotation(msgspec.Struct, gc=False):
    """The annotation of one image; only the sample data has `caption` and `meta`.

    HaGRID's other fields, above all the landmarks, are skipped without being decoded.
    """

    bboxes: list[Box]
    labels: list[str]
    user_id: Annotated[str, msgspec.Meta(min_length=1)]
    united_bbox: list[Any] | None = None
    united_label: str | list[str] | None = None
    leading_hand: str | None = None
    caption: str | None = None
    meta: dict[str, Any] | None = None


_decoder = msgspec.json.Decoder(_Annotation)


def read_hagrid(
    source: Source, gesture: str, issues: IssueLog
) -> tuple[Iterator[SourceImage], Iterator[SourceImage] | None]:
    """Return the training images of `gesture` (`train` and `val`) and its test images, to be read in this order.

    A source with images in only one of the two has no split: then the first iterator has them all, and the second is
    None. Malformed and unmatched files and annotations go to `issues`.

    Raises:
        Hand1000Error: The source has no images or no annotations of `gesture`; the message names those it has.
    """
    present = {split: set(source.list_files(f"{ANNOTATIONS}/{split}")) for split in _SPLITS}
    splits = [split for split in _SPLITS if f"{ANNOTATIONS}/{split}/{gesture}.json" in present[split]]
    images = _AnnotatedImages(source, gesture, issues)
    if not splits or not images.suffixes:
        annotated = {PurePosixPath(file).stem for paths in present.values() for file in paths}
        complete = sorted(annotated & set(source.list_folders()))
        known = f"there are: {', '.join(complete)}" if complete else "it has no gesture at all"
        raise Hand1000Error(f"{source.root}: no images and annotations of {gesture!r}; {known}")
    items = {split: images.read(f"{ANNOTATIONS}/{split}/{gesture}.json") for split in splits}
    train, test = itertools.chain(items.get("train", ()), items.get("val", ())), iter(items.get("test", ()))
    first_train, first_test = next(train, None), next(test, None)
    end = images.warn_unannotated()
    if first_train is None or first_test is None:
        first = first_train or first_test
        return itertools.chain([first] if first else [], train, test, end), None
    return itertools.chain([first_train], train), itertools.chain([first_test], test, end)


class _AnnotatedImages:
    """The images of one gesture, matched to their annotations by name."""

    def __init__(self, source: Source, gesture: str, issues: IssueLog) -> None:
        self._source, self._gesture, self._issues = source, gesture, issues
        self.suffixes: dict[str, str] = {}
        """Suffix of each image by its name; "" once its annotation was read."""
        for file in source.list_files(gesture):
            name, dot, suffix = file.rpartition("/")[2].rpartition(".")
            if f".{suffix.lower()}" in SUFFIXES:
                self.suffixes[name] = max(sys.intern(dot + suffix), self.suffixes.get(name, ""))

    def read(self, file: str) -> Iterator[SourceImage]:
        """Yield the images of an annotation file that the source has."""
        missing_names: list[str] = []
        num_missing = num_entries = 0
        try:
            with self._source.local_path(file) as path, open(path, "rb") as stream:
                for name, entry in iter_members(stream):
                    num_entries += 1
                    suffix = self.suffixes.get(name)
                    # Only entries with an image are decoded: HaGRID is often downloaded in part, and a name becomes
                    # a file's name.
                    if suffix is None:
                        num_missing += 1
                        missing_names += [name] if num_missing <= _MAX_LISTED else []
                    elif suffix:  # An image that two files name is one image.
                        self.suffixes[name] = ""
                        image = f"{self._gesture}/{name}{suffix}"
                        try:
                            yield _decode_image(name, image, self._gesture, entry)
                        except (msgspec.DecodeError, Hand1000Error) as error:
                            self._issues.skip(self._gesture, image, f"annotation: {error}")
        except MalformedJsonError as error:
            self._issues.warn(file, f"skipped{f' after {num_entries} images' if num_entries else ''}: {error}")
        if num_missing:
            names = ", ".join(missing_names)
            self._issues.warn(file, f"{num_missing} of {num_entries} images are missing: {names}")

    def warn_unannotated(self) -> Iterator[SourceImage]:
        """Yield nothing, but warn of images without an annotation, once all annotations were read."""
        names = [f"{name}{suffix}" for name, suffix in self.suffixes.items() if suffix]
        if names:
            listed = ", ".join(sorted(names)[:_MAX_LISTED])
            self._issues.warn(self._gesture, f"{len(names)} images have no annotation: {listed}")
        return
        yield


def _decode_image(name: str, file: str, gesture: str, entry: msgspec.Raw) -> SourceImage:
    annotation = _decoder.decode(entry)
    meta = annotation.meta or {}
    attributes = {key: value for key, value in meta.items() if key not in _GUESSED_FIELDS}
    if annotation.leading_hand in ("left", "right"):
        attributes.setdefault("handedness", annotation.leading_hand)
    return SourceImage(
        key=safe_key(name),
        file=file,
        gesture=gesture,
        user_id=annotation.user_id,
        bbox=_gesture_box(annotation, gesture),
        hands=len(annotation.bboxes),
        caption=annotation.caption,
        attributes=attributes or None,
    )


def _gesture_box(annotation: _Annotation, gesture: str) -> BBox | None:
    """Return the box of the hand (the largest of several) or of both hands that make the gesture."""
    if len(annotation.bboxes) != len(annotation.labels):
        raise Hand1000Error(f"{len(annotation.bboxes)} bboxes but {len(annotation.labels)} labels")
    boxes: list[Box] = []
    if (united_box := annotation.united_bbox) and (united_label := annotation.united_label):
        # Around two hands that make one gesture; version 2 writes lists of one box and one label.
        united_boxes = msgspec.convert(united_box if isinstance(united_box[0], list) else [united_box], list[Box])
        united_labels = [united_label] if isinstance(united_label, str) else united_label
        boxes = [box for box, label in zip(united_boxes, united_labels, strict=False) if label == gesture]
    if not boxes:
        boxes = [box for box, label in zip(annotation.bboxes, annotation.labels, strict=True) if label == gesture]
    clipped = [part for box in boxes if (part := clip_box(box))]
    if boxes and not clipped:
        raise Hand1000Error("the hand's box is outside the image")
    return max(clipped, key=lambda box: box[2] * box[3]) if clipped else None
