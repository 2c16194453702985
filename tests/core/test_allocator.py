"""Freed memory is reused inside the context, and returned at its end."""

import subprocess
import sys

CODE = """
import resource
import numpy as np
from hand1000.core.allocator import reused_heap

def count_faults():
    begun = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        arrays = [np.ones(1 << 18) for _ in range(40)]
        del arrays
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - begun

def resident():
    return int(open("/proc/self/statm").read().split()[1])

plain = count_faults()
with reused_heap():
    count_faults()
    reused, inside = count_faults(), resident()
print(plain, reused, inside, resident())
"""


def test_freed_memory_is_reused_and_returned_at_the_end() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], check=True, capture_output=True, text=True)
    plain, reused, inside, after = map(int, done.stdout.split())
    assert reused < plain / 10 and after < inside
