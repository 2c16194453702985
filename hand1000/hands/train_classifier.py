"""The recipe of `hand1000/assets/gesture-classifier`.

    python -m hand1000.hands.train_classifier --out hand1000/assets/gesture-classifier

It renders images, detects their hands with MediaPipe as the evaluation does, and trains the network on the detected
landmarks. Each image counts twice: as it is, and as blurred and noisy as a small diffusion model may generate it.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from hand1000.core.rng import numpy_generator, torch_generator
from hand1000.data.synthetic import RenderedHands, load_rendered_hands
from hand1000.hands.classifier import CLASSES, GestureClassifier
from hand1000.hands.detector import HandDetector
from hand1000.hands.stage1 import normalize_landmarks
from hand1000.storage.files import write_json

SIZE = 64
CONFIDENCE = 0.5
VARIANTS = ("sharp", "degraded")


@dataclass(frozen=True)
class LabeledHands:
    """N detected hands: landmarks (N, 21, 3), whether they are right hands (N,), and labels out of `CLASSES`."""

    landmarks: np.ndarray
    right: np.ndarray
    labels: list[str]
    images_without_hand: int = 0


def train_classifier(hands: LabeledHands, *, seed: int, steps: int = 2000, batch_size: int = 256) -> GestureClassifier:
    """Train a classifier with AdamW; the same arguments give the same weights on one machine.

    Every class is sampled equally often, because the number of hands that MediaPipe finds of a class says nothing about
    the hands to be classified.
    """
    inputs = torch.from_numpy(normalize_landmarks(hands.landmarks, hands.right))
    targets = torch.tensor([CLASSES.index(label) for label in hands.labels])
    sample_weights = 1.0 / torch.bincount(targets, minlength=len(CLASSES))[targets]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = GestureClassifier()
    network = classifier.network.train()
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # Layers this small leave more threads waiting for each other.
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.05)
    lr_scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        generator = torch_generator(seed, "classifier", step)
        indices = torch.multinomial(sample_weights, batch_size, replacement=True, generator=generator)
        logits = network(augment(inputs[indices], generator).flatten(1))
        loss = torch.nn.functional.cross_entropy(logits, targets[indices], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        lr_scheduler.step()
    torch.set_num_threads(num_threads)
    network.eval()
    return classifier


def augment(hands: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Rotate normalized hands (B, 21, 3) in the image by about 10 degrees, stretch them and add jitter."""
    count = len(hands)
    angle = torch.randn(count, generator=generator) * np.radians(10.0)
    rotation = torch.zeros(count, 3, 3)
    rotation[:, 0, 0], rotation[:, 0, 1] = angle.cos(), -angle.sin()
    rotation[:, 1, 0], rotation[:, 1, 1] = angle.sin(), angle.cos()
    rotation[:, 2, 2] = 1.0
    # MediaPipe only guesses the depth, so it is stretched and jittered more.
    stretch = 1.0 + torch.randn(count, 1, 3, generator=generator) * torch.tensor([0.07, 0.07, 0.2])
    jitter = torch.randn(hands.shape, generator=generator) * torch.tensor([0.03, 0.03, 0.06])
    return hands @ rotation.transpose(1, 2) * stretch + jitter


def degrade(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Shrink an image (S, S, 3) uint8 to 0.4 of its size or more, enlarge it again and add noise."""
    size = image.shape[0]
    small = round(size * generator.uniform(0.4, 1.0))
    blurred = Image.fromarray(image).resize((small, small), Image.Resampling.BOX).resize((size, size))
    noisy = np.asarray(blurred, np.float64) + generator.normal(0.0, generator.uniform(0.0, 6.0), image.shape)
    return np.clip(np.round(noisy), 0, 255).astype(np.uint8)


def detect_rendered_hands(rendered: RenderedHands, *, seed: int) -> dict[str, LabeledHands]:
    """Detect the hands of each of `VARIANTS` of rendered images."""
    hands_by_variant: dict[str, LabeledHands] = {}
    with HandDetector(CONFIDENCE) as detector:
        for variant in VARIANTS:
            hands, labels = [], []
            for index, (image, label) in enumerate(zip(rendered.images, rendered.gestures, strict=True)):
                if variant == "degraded":
                    image = degrade(image, numpy_generator(seed, "degraded", index))
                detected = detector.detect(image)
                hands += detected
                labels += [label] * len(detected)
            hands_by_variant[variant] = LabeledHands(
                np.stack([hand.landmarks for hand in hands]),
                np.array([hand.right for hand in hands]),
                labels,
                len(rendered.images) - len(hands),
            )
    return hands_by_variant


def measure_accuracy(classifier: GestureClassifier, hands: LabeledHands) -> dict:
    """Return the accuracy, in total and by gesture, and the predictions of each label."""
    predictions, _ = classifier.predict(hands.landmarks, hands.right)
    confusion: dict[str, Counter[str]] = {label: Counter() for label in CLASSES}
    for label, prediction in zip(hands.labels, predictions, strict=True):
        confusion[label][prediction] += 1
    return {
        "accuracy": round(sum(row[label] for label, row in confusion.items()) / len(hands.labels), 4),
        "hands": len(hands.labels),
        "accuracy_by_gesture": {
            label: round(row[label] / row.total(), 4) if row else None for label, row in confusion.items()
        },
        "confusion": confusion,
        "images_without_hand": hands.images_without_hand,
    }


def training_parser(description: str | None) -> argparse.ArgumentParser:
    """Options of a script that trains a network on rendered hands."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument(
        "--train", type=int, default=80, help="training images per gesture; arbitrary poses get three times as many"
    )
    parser.add_argument("--test", type=int, default=20, help="test images per gesture, of other people")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Render, detect, train, measure on other people's hands, and write the classifier with `training.json`."""
    options = training_parser(__doc__).parse_args(arguments)
    train, test = load_rendered_hands(num_train=options.train, num_test=options.test, seed=options.seed, size=SIZE)
    train_hands = detect_rendered_hands(train, seed=options.seed)
    test_hands = detect_rendered_hands(test, seed=options.seed + 1)
    all_hands = LabeledHands(
        np.concatenate([hands.landmarks for hands in train_hands.values()]),
        np.concatenate([hands.right for hands in train_hands.values()]),
        [label for hands in train_hands.values() for label in hands.labels],
    )
    classifier = train_classifier(all_hands, seed=options.seed)
    classifier.save_pretrained(options.out)
    results = {variant: measure_accuracy(classifier, hands) for variant, hands in test_hands.items()}
    report = {
        "command": "python -m hand1000.hands.train_classifier "
        f"--out hand1000/assets/gesture-classifier --seed {options.seed} --train {options.train} --test {options.test}",
        "data": "rendered images; real ones were not measured",
        "size": SIZE,
        "min_detection_confidence": CONFIDENCE,
        "train": {
            variant: {"hands": len(hands.labels), "images_without_hand": hands.images_without_hand}
            for variant, hands in train_hands.items()
        },
        "test": results,
    }
    write_json(options.out / "training.json", report)
    print({variant: result["accuracy"] for variant, result in results.items()}, file=sys.stderr)


if __name__ == "__main__":
    main()
