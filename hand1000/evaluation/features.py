"""What is read off an image set: features of its pictures and of the hands in them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hand1000.captions.metrics import Clip
from hand1000.core.errors import Hand1000Error
from hand1000.data.imageset import ImageRecord, read_image_set
from hand1000.evaluation.colors import color_words, measure_colors
from hand1000.evaluation.extractors import FeatureExtractor
from hand1000.evaluation.hand_crops import hand_crops
from hand1000.hands.detector import Hand, detect_with_scores, read_square
from hand1000.hands.landmarks import NUM_LANDMARKS
from hand1000.storage.tensors import TensorRecord

MAX_HANDS = 2

_BATCH = 32

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ImageFeatures(TensorRecord, stem="observations", remedy="look at the pictures again"):
    """What is read off an image set, once; all measures are made of it.

    Attributes:
        features: (N, D) float32, of the pictures.
        crop_features: (M, D) float32, of the hands' crops.
        landmarks: (M, 21, 3) float32, of the hands.
        score: (M,) float32, of handedness.
        right: (M,) bool.
        picture: (M,) int64, the row of the picture that each hand is in.
        palm_score, presence: (N,) float32, how sure MediaPipe is of each picture's surest hand (`Detection`).
        clip_similarity: (N,) float32, CLIP's of each picture to its prompt; (0,) without CLIP.
        colours: (N, 3, 3) float32, of each picture's wall, skin and sleeve (`hand1000.evaluation.colors`).
        file_names: N.
        gestures: N, what each picture was to show.
        prompts: N, what each was drawn from, or is captioned.
        words: N, what each prompt says of wall, skin and sleeve, "" where it says nothing.
        extractor, extractor_sha256, resizer, min_detection_confidence: what it was read off with.
    """

    features: np.ndarray
    crop_features: np.ndarray
    landmarks: np.ndarray
    score: np.ndarray
    right: np.ndarray
    picture: np.ndarray
    palm_score: np.ndarray
    presence: np.ndarray
    clip_similarity: np.ndarray
    colours: np.ndarray
    file_names: tuple[str, ...]
    gestures: tuple[str, ...]
    prompts: tuple[str, ...]
    words: tuple[tuple[str, ...], ...]
    extractor: str
    extractor_sha256: str
    resizer: str
    min_detection_confidence: float

    @property
    def means(self) -> tuple[str, str, str, float]:
        """What it was read off with; only sets that agree in it can be compared."""
        return self.extractor, self.extractor_sha256, self.resizer, self.min_detection_confidence


def extract_features(
    directory: Path,
    *,
    extractor: FeatureExtractor,
    min_detection_confidence: float,
    clip: Clip | None = None,
    progress: Progress | None = None,
) -> ImageFeatures:
    """Look at every picture of an image set once: decode it, find its hands, take the features of both.

    Args:
        directory: of the image set.
        extractor: of the features.
        min_detection_confidence: of the palm detector, 0 to 1.
        clip: compares each picture with its prompt, if it is given.
        progress: called with the pictures done and all of them.

    Raises:
        Hand1000Error: fewer than two pictures, or one that can not be read.
    """
    records = read_image_set(directory)
    names = tuple(record.file_name for record in records)
    if len(names) < 2:
        raise Hand1000Error(f"{directory}: {len(names)} pictures; a distance needs two or more")
    pictures = _Features(extractor)
    crops = _Features(extractor)
    hands: list[Hand] = []
    picture, palm_score, presence, colours = [], [], [], []
    detected = detect_with_scores(
        [directory / name for name in names],
        min_detection_confidence=min_detection_confidence,
        max_hands=MAX_HANDS,
    )
    for index, (image, seen) in enumerate(detected):
        pictures.add(image[None])
        crops.add(hand_crops(image, seen.hands, extractor.input_size))
        hands += seen.hands
        picture += [index] * len(seen.hands)
        palm_score.append(seen.palm_score)
        presence.append(seen.presence)
        colours.append(measure_colors(image, seen.hands))
        if progress:
            progress(index + 1, len(names))
    return ImageFeatures(
        features=pictures.result(),
        crop_features=crops.result(),
        landmarks=np.array([hand.landmarks for hand in hands], np.float32).reshape(-1, NUM_LANDMARKS, 3),
        score=np.array([hand.score for hand in hands], np.float32),
        right=np.array([hand.right for hand in hands], bool),
        picture=np.array(picture, np.int64),
        palm_score=np.array(palm_score, np.float32),
        presence=np.array(presence, np.float32),
        clip_similarity=_similarities(directory, records, clip) if clip else np.zeros(0, np.float32),
        colours=np.array(colours, np.float32),
        file_names=names,
        gestures=tuple(record.gesture for record in records),
        prompts=tuple(record.text for record in records),
        words=tuple(color_words(record) for record in records),
        extractor=extractor.name,
        extractor_sha256=extractor.sha256,
        resizer=extractor.resizer,
        min_detection_confidence=min_detection_confidence,
    )


def _similarities(directory: Path, records: Sequence[ImageRecord], clip: Clip) -> np.ndarray:
    found = [np.zeros(0)]
    for start in range(0, len(records), _BATCH):
        batch = records[start : start + _BATCH]
        images, texts = clip.embed([directory / one.file_name for one in batch], [one.text for one in batch])
        found.append((images * texts).sum(1).numpy())
    return np.concatenate(found).astype(np.float32)


def extract_image_features(directory: Path, extractor: FeatureExtractor) -> np.ndarray:
    """The features alone, (N, D) float32, of an image set's pictures; nothing is looked for in them."""
    pictures = _Features(extractor)
    for record in read_image_set(directory):
        pictures.add(read_square(directory / record.file_name)[None])
    return pictures.result()


class _Features:
    """Features of pictures that come one by one, taken in batches of one size."""

    def __init__(self, extractor: FeatureExtractor) -> None:
        self._extractor = extractor
        self._waiting: list[np.ndarray] = []
        self._done = [np.zeros((0, extractor.num_features), np.float32)]

    def add(self, images: np.ndarray) -> None:
        for image in images:
            if self._waiting and image.shape != self._waiting[0].shape:
                self._flush()
            self._waiting.append(image)
            if len(self._waiting) == _BATCH:
                self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._done.append(self._extractor(np.stack(self._waiting)))
            self._waiting = []

    def result(self) -> np.ndarray:
        self._flush()
        return np.concatenate(self._done)
