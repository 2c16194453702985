"""What a newcomer waits for first: the import of the library."""

import subprocess
import sys
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
            note=_describe_import,
        ),
        options,
    )


def _run_python(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, cwd=_ROOT)


def _describe_import(ratio: float) -> str:
    """Say how much of the time is diffusers' own import of the pipeline's base class."""
    begun = time.perf_counter()
    _run_python("from diffusers import DiffusionPipeline")
    seconds = time.perf_counter() - begun
    return (
        f"`from diffusers import DiffusionPipeline`, the base class, takes {seconds:.2f} s by itself, since diffusers "
        "imports `torch._dynamo` and the parts of all its pipelines; the goal needs a change there"
    )
