"""What a newcomer waits for: the import of the library, and a second run of the demo that finds everything done."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.rows import BenchOptions, Comparison, Row, measure_row

_ROOT = Path(__file__).parents[1]


def measure_rows(options: BenchOptions) -> Iterator[Row]:
    """Yield the rows of starting; none in short, as there is nothing to compare."""
    if options.short:
        return
    yield measure_row(
        Comparison(
            "`from hand1000 import Hand1000Pipeline`",
            "`import torch`",
            run_product=lambda: _run_python("from hand1000 import Hand1000Pipeline"),
            run_peer=lambda: _run_python("import torch"),
            limit=3.5,
        ),
        options,
    )
    with tempfile.TemporaryDirectory(prefix="hand1000-startup-") as folder:
        yield _repeat_demo(Path(folder), options)


def _run_python(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, cwd=_ROOT)


def _repeat_demo(folder: Path, options: BenchOptions) -> Row:
    """Measure the short demo, then the same command again; equal are the artifacts before and after."""
    from tests.support.short_demo import PYFLYTE, inputs_file

    command = [str(PYFLYTE), "run", "workflows/train_gesture.py", "train_gesture", "--root", str(folder / "root")]
    command += ["--inputs-file", str(inputs_file(folder))]
    variables = os.environ | {"HAND1000_CACHE": str(folder / "cache")}
    variables.pop("MLFLOW_TRACKING_URI", None)

    def run() -> float:
        begun = time.perf_counter()
        subprocess.run(command, check=True, cwd=_ROOT, env=variables, capture_output=True)
        return time.perf_counter() - begun

    first, made = run(), _list_artifacts(folder)
    again = [run()]
    while len(again) < options.repeats and sum(again) * (len(again) + 1) / len(again) < options.seconds:
        again.append(run())
    return Row(
        "a second, unchanged demo, with little work in the first",
        "the first",
        tuple(again),
        (first,),
        equal=_list_artifacts(folder) == made,
        limit=4.0,
    )


def _list_artifacts(folder: Path) -> list[tuple[str, int]]:
    paths = sorted((folder / "root/artifacts").rglob("*"))
    return [(str(path), path.stat().st_mtime_ns) for path in paths if path.is_file()]
