"""Reader of HaGRID's layouts: versions 1 and 2, in full size or with 512 px, and the samples of version 1.

`<gesture>/<uuid>.jpg` are the images (version 1: also `train_val_<gesture>/`, and one folder further down), and
`annotations/{train,val,test}/<gesture>.json` (version 1: `ann_train_val`, `ann_test`, `ann_subsample`) their
annotations, an object by uuid. The annotations are read in blocks: of a million images only the names are in memory.
"""

import itertools
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Annotated, Any, NamedTuple

import msgspec

from hand1000.core.errors import Hand1000Error
from hand1000.data.boxes import UnusableBoxError, largest_box, parse_box
from hand1000.data.formats import is_image
from hand1000.data.imageset import BBox
from hand1000.data.items import MAX_LISTED, IssueLog, SourceImage, safe_key
from hand1000.data.problem_kinds import BAD_BOX, SECOND_ANNOTATION
from hand1000.data.sources.hagrid_layout import HagridLayout
from hand1000.storage.json_stream import MalformedJsonError, iter_members
from hand1000.storage.sources import Source

# Guesses of HaGRID v2 about a person's age, gender and origin, which nothing here needs.
_GUESSED_FIELDS = frozenset({"age", "gender", "race"})


_Box = tuple[float, float, float, float]


class _Annotation(msgspec.Struct, gc=False):
    """The annotation of one image; only the sample data has `caption` and `meta`.

    HaGRID's other fields, above all the landmarks, are skipped without being decoded.
    """

    bboxes: list[_Box]
    labels: list[str]
    user_id: Annotated[str, msgspec.Meta(min_length=1)]
    united_bbox: list[Any] | None = None
    united_label: str | list[str] | None = None
    leading_hand: str | None = None
    caption: str | None = None
    meta: dict[str, Any] | None = None


_decoder = msgspec.json.Decoder(_Annotation)


Captions = Mapping[str, tuple[tuple[str, ...], str]]
"""The captions of images by file, and who wrote them."""


def read_hagrid(
    source: Source,
    layout: HagridLayout,
    gesture: str,
    issues: IssueLog,
    read_captions: Callable[["AnnotatedImages"], Captions],
) -> tuple[Iterator[SourceImage], Iterator[SourceImage] | None]:
    """Return the training images of `gesture` (`train` and `val`) and its test images, to be read in this order.

    A source with images in only one of the two has no split: then the first iterator has them all, and the second is
    None. Malformed and unmatched files and annotations go to `issues`. `read_captions` returns the captions that are
    not in the annotations.

    Raises:
        Hand1000Error: The source has no images or no annotations of `gesture`; the message names those it has.
    """
    present = {folder: set(source.list_files(folder)) for folder in layout.folders}
    folders = [folder for folder in layout.folders if f"{folder}/{gesture}.json" in present[folder]]
    images = AnnotatedImages(source, gesture, issues, layout.image_folders(source, gesture))
    if not folders or not images.places:
        complete = sorted(layout.list_gestures(source))
        known = f"there are: {', '.join(complete)}" if complete else "it has no gesture at all"
        raise Hand1000Error(f"{source.root}: no images and annotations of {gesture!r}; {known}")
    images.captions = read_captions(images)
    items: dict[str, list[Iterator[SourceImage]]] = {"train": [], "test": []}
    for folder in folders:
        items[layout.split(folder)].append(images.read(f"{folder}/{gesture}.json"))
    train, test = (itertools.chain.from_iterable(items[split]) for split in ("train", "test"))
    first_train, first_test = next(train, None), next(test, None)
    end = images.warn_unannotated()
    if first_train is None or first_test is None:
        first = first_train or first_test
        return itertools.chain([first] if first else [], train, test, end), None
    return itertools.chain([first_train], train), itertools.chain([first_test], test, end)


class _Place(NamedTuple):
    """Where an image is; `suffix` is "" once its annotation was read."""

    folder: str
    suffix: str


class AnnotatedImages:
    """The images of one gesture, matched to their annotations by name.

    Attributes:
        places: Folder and suffix of each image by its name.
        folders: The folders that have images.
        folders_with_others: Those that also have files that are not images.
        captions: Captions that are not in the annotations.
    """

    def __init__(self, source: Source, gesture: str, issues: IssueLog, folders: list[str]) -> None:
        self._source, self._gesture, self._issues = source, gesture, issues
        self.places: dict[str, _Place] = {}
        self.folders: list[str] = []
        self.folders_with_others: list[str] = []
        self.captions: Captions = {}
        place = cache(_Place)  # One object per folder and suffix, of which there are few, not one per image.
        for folder in folders:
            count = len(self.places)
            for file in source.list_files(folder):
                if not is_image(file):
                    if folder not in self.folders_with_others:
                        self.folders_with_others.append(folder)
                else:
                    name, dot, suffix = file.rpartition("/")[2].rpartition(".")
                    known = self.places.get(name)
                    if known is None or (known.folder == folder and known.suffix < dot + suffix):
                        self.places[name] = place(sys.intern(folder), sys.intern(dot + suffix))
            if len(self.places) > count:
                self.folders.append(folder)

    def files(self) -> set[str]:
        """Return the names of all images within the source."""
        return {f"{place.folder}/{name}{place.suffix}" for name, place in self.places.items()}

    def read(self, file: str) -> Iterator[SourceImage]:
        """Yield the images of an annotation file that the source has."""
        missing_names: list[str] = []
        num_missing = num_entries = 0
        try:
            with self._source.local_path(file) as path, open(path, "rb") as stream:
                for name, entry in iter_members(stream):
                    num_entries += 1
                    place = self.places.get(name)
                    # Only entries with an image are decoded: HaGRID is often downloaded in part, and a name becomes
                    # a file's name.
                    if place is None:
                        num_missing += 1
                        missing_names += [name] if num_missing <= MAX_LISTED else []
                    elif not place.suffix:  # An image that two files name is one image.
                        self._issues.count(SECOND_ANNOTATION, f"{file}: {name}")
                    else:
                        self.places[name] = _READ
                        self._issues.num_images += 1
                        image = f"{place.folder}/{name}{place.suffix}"
                        try:
                            yield self._decode(name, image, entry)
                        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, Hand1000Error) as error:
                            self._issues.skip(self._gesture, image, f"annotation: {error}")
        except MalformedJsonError as error:
            self._issues.warn(file, f"skipped{f' after {num_entries} images' if num_entries else ''}: {error}")
        if num_missing:
            names = ", ".join(missing_names)
            self._issues.warn(file, f"{num_missing} of {num_entries} images are missing: {names}")

    def warn_unannotated(self) -> Iterator[SourceImage]:
        """Yield nothing, but warn of images without an annotation, once all annotations were read."""
        names = [f"{name}{place.suffix}" for name, place in self.places.items() if place.suffix]
        if names:
            listed = ", ".join(sorted(names)[:MAX_LISTED])
            self._issues.warn(self._gesture, f"{len(names)} images have no annotation: {listed}")
        return
        yield

    def _decode(self, name: str, file: str, entry: msgspec.Raw) -> SourceImage:
        annotation = _decoder.decode(entry)
        meta = annotation.meta or {}
        attributes = {key: value for key, value in meta.items() if key not in _GUESSED_FIELDS}
        if annotation.leading_hand in ("left", "right"):
            attributes.setdefault("handedness", annotation.leading_hand)
        captions, captioned_by = self.captions.get(file, ((), ""))
        if annotation.caption:
            captions, captioned_by = tuple(dict.fromkeys((annotation.caption, *captions))), "annotations"
        return SourceImage(
            key=safe_key(name),
            file=file,
            gesture=self._gesture,
            user_id=annotation.user_id,
            bbox=self._gesture_box(annotation, file),
            hands=len(annotation.bboxes),
            caption=captions[0] if captions else None,
            attributes=attributes or None,
            captions=captions if len(captions) > 1 else (),
            captioned_by=captioned_by,
        )

    def _gesture_box(self, annotation: _Annotation, file: str) -> BBox | None:
        """Return the box of the hand (the largest of several) or of both hands that make the gesture."""
        if len(annotation.bboxes) != len(annotation.labels):
            raise Hand1000Error(f"{len(annotation.bboxes)} bboxes but {len(annotation.labels)} labels")
        boxes: list[_Box] = []
        if (united_box := annotation.united_bbox) and (united_label := annotation.united_label):
            # Around two hands that make one gesture; version 2 writes lists of one box and one label.
            united_boxes = msgspec.convert(united_box if isinstance(united_box[0], list) else [united_box], list[_Box])
            united_labels = [united_label] if isinstance(united_label, str) else united_label
            boxes = [box for box, label in zip(united_boxes, united_labels, strict=False) if label == self._gesture]
        if not boxes:
            pairs = zip(annotation.bboxes, annotation.labels, strict=True)
            boxes = [box for box, label in pairs if label == self._gesture]
        usable, faults = [], []
        for number, box in enumerate(boxes, start=1):
            try:
                usable.append(parse_box(box))
            except UnusableBoxError as error:
                faults.append(f"box {number}: {error}")
        if boxes and not usable:
            raise Hand1000Error(f"the hand's {faults[0].partition(';')[0]}")
        for fault in faults:
            self._issues.count(BAD_BOX, f"{file}: {fault}")
        return largest_box(usable)


_READ = _Place("", "")
