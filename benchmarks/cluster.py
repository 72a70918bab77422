"""The cost of sharing blocks among workers: time per block, memory of the driver.

Workers answer at once with the file of a block; the rest is the engine: handing out,
carrying back through Ray, writing. Run: `python benchmarks/cluster.py [--planned 100000]`.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import numpy as np
import psutil
import ray

from terradelta.inference.cluster.crew import Crew
from terradelta.inference.cluster.worker import MAX_BLOCKS_AT_ONCE, Answer, Post
from terradelta.inference.store import BlockFacts
from terradelta.outputs import write_bytes

CONTENT_BYTES = 400_000
"""Size of a block's file: three megapixels of five layers, deflated."""
WORKERS = (1, 2, 4)
BLOCKS = (10, 1000)


class Idler:
    """A worker without work."""

    def __init__(self):
        self._answer = Answer(np.random.default_rng(0).bytes(CONTENT_BYTES), BlockFacts(1, 0, 0))

    def start(self) -> Post:
        """Be ready."""
        return Post("here", MAX_BLOCKS_AT_ONCE)

    def answer(self, index: int, num_views: int) -> Answer:
        """Return the answer for every block."""
        return self._answer


def measure(workers: int, blocks: int) -> dict:
    """Return time and memory of a number of blocks and workers, both started before."""
    actor = ray.remote(Idler).options(num_cpus=0, max_concurrency=MAX_BLOCKS_AT_ONCE)
    process = psutil.Process()
    crew = Crew(actor.remote, lambda: workers, [])
    begun = peak = first = 0

    with tempfile.TemporaryDirectory() as folder:

        def keep(index: int, answer: Answer):
            nonlocal begun, peak, first
            # A few files again and again, as the size of the disk is not measured.
            write_bytes(Path(folder) / f"{index % 100}.tif", answer.content)
            peak = max(peak, process.memory_info().rss)
            if not begun:
                begun, first = time.perf_counter(), process.memory_info().rss

        crew.answer(range(blocks), lambda index: 1, keep)
        seconds = time.perf_counter() - begun
    return {
        "workers": workers,
        "blocks": blocks,
        "ms a block": f"{1000 * seconds / (blocks - 1):.2f}",
        "driver at its first block, MB": f"{first / 1024**2:.0f}",
        "at most, MB": f"{peak / 1024**2:.0f}",
    }


def main():
    """Print a row per case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--planned", type=int, default=100_000, help="blocks of the last case")
    planned = parser.parse_args().planned
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    measure(1, 10)
    for case in [(n, blocks) for n in WORKERS for blocks in BLOCKS] + [(2, planned)]:
        print(measure(*case), flush=True)
    ray.shutdown()


if __name__ == "__main__":
    main()
