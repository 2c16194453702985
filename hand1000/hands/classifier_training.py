"""Training of the gesture classifier on detected or annotated hands, mixed with sampled ones."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch

from hand1000.core.progress import ProgressCallback, noop_callback
from hand1000.core.rng import numpy_generator, torch_generator
from hand1000.gestures import NO_GESTURE
from hand1000.hands.calibration import calibration_error, choose_threshold, fit_temperature
from hand1000.hands.classifier import ClassifierConfig, GestureClassifier, make_features
from hand1000.hands.gesture_poses import POSES
from hand1000.hands.sampled_hands import sample_hands

_POOL_STEPS = 40
"""Number of steps that share one pool of sampled hands, of which each is used once."""

_DEPTH_DROPOUT = 0.25
"""Share of the hands without depth, so that the network does not rely on what MediaPipe guesses."""


@dataclass(frozen=True)
class LabeledHands:
    """N hands: landmarks (N, 21, 3), whether they are right hands (N,), and the N gestures or `no_gesture`."""

    landmarks: np.ndarray
    right: np.ndarray
    labels: list[str]
    images_without_hand: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def pair(self) -> tuple[np.ndarray, np.ndarray]:
        """The arguments of `GestureClassifier.predict`."""
        return self.landmarks, self.right

    def of_gestures(self, names: Sequence[str]) -> Self:
        """Return the hands of some of the classes."""
        rows = np.flatnonzero(np.isin(self.labels, names))
        labels = [self.labels[row] for row in rows]
        return replace(self, landmarks=self.landmarks[rows], right=self.right[rows], labels=labels)

    @classmethod
    def concatenate(cls, parts: Sequence["LabeledHands"]) -> Self:
        """Return the hands of all parts."""
        return cls(
            np.concatenate([part.landmarks for part in parts]),
            np.concatenate([part.right for part in parts]),
            [label for part in parts for label in part.labels],
            sum(part.images_without_hand for part in parts),
        )


@dataclass(frozen=True)
class TrainingPlan:
    """Length of a training, and the share of each batch that is sampled; the other hands are the given ones."""

    steps: int = 1800
    batch_size: int = 512
    sampled_share: float = 0.9


def train_classifier(
    hands: LabeledHands,
    config: ClassifierConfig,
    *,
    seed: int,
    plan: TrainingPlan | None = None,
    on_progress: ProgressCallback = noop_callback,
) -> GestureClassifier:
    """Train a classifier with AdamW; the same arguments give the same weights on one machine.

    Every class is drawn equally often, because the number of hands of a class says nothing about the hands to be
    classified. A class that `hands` do not have is sampled only.
    """
    plan = plan or TrainingPlan()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = GestureClassifier(config)
    network = classifier.network.train()
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # Layers this small leave more threads waiting for each other.
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.02)
    lr_scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, plan.steps)
    for step, (features, targets) in enumerate(_iter_batches(hands, config, seed, plan), 1):
        loss = torch.nn.functional.cross_entropy(network(features), targets, label_smoothing=0.03)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        lr_scheduler.step()
        on_progress(step, plan.steps, {})
    torch.set_num_threads(num_threads)
    network.eval()
    return classifier


def calibrate(classifier: GestureClassifier, hands: LabeledHands) -> GestureClassifier:
    """Return the classifier with a temperature and a threshold that fit held-out hands."""
    classes = classifier.config.classes
    targets = torch.tensor([classes.index(label) for label in hands.labels], dtype=torch.long)
    temperature = fit_temperature(classifier.compute_logits(hands.landmarks, hands.right), targets)
    calibrated = _with_config(classifier, {"temperature": temperature, "reject_below": 0.0})
    labels, probabilities = calibrated.predict(hands.landmarks, hands.right)
    correct = np.array(labels) == np.array(hands.labels)
    gestures = np.array(hands.labels) != NO_GESTURE
    threshold = choose_threshold(probabilities.max(axis=1)[gestures], correct[gestures])
    return _with_config(calibrated, {"reject_below": threshold})


def measure_accuracy(classifier: GestureClassifier, hands: LabeledHands) -> dict[str, Any]:
    """Return the accuracy of the gestures, in total and of each, that of other hands, and the calibration error.

    `accuracy_of_classes` is the mean over all classes, `no_gesture` included. `rejected_right` and `rejected_wrong` are
    shares of the gestures whose most likely name is right or wrong.
    """
    predictions, probabilities = classifier.predict(hands.landmarks, hands.right)
    confusion: dict[str, Counter[str]] = {label: Counter() for label in sorted(set(hands.labels))}
    for label, prediction in zip(hands.labels, predictions, strict=True):
        confusion[label][prediction] += 1
    right = {label: row[label] / row.total() for label, row in confusion.items()}
    is_gesture = np.array([label != NO_GESTURE for label in hands.labels], bool)
    correct = np.array([label == prediction for label, prediction in zip(hands.labels, predictions, strict=True)], bool)
    likely = np.array(classifier.classes)[probabilities.argmax(axis=1)] == np.array(hands.labels)
    rejected = np.array(predictions) != np.array(classifier.classes)[probabilities.argmax(axis=1)]
    return {
        "accuracy": _round(correct[is_gesture]),
        "hands": int(is_gesture.sum()),
        "no_gesture": _round(correct[~is_gesture]),
        "hands_without_gesture": int((~is_gesture).sum()),
        "accuracy_of_classes": _round(np.array(list(right.values()))),
        "rejected_right": _round(rejected[is_gesture & likely]),
        "rejected_wrong": _round(rejected[is_gesture & ~likely]),
        "calibration_error": round(calibration_error(probabilities.max(axis=1), likely), 4),
        "accuracy_by_gesture": {label: round(value, 4) for label, value in right.items()},
        "confusion": {label: dict(sorted(row.items())) for label, row in confusion.items()},
        "images_without_hand": hands.images_without_hand,
    }


def _round(values: np.ndarray) -> float | None:
    return round(float(values.mean()), 4) if len(values) else None


def _with_config(classifier: GestureClassifier, changes: dict[str, float]) -> GestureClassifier:
    changed = GestureClassifier(classifier.config.model_copy(update=changes))
    changed.network.load_state_dict(classifier.network.state_dict())
    return changed


def _iter_batches(
    hands: LabeledHands, config: ClassifierConfig, seed: int, plan: TrainingPlan
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield the features (B, 63) and targets (B,) of each step."""
    classes = config.classes
    inputs = make_features(hands.landmarks, hands.right, config.dimensions)
    labels = torch.tensor([classes.index(label) for label in hands.labels], dtype=torch.long)
    weights = 1.0 / torch.bincount(labels, minlength=len(classes))[labels]
    num_sampled = round(plan.batch_size * plan.sampled_share) if len(hands) else plan.batch_size
    pool = torch.zeros(0)
    pool_labels = torch.zeros(0, dtype=torch.long)
    for step in range(plan.steps):
        generator = torch_generator(seed, "classifier", step)
        offset = step % _POOL_STEPS * num_sampled
        if offset == 0 and num_sampled:
            rng = numpy_generator(seed, "sampled", step // _POOL_STEPS)
            pool, pool_labels = _sample_pool(config, num_sampled * _POOL_STEPS, rng)
        features = [pool[offset : offset + num_sampled]] if num_sampled else []
        targets = [pool_labels[offset : offset + num_sampled]] if num_sampled else []
        if count := plan.batch_size - num_sampled:
            indices = torch.multinomial(weights, count, replacement=True, generator=generator)
            features.append(augment(inputs[indices].reshape(-1, 21, 3), generator).flatten(1))
            targets.append(labels[indices])
        batch = torch.cat(features).reshape(plan.batch_size, 21, 3)
        flat = torch.rand(plan.batch_size, generator=generator) < _DEPTH_DROPOUT
        batch = torch.cat([batch[..., :2], torch.where(flat[:, None, None], 0.0, batch[..., 2:])], dim=2)
        if config.dimensions == 2:
            batch[..., 2] = 0.0
        yield batch.flatten(1), torch.cat(targets)


def _sample_pool(config: ClassifierConfig, count: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Sample at least `count` hands of all classes, in random order."""
    known = [name for name in config.classes if name in POSES or name == NO_GESTURE]
    per_class = -(-count // len(known))
    landmarks = np.concatenate([sample_hands(name, per_class, rng) for name in known])
    order = rng.permutation(len(landmarks))
    labels = np.repeat([config.classes.index(name) for name in known], per_class)[order]
    features = make_features(landmarks[order], np.ones(len(order), bool), config.dimensions)
    return features, torch.from_numpy(labels)


def augment(hands: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Rotate normalized hands (B, 21, 3) in the image by about 10 degrees, stretch them, displace fingers, jitter."""
    count = len(hands)
    angle = torch.randn(count, generator=generator) * np.radians(10.0)
    rotation = torch.zeros(count, 3, 3)
    rotation[:, 0, 0], rotation[:, 0, 1] = angle.cos(), -angle.sin()
    rotation[:, 1, 0], rotation[:, 1, 1] = angle.sin(), angle.cos()
    rotation[:, 2, 2] = 1.0
    # MediaPipe only guesses the depth, so it is stretched and jittered more.
    stretch = 1.0 + torch.randn(count, 1, 3, generator=generator) * torch.tensor([0.1, 0.1, 0.25])
    jitter = torch.randn(hands.shape, generator=generator) * torch.tensor([0.025, 0.025, 0.05])
    # Its errors grow along a finger.
    along = torch.tensor([0.35, 0.6, 0.9, 1.25])[:, None]
    finger = torch.randn(count, 5, 1, 3, generator=generator) * torch.tensor([0.03, 0.03, 0.05])
    jitter[:, 1:] += (finger * along).flatten(1, 2)
    return hands @ rotation.transpose(1, 2) * stretch + jitter
