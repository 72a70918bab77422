"""Memory that tensors have freed: kept for the next ones, or given back to the system."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

# Parameters of mallopt(3), and glibc's own values of them.
M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES = -1, 128 * 1024
M_MMAP_MAX, MMAP_MAX_BLOCKS = -4, 65536
NEVER = -1


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Let the C library keep what tensors free, for the next ones; all goes back at the end.

    glibc gives large blocks back to the kernel at once, which clears the pages of the next ones,
    and the steps of a training ask for the same blocks again and again. Nothing happens where the
    C library is another one.
    """
    library = _find_glibc()
    if library is None:
        yield
        return
    library.mallopt(M_MMAP_MAX, 0)
    library.mallopt(M_TRIM_THRESHOLD, NEVER)
    try:
        yield
    finally:
        library.mallopt(M_MMAP_MAX, MMAP_MAX_BLOCKS)
        library.mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)
        return_freed_memory()


def return_freed_memory() -> None:
    """Give freed memory back to the system, if the C library supports it.

    Otherwise work that fits into memory that the process once freed seems to take none.
    """
    library = _find_glibc()
    if library is not None:
        library.malloc_trim(0)


def _find_glibc() -> ctypes.CDLL | None:
    """Return the C library of this process if it is glibc."""
    library = ctypes.CDLL(None) if os.name == "posix" else None
    return library if hasattr(library, "malloc_trim") else None
