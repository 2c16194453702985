"""The models of an evaluation, loaded together as the settings name them, and the features of the real images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from hand1000.config.settings import EvaluationSettings
from hand1000.core.progress import ProgressCallback, noop_callback
from hand1000.data.imageset import ImageRecord, read_image_set
from hand1000.evaluation.extractors import FeatureExtractor, load_extractor
from hand1000.evaluation.feature_cache import FeatureCache
from hand1000.evaluation.features import ImageFeatures, extract_features, extract_image_features
from hand1000.evaluation.metrics import Metrics, compute_metrics
from hand1000.hands.classifier import GestureClassifier, load_classifier
from hand1000.models.clip import Clip
from hand1000.storage.artifacts import ArtifactStore


@dataclass(frozen=True)
class RealFeatures(ImageFeatures, stem="real_features", remedy="extract them again"):
    """Features of a dataset's test images, and `train_features` (K, D) float32 of its training images."""

    train_features: np.ndarray


@dataclass(frozen=True)
class Evaluator:
    """Extracts the features of images and computes their metrics.

    Attributes:
        extractor: Network whose features FID and KID compare.
        classifier: Gesture classifier.
        clip: CLIP model of the CLIP score; None skips this metric.
        min_detection_confidence: Threshold of the palm detector, 0 to 1.
        min_classifier_accuracy: Accuracy of the classifier on real images below which nothing is concluded, 0 to 1.
    """

    extractor: FeatureExtractor
    classifier: GestureClassifier
    clip: Clip | None
    min_detection_confidence: float
    min_classifier_accuracy: float

    @classmethod
    def from_settings(cls, settings: EvaluationSettings) -> Self:
        """Load the models that the settings name.

        Raises:
            Hand1000Error: A model is missing or has another digest.
        """
        return cls(
            extractor=load_extractor(settings),
            classifier=load_classifier(settings.gesture_classifier),
            clip=Clip(settings.clip) if settings.clip else None,
            min_detection_confidence=settings.min_detection_confidence,
            min_classifier_accuracy=settings.min_classifier_accuracy,
        )

    def extract(
        self,
        folder: Path,
        on_progress: ProgressCallback = noop_callback,
        records: Sequence[ImageRecord] | None = None,
        store: ArtifactStore | None = None,
        keys: Sequence[str] | None = None,
    ) -> ImageFeatures:
        """Return the features of an image set and of the hands in it, see `extract_features`.

        Args:
            folder: Folder of the image set.
            on_progress: Callback that receives the number of processed images.
            records: Records of the images; None reads those of the folder.
            store: Artifact root that keeps the features for the next evaluation of the same images; None keeps none.
            keys: What names them there, see `FeatureCache`.
        """
        records = read_image_set(folder) if records is None else records
        return extract_features(
            folder,
            extractor=self.extractor,
            min_detection_confidence=self.min_detection_confidence,
            clip=self.clip,
            on_progress=on_progress,
            records=records,
            cache=self._open_cache(store, [folder / record.file_name for record in records], keys) if store else None,
        )

    def _open_cache(self, store: ArtifactStore, paths: Sequence[Path], keys: Sequence[str] | None) -> FeatureCache:
        extractor = self.extractor
        provenance = (extractor.name, extractor.sha256, extractor.resizer, self.min_detection_confidence)
        return FeatureCache(store, provenance, paths, keys)

    def extract_real(
        self, dataset: Path, on_progress: ProgressCallback, records: Sequence[ImageRecord]
    ) -> RealFeatures:
        """Extract the features of a dataset; `records` are those of its test images with their captions."""
        test = self.extract(dataset / "test", on_progress, records)
        return RealFeatures(**vars(test), train_features=extract_image_features(dataset / "train", self.extractor))

    def compute(self, real: RealFeatures, fake: ImageFeatures, *, seed: int) -> Metrics:
        """Compute all metrics of generated images, see `compute_metrics`."""
        return compute_metrics(
            real,
            fake,
            classifier=self.classifier,
            seed=seed,
            train_features=real.train_features,
            min_classifier_accuracy=self.min_classifier_accuracy,
        )
