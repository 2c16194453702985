"""Everything that the metrics need to know about a set of images, extracted in one pass."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hand1000.core.errors import Hand1000Error
from hand1000.core.progress import ProgressCallback, noop_callback
from hand1000.core.threads import available_cpus, limit_torch_threads
from hand1000.data.imageset import ImageRecord, read_image_set
from hand1000.evaluation.colors import find_color_words, measure_colors
from hand1000.evaluation.extractors import FeatureExtractor
from hand1000.evaluation.feature_cache import FeatureCache
from hand1000.evaluation.hand_crops import crop_hands
from hand1000.hands.detection import count_workers, iter_detections, read_square
from hand1000.hands.detector import Hand, HandDetector
from hand1000.hands.landmarks import NUM_LANDMARKS
from hand1000.models.clip import Clip
from hand1000.storage.tensors import TensorRecord

MAX_HANDS = 2
"""Number of hands that are detected per image."""

_BATCH_SIZE = 32


@dataclass(frozen=True)
class ImageFeatures(TensorRecord, stem="image_features", remedy="extract them again"):
    """Features of N images and of the M hands detected in them. All metrics are computed from these.

    Attributes:
        features: Features of the images, (N, D) float32.
        crop_features: Features of the hand crops, (M, D) float32.
        landmarks: Landmarks of the hands, (M, 21, 3) float32.
        handedness_score: MediaPipe's confidence in the handedness of each hand, (M,) float32, 0.5 to 1.
        is_right: Whether each hand is a right hand, (M,) bool.
        image_index: Index of the image that each hand is in, (M,) int64.
        palm_score: Highest score of MediaPipe's palm detector per image, (N,) float32 (see `Detection`).
        hand_presence: Highest hand presence of MediaPipe's landmark network per image, (N,) float32.
        clip_similarity: Cosine similarity of each image and its prompt, (N,) float32; (0,) without CLIP.
        colors: Colors of wall, skin and sleeve per image, (N, 3, 3) float32 (see `measure_colors`).
        file_names: File names of the images.
        gestures: Gesture that each image should show.
        prompts: Prompt or caption of each image.
        color_words: What each prompt calls wall, skin and sleeve, "" for what it does not mention.
        extractor: Name of the feature extractor.
        extractor_sha256: Digest of its weights.
        resizer: How it resizes images.
        min_detection_confidence: Threshold of the palm detector.
    """

    features: np.ndarray
    crop_features: np.ndarray
    landmarks: np.ndarray
    handedness_score: np.ndarray
    is_right: np.ndarray
    image_index: np.ndarray
    palm_score: np.ndarray
    hand_presence: np.ndarray
    clip_similarity: np.ndarray
    colors: np.ndarray
    file_names: tuple[str, ...]
    gestures: tuple[str, ...]
    prompts: tuple[str, ...]
    color_words: tuple[tuple[str, ...], ...]
    extractor: str
    extractor_sha256: str
    resizer: str
    min_detection_confidence: float

    def first(self, count: int) -> "ImageFeatures":
        """The features of the first `count` images and of the hands in them."""
        per_image = ["features", "palm_score", "hand_presence", "clip_similarity", "colors"]
        per_image += ["file_names", "gestures", "prompts", "color_words"]
        per_hand = ("crop_features", "landmarks", "handedness_score", "is_right", "image_index")
        hands = self.image_index < count
        selected = {name: getattr(self, name)[:count] for name in per_image}
        return replace(self, **selected, **{name: getattr(self, name)[hands] for name in per_hand})

    @property
    def provenance(self) -> tuple[str, str, str, float]:
        """How the features were extracted. Only features of equal provenance are comparable."""
        return self.extractor, self.extractor_sha256, self.resizer, self.min_detection_confidence


def extract_features(
    directory: Path,
    *,
    extractor: FeatureExtractor,
    min_detection_confidence: float,
    clip: Clip | None = None,
    records: Sequence[ImageRecord] | None = None,
    on_progress: ProgressCallback = noop_callback,
    cache: FeatureCache | None = None,
) -> ImageFeatures:
    """Decode each image of an image set once, detect its hands, and extract the features of both.

    Args:
        directory: Folder of the image set.
        extractor: Network that computes the features.
        min_detection_confidence: Threshold of the palm detector, 0 to 1.
        clip: CLIP model that compares each image with its prompt; None skips the comparison.
        records: Records of the images with their prompts; None reads those of the folder.
        on_progress: Callback that receives the number of processed images.
        cache: The cache of these images, which is filled or, instead of an extraction, read.

    Raises:
        Hand1000Error: The set has fewer than two images, or one cannot be read.
    """
    records = read_image_set(directory) if records is None else records
    names = tuple(record.file_name for record in records)
    if len(names) < 2:
        raise Hand1000Error(f"{directory}: {len(names)} images; a distance needs at least two")
    arrays = cache.recall() if cache else None
    if arrays is None:
        paths = [directory / name for name in names]
        arrays = _extract_arrays(paths, extractor, min_detection_confidence, on_progress)
        if cache:
            cache.keep(arrays)
    return ImageFeatures(
        **arrays,
        clip_similarity=_clip_similarities(directory, records, clip) if clip else np.zeros(0, np.float32),
        file_names=names,
        gestures=tuple(record.gesture for record in records),
        prompts=tuple(record.text for record in records),
        color_words=tuple(find_color_words(record) for record in records),
        extractor=extractor.name,
        extractor_sha256=extractor.sha256,
        resizer=extractor.resizer,
        min_detection_confidence=min_detection_confidence,
    )


def _extract_arrays(
    paths: Sequence[Path], extractor: FeatureExtractor, min_detection_confidence: float, on_progress: ProgressCallback
) -> dict[str, np.ndarray]:
    """Return the array fields of `ImageFeatures` without the similarity to prompts."""
    image_features = _BatchedExtractor(extractor)
    crop_features = _BatchedExtractor(extractor)
    hands: list[Hand] = []
    image_index, palm_score, hand_presence, colors = [], [], [], []
    detections = iter_detections(
        paths,
        HandDetector.detect_with_scores,
        min_detection_confidence=min_detection_confidence,
        max_hands=MAX_HANDS,
    )
    # The detector's threads work beside PyTorch's.
    with limit_torch_threads(available_cpus() - count_workers()):
        for index, (image, detection) in enumerate(detections):
            image_features.add(image[None])
            crop_features.add(crop_hands(image, detection.hands, extractor.input_size))
            hands += detection.hands
            image_index += [index] * len(detection.hands)
            palm_score.append(detection.palm_score)
            hand_presence.append(detection.presence)
            colors.append(measure_colors(image, detection.hands))
            on_progress(index + 1, len(paths), {})
    return {
        "features": image_features.result(),
        "crop_features": crop_features.result(),
        "landmarks": np.array([hand.landmarks for hand in hands], np.float32).reshape(-1, NUM_LANDMARKS, 3),
        "handedness_score": np.array([hand.score for hand in hands], np.float32),
        "is_right": np.array([hand.right for hand in hands], bool),
        "image_index": np.array(image_index, np.int64),
        "palm_score": np.array(palm_score, np.float32),
        "hand_presence": np.array(hand_presence, np.float32),
        "colors": np.array(colors, np.float32),
    }


def extract_image_features(directory: Path, extractor: FeatureExtractor) -> np.ndarray:
    """Extract only the features of the images of an image set, (N, D) float32, without detecting hands."""
    features = _BatchedExtractor(extractor)
    for record in read_image_set(directory):
        features.add(read_square(directory / record.file_name)[None])
    return features.result()


def _clip_similarities(directory: Path, records: Sequence[ImageRecord], clip: Clip) -> np.ndarray:
    similarities = [np.zeros(0)]
    for start in range(0, len(records), _BATCH_SIZE):
        batch = records[start : start + _BATCH_SIZE]
        images, texts = clip.embed(
            [directory / record.file_name for record in batch], [record.text for record in batch]
        )
        similarities.append((images * texts).sum(1).numpy())
    return np.concatenate(similarities).astype(np.float32)


class _BatchedExtractor:
    """Collects images of any sizes and extracts their features in batches of one size."""

    def __init__(self, extractor: FeatureExtractor) -> None:
        self._extractor = extractor
        self._pending: list[np.ndarray] = []
        self._features = [np.zeros((0, extractor.num_features), np.float32)]

    def add(self, images: np.ndarray) -> None:
        for image in images:
            if self._pending and image.shape != self._pending[0].shape:
                self._flush()
            self._pending.append(image)
            if len(self._pending) == _BATCH_SIZE:
                self._flush()

    def _flush(self) -> None:
        if self._pending:
            self._features.append(self._extractor(np.stack(self._pending)))
            self._pending = []

    def result(self) -> np.ndarray:
        self._flush()
        return np.concatenate(self._features)
