"""Stage I beside the authors' own script, `cal_mean_feature.py` of a checkout of their repository, with its imports.

    git clone https://github.com/Haozhuo-Zhang/Hand1000 FOLDER/Hand1000
    .venv/bin/python -m benchmarks.bench --only authors --peers FOLDER

`benchmarks.distances` and `benchmarks.images` run parts of their scripts. The training needs CUDA and a checkpoint of
Stable Diffusion; `benchmarks.training` has its loop of Stage II.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.published import find_script
from benchmarks.rows import BenchOptions, Comparison, Row, measure_row

STAGE1 = "cal_mean_feature.py"
_IMAGES, _RENDERED, _SIZE = 60, 12, (1024, 1024)
_TOLERANCE = 1e-3
"""Of coordinates relative to the image: both read the same JPEG files, through different libraries."""

_PRODUCT = """
import sys
from pathlib import Path
import numpy as np
from hand1000.data.imageset import ImageRecord
from hand1000.hands.detection import detect_hands
from hand1000.hands.stage1 import gesture_feature
folder = Path("four")
records = [
    ImageRecord(file_name=path.name, gesture="four", user_id=path.stem, source="0" * 64)
    for path in sorted(folder.glob("*.jpg"))
]
landmarks = detect_hands(folder, records, min_detection_confidence=0.5)
np.save("product.npy", gesture_feature(landmarks, kind="raw").mean(axis=0))
"""


def measure_rows(options: BenchOptions) -> Iterator[Row]:
    """Yield the row of Stage I; none without the checkout."""
    script = find_script(options.peers, STAGE1)
    if script is None or options.short:
        return
    import numpy as np

    with tempfile.TemporaryDirectory(prefix="hand1000-authors-") as scratch:
        folder = Path(scratch)
        _write_images(folder)

        def run_product() -> np.ndarray:
            subprocess.run([sys.executable, "-c", _PRODUCT], check=True, cwd=folder, capture_output=True)
            return np.load(folder / "product.npy")

        def run_script() -> np.ndarray:
            command = [sys.executable, str(script), "--gesture", "four"]
            subprocess.run(command, check=True, cwd=folder, capture_output=True)
            return np.load(folder / "four.npy")

        yield measure_row(
            Comparison(
                f"Stage I, mean landmarks of {_IMAGES} JPEGs of {_SIZE[0]} x {_SIZE[1]}",
                "the authors' cal_mean_feature.py, as published",
                run_product=run_product,
                run_peer=run_script,
                is_equal=lambda ours, theirs: bool(np.abs(ours - theirs).max() < _TOLERANCE),
                goal=1.0,
            ),
            options,
        )


def _write_images(folder: Path) -> None:
    """Write JPEG files of rendered hands, enlarged, each with another brightness."""
    import numpy as np
    from PIL import Image

    from hand1000.data.render.dataset import render_dataset

    render_dataset(folder / "rendered", {"four": {"train": _RENDERED}}, seed=0, size=128)
    sources = [Image.open(path).resize(_SIZE) for path in sorted((folder / "rendered/four").glob("*.jpg"))]
    (folder / "four").mkdir()
    for index in range(_IMAGES):
        pixels = np.asarray(sources[index % len(sources)]) * np.random.default_rng(index).uniform(0.8, 1.0)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"four/{index:03}.jpg", quality=95)
