"""Checks whether two commits write the same files: runs a fixed set of command lines at both.

Every line runs at one commit after the other in folders of the same paths, and every file that it
makes is compared, as is its output. Only times are left out of the comparison: dates, and the
seconds of a step. Exit code 1 if a file differs or is missing.

    python benchmarks/same_outputs.py BEFORE AFTER          # or: make same BEFORE=... AFTER=...

Needs no network and no ../shared; takes about ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import csv
import difflib
import json
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pyogrio
import torch

ROOT = Path(__file__).resolve().parents[1]
REFERENCE_KEYS = ROOT / "tests" / "reference" / "state_dict_keys.json"
COMMANDS = Path(__file__).with_suffix(".txt")
"""The command lines, in their order."""
TERMINAL = "(terminal)"
TEXTS = (".csv", ".geojson", ".html", ".log", ".md", ".qml", ".txt", ".vrt", ".xml", ".yaml")
MOMENT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)?")
SECONDS = re.compile(r"(?m)^\d+\.\d s, .* a minute: .*$|, \d+ s$|[\d.]+ GB free")
"""Times of a run or an epoch, and the free memory found by `train`."""
TIMES = ("created", "updated", "modified_ns", "seconds", "km2_per_minute")
"""Keys of JSON files, and columns of tables, that are times."""


def read_commands() -> list[str]:
    """Return the command lines, without comments."""
    lines = COMMANDS.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith("#")]


def run_commands(commit: str, scratch: Path, kept: Path) -> list[Path]:
    """Run the lines at a commit; return for each the folder with the files that it made."""
    source, work = scratch / "source", scratch / "work"
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(source), commit], check=True)
    try:
        work.mkdir()
        write_published(work / "published.pth")
        results = []
        for number, line in enumerate(read_commands()):
            print(f"{commit[:10]}: {line}", file=sys.stderr)
            stamps = stamp(work)
            text = run_line(line, work, source)
            folder = kept / str(number)
            folder.mkdir(parents=True)
            (folder / TERMINAL).write_text(text, encoding="utf-8")
            for name, changed in stamp(work).items():
                if stamps.get(name) != changed:
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(work / name, folder / name)
            results.append(folder)
    finally:
        subprocess.run([*git, "remove", "--force", str(source)], check=True)
    shutil.rmtree(work)
    return results


def run_line(line: str, work: Path, source: Path) -> str:
    """Run a command line in a folder with the package of a source tree; return its output."""
    verb, *arguments = shlex.split(line)
    if verb == "LABEL":
        label(work / arguments[0])
        return "exit code 0\n"
    done = subprocess.run(
        [sys.executable, "-m", "terradelta.cli", verb, *arguments],
        cwd=work,
        env=os.environ | {"PYTHONPATH": str(source / "src"), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return f"{done.stdout}exit code {done.returncode}\n"


def label(path: Path):
    """Answer that every fourth point became a building."""
    table = pyogrio.read_dataframe(path, layer="points")
    is_changed = table["point"] % 4 == 0
    for column, answer in (("changed", "yes"), ("from", "ground"), ("to", "building")):
        table.loc[is_changed, column] = answer
    table.loc[~is_changed, "changed"] = "no"
    pyogrio.write_dataframe(table, path, layer="points", driver="GPKG")


def stamp(folder: Path) -> dict[str, tuple[int, int]]:
    """Return the modification time and the inode of each file below a folder."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    stats = {str(path.relative_to(folder)): path.stat() for path in paths}
    return {name: (stat.st_mtime_ns, stat.st_ino) for name, stat in stats.items()}


def write_published(path: Path):
    """Write a checkpoint as the reference implementation names its weights."""
    shapes = json.loads(REFERENCE_KEYS.read_text(encoding="utf-8"))["fcn_resnet18"]
    generator = torch.Generator().manual_seed(0)
    weights = {
        key: torch.rand(shape, generator=generator) / 8 if shape else torch.tensor(0)
        for key, shape in shapes.items()
    }
    torch.save(weights, path)


def read_text(path: Path) -> str:
    """Return a text without its times."""
    return SECONDS.sub("SECONDS", MOMENT.sub("MOMENT", path.read_text(encoding="utf-8")))


def read_json(path: Path) -> str:
    """Return JSON without the values of the keys that are times."""

    def drop(value: object) -> object:
        if isinstance(value, dict):
            return {key: None if key in TIMES else drop(part) for key, part in value.items()}
        return [drop(part) for part in value] if isinstance(value, list) else value

    content = json.loads(path.read_text(encoding="utf-8"))
    return MOMENT.sub("MOMENT", json.dumps(drop(content), indent=1, ensure_ascii=False))


def read_lines(path: Path) -> str:
    """Return lines of JSON without the values of the keys that are times."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return "\n".join(str({k: v for k, v in row.items() if k not in TIMES}) for row in rows)


def read_csv(path: Path) -> str:
    """Return the rows of a table without the columns that are times."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [{k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(file)]
    return "\n".join(map(str, rows))


def read_geopackage(path: Path) -> str:
    """Return the tables of a GeoPackage as SQL: its bytes depend on how SQLite filled its pages."""
    with sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True) as database:
        text = "\n".join(database.iterdump())
    database.close()
    return MOMENT.sub("MOMENT", text)


def read_program(path: Path) -> str:
    """Return operations and weights of a .pt2; it also holds the source lines they come from."""
    program = torch.export.load(path)
    weights = {key: value.detach() for key, value in program.state_dict.items()}
    hashes = [f"{k} {sha256(v.numpy().tobytes()).hexdigest()}" for k, v in weights.items()]
    return "\n".join([program.graph_module.code, *hashes])


READERS: dict[str, Callable[[Path], str]] = {
    **dict.fromkeys(TEXTS, read_text),
    ".json": read_json,
    ".jsonl": read_lines,
    ".csv": read_csv,
    ".gpkg": read_geopackage,
    ".pt2": read_program,
}
"""How files are read whose bytes hold times; all others are compared byte by byte."""


@dataclass(frozen=True)
class Comparison:
    """The result of a line at two commits."""

    exit_codes: tuple[str, ...]
    identical: int
    differing: dict[str, str]
    """The first lines that differ, by file."""


def compare(before: Path, after: Path) -> Comparison:
    """Compare all files of a line."""
    texts = [(folder / TERMINAL).read_text(encoding="utf-8") for folder in (before, after)]
    exit_codes = tuple(dict.fromkeys(text.rpartition(" ")[-1].strip() for text in texts))
    names = stamp(before).keys() | stamp(after).keys()
    # A block holds the seconds it took; the map that is merged from the blocks is compared.
    names = {name for name in names if ".partial/blocks/" not in name}
    differing = {name: compare_files(before / name, after / name) for name in sorted(names)}
    differing = {name: text for name, text in differing.items() if text is not None}
    return Comparison(exit_codes, len(names) - len(differing), differing)


def compare_files(before: Path, after: Path) -> str | None:
    """Return the difference, or None."""
    for path, commit in ((before, "BEFORE"), (after, "AFTER")):
        if not path.is_file():
            return f"not written at {commit}"
    if before.read_bytes() == after.read_bytes():
        return None
    read = read_text if before.name == TERMINAL else READERS.get(before.suffix)
    if read is None:
        return f"{before.stat().st_size:,} bytes against {after.stat().st_size:,}"
    first, second = (read(path).splitlines() for path in (before, after))
    difference = difflib.unified_diff(first, second, n=0, lineterm="")
    lines = [text for text in difference if text[:2] != "@@"]
    return "\n".join(text[:300] for text in lines[2:8]) or None


def main():
    """Run the lines at both commits and print what differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", help="a commit")
    parser.add_argument("after", help="another")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        git = ["git", "-C", str(ROOT), "rev-parse", arguments.before, arguments.after]
        commits = subprocess.check_output(git, text=True).split()
        before, after = (
            run_commands(commit, Path(scratch), Path(scratch) / str(number))
            for number, commit in enumerate(commits)
        )
        comparisons = dict(zip(read_commands(), map(compare, before, after), strict=True))
    print(" and ".join(commits) + "\n")
    print("| command | exit code | files | identical | differing |")
    print("| --- | --- | --- | --- | --- |")
    for line, found in comparisons.items():
        files, names = found.identical + len(found.differing), ", ".join(found.differing)
        codes = ", then ".join(found.exit_codes)
        print(f"| `{line}` | {codes} | {files} | {found.identical} | {names} |")
    for line, found in comparisons.items():
        for name, text in found.differing.items():
            print(f"\n{line}\n  {name}\n{text}")
    sys.exit(1 if any(found.differing for found in comparisons.values()) else 0)


if __name__ == "__main__":
    main()
