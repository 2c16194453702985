"""Training script of the small feature extractor in `hand1000/assets/feature-extractor`.

    python -m hand1000.evaluation.train_extractor --out hand1000/assets/feature-extractor

The network learns from rendered hands to predict the landmarks, the gesture, the colors of skin, sleeve and wall, the
light, and the strength of artificial blur, distortion and noise. The latter make its features sensitive to malformed
hands. Half of the training images are crops, like the images of FID-H and KID-H.
"""

import sys
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from hand1000.core.rng import numpy_generator, torch_generator
from hand1000.data.synthetic import RenderedHands, load_rendered_hands
from hand1000.evaluation.distances import frechet_distance, kernel_distance
from hand1000.evaluation.extractors import SmallExtractor, SmallNetwork
from hand1000.gestures import HAGRID_V1, NO_GESTURE
from hand1000.hands.train_classifier import training_parser
from hand1000.storage.files import write_json

ATTRIBUTES = ("skin", "sleeve", "wall", "light", "handedness")
CORRUPTIONS = ("blur", "distortion", "noise")
CORRUPTION_LEVELS = (0.25, 0.5, 1.0)
"""Corruption amounts of the final test."""


def random_crop(
    images: torch.Tensor, landmarks: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Shift half of the images (B, 3, S, S) a little, crop the other half to the hand, and mirror half of all.

    Returns:
        The cropped images, their landmarks (B, 21, 2), and (B,) bool that marks the mirrored ones.
    """
    count = len(images)
    low, high = landmarks.amin(dim=1), landmarks.amax(dim=1)
    is_crop = torch.rand(count, 1, generator=generator) < 0.5
    # Half the side and the center of the window, in coordinates of the image.
    tight = (high - low).amax(dim=1, keepdim=True) * (0.55 + 0.25 * torch.rand(count, 1, generator=generator))
    half = torch.where(is_crop, tight.clamp(0.15, 0.5), torch.tensor(0.5))
    shift = torch.randn(count, 2, generator=generator) * 0.08 * half
    center = torch.where(is_crop, (low + high) / 2, torch.tensor(0.5)) + shift
    mirrored = torch.rand(count, generator=generator) < 0.5
    sign = torch.where(mirrored, -1.0, 1.0)
    affine = torch.zeros(count, 2, 3)
    affine[:, 0, 0], affine[:, 1, 1] = 2 * half[:, 0] * sign, 2 * half[:, 0]
    affine[:, :, 2] = 2 * center - 1
    grid = functional.affine_grid(affine, list(images.shape), align_corners=False)
    cropped = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    cropped_landmarks = (landmarks - center[:, None]) / (2 * half[:, None])
    cropped_landmarks = cropped_landmarks * torch.stack([sign, torch.ones(count)], dim=1)[:, None] + 0.5
    return cropped, cropped_landmarks, mirrored


def corrupt(images: torch.Tensor, amounts: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Apply each of `CORRUPTIONS` to images.

    An amount of 1 blurs over a sixteenth of the image, shifts regions of a quarter of its side by about 7 % of the
    side, and adds noise with a standard deviation of 30.

    Args:
        images: Images, (B, 3, S, S), 0 to 255.
        amounts: Amount of each corruption per image, (B, 3), 0 to 1.
        generator: Source of distortion and noise.
    """
    blur, distortion, noise = (amounts[:, index, None, None, None] for index in range(len(CORRUPTIONS)))
    size = images.shape[-1]
    blurred = images
    for _ in range(3):  # Three box filters approximate a Gaussian.
        blurred = functional.avg_pool2d(functional.pad(blurred, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
    images = images + blur * (blurred - images)
    coarse = torch.randn(len(images), 2, 5, 5, generator=generator)
    shift = functional.interpolate(coarse, (size, size), mode="bicubic", align_corners=True) * 0.15 * distortion
    axis = torch.linspace(-1, 1, size)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1) + shift.permute(0, 2, 3, 1)
    images = functional.grid_sample(images, grid, padding_mode="border", align_corners=True)
    return (images + noise * 30.0 * torch.randn(images.shape, generator=generator)).clamp(0, 255)


class _Heads(nn.Module):
    """Linear prediction heads, which are needed for training only."""

    def __init__(self, vocabulary: dict[str, list[str]]) -> None:
        super().__init__()
        widths = {name: len(words) for name, words in vocabulary.items()}
        widths |= {"landmarks": 42, "faults": len(CORRUPTIONS)}
        num_features = SmallNetwork.num_features
        self.heads = nn.ModuleDict({name: nn.Linear(num_features, width) for name, width in widths.items()})

    def forward(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        activations = functional.gelu(features)
        return {name: head(activations) for name, head in self.heads.items()}


def train_extractor(
    hands: RenderedHands, *, seed: int, steps: int = 1500, batch_size: int = 64, learning_rate: float = 2e-3
) -> tuple[SmallExtractor, "_Heads", dict[str, list[str]]]:
    """Train the network on rendered hands; return it, its prediction heads and the class names of each head."""
    images = torch.from_numpy(hands.images).permute(0, 3, 1, 2).float()
    vocabulary, targets = _make_targets(hands)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network, heads = SmallNetwork(), _Heads(vocabulary)
    parameters = [*network.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=0.1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # The weights must not depend on the number of cores; the layers are small anyway.
    for step in range(steps):
        generator = torch_generator(seed, "extractor", step)
        indices = torch.randint(len(images), (batch_size,), generator=generator)
        amounts = _sample_amounts(batch_size, generator)
        batch, landmarks, mirrored = random_crop(images[indices], targets["landmarks"][indices], generator)
        batch_targets = {name: values[indices] for name, values in targets.items()} | {"landmarks": landmarks}
        handedness = batch_targets["handedness"]
        batch_targets["handedness"] = torch.where(mirrored, 1 - handedness, handedness)
        corrupted = amounts.any(dim=1)  # Skips images with all amounts 0, which would stay the same.
        batch[corrupted] = corrupt(batch[corrupted], amounts[corrupted], generator)
        loss = _compute_loss(heads(network(batch)), batch_targets, amounts)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps - 1:
            print(f"step {step}: loss {loss.item():.3f}", file=sys.stderr, flush=True)
    torch.set_num_threads(threads)
    _standardize(network, hands.images)
    return SmallExtractor(network), heads, vocabulary


def _make_targets(hands: RenderedHands) -> tuple[dict[str, list[str]], dict[str, torch.Tensor]]:
    vocabulary = {name: sorted({attributes[name] for attributes in hands.attributes}) for name in ATTRIBUTES}
    targets = {
        name: torch.tensor([words.index(attributes[name]) for attributes in hands.attributes])
        for name, words in vocabulary.items()
    }
    classes = [*HAGRID_V1, NO_GESTURE]
    vocabulary["gesture"] = classes
    targets["gesture"] = torch.tensor([classes.index(gesture) for gesture in hands.gestures])
    targets["landmarks"] = torch.from_numpy(hands.landmarks)
    return vocabulary, targets


def _sample_amounts(count: int, generator: torch.Generator) -> torch.Tensor:
    """Corruption amounts: half of the images have none, the others have each with probability 0.5 (uniform)."""
    amounts = torch.rand(count, len(CORRUPTIONS), generator=generator)
    amounts *= torch.rand(count, len(CORRUPTIONS), generator=generator) < 0.5
    return amounts * (torch.rand(count, 1, generator=generator) < 0.5)


def _compute_loss(
    predictions: dict[str, torch.Tensor], targets: dict[str, torch.Tensor], amounts: torch.Tensor
) -> torch.Tensor:
    """The sum of all heads' losses, each weighted to be of order 1 at the start."""
    landmark_weights = (1.0 - amounts[:, 1:2]) ** 2  # Distortion moves the landmarks.
    loss = 20.0 * (landmark_weights * (predictions["landmarks"] - targets["landmarks"].flatten(1)).abs()).mean()
    loss = loss + 10.0 * functional.mse_loss(predictions["faults"], amounts)
    for name, target in targets.items():
        if name != "landmarks":
            loss = loss + (1.0 if name == "gesture" else 0.3) * functional.cross_entropy(predictions[name], target)
    return loss


@torch.inference_mode()
def _standardize(network: SmallNetwork, images: np.ndarray) -> None:
    features = torch.from_numpy(SmallExtractor(network)(images))
    network.mean.copy_(features.mean(dim=0))
    network.std.copy_(features.std(dim=0).clamp_min(1e-6))


@torch.inference_mode()
def evaluate_extractor(
    extractor: SmallExtractor, heads: nn.Module, vocabulary: dict[str, list[str]], test: RenderedHands, seed: int
) -> dict:
    """Measure the accuracy of the heads on test images, and how FID and KID grow with each corruption."""
    _, targets = _make_targets(test)
    features = extractor(test.images)
    unstandardized = torch.from_numpy(features) * extractor.network.std + extractor.network.mean
    predictions = heads(unstandardized)
    accuracy = {
        name: round(float((predictions[name].argmax(1) == targets[name]).float().mean()), 4) for name in vocabulary
    }
    error = float((predictions["landmarks"].unflatten(1, (21, 2)) - targets["landmarks"]).norm(dim=2).mean())
    is_reference = np.arange(len(features)) % 2 == 0
    images = torch.from_numpy(test.images[~is_reference]).permute(0, 3, 1, 2).float()
    distances = {"none": _distances(features[is_reference], features[~is_reference], seed)}
    for index, corruption in enumerate(CORRUPTIONS):
        for level in CORRUPTION_LEVELS:
            amounts = torch.zeros(len(images), len(CORRUPTIONS))
            amounts[:, index] = level
            corrupted = corrupt(images, amounts, torch_generator(seed, "measure", corruption)).round().to(torch.uint8)
            corrupted_features = extractor(corrupted.permute(0, 2, 3, 1).numpy())
            distances[f"{corruption} {level}"] = _distances(features[is_reference], corrupted_features, seed)
    return {"accuracy": accuracy, "landmark_error": round(error, 4), "distances": distances}


def _distances(x: np.ndarray, y: np.ndarray, seed: int) -> dict[str, float]:
    kid = kernel_distance(x, y, numpy_generator(seed, "measure"))
    return {
        "fid": round(frechet_distance(x, y), 3),
        "kid": round(kid.value, 5),
        "kid_low": round(kid.low, 5),
        "kid_high": round(kid.high, 5),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Render hands, train the extractor, evaluate it on other people's hands, and write both."""
    parser = training_parser(__doc__)
    parser.add_argument("--steps", type=int, default=1500)
    options = parser.parse_args(arguments)
    train, test = load_rendered_hands(
        num_train=options.train, num_test=options.test, seed=options.seed, size=SmallNetwork.input_size
    )
    extractor, heads, vocabulary = train_extractor(train, seed=options.seed, steps=options.steps)
    extractor.save_pretrained(options.out)
    report = {
        "command": "python -m hand1000.evaluation.train_extractor --out hand1000/assets/feature-extractor "
        f"--seed {options.seed} --train {options.train} --test {options.test} --steps {options.steps}",
        "data": "rendered hands",
        "train_images": len(train.images),
        "test_images": len(test.images),
        "test": evaluate_extractor(extractor, heads, vocabulary, test, options.seed),
    }
    write_json(options.out / "training.json", report)


if __name__ == "__main__":
    main()
