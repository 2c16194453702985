"""Which packages a new process imports, and those that take so long that nobody should wait for them in vain."""

import os
import subprocess
import sys
from collections.abc import Iterable

from tests.support.short_demo import ROOT

COMPUTING = {"torch", "diffusers", "transformers", "peft", "mediapipe", "cv2", "mitsuba", "scipy", "skimage", "sklearn"}
RECORDING = {"mlflow", "sqlalchemy", "alembic", "pandas", "boto3", "fastapi", "matplotlib"}
HEAVY = COMPUTING | RECORDING
"""Packages that take a tenth of a second to several seconds to import."""


def packages_in(trace: str) -> set[str]:
    """The top packages of the modules in the trace of `python -X importtime`."""
    lines = (line for line in trace.splitlines() if line.startswith("import time:"))
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


def run_traced(*arguments: str) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """Run Python with these arguments to its good end; return it and the top packages that it imported."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done, packages_in(done.stderr)


def import_modules(names: Iterable[str]) -> set[str]:
    """Import modules in a new process; return the top packages of all that came with them."""
    return run_traced("-c", "\n".join(f"import {name}" for name in sorted(names)))[1]
