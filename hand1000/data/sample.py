"""The sample data: rendered pictures in HaGRID's layout, for runs without HaGRID."""

from collections.abc import Callable, Sequence
from pathlib import Path


def sample_root(
    root: Path,
    gestures: Sequence[str],
    *,
    num_train: int,
    num_test: int,
    seed: int,
    resolution: int,
    cache: Path | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Render pictures of `gestures` into `root`, for `hand1000.data.hagrid.select_images` to read.

    Args:
        root: a folder that is new or empty.
        gestures: HaGRID's names.
        num_train: training pictures of each gesture.
        num_test: test pictures of each gesture, of other people.
        seed: of the pictures and the people in them.
        resolution: side of the square pictures, 32 to 512 pixels.
        cache: where the renderer keeps what it can use again; None for its own place in the home directory.
        workers: rendering processes; None for as many as there are cores.
        progress: called with the pictures done and all of them.

    Returns:
        `root`.

    Raises:
        Hand1000Error: a gesture or resolution that cannot be rendered, or a folder that may not be written.
    """
    from hand1000.data.render.dataset import render_dataset

    counts = {gesture: {"train": num_train, "test": num_test} for gesture in gestures}
    render_dataset(root, counts, seed=seed, size=resolution, cache=cache, workers=workers, progress=progress)
    return root
