from __future__ import annotations

import psutil
import pytest
import torch

from terradelta.heap import _find_glibc, keep_freed_memory

SIZE_BYTES = 256 * 2**20


def resident_bytes():
    return psutil.Process().memory_info().rss


@pytest.mark.skipif(_find_glibc() is None, reason="the C library is not glibc")
def test_freed_memory_is_kept_within_and_given_back_after():
    before = resident_bytes()
    torch.ones(SIZE_BYTES // 4)
    assert resident_bytes() - before < SIZE_BYTES / 2
    with keep_freed_memory():
        torch.ones(SIZE_BYTES // 4)
        kept = resident_bytes()
    assert kept - before > SIZE_BYTES / 2
    assert resident_bytes() - before < SIZE_BYTES / 2
