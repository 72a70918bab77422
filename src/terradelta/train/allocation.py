"""Memory of the tensors of a step, kept for those of the next."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

# Parameters of mallopt(3), and glibc's own values of them.
M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES = -1, 128 * 1024
M_MMAP_MAX, MMAP_MAX_BLOCKS = -4, 65536
NEVER = -1


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Let the C library keep what tensors free, for the next ones.

    glibc gives large blocks back to the kernel at once, which clears the pages of the next ones,
    and the steps of a training ask for the same blocks again and again. Afterwards all of it is
    given back. Nothing happens where the C library is another one.
    """
    try:
        library = ctypes.CDLL("libc.so.6")
    except OSError:
        yield
        return
    library.mallopt(M_MMAP_MAX, 0)
    library.mallopt(M_TRIM_THRESHOLD, NEVER)
    try:
        yield
    finally:
        library.mallopt(M_MMAP_MAX, MMAP_MAX_BLOCKS)
        library.mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)
        library.malloc_trim(0)
