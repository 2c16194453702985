"""The README's figure: the last run's first test prompts, base model above, tuned model below.

python -m benchmarks.side_by_side --root artifacts --out docs/four.png
"""

import argparse
from pathlib import Path

from PIL import Image

from hand1000.data.imageset import read_image_set
from hand1000.pipelines.generation import make_image_grid
from hand1000.storage.artifacts import open_store


def main() -> None:
    """Write the figure from the first images in the order of their names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="artifacts")
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    store = open_store(options.root)
    rows: list[Image.Image] = []
    for task in ("generate_base", "generate_tuned"):
        results = sorted(Path(options.root, "results", task).glob("*.json"), key=lambda path: path.stat().st_mtime)
        result = store.get_result(task, results[-1].stem) if results else None
        if result is None:
            raise SystemExit(f"{options.root}: no images of {task}; run `make demo` first")
        folder = store.fetch(result["address"])
        paths = [folder / record.file_name for record in read_image_set(folder)[: options.count]]
        rows += [Image.open(path).convert("RGB") for path in paths]
    make_image_grid(rows, options.count).save(options.out)
    print(options.out)


if __name__ == "__main__":
    main()
