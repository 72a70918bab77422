"""Overheads besides the network: start-up and import times, and the speed of counting.

Run: `python benchmarks/overheads.py`.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np

from terradelta.evaluation.confusion import count_confusion

ROUNDS = 5
LINES = {
    "python -c pass": ["-c", "pass"],
    "import terradelta": ["-c", "import terradelta"],
    "terradelta --help": ["-m", "terradelta.cli", "--help"],
    "terradelta predict --help": ["-m", "terradelta.cli", "predict", "--help"],
    "import torch": ["-c", "import torch"],
    "import terradelta.mapping.run": ["-c", "from terradelta.mapping.run import predict"],
}
SIDE_PX = 4096
IDS = 7


def measure_starts() -> list[dict]:
    """Return the times of processes, run in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in LINES}
    for _ in range(ROUNDS):
        for name, line in LINES.items():
            started = time.perf_counter()
            run_python(line)
            seconds[name].append(time.perf_counter() - started)
    return [
        {
            "line": name,
            "median, s": f"{statistics.median(taken):.2f}",
            "least, s": f"{min(taken):.2f}",
        }
        for name, taken in seconds.items()
    ]


def run_python(line: Sequence[str]):
    """Run a line in its own process."""
    subprocess.run([sys.executable, *line], check=True, stdout=subprocess.DEVNULL)


def measure_counting() -> list[dict]:
    """Return the speed of confusion counts beside a copy of the same bytes."""
    random = np.random.default_rng(0)
    predicted, true = random.integers(0, IDS, (2, SIDE_PX, SIDE_PX)).astype(np.uint8)
    ways: dict[str, Callable[[], object]] = {
        "copy of both maps": lambda: (predicted.copy(), true.copy()),
        "one bincount over all": lambda: np.bincount(
            (predicted.astype(np.int64) * IDS + true).ravel(), minlength=IDS * IDS
        ),
        "count_confusion": lambda: count_confusion(predicted, true, IDS),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - started)
    return [
        {
            "way": name,
            "Mpx/s": f"{SIDE_PX**2 / statistics.median(taken[1:]) / 1e6:.0f}",
            "GB/s of labels": f"{2 * SIDE_PX**2 / statistics.median(taken[1:]) / 1e9:.2f}",
        }
        for name, taken in seconds.items()
    ]


def measure() -> dict[str, list[dict]]:
    """Return the tables of this file."""
    return {
        "Starting": measure_starts(),
        f"Counting: two maps of {SIDE_PX} x {SIDE_PX} uint8, {IDS} ids": measure_counting(),
    }


if __name__ == "__main__":
    from tables import print_tables

    print_tables(measure())
