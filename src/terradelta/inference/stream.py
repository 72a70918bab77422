"""Passes blocks through the network; reading and writing run in other threads.

Legend of the array names: H rows, W columns.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from rasterio.windows import Window
from tqdm import tqdm

from terradelta.geo.pair import PairWindow
from terradelta.inference.pace import Pace
from terradelta.inference.predictor import Predictor
from terradelta.inference.store import BlockFacts, FinishedBlock
from terradelta.inference.tiling import Block, BlockPlan, offset_slices
from terradelta.protocols import Sink

MAX_UNWRITTEN = 2
"""Answered blocks that may wait to be written; beyond it the network waits, to bound memory."""


def answer_blocks(
    predictor: Predictor,
    read: Callable[[Window], PairWindow],
    plan: BlockPlan,
    indices: Sequence[int],
    sink: Sink,
    *,
    read_ahead: int = 1,
    pace: Pace | None = None,
    total: int | None = None,
):
    """Answer blocks and give them to a sink.

    Reading, the network and writing overlap; memory is bounded by `read_ahead`.

    Args:
        predictor: The models.
        read: Returns the pixels of a window; called from one thread only.
        plan: The blocks.
        indices: Numbers of the blocks to answer.
        sink: Receives the answers; called from one other thread only.
        read_ahead: Number of blocks that may be read ahead of the network.
        pace: Chooses the number of views of each block.
        total: Blocks that the progress bar counts, including those done before.

    Raises:
        RasterError: If pixels cannot be read; blocks answered before that are kept.
        OutputError: If an answer cannot be written; other errors of a sink are raised unchanged.
    """
    pace = pace or Pace(predictor.num_views)
    total = total or len(indices)
    pixels_left = sum(_count_pixels(plan[index]) for index in indices)
    writing: deque[Future[None]] = deque()
    with (
        ThreadPoolExecutor(1, "reader") as reader,
        ThreadPoolExecutor(1, "writer") as writer,
        tqdm(
            total=total,
            initial=total - len(indices),
            desc="predicting",
            unit="block",
            disable=None,
        ) as progress,
    ):
        try:
            finished = time.monotonic()
            for block, window in _read_ahead(reader, read, plan, indices, read_ahead):
                pixels = _count_pixels(block)
                num_views = pace.choose(pixels_left)
                started = time.monotonic()
                maps = predictor.map_window(window, block.read, block.tiles, block.write, num_views)
                network_seconds = time.monotonic() - started
                pace.learn(pixels, num_views, network_seconds)
                pixels_left -= pixels
                if len(writing) == MAX_UNWRITTEN:
                    writing.popleft().result()
                seconds, finished = time.monotonic() - finished, time.monotonic()
                facts = BlockFacts(num_views, seconds, network_seconds)
                valid_HW = window.valid_HW[offset_slices(block.write, block.read)]
                finished_block = FinishedBlock(block.index, block.write, maps, valid_HW, facts)
                writing.append(writer.submit(sink.put, finished_block))
                progress.update()
        finally:
            # Also after a failure, so that no answer is lost.
            while writing:
                writing.popleft().result()


def _read_ahead(
    reader: ThreadPoolExecutor,
    read: Callable[[Window], PairWindow],
    plan: BlockPlan,
    indices: Sequence[int],
    depth: int,
) -> Iterator[tuple[Block, PairWindow]]:
    waiting: deque[tuple[Block, Future[PairWindow]]] = deque()
    try:
        for index in indices:
            block = plan[index]
            waiting.append((block, reader.submit(read, block.read)))
            if len(waiting) > depth:
                block, window = waiting.popleft()
                yield block, window.result()
        while waiting:
            block, window = waiting.popleft()
            yield block, window.result()
    finally:
        for _, window in waiting:
            window.cancel()


def _count_pixels(block: Block) -> int:
    return int(block.write.width * block.write.height)
