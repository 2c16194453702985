"""Duration and peak memory of the selection from a million images.

python -m benchmarks.selection --images 1000000
"""

import argparse
import contextlib
import json
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from hand1000.config.data_settings import FilterSettings
from hand1000.data.selection import select_images


class SyntheticSource:
    """A source in HaGRID's layout whose annotations are on disk and whose images are only names."""

    root = "synthetic"
    concurrency = 2

    def __init__(self, folder: Path, num_images: int) -> None:
        self._folder, self._num_images = folder, num_images
        rng = random.Random(0)
        with open(folder / "four.json", "w") as file:
            file.write("{")
            for number in range(num_images):
                x, y, width, height = (rng.random() / 2 for _ in range(4))
                landmarks = [[round(rng.random(), 6), round(rng.random(), 6)] for _ in range(21)]
                entry = {
                    "bboxes": [[x, y, width, height]],
                    "labels": ["four"],
                    "user_id": f"{rng.randrange(max(2, num_images // 16)):064x}",
                    "hand_landmarks": [landmarks],
                }
                file.write(f"{', ' if number else ''}{json.dumps(_name(number))}: {json.dumps(entry)}")
            file.write("}")

    def list_folders(self, parent: str = "") -> list[str]:
        """See `hand1000.storage.sources.Source`."""
        return ["annotations", "four"]

    def list_files(self, folder: str) -> Iterator[str]:
        """See `hand1000.storage.sources.Source`."""
        if folder == "annotations/train":
            yield "annotations/train/four.json"
        elif folder == "four":
            yield from (f"four/{_name(number)}.jpg" for number in range(self._num_images))

    def list_links(self, folder: str) -> Iterator[tuple[str, bool]]:
        """See `hand1000.storage.sources.Source`."""
        return iter(())

    def file_version(self, name: str) -> list[int | str]:
        """See `hand1000.storage.sources.Source`."""
        return [0]

    @contextlib.contextmanager
    def local_path(self, name: str) -> Iterator[Path]:
        """See `hand1000.storage.sources.Source`."""
        yield self._folder / Path(name).name


def _name(number: int) -> str:
    return f"{number:08x}-0000-4000-8000-{number * 7919:012x}"


def main() -> None:
    """Select from a synthetic listing and print duration and memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = SyntheticSource(Path(folder), options.images)
        megabytes = (Path(folder) / "four.json").stat().st_size / 1e6
        start = time.monotonic()
        filters = FilterSettings(min_hand_size=0.05, allow_border_hands=True, max_hands=2, min_detector_iou=0)
        selection = select_images(source, ("four",), num_train=1000, num_test=1000, seed=1, filters=filters)
        seconds = time.monotonic() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{options.images} images, {megabytes:.0f} MB of annotations: {len(selection.train)} + {len(selection.test)} "
        f"selected in {seconds:.1f} s, at most {peak:.0f} MiB"
    )


if __name__ == "__main__":
    main()
