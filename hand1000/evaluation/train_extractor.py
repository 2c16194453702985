"""The recipe of `hand1000/assets/feature-extractor`.

    python -m hand1000.evaluation.train_extractor --out hand1000/assets/feature-extractor

The network learns from rendered hands what matters in these pictures: where the landmarks are, which gesture it is,
skin, sleeve, wall and light, and how much each picture was blurred, distorted and covered with noise. The last make
its features tell a malformed hand from a whole one. Half of the pictures are crops as FID-H and KID-H see them.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from hand1000.core.rng import numpy_generator, torch_generator
from hand1000.evaluation.distances import frechet_distance, kernel_distance
from hand1000.evaluation.extractors import SmallExtractor, SmallNetwork
from hand1000.hands.classifier import CLASSES
from hand1000.hands.rendered import RenderedHands, load_rendered_hands
from hand1000.storage.files import write_json

WORDS = ("skin", "sleeve", "wall", "light", "handedness")
FAULTS = ("blur", "distortion", "noise")
LEVELS = (0.25, 0.5, 1.0)


def random_crop(
    images: torch.Tensor, landmarks: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pictures moved a little, or cut to near the hand, and mirrored every other time.

    Args:
        images: (B, 3, S, S).
        landmarks: (B, 21, 2), relative to the picture.
        generator: of the draws.

    Returns:
        the pictures and landmarks in their new frames, and (B,) bool which are mirrored.
    """
    count = len(images)
    low, high = landmarks.amin(dim=1), landmarks.amax(dim=1)
    cut = torch.rand(count, 1, generator=generator) < 0.5
    # Half the side and the centre of the window, in the picture's coordinates.
    tight = (high - low).amax(dim=1, keepdim=True) * (0.55 + 0.25 * torch.rand(count, 1, generator=generator))
    half = torch.where(cut, tight.clamp(0.15, 0.5), torch.tensor(0.5))
    aside = torch.randn(count, 2, generator=generator) * 0.08 * half
    centre = torch.where(cut, (low + high) / 2, torch.tensor(0.5)) + aside
    mirrored = torch.rand(count, generator=generator) < 0.5
    sign = torch.where(mirrored, -1.0, 1.0)
    affine = torch.zeros(count, 2, 3)
    affine[:, 0, 0], affine[:, 1, 1] = 2 * half[:, 0] * sign, 2 * half[:, 0]
    affine[:, :, 2] = 2 * centre - 1
    grid = functional.affine_grid(affine, list(images.shape), align_corners=False)
    moved = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    within = (landmarks - centre[:, None]) / (2 * half[:, None])
    within = within * torch.stack([sign, torch.ones(count)], dim=1)[:, None] + 0.5
    return moved, within, mirrored


def corrupt(images: torch.Tensor, amounts: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Pictures (B, 3, S, S), 0 to 255, with each of `FAULTS` by its amount (B, 3), 0 to 1.

    At 1 the blur mixes neighbours over a sixteenth of the picture, the distortion moves parts of a quarter of its
    side by about 7 % of it, and the noise has a standard deviation of 30.
    """
    blur, distortion, noise = (amounts[:, index, None, None, None] for index in range(len(FAULTS)))
    size = images.shape[-1]
    soft = images
    for _ in range(3):  # Three boxes are nearly a Gaussian.
        soft = functional.avg_pool2d(functional.pad(soft, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
    images = images + blur * (soft - images)
    coarse = torch.randn(len(images), 2, 5, 5, generator=generator)
    shift = functional.interpolate(coarse, (size, size), mode="bicubic", align_corners=True) * 0.15 * distortion
    axis = torch.linspace(-1, 1, size)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1) + shift.permute(0, 2, 3, 1)
    images = functional.grid_sample(images, grid, padding_mode="border", align_corners=True)
    return (images + noise * 30.0 * torch.randn(images.shape, generator=generator)).clamp(0, 255)


class _Heads(nn.Module):
    """What is read off the features while they are trained; thrown away afterwards."""

    def __init__(self, vocabulary: dict[str, list[str]]) -> None:
        super().__init__()
        widths = {name: len(words) for name, words in vocabulary.items()}
        widths |= {"landmarks": 42, "faults": len(FAULTS)}
        self.heads = nn.ModuleDict({name: nn.Linear(SmallNetwork.num_features, wide) for name, wide in widths.items()})

    def forward(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        active = functional.gelu(features)
        return {name: head(active) for name, head in self.heads.items()}


def train_extractor(
    pictures: RenderedHands, *, seed: int, steps: int = 1500, batch_size: int = 64, learning_rate: float = 2e-3
) -> tuple[SmallExtractor, "_Heads", dict[str, list[str]]]:
    """A feature network trained on rendered hands, with the heads that were trained on it and their words."""
    images = torch.from_numpy(pictures.images).permute(0, 3, 1, 2).float()
    vocabulary, targets = _targets(pictures)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network, heads = SmallNetwork(), _Heads(vocabulary)
    parameters = [*network.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=0.1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # The layers are small, and the weights then do not depend on the number of cores.
    for step in range(steps):
        generator = torch_generator(seed, "extractor", step)
        chosen = torch.randint(len(images), (batch_size,), generator=generator)
        amounts = _amounts(batch_size, generator)
        seen, landmarks, mirrored = random_crop(images[chosen], targets["landmarks"][chosen], generator)
        wanted = {name: values[chosen] for name, values in targets.items()} | {"landmarks": landmarks}
        wanted["handedness"] = torch.where(mirrored, 1 - wanted["handedness"], wanted["handedness"])
        faulty = amounts.any(dim=1)  # The others would cost as much and stay as they are.
        seen[faulty] = corrupt(seen[faulty], amounts[faulty], generator)
        loss = _loss(heads(network(seen)), wanted, amounts)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps - 1:
            print(f"step {step}: loss {loss.item():.3f}", file=sys.stderr, flush=True)
    torch.set_num_threads(threads)
    _standardise(network, pictures.images)
    return SmallExtractor(network), heads, vocabulary


def _targets(pictures: RenderedHands) -> tuple[dict[str, list[str]], dict[str, torch.Tensor]]:
    vocabulary = {name: sorted({facts[name] for facts in pictures.attributes}) for name in WORDS}
    targets = {
        name: torch.tensor([words.index(facts[name]) for facts in pictures.attributes])
        for name, words in vocabulary.items()
    }
    vocabulary["gesture"] = list(CLASSES)
    targets["gesture"] = torch.tensor([CLASSES.index(gesture) for gesture in pictures.gestures])
    targets["landmarks"] = torch.from_numpy(pictures.landmarks)
    return vocabulary, targets


def _amounts(count: int, generator: torch.Generator) -> torch.Tensor:
    """How much of each fault: none of any in half of the pictures, else each by an even draw or not at all."""
    amounts = torch.rand(count, len(FAULTS), generator=generator)
    amounts *= torch.rand(count, len(FAULTS), generator=generator) < 0.5
    return amounts * (torch.rand(count, 1, generator=generator) < 0.5)


def _loss(read: dict[str, torch.Tensor], targets: dict[str, torch.Tensor], amounts: torch.Tensor) -> torch.Tensor:
    """The sum of all heads' losses, each weighed to be of order 1 at the start and to be worth learning."""
    whole = (1.0 - amounts[:, 1:2]) ** 2  # A distorted hand's landmarks are not where they were.
    loss = 20.0 * (whole * (read["landmarks"] - targets["landmarks"].flatten(1)).abs()).mean()
    loss = loss + 10.0 * functional.mse_loss(read["faults"], amounts)
    for name, target in targets.items():
        if name != "landmarks":
            loss = loss + (1.0 if name == "gesture" else 0.3) * functional.cross_entropy(read[name], target)
    return loss


@torch.inference_mode()
def _standardise(network: SmallNetwork, images: np.ndarray) -> None:
    features = torch.from_numpy(SmallExtractor(network)(images))
    network.mean.copy_(features.mean(dim=0))
    network.std.copy_(features.std(dim=0).clamp_min(1e-6))


@torch.inference_mode()
def measured(
    extractor: SmallExtractor, heads: nn.Module, vocabulary: dict[str, list[str]], test: RenderedHands, seed: int
) -> dict:
    """What the heads get right on other people's hands, and how FID and KID grow with each fault."""
    _, targets = _targets(test)
    features = extractor(test.images)
    raw = torch.from_numpy(features) * extractor.network.std + extractor.network.mean
    read = heads(raw)
    accuracy = {name: round(float((read[name].argmax(1) == targets[name]).float().mean()), 4) for name in vocabulary}
    error = float((read["landmarks"].unflatten(1, (21, 2)) - targets["landmarks"]).norm(dim=2).mean())
    half = np.arange(len(features)) % 2 == 0
    images = torch.from_numpy(test.images[~half]).permute(0, 3, 1, 2).float()
    growth = {"none": _distance(features[half], features[~half], seed)}
    for index, fault in enumerate(FAULTS):
        for level in LEVELS:
            amounts = torch.zeros(len(images), len(FAULTS))
            amounts[:, index] = level
            bad = corrupt(images, amounts, torch_generator(seed, "measure", fault)).round().to(torch.uint8)
            growth[f"{fault} {level}"] = _distance(features[half], extractor(bad.permute(0, 2, 3, 1).numpy()), seed)
    return {"accuracy": accuracy, "landmark_error": round(error, 4), "distances": growth}


def _distance(x: np.ndarray, y: np.ndarray, seed: int) -> dict[str, float]:
    kid = kernel_distance(x, y, numpy_generator(seed, "measure"))
    return {
        "fid": round(frechet_distance(x, y), 3),
        "kid": round(kid.value, 5),
        "kid_low": round(kid.low, 5),
        "kid_high": round(kid.high, 5),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Render, train, measure on other people's hands, and write it all down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument(
        "--train", type=int, default=80, help="pictures a gesture to learn from, and thrice as many of arbitrary poses"
    )
    parser.add_argument("--test", type=int, default=20, help="the same, of other people, to measure on")
    parser.add_argument("--steps", type=int, default=1500)
    chosen = parser.parse_args(arguments)
    train, test = load_rendered_hands(
        num_train=chosen.train, num_test=chosen.test, seed=chosen.seed, size=SmallNetwork.input_size
    )
    extractor, heads, vocabulary = train_extractor(train, seed=chosen.seed, steps=chosen.steps)
    extractor.save_pretrained(chosen.out)
    report = {
        "command": "python -m hand1000.evaluation.train_extractor --out hand1000/assets/feature-extractor "
        f"--seed {chosen.seed} --train {chosen.train} --test {chosen.test} --steps {chosen.steps}",
        "data": "rendered pictures",
        "train_images": len(train.images),
        "test_images": len(test.images),
        "test": measured(extractor, heads, vocabulary, test, chosen.seed),
    }
    write_json(chosen.out / "training.json", report)


if __name__ == "__main__":
    main()
