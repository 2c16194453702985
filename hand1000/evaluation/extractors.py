"""Feature extractors: the networks whose features FID and KID compare.

`small` is part of the package and needs no download, but its values are comparable only with each other. Values that
are comparable with published ones need the 2015 Inception network.
"""

import os
import warnings
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self

import numpy as np
import torch
from safetensors.torch import save
from torch import nn

from hand1000.config.settings import EvaluationSettings
from hand1000.core.assets import FEATURE_EXTRACTOR
from hand1000.core.errors import Hand1000Error, one_line, translate_write_errors
from hand1000.core.threads import available_cpus, limit_torch_threads
from hand1000.evaluation.hand_crops import resize
from hand1000.evaluation.identity import FOUNDATION, INCEPTION, INCEPTION_SIZE, SMALL, SMALL_SIZE, describe_resizer
from hand1000.storage.digests import digest_file
from hand1000.storage.files import write_bytes, write_json
from hand1000.storage.http import download
from hand1000.storage.pretrained import check_config
from hand1000.storage.weights import load_weights

INCEPTION_URL = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt"
INCEPTION_SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
"""The TorchScript version of the 2015 Inception network that StyleGAN and clean-fid use: 96 MB, 2048 features."""

_BATCH_SIZE = 32


class FeatureExtractor(ABC):
    """A function from images to features (N, D), where D is `num_features`; `input_size` is in pixels."""

    name: str
    sha256: str
    input_size: int
    num_features: int
    device = torch.device("cpu")
    max_threads: int | None = None
    """Number of threads that its layers are large enough for; None for any."""

    @property
    def resizer(self) -> str:
        """How images are resized to `input_size`; see `describe_resizer`."""
        return describe_resizer(self.input_size)

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Compute the features (N, D) float32 of images (N, H, W, 3) uint8 RGB of any size."""
        starts = range(0, len(images), _BATCH_SIZE)
        with limit_torch_threads(self.max_threads or available_cpus()):
            batches = (resize(images[start : start + _BATCH_SIZE], self.input_size).to(self.device) for start in starts)
            return torch.cat([self.forward(batch).float().cpu() for batch in batches]).numpy()

    @abstractmethod
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Compute the features (B, D) of pixels (B, 3, `input_size`, `input_size`), 0 to 255."""


def load_extractor(settings: EvaluationSettings) -> FeatureExtractor:
    """Load the extractor that the settings name."""
    if settings.feature_extractor == "small":
        return SmallExtractor.from_pretrained()
    kind, _, source = settings.feature_extractor.partition(":")
    if kind in FOUNDATION:
        from hand1000.evaluation.foundation import FoundationExtractor

        return FoundationExtractor(kind, source)
    return InceptionExtractor(settings.feature_extractor, settings.feature_extractor_sha256)


class InceptionExtractor(FeatureExtractor):
    """The 2015 Inception network as TorchScript; `forward(images, return_features=True)` returns 2048 features.

    Loading TorchScript executes code from the file. A file is therefore only loaded if its sha256 is the pinned one.

    Args:
        source: A file, or an http(s) URL that is downloaded once into the cache.
        sha256: Expected digest of the file.

    Raises:
        Hand1000Error: The digest is missing or differs, the file is missing, the download fails, or the file contains
            another network.
    """

    name = INCEPTION
    input_size = INCEPTION_SIZE

    def __init__(self, source: str, sha256: str) -> None:
        if not sha256:
            raise Hand1000Error(
                f"{source}: evaluation.feature_extractor_sha256 is empty; loading TorchScript executes its code, so "
                f"pin the sha256 of the file (that of {INCEPTION_URL} is {INCEPTION_SHA256})"
            )
        path = _download(source, sha256) if source.startswith(("http://", "https://")) else Path(source)
        if not path.is_file():
            raise Hand1000Error(f"{source}: no such file; give a path, a URL or 'small' as the feature extractor")
        if digest_file(path) != sha256:
            raise Hand1000Error(
                f"{path}: its sha256 is {digest_file(path)}, not the pinned {sha256}; download it again"
            )
        self.sha256 = sha256
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            with warnings.catch_warnings():
                # TorchScript is deprecated, but this network exists in no other format.
                warnings.simplefilter("ignore", DeprecationWarning)
                self._network = torch.jit.load(path, map_location=self.device).eval()
            probe = self(np.zeros((1, self.input_size, self.input_size, 3), np.uint8))
            if probe.ndim != 2 or not np.isfinite(probe).all():
                raise ValueError(f"its features are of shape {probe.shape} or not finite")
        except MemoryError:
            raise
        except Exception as error:
            # Code that is another network's raises errors of every kind.
            reason = one_line((str(error).strip().splitlines() or [type(error).__name__])[-1])
            raise Hand1000Error(f"{source}: not the Inception network as TorchScript: {reason}") from error
        self.num_features = probe.shape[1]

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """See `FeatureExtractor`."""
        # The network itself would resize without antialiasing, so it receives images of its own size.
        return self._network(pixels, return_features=True)


def _download(url: str, sha256: str) -> Path:
    """The cached file with this digest, downloaded if it is missing."""
    root = os.environ.get("HAND1000_CACHE")
    target = (Path(root) if root else Path.home() / ".cache" / "hand1000") / "extractors" / f"{sha256}.pt"
    if not target.is_file():
        unverified = target.with_suffix(".unverified")
        with translate_write_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            remedy = "download it elsewhere and give its path"
            download(url, unverified, remedy=remedy, on_start=lambda *_: None, on_progress=lambda *_: None)
            if digest_file(unverified) != sha256:
                digest = digest_file(unverified)
                unverified.unlink()
                raise Hand1000Error(f"{url}: its sha256 is {digest}, not the pinned {sha256}")
            os.replace(unverified, target)
    return target


class SmallNetwork(nn.Module):
    """A convolutional network from 64-pixel images to 128 features.

    The features are not averaged over the image, because the shape of a hand depends on where its parts are. They are
    standardized by the training images, so that all have equal weight in FID and suit the kernel of KID.
    """

    input_size = SMALL_SIZE
    num_features = 128

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.width = width
        widths = (3, width, 2 * width, 3 * width, 4 * width)
        layers: list[nn.Module] = []
        for inner, outer in zip(widths, widths[1:], strict=False):
            layers += [nn.Conv2d(inner, outer, 3, stride=2, padding=1), nn.GroupNorm(4, outer), nn.GELU()]
        layers += [nn.Conv2d(4 * width, 64, 1), nn.GELU(), nn.Flatten(), nn.Linear(64 * 4 * 4, self.num_features)]
        self.layers = nn.Sequential(*layers)
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.zeros(self.num_features))
        self.register_buffer("std", torch.ones(self.num_features))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Compute the features (N, 128) of pixels (N, 3, 64, 64), 0 to 255."""
        return (self.layers(pixels / 127.5 - 1.0) - self.mean) / self.std


class SmallExtractor(FeatureExtractor):
    """A `SmallNetwork` that `hand1000.evaluation.train_extractor` trained on rendered hands."""

    name = SMALL
    max_threads = 1  # More of them wait for each other; and features must not depend on the number of cores.
    input_size = SmallNetwork.input_size
    num_features = SmallNetwork.num_features

    def __init__(self, network: SmallNetwork, sha256: str = "") -> None:
        self.network, self.sha256 = network.eval(), sha256

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """See `FeatureExtractor`."""
        return self.network(pixels)

    def save_pretrained(self, directory: Path) -> None:
        """Write `model.safetensors` and `config.json`."""
        write_bytes(directory / "model.safetensors", save(self.network.state_dict()))
        write_json(directory / "config.json", {"width": self.network.width})

    @classmethod
    def from_pretrained(cls, directory: Path = FEATURE_EXTRACTOR) -> Self:
        """Load what `save_pretrained` wrote."""
        path = directory / "model.safetensors"
        config = check_config(directory / "config.json")
        try:
            network = SmallNetwork(config["width"])
        except (KeyError, TypeError, RuntimeError, ValueError) as error:
            reason = one_line(error)
            raise Hand1000Error(f"{path}: cannot be loaded as a feature extractor: {reason}; train it again") from error
        load_weights(network, path, "a feature extractor", "train it again")
        return cls(network, digest_file(path))
