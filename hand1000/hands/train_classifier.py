"""The recipe of `hand1000/assets/gesture-classifier`.

    python -m hand1000.hands.train_classifier --out hand1000/assets/gesture-classifier

Pictures are rendered, MediaPipe finds the hands in them as it does at use, and the network learns from what it
found. Each picture is looked at twice, as it is and as blurred and noisy as a small diffusion model may draw it.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from hand1000.core.rng import numpy_generator, torch_generator
from hand1000.hands.classifier import CLASSES, GestureClassifier
from hand1000.hands.detector import HandDetector
from hand1000.hands.rendered import RenderedHands, load_rendered_hands
from hand1000.hands.stage1 import normalize_landmarks
from hand1000.storage.files import write_json

SIZE = 64
CONFIDENCE = 0.5
VARIANTS = ("sharp", "degraded")


def train_classifier(
    landmarks: np.ndarray,
    right: np.ndarray,
    labels: Sequence[str],
    *,
    seed: int,
    steps: int = 2000,
    batch_size: int = 256,
    learning_rate: float = 3e-3,
) -> GestureClassifier:
    """A classifier trained on hands; the same arguments give the same weights on one machine.

    Args:
        landmarks: (N, 21, 3) as MediaPipe tells them.
        right: (N,) bool.
        labels: N of `CLASSES`.
        seed: of the weights, the batches and the augmentation.
        steps: of AdamW, with a rate that falls to nothing along a cosine.
        batch_size: hands a step; every class is drawn equally often, since how many hands of a class MediaPipe found
            says nothing about the hands to be judged.
        learning_rate: the first step's.
    """
    hands = torch.from_numpy(normalize_landmarks(landmarks, right))
    targets = torch.tensor([CLASSES.index(label) for label in labels])
    share = 1.0 / torch.bincount(targets, minlength=len(CLASSES))[targets]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = GestureClassifier()
    network = classifier.network.train()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # On layers this small the threads would mostly wait for each other.
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        generator = torch_generator(seed, "classifier", step)
        chosen = torch.multinomial(share, batch_size, replacement=True, generator=generator)
        logits = network(augment(hands[chosen], generator).flatten(1))
        loss = torch.nn.functional.cross_entropy(logits, targets[chosen], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    torch.set_num_threads(threads)
    network.eval()
    return classifier


def augment(hands: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Normalised hands (B, 21, 3), each turned in the picture by about 10 degrees, stretched, and jittered."""
    count = len(hands)
    angle = torch.randn(count, generator=generator) * np.radians(10.0)
    turn = torch.zeros(count, 3, 3)
    turn[:, 0, 0], turn[:, 0, 1] = angle.cos(), -angle.sin()
    turn[:, 1, 0], turn[:, 1, 1] = angle.sin(), angle.cos()
    turn[:, 2, 2] = 1.0
    # Depth is MediaPipe's guess, so it may be stretched further.
    stretch = 1.0 + torch.randn(count, 1, 3, generator=generator) * torch.tensor([0.07, 0.07, 0.2])
    jitter = torch.randn(hands.shape, generator=generator) * torch.tensor([0.03, 0.03, 0.06])
    return hands @ turn.transpose(1, 2) * stretch + jitter


def degrade(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A picture (S, S, 3) uint8 shrunk to 0.4 of its size or more and enlarged again, with noise."""
    size = image.shape[0]
    small = round(size * generator.uniform(0.4, 1.0))
    blurred = Image.fromarray(image).resize((small, small), Image.Resampling.BOX).resize((size, size))
    noisy = np.asarray(blurred, np.float64) + generator.normal(0.0, generator.uniform(0.0, 6.0), image.shape)
    return np.clip(np.round(noisy), 0, 255).astype(np.uint8)


def find_hands(pictures: RenderedHands, *, seed: int) -> dict[str, tuple[np.ndarray, np.ndarray, list[str], int]]:
    """For each of `VARIANTS` the landmarks, right, labels and how many pictures showed MediaPipe no hand."""
    found: dict[str, tuple[np.ndarray, np.ndarray, list[str], int]] = {}
    with HandDetector(CONFIDENCE) as detector:
        for variant in VARIANTS:
            hands, labels = [], []
            for index, (image, label) in enumerate(zip(pictures.images, pictures.gestures, strict=True)):
                seen = image if variant == "sharp" else degrade(image, numpy_generator(seed, "degraded", index))
                for hand in detector.detect(seen):
                    hands.append(hand)
                    labels.append(label)
            found[variant] = (
                np.stack([hand.landmarks for hand in hands]),
                np.array([hand.right for hand in hands]),
                labels,
                len(pictures.images) - len(hands),
            )
    return found


def _measured(classifier: GestureClassifier, landmarks: np.ndarray, right: np.ndarray, labels: list[str]) -> dict:
    predicted, _ = classifier.predict(landmarks, right)
    confusion: dict[str, dict[str, int]] = {label: {} for label in CLASSES}
    for label, guess in zip(labels, predicted, strict=True):
        confusion[label][guess] = confusion[label].get(guess, 0) + 1
    shares = {
        label: round(row.get(label, 0) / sum(row.values()), 4) if row else None for label, row in confusion.items()
    }
    right_guesses = sum(row.get(label, 0) for label, row in confusion.items())
    return {
        "accuracy": round(right_guesses / len(labels), 4),
        "hands": len(labels),
        "accuracy_by_gesture": shares,
        "confusion": confusion,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Render, find the hands, train, measure on other people's hands, and write it all down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument(
        "--train", type=int, default=80, help="pictures a gesture to learn from, and thrice as many of arbitrary poses"
    )
    parser.add_argument("--test", type=int, default=20, help="the same, of other people, to measure on")
    chosen = parser.parse_args(arguments)
    train, test = load_rendered_hands(num_train=chosen.train, num_test=chosen.test, seed=chosen.seed, size=SIZE)
    learned, held_out = find_hands(train, seed=chosen.seed), find_hands(test, seed=chosen.seed + 1)
    classifier = train_classifier(
        np.concatenate([learned[variant][0] for variant in VARIANTS]),
        np.concatenate([learned[variant][1] for variant in VARIANTS]),
        [label for variant in VARIANTS for label in learned[variant][2]],
        seed=chosen.seed,
    )
    classifier.save_pretrained(chosen.out)
    results = {variant: _measured(classifier, *held_out[variant][:3]) for variant in VARIANTS}
    report = {
        "command": "python -m hand1000.hands.train_classifier "
        f"--out hand1000/assets/gesture-classifier --seed {chosen.seed} --train {chosen.train} --test {chosen.test}",
        "data": "rendered pictures; real ones were not measured",
        "size": SIZE,
        "min_detection_confidence": CONFIDENCE,
        "train": {variant: {"hands": len(learned[variant][2]), "missed": learned[variant][3]} for variant in VARIANTS},
        "test": {variant: {**results[variant], "missed": held_out[variant][3]} for variant in VARIANTS},
    }
    write_json(chosen.out / "training.json", report)
    print({variant: results[variant]["accuracy"] for variant in VARIANTS}, file=sys.stderr)


if __name__ == "__main__":
    main()
