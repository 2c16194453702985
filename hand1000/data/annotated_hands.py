"""The hands of a data set in HaGRID's layout with their annotated landmarks."""

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import numpy as np

from hand1000.core.errors import Hand1000Error
from hand1000.core.progress import ProgressCallback, noop_callback
from hand1000.data.crop import UnreadableImageError, upright_size
from hand1000.data.items import IssueLog
from hand1000.data.sources.hagrid import AnnotatedImages
from hand1000.data.sources.hagrid_layout import HagridLayout
from hand1000.gestures import NO_GESTURE, PHRASES
from hand1000.storage.json_stream import MalformedJsonError, iter_members
from hand1000.storage.sources import Source

_NUM_POINTS = 21


class _Annotation(msgspec.Struct, gc=False):
    """What an annotation says about the hands of an image; version 1 calls the landmarks `landmarks`."""

    labels: list[str]
    user_id: Annotated[str, msgspec.Meta(min_length=1)]
    hand_landmarks: list[Any] | None = None
    landmarks: list[Any] | None = None
    leading_hand: str | None = None
    meta: dict[str, Any] | None = None


_decoder = msgspec.json.Decoder(_Annotation)


@dataclass(frozen=True)
class AnnotatedHands:
    """N hands that a data set annotates.

    Attributes:
        points: (N, 21, 2) float32 in units of the image's longer side, y downwards.
        sides: (N,) int: 1 for a right hand, -1 for a left one, 0 if the data set does not say.
        labels: Gestures, or `no_gesture`.
        people: The person of each hand.
        skipped: Why hands were skipped, with their number.
    """

    points: np.ndarray
    sides: np.ndarray
    labels: tuple[str, ...]
    people: tuple[str, ...]
    skipped: dict[str, int]

    def __len__(self) -> int:
        return len(self.labels)

    def held_out(self, share: float) -> np.ndarray:
        """Return a mask (N,) of the hands of about `share` of the people, the same people every time."""
        hashes = [hashlib.sha256(person.encode()).digest() for person in self.people]
        return np.array([int.from_bytes(value[:4], "big") < share * 2**32 for value in hashes], bool)


def read_annotated_hands(source: Source, on_progress: ProgressCallback = noop_callback) -> AnnotatedHands:
    """Read every annotated hand of which the source has the image, whose size the relative landmarks need.

    Raises:
        Hand1000Error: The source is not in HaGRID's layout, or no hand has 21 landmarks.
    """
    layout = HagridLayout.find(source)
    if layout is None:
        raise Hand1000Error(f"{source.root}: no annotations in HaGRID's layout, such as annotations/train/call.json")
    reader = _Reader(source)
    for gesture in (*sorted(layout.list_annotated(source)), NO_GESTURE):
        issues = IssueLog(source.root, quiet=True)
        reader.images = AnnotatedImages(source, gesture, issues, layout.image_folders(source, gesture))
        for folder in layout.folders:
            file = f"{folder}/{gesture}.json"
            if file in source.list_files(folder):
                reader.read(file, on_progress)
    if not reader.hands:
        reasons = "; ".join(f"{count}: {reason}" for reason, count in reader.skipped.items())
        raise Hand1000Error(
            f"{source.root}: no hand has {_NUM_POINTS} annotated landmarks{f' ({reasons})' if reasons else ''}; "
            "give a folder with HaGRID's hand_landmarks and its images"
        )
    points, sides, labels, people = zip(*reader.hands, strict=True)
    return AnnotatedHands(np.stack(points), np.array(sides), labels, people, dict(reader.skipped))


_Hand = tuple[np.ndarray, int, str, str]
"""Points (21, 2), side, label and person."""


class _Reader:
    """Collects the usable hands of annotation files, and counts why others are skipped."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.images: AnnotatedImages
        self.hands: list[_Hand] = []
        self.skipped: Counter[str] = Counter()

    def read(self, file: str, on_progress: ProgressCallback) -> None:
        try:
            with self._source.local_path(file) as path, open(path, "rb") as stream:
                for name, entry in iter_members(stream):
                    self._add_hands(name, entry)
                    on_progress(len(self.hands), 0)
        except MalformedJsonError:
            self.skipped["annotation files are malformed"] += 1

    def _add_hands(self, name: str, entry: msgspec.Raw) -> None:
        place = self.images.places.get(name)
        if place is None:
            self.skipped["images are missing"] += 1
            return
        try:
            annotation = _decoder.decode(entry)
            with self._source.local_path(f"{place.folder}/{name}{place.suffix}") as image:
                size = np.array(upright_size(image), np.float64)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.skipped["annotations are malformed"] += 1
            return
        except UnreadableImageError:
            self.skipped["images are unreadable"] += 1
            return
        hands = annotation.hand_landmarks or annotation.landmarks or []
        if len(hands) != len(annotation.labels):
            self.skipped["images have another number of hands than of labels"] += 1
            return
        # The annotated side is that of the hand that makes the gesture.
        side = _parse_side(annotation) if len(hands) == 1 else 0
        for label, values in zip(annotation.labels, hands, strict=True):
            points = _parse_points(values)
            if points is None:
                self.skipped[f"hands have no {_NUM_POINTS} landmarks"] += 1
            elif label in PHRASES or label == NO_GESTURE:
                self.hands.append(((points * size / size.max()).astype(np.float32), side, label, annotation.user_id))


def _parse_points(points: Any) -> np.ndarray | None:
    """Return landmarks (21, 2), relative to the image, or None if they are not 21 pairs of finite numbers."""
    try:
        array = np.array(points, np.float64)
    except (TypeError, ValueError):
        return None
    is_hand = array.shape == (_NUM_POINTS, 2) and np.isfinite(array).all() and np.abs(array).max() < 10.0
    return array if is_hand and np.ptp(array, axis=0).max() > 0.0 else None


def _parse_side(annotation: _Annotation) -> int:
    side = annotation.leading_hand or (annotation.meta or {}).get("handedness")
    return {"right": 1, "left": -1}.get(side if isinstance(side, str) else "", 0)
