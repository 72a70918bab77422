"""Divides a memory budget between the network, GDAL's cache and reading ahead."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import psutil
import torch

from terradelta.errors import ArgumentError
from terradelta.heap import return_freed_memory
from terradelta.inference.predictor import Predictor
from terradelta.inference.tiling import Block

SAMPLE_SECONDS = 0.002
CACHE_SHARE = 1 / 16
"""Share of the budget for GDAL's block cache; GDAL itself takes 5 % of a machine's memory."""
MAX_CACHE_BYTES = 512 * 1024**2
"""It holds a row of blocks of 512 px of three 8-bit bands and two dates, 170,000 px wide."""
MAX_READ_AHEAD = 4
"""These even out blocks that take longer to read; more would only take memory."""
ANSWER_BYTES_PER_PIXEL = 24
"""Memory per pixel of a block: its layers, their stack, its compressed file, and the sums of the
next pass."""


@dataclass(frozen=True)
class MemoryPlan:
    """The parts of a budget."""

    cache_bytes: int
    """GDAL's block cache."""
    read_ahead: int
    """Blocks that may wait to be answered."""


def plan_memory(
    budget_bytes: int, predictor: Predictor, block: Block, input_bytes_per_pixel: int
) -> MemoryPlan:
    """Return how to spend a budget on blocks of this size.

    The memory of the network is measured on an empty tile.

    Raises:
        ArgumentError: If not even one block at a time fits.
    """
    pixels = int(block.read.width * block.read.height)
    cache_bytes = plan_cache_bytes(budget_bytes)
    # The mask beside the image.
    input_bytes = pixels * (input_bytes_per_pixel + 1)
    fixed_bytes = psutil.Process().memory_info().rss + cache_bytes
    fixed_bytes += estimate_network_bytes(predictor, block)
    fixed_bytes += pixels * ANSWER_BYTES_PER_PIXEL
    # One block is being answered and one is being read, whatever number waits in between.
    read_ahead = (budget_bytes - fixed_bytes) // input_bytes - 1
    if read_ahead < 1:
        needed = fixed_bytes + 2 * input_bytes
        raise ArgumentError(
            f"the memory budget is {budget_bytes / 1024**2:,.0f} MB and this job needs about "
            f"{needed / 1024**2:,.0f} MB",
            fix=f"use --memory {np.ceil(needed / 1024**2 / 100) * 100:.0f}MB or smaller tiles, "
            f"such as --tile-size {predictor.tiling.tile_size_px // 2}",
        )
    return MemoryPlan(cache_bytes, int(min(read_ahead, MAX_READ_AHEAD)))


def plan_cache_bytes(budget_bytes: int) -> int:
    """Return the bytes of a budget for GDAL's block cache."""
    return int(min(MAX_CACHE_BYTES, budget_bytes * CACHE_SHARE))


def estimate_network_bytes(predictor: Predictor, block: Block) -> int:
    """Return the bytes that answering the block's largest tile adds to those of the process now."""
    tile = max(block.tiles, key=lambda tile: tile.read.width * tile.read.height)
    size = int(tile.read.height), int(tile.read.width)
    dtype = torch.uint8 if predictor.value_ranges == (None, None) else torch.float32
    image_BCHW = torch.zeros((predictor.batch_size, len(predictor.bands), *size), dtype=dtype)
    return measure_peak(lambda: predictor.classify(image_BCHW, image_BCHW))


def measure_peak(work: Callable[[], object]) -> int:
    """Return the largest growth of the process in bytes while this ran."""
    return_freed_memory()
    process = psutil.Process()
    before = process.memory_info().rss
    peak = before
    finished = threading.Event()

    def watch():
        nonlocal peak
        while not finished.wait(SAMPLE_SECONDS):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        finished.set()
        watcher.join()
    return peak - before
