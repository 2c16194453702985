"""Photographs of rendered hands in HaGRID's layout, which are made once and kept."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hand1000.data.render.people import make_person
from hand1000.data.render.rendered_image import make_image

GESTURE = "palm"
NUM_TEST = 2
_RENDERED_SIDE = 320


@dataclass(frozen=True)
class Photos:
    """A folder of JPEG files of rendered hands in HaGRID's layout, 4:3.

    Attributes:
        folder: The folder.
        count: Number of training images; two test images are beside them.
        hands: Number of different hands.
        height: Their height in pixels.
    """

    folder: Path
    count: int
    hands: int
    height: int

    @cached_property
    def paths(self) -> list[Path]:
        """The training images, which are made if they are not there."""
        marker = self.folder / "annotations" / "test" / f"{GESTURE}.json"
        if not marker.is_file():
            self._make()
        return sorted((self.folder / GESTURE).glob("*.jpg"))[: self.count]

    @cached_property
    def pixels(self) -> list[np.ndarray]:
        """The decoded files, (H, W, 3) uint8 each."""
        return [np.asarray(Image.open(path).convert("RGB")) for path in self.paths]

    def _make(self) -> None:
        hands = []
        for index in range(self.hands):
            person, generator = make_person(f"photo-{index}", np.random.default_rng([1, index])), [2, index]
            side = min(_RENDERED_SIDE, self.height)
            hands.append(make_image(GESTURE, person, np.random.default_rng(generator), size=side, samples=8))
        (self.folder / GESTURE).mkdir(parents=True, exist_ok=True)
        entries: dict[str, dict[str, Any]] = {"train": {}, "test": {}}
        for index in range(self.count + NUM_TEST):
            hand = hands[index % self.hands]
            pixels, box = self._photograph(hand.pixels, hand.box, np.random.default_rng([3, index]))
            Image.fromarray(pixels).save(self.folder / GESTURE / f"{index:04d}.jpg", quality=90)
            split = "test" if index >= self.count else "train"
            entries[split][f"{index:04d}"] = {"bboxes": [box], "labels": [GESTURE], "user_id": f"{split}-{index}"}
        for split, values in entries.items():
            file = self.folder / "annotations" / split / f"{GESTURE}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(values))

    def _photograph(
        self, hand: np.ndarray, box: Sequence[float], generator: np.random.Generator
    ) -> tuple[np.ndarray, list[float]]:
        """Enlarge a hand to the middle of a photograph of 4:3 with grain; half of them are mirrored."""
        x, y, width, height = box
        if generator.random() < 0.5:
            hand, x = hand[:, ::-1], 1 - x - width
        side = self.height
        square = Image.fromarray(hand).resize((side, side), Image.Resampling.BICUBIC)
        margin = side // 6
        pixels = np.pad(np.asarray(square, np.float32), ((0, 0), (margin, margin), (0, 0)), "edge")
        pixels += generator.normal(0, 2.5, (*pixels.shape[:2], 1))
        scale = side / pixels.shape[1]
        relative = [(x * side + margin) / pixels.shape[1], y, width * scale, height]
        return pixels.clip(0, 255).round().astype(np.uint8), [float(np.clip(value, 0, 1)) for value in relative]
