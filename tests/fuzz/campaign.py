"""Many runs: drawn, run, judged and counted."""

from __future__ import annotations

import gc
import multiprocessing
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random

from .corpus import make_corpus
from .judgement import Finding, judge, list_files
from .lines import HEALTHY, Line
from .runner import run_line, warm_up
from .targets import TARGETS

HEALTHY_TARGET = "healthy"
MEMORY_FOLDER = "/dev/shm"
"""Copies of the healthy files take a tenth of the time there."""
OFTEN = {"options": 4, "odd_rasters": 3, "raster_bytes": 2, "own_json": 2, "places": 2}
"""How often a target has its turn while another has it once."""


@dataclass(frozen=True)
class Case:
    """One run to make; the same numbers draw the same damage and the same line."""

    target: str
    seed: int
    number: int

    @property
    def command(self) -> str:
        """What makes this run again."""
        if self.target == HEALTHY_TARGET:
            return "python -m tests.fuzz --healthy"
        return (
            f"python -m tests.fuzz --target {self.target} --seed {self.seed} "
            f"--first {self.number} --runs 1 --keep KEPT"
        )


@dataclass(frozen=True)
class Outcome:
    """What came of a case."""

    case: Case
    line: Line
    code: int
    findings: list[Finding]


@dataclass
class Counts:
    """How many runs ended how."""

    runs: Counter[str] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    findings: Counter[str] = field(default_factory=Counter)

    def add(self, name: str, outcome: Outcome):
        """Count a run under a name."""
        self.runs[name] += 1
        self.done[name] += outcome.code == 0
        self.refused[name] += outcome.code == 2
        self.findings[name] += bool(outcome.findings)

    def to_markdown(self, heading: str) -> str:
        """Return a table with a row for each name and their sum."""
        lines = [
            f"| {heading} | runs | exit 0 | exit 2 | findings |",
            "| --- | --- | --- | --- | --- |",
        ]
        counters = (self.runs, self.done, self.refused, self.findings)
        for name in sorted(self.runs):
            lines.append(f"| {name} | " + " | ".join(f"{c[name]:,}" for c in counters) + " |")
        lines.append("| all | " + " | ".join(f"{c.total():,}" for c in counters) + " |")
        return "\n".join(lines)


def draw_cases(targets: Sequence[str], seed: int, first: int, runs: int) -> Iterator[Case]:
    """Yield so many cases, the targets taking turns."""
    turns = [target for target in targets for _ in range(OFTEN.get(target, 1))]
    for number in range(first, first + runs):
        yield Case(turns[number % len(turns)], seed, number)


def list_healthy() -> Iterator[Case]:
    """Yield a case for each healthy line, on files that nothing has damaged."""
    return (Case(HEALTHY_TARGET, 0, number) for number in range(len(HEALTHY)))


def run_cases(
    cases: Iterator[Case], *, workers: int, minutes: float | None = None, keep: Path | None = None
) -> Iterator[Outcome]:
    """Run cases in forked processes and yield what came of them, as they end.

    Args:
        cases: What to run.
        workers: How many at a time.
        minutes: No case is begun after so many.
        keep: Folder that is left behind, with the damaged files and what was printed.
    """
    ends = time.monotonic() + 60 * minutes if minutes else float("inf")
    in_memory = MEMORY_FOLDER if os.access(MEMORY_FOLDER, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=in_memory) as made:
        corpus = Path(made) / "corpus"
        context = multiprocessing.get_context("fork")
        # torch and GDAL start threads here, which forked processes would miss.
        maker = context.Process(target=_make_quietly, args=(corpus,))
        maker.start()
        maker.join()
        if maker.exitcode:
            raise RuntimeError(f"the healthy files could not be made: {maker.exitcode}")
        warm_up()
        # What is there stays there, so that forked processes share it.
        gc.freeze()
        run = partial(_run_case, corpus=corpus, made=Path(made), keep=keep)
        with ProcessPoolExecutor(workers, context) as pool:
            yield from _run_ahead(pool, run, cases, 2 * workers, ends)


def _run_ahead(
    pool: ProcessPoolExecutor,
    run: Callable[[Case], Outcome],
    cases: Iterator[Case],
    ahead: int,
    ends: float,
) -> Iterator[Outcome]:
    """Yield outcomes as they come, never more than a few cases ahead."""
    waiting: set[Future[Outcome]] = set()
    while True:
        while len(waiting) < ahead and time.monotonic() < ends:
            case = next(cases, None)
            if case is None:
                break
            waiting.add(pool.submit(run, case))
        if not waiting:
            return
        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        yield from (future.result() for future in done)


def _make_quietly(corpus: Path):
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    make_corpus(corpus)


def _damage(case: Case, home: Path) -> Line:
    if case.target == HEALTHY_TARGET:
        return list(HEALTHY.values())[case.number]
    return TARGETS[case.target](Random(f"{case.target} {case.seed} {case.number}"), home)


def _run_case(case: Case, corpus: Path, made: Path, keep: Path | None) -> Outcome:
    base = made / f"{case.target}-{case.number}"
    root = base / "root"
    try:
        shutil.copytree(corpus, root / "home", symlinks=True)
        line = _damage(case, root / "home")
        before = list_files(root)
        run = run_line(line.words, root / "home", base / "scratch")
        findings = judge(line, run, root, before)
        if case.target == HEALTHY_TARGET and run.code and not findings:
            findings = [Finding("refused", " ".join(line.words), run.stderr)]
        if keep is not None:
            shutil.copytree(base, keep, symlinks=True, dirs_exist_ok=True)
        return Outcome(case, line, run.code, findings)
    except Exception as error:
        error.add_note(f"in the fuzz itself: {case.command}")
        raise
    finally:
        shutil.rmtree(base, ignore_errors=True)
