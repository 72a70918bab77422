"""Divides a memory budget between the network, GDAL's cache and reading ahead."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import psutil

from terradelta.errors import ArgumentError
from terradelta.inference.predictor import BYTES_PER_MAP_PIXEL, Predictor
from terradelta.inference.tiling import Block

PROCESS_BYTES = 600 * 1024**2
"""Memory of a process with Python, torch and GDAL before it answers; the real one counts only where
it is larger, as inside of a notebook, so that a budget does not fit one time and not the next."""
MEGABYTE = 1024**2
FOOTPRINTS: dict[tuple[str, str], tuple[float, int]] = {
    ("torch", "fp32"): (1.3, 250 * MEGABYTE),
    ("torch", "bf16"): (0.9, 250 * MEGABYTE),
    ("torch", "fp16"): (0.9, 250 * MEGABYTE),
    ("torch-compile", "fp32"): (1.3, 400 * MEGABYTE),
    ("torch-compile", "bf16"): (0.9, 400 * MEGABYTE),
    ("torch-compile", "fp16"): (0.9, 400 * MEGABYTE),
    ("openvino", "fp32"): (1.6, 400 * MEGABYTE),
    ("openvino", "bf16"): (1.2, 400 * MEGABYTE),
    ("openvino", "int8"): (1.2, 400 * MEGABYTE),
    ("onnx", "fp32"): (1.6, 400 * MEGABYTE),
}
"""Memory of a runtime: a multiple of the bytes of a network's features in torch at float32, and
what it takes besides. Upper bounds of what the default network and an FCN took with torch and
OpenVINO; int8, onnx and torch-compile are presumed to be alike."""
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

    Raises:
        ArgumentError: If not even one block at a time fits.
    """
    pixels = int(block.read.width * block.read.height)
    cache_bytes = plan_cache_bytes(budget_bytes)
    # The mask beside the image.
    input_bytes = pixels * (input_bytes_per_pixel + 1)
    process_bytes = max(PROCESS_BYTES, psutil.Process().memory_info().rss)
    fixed_bytes = process_bytes + cache_bytes
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
    """Return the bytes that answering the block's largest tile takes, an upper bound.

    It is computed from the networks' features and the runtime, not measured, so that a budget fits
    or does not fit a job each time.
    """
    pixels = max(int(tile.read.width * tile.read.height) for tile in block.tiles)
    pixels *= predictor.batch_size
    seen = predictor.seen_pixels
    seen_pixels = pixels * seen.enlargement**2 / seen.reduction**2
    choice = predictor.choice
    live = predictor.live_bytes
    # The graph of a compiled model keeps its memory, torch gives it to the next one.
    bytes_per_pixel = max(live) if choice.backend == "torch" else sum(live)
    share, fixed_bytes = FOOTPRINTS[choice.backend, choice.precision]
    if predictor.device.type != "cpu":
        share = 0.0
    return int(
        seen_pixels * bytes_per_pixel * share
        + pixels * BYTES_PER_MAP_PIXEL
        + fixed_bytes * len(live)
    )
