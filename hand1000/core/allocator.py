"""The heap of the C library, which computations on a processor fill and empty again in each step."""

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""Parameters of glibc's `mallopt`."""

_LARGEST_MMAP_THRESHOLD = 32 << 20
_KEPT_BYTES, _PADDING_BYTES = 1 << 30, 64 << 20


@contextlib.contextmanager
def reused_heap() -> Iterator[None]:
    """Keep freed memory in the process inside the context, and return it to the system at the end.

    glibc returns the memory of freed tensors at once, so that the system has to clear each page again in the next
    step. Blocks above 32 MB are returned as before. Nothing happens where another C library is used or `MALLOC_*`
    variables set the heap.
    """
    library = _load_glibc()
    if library is None or any(name.startswith("MALLOC_") for name in os.environ):
        yield
        return
    for parameter, value in (
        (_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD),
        (_TRIM_THRESHOLD, _KEPT_BYTES),
        (_TOP_PAD, _PADDING_BYTES),
    ):
        library.mallopt(parameter, value)
    try:
        yield
    finally:
        library.malloc_trim(0)


def _load_glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None
