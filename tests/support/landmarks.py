"""Random landmarks of an image set, and their comparison."""

import numpy as np

from hand1000.hands.landmarks import Landmarks


def random_landmarks(count: int = 6, without_hand: tuple[int, ...] = ()) -> Landmarks:
    generator = np.random.default_rng(3)
    found = np.array([index not in without_hand for index in range(count)])
    return Landmarks(
        np.where(found[:, None, None], generator.random((count, 21, 3)), 0.0).astype(np.float32),
        found,
        generator.random(count).astype(np.float32),
        generator.random(count) < 0.5,
        tuple(f"{index}.png" for index in range(count)),
    )


def equal_landmarks(a: Landmarks, b: Landmarks) -> bool:
    return a.file_names == b.file_names and all(
        np.array_equal(getattr(a, name), getattr(b, name)) for name in ("landmarks", "found", "score", "right")
    )
