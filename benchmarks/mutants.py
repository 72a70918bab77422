"""Change the code in small ways and count the changes that its tests detect.

`make mutants` draws some of Cosmic Ray's mutants of each module, runs the module's own tests on a
copy of the working tree for each, and prints a table and the mutants that survive:

    python benchmarks/mutants.py --mutants 15 --seed 0 --only votes tiling

A mutant that runs longer than the tests could possibly take counts as killed.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shlex
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from cosmic_ray.commands.init import init
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.testing import run_tests
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import MutationSpec, TestOutcome, WorkerOutcome, WorkResult

ROOT = Path(__file__).resolve().parents[1]
TARGETS = {
    "losses": ("losses/*.py", "tests/losses"),
    "votes": (
        "inference/votes.py",
        "tests/inference/test_votes.py tests/inference/test_predictor.py",
    ),
    "tiling": ("inference/tiling.py", "tests/inference/test_tiling.py"),
    "transitions": ("inference/transitions.py", "tests/inference/test_transitions.py"),
    "grid": (
        "geo/grid.py",
        "tests/geo/test_grid.py tests/geo/test_pair.py tests/geo/test_placement.py",
    ),
    "area": (
        "geo/area.py",
        "tests/geo/test_area.py tests/geo/test_placement.py tests/mapping/test_places.py",
    ),
    "estimators": (
        "areas/estimators.py",
        "tests/areas/test_estimators.py",
    ),
    "protection": ("viewer/protection.py", "tests/viewer/test_protection.py"),
}
"""Files under src/terradelta to change, and the tests that should detect them."""
ALIKE = ("Is_Eq", "IsNot_NotEq", "Eq_Is", "NotEq_IsNot")
"""Operators whose mutants are equivalent here: `x == None`, `name is "fcn"`."""


def list_mutants(pattern: str) -> list[list[MutationSpec]]:
    """Return the mutants of some files by the place they change; annotations are left alone."""
    paths = sorted(Path("src/terradelta").glob(pattern))
    annotations = {str(path): set(_find_annotations(path)) for path in paths}
    places = defaultdict(list)
    with use_db("mutants.sqlite", WorkDB.Mode.create) as database:
        init(paths, database, {})
        for item in database.work_items:
            (mutant,) = item.mutations
            place = str(mutant.module_path), *mutant.start_pos
            alike = mutant.operator_name.endswith(ALIKE)
            if not alike and place[1:] not in annotations[place[0]]:
                places[place].append(mutant)
    return [
        sorted(places[place], key=lambda mutant: (mutant.operator_name, mutant.occurrence))
        for place in sorted(places)
    ]


def _find_annotations(path: Path) -> Iterator[tuple[int, int]]:
    """Yield line and column of every character of the file's annotations."""
    text = path.read_text(encoding="utf-8")
    width = max(map(len, text.splitlines()), default=0)
    for node in ast.walk(ast.parse(text)):
        for name in ("annotation", "returns"):
            part = getattr(node, name, None)
            if part is None:
                continue
            for line in range(part.lineno, part.end_lineno + 1):
                first = part.col_offset if line == part.lineno else 0
                last = part.end_col_offset if line == part.end_lineno else width
                yield from ((line, column) for column in range(first, last))


def try_target(name: str, number: int, seed: int) -> tuple[int, list[str]]:
    """Test some mutants of a target; return how many, and a line for each that survived."""
    pattern, tests = TARGETS[name]
    options = "-m pytest -q -x -p no:cacheprovider -p no:xdist --hypothesis-seed=0"
    command = f"{shlex.quote(sys.executable)} {options} {tests}"
    started = time.monotonic()
    outcome, output = run_tests(command, 1200)
    if outcome != TestOutcome.SURVIVED:
        raise SystemExit(f"the tests of {name} fail as the code is:\n{output}")
    limit_seconds = 30 + 4 * (time.monotonic() - started)
    draw = random.Random(f"{seed} {name}")
    places = list_mutants(pattern)
    drawn = draw.sample(places, min(number, len(places)))
    survived = []
    for mutant in map(draw.choice, drawn):
        result = mutate_and_test([mutant], command, limit_seconds)
        if result.worker_outcome != WorkerOutcome.NORMAL:
            raise SystemExit(result.output)
        if not result.is_killed:
            survived.append(_describe(mutant, result))
            print(survived[-1], file=sys.stderr, flush=True)
    return len(drawn), survived


def _describe(mutant: MutationSpec, result: WorkResult) -> str:
    """Return the place of a mutant and its change on one line."""
    lines = (result.diff or "").splitlines()
    was, now = (
        " ".join(x[1:].strip() for x in lines if x[:1] == sign and x[:3] != 3 * sign)
        for sign in "-+"
    )
    return f"{mutant.module_path}:{mutant.start_pos[0]}: `{was}` -> `{now}`"


def copy_tree(folder: Path):
    """Copy the files that the tests read, so that an interrupted run leaves no mutant behind."""
    skipped = shutil.ignore_patterns("__pycache__", "work")
    for name in ("src", "tests", "docs", "recipes", "benchmarks"):
        shutil.copytree(ROOT / name, folder / name, ignore=skipped)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder / name)


def main():
    """Parse the command line, try the targets and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutants", type=int, default=15, help="how many of each target")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--only", nargs="+", choices=TARGETS, default=list(TARGETS))
    options = parser.parse_args()
    rows, survivors, total, killed = [], [], 0, 0
    with tempfile.TemporaryDirectory() as folder:
        copy_tree(Path(folder))
        os.chdir(folder)
        os.environ |= {"PYTHONPATH": str(Path(folder) / "src"), "OMP_NUM_THREADS": "1"}
        for name in options.only:
            tried, survived = try_target(name, options.mutants, options.seed)
            survivors += survived
            total, killed = total + tried, killed + tried - len(survived)
            rows.append(f"| {name} | {tried} | {tried - len(survived)} | {len(survived)} |")
            print(rows[-1], file=sys.stderr, flush=True)
        os.chdir(ROOT)
    print("| module | mutants | killed | survived |", "| --- | --- | --- | --- |", *rows, sep="\n")
    print(f"| all | {total} | {killed} | {total - killed} |", "", *survivors, sep="\n")


if __name__ == "__main__":
    main()
