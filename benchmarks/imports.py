"""The CPU time that imports cost, in new processes that take turns: what a command or a repeated run waits for.

python -m benchmarks.imports --rounds 5
"""

import argparse
import os
import statistics
import sys

STATEMENTS = (
    "import torch",
    "import flytekit",
    "import mlflow.store.tracking.sqlalchemy_store",
    "import diffusers.utils",
    "from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel",
    "from diffusers import DiffusionPipeline",
    "from hand1000 import Hand1000Pipeline",
    "import workflows.train_gesture",
)
"""Ours, and the imports of others that bound them from below."""


def measure_cpu_seconds(statement: str) -> float:
    """Return the user and system time in seconds of a new process that executes a statement.

    Raises:
        RuntimeError: The statement fails.
    """
    process = os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, "-c", statement])
    _, status, usage = os.wait4(process, 0)
    if status:
        raise RuntimeError(f"{statement}: ended with status {os.waitstatus_to_exitcode(status)}")
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Print the least and the median time of each statement, and the ratio of the least to torch's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    for statement in STATEMENTS:  # Python compiles what it imports for the first time.
        measure_cpu_seconds(statement)
    times: dict[str, list[float]] = {statement: [] for statement in STATEMENTS}
    for _ in range(rounds):
        for statement in STATEMENTS:
            times[statement].append(measure_cpu_seconds(statement))
    for statement, seconds in times.items():
        ratio = min(seconds) / min(times[STATEMENTS[0]])
        print(f"{min(seconds):6.2f} s, median {statistics.median(seconds):6.2f} s, {ratio:5.2f} x torch  {statement}")


if __name__ == "__main__":
    main()
