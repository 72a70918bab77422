"""A job that is killed again and again, at random moments, and started again each time.

A moment is processor time since the start, so that a busy machine changes nothing. All starts are
forks of one process that has imported everything, so that no kill is spent on imports.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

PROGRAM = """
import json, os, sys
from terradelta.inference import rasters
from terradelta.reports import prediction_page
import openvino
from terradelta.cli import main

rasters.MAX_BLOCK_SIZE_PX = int(sys.argv[1])
for line in sys.stdin:
    arguments, log = json.loads(line)
    child = os.fork()
    if not child:
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        os.dup2(1, 2)
        sys.exit(main(arguments))
    print(child, flush=True)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""
TIMES = ("seconds", "km2_per_minute")
"""What of run.json differs between two runs of one job."""
POLL_SECONDS = 0.01


@dataclass
class Course:
    """How much processor time a job had taken when it reached each stage, in seconds."""

    begun: float = 0.0
    """Its folder was there: everything was opened."""
    first: float = 0.0
    """A block was answered: the network was ready."""
    answered: float = 0.0
    """All blocks were."""
    ended: float = 0.0


@dataclass
class Tally:
    """What became of the kills."""

    opening: int = 0
    """Before the job's folder was there."""
    answering: int = 0
    """While blocks were answered."""
    assembling: int = 0
    """When all were: maps, polygons, report, the final rename."""
    maps: int = 0
    """Runs that got through; each map was compared."""
    newest: Counter[str] = field(default_factory=Counter)
    """The file that an assembly had begun last when it was killed."""

    @property
    def kills(self) -> int:
        """How many there were."""
        return self.opening + self.answering + self.assembling

    def __str__(self) -> str:
        return (
            f"{self.kills} kills: {self.opening} while opening, {self.answering} while answering "
            f"blocks, {self.assembling} while assembling; {self.maps} maps, all the same\n"
            f"assembling: {', '.join(f'{n} x {name}' for name, n in self.newest.most_common())}"
        )

    def count(self, output: Path, blocks: int):
        """Count a kill by what it left behind."""
        if not (_partial(output) / "job.json").exists():
            if output.exists():
                self.assembling += 1
                self.newest["(all was done)"] += 1
            else:
                self.opening += 1
        elif count_blocks(output) < blocks:
            self.answering += 1
        else:
            self.assembling += 1
            begun = (_partial(output) / "assembled").glob("*")
            newest = max(begun, key=lambda path: path.stat().st_mtime_ns, default=None)
            self.newest[newest.name if newest else "(none)"] += 1


class Starter:
    """Starts `terradelta predict`, in a fork of a process that is ready.

    Args:
        block_size_px: Blocks are at most so large.
        line: Inputs and options, without the output.
        folder: Where outputs go.
    """

    def __init__(self, block_size_px: int, line: list[str], folder: Path):
        self._line = line
        self._log = folder / "log.txt"
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(block_size_px)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # Threads of a process do not live on in its forks.
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def __enter__(self) -> Starter:
        return self

    def __exit__(self, *_):
        assert self._process.stdin
        with self._process:
            self._process.stdin.close()

    def run(self, output: Path, watch: Callable[[float], bool]) -> tuple[int, str]:
        """Run the job, killed when `watch` says so; returns the exit code and what was printed.

        Args:
            output: The prediction.
            watch: Is given the processor time taken so far, in seconds, again and again.
        """
        assert self._process.stdin
        assert self._process.stdout
        arguments = ["predict", *self._line, "-o", str(output)]
        self._process.stdin.write(json.dumps([arguments, str(self._log)]) + "\n")
        self._process.stdin.flush()
        child = psutil.Process(int(self._process.stdout.readline()))
        try:
            while child.status() != psutil.STATUS_ZOMBIE:
                times = child.cpu_times()
                if watch(times.user + times.system):
                    os.kill(child.pid, signal.SIGKILL)
                    break
                time.sleep(POLL_SECONDS)
        except (psutil.NoSuchProcess, ProcessLookupError):
            pass
        code = int(self._process.stdout.readline())
        return code, self._log.read_text("utf-8", "replace")


def count_blocks(output: Path) -> int:
    """Return how many blocks of an unfinished job are answered."""
    # Unlike glob, walk bears folders that vanish, as in the end they do.
    files = (name for *_, names in os.walk(_partial(output) / "blocks") for name in names)
    return sum(name.endswith(".tif") for name in files)


def _partial(output: Path) -> Path:
    return output.with_name(f"{output.name}.partial")


def run_whole(starter: Starter, output: Path) -> Course:
    """Run a job to its end and return its course."""
    course = Course()
    done = 0

    def watch(seconds: float) -> bool:
        nonlocal done
        course.ended = seconds
        if not course.begun and (_partial(output) / "job.json").exists():
            course.begun = seconds
        if (found := count_blocks(output)) > done:
            done = found
            course.first = course.first or seconds
            course.answered = seconds
        return False

    code, log = starter.run(output, watch)
    assert code == 0, log
    return course


def kill_again_and_again(
    starter: Starter, whole: Path, course: Course, blocks: int, kills: int, seed: int
) -> Tally:
    """Kill a job at so many moments; each time it gets through, compare its map and start again.

    Args:
        starter: What starts the job.
        whole: Its prediction, made without being killed.
        course: How that went; moments are drawn from what a start takes, and a few blocks.
        blocks: How many there are.
        kills: How many to make.
        seed: Of the moments.
    """
    moments = random.Random(seed)
    tally = Tally()
    output = whole.with_name("killed")
    assembly = course.ended - course.answered + course.begun
    while tally.kills < kills or _partial(output).exists():
        done = count_blocks(output)
        longest = 1.2 * assembly if done == blocks else 3 * course.first
        moment = moments.uniform(0, longest) if tally.kills < kills else float("inf")
        code, log = starter.run(output, lambda seconds, moment=moment: seconds >= moment)
        if code == 0:
            assert_same_prediction(output, whole)
            shutil.rmtree(output)
            tally.maps += 1
            continue
        assert code == -signal.SIGKILL, log
        tally.count(output, blocks)
        if output.exists() and not _partial(output).exists():
            # Killed when all was done.
            assert_same_prediction(output, whole)
            shutil.rmtree(output)
            tally.maps += 1
    return tally


def assert_same_prediction(folder: Path, other: Path):
    """Fail unless all files are the same byte for byte, but for the times in run.json."""
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    assert names == sorted(str(path.relative_to(other)) for path in other.rglob("*"))
    for name in names:
        if (folder / name).is_file() and name != "run.json":
            assert (folder / name).read_bytes() == (other / name).read_bytes(), name
    runs = [json.loads((each / "run.json").read_text()) for each in (folder, other)]
    for run in runs:
        for key in TIMES:
            del run[key]
    assert runs[0] == runs[1]
