"""What a run must be like, whatever it was given."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rasterio

from terradelta.ownership import MANIFEST_FILE

from .corpus import MADE
from .lines import IN_PLACE, RESUMABLE, Line
from .runner import CPU_SECONDS, WALL_SECONDS, Run

FALSE = ("no", "n", "false", "f", "0")
"""What turns a flag off."""
PEAK_BYTES = 1024**3
"""Far more than any run on files of this size needs."""
OWN_FILES = ("points.gpkg", "points_chips")
"""What --overwrite may replace beside `MADE`."""
REVIEWED = "home/reviewed/changes.gpkg"
REVIEWS_COPY = r"home/[\w.-]+\.reviews-\d+\.gpkg"
"""Where reviews are kept when a prediction is replaced."""
Listing = dict[str, tuple]


@dataclass(frozen=True)
class Finding:
    """A way in which a run was not as it must be."""

    kind: str
    """traceback, signal, exit code, late, memory, message, lost, touched, leftover, content."""
    where: str
    """What two findings of one cause have in common: exception and innermost own frame, a path."""
    detail: str
    """The last lines of what was printed, or the paths."""


def list_files(root: Path) -> Listing:
    """Return what lies below a folder: folders, links and the digests of files."""
    listing: Listing = {}
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = os.path.join(folder, name)  # noqa: PTH118
            key = os.path.relpath(path, root)
            if os.path.islink(path):  # noqa: PTH114
                listing[key] = ("link", os.readlink(path))  # noqa: PTH115
            elif name in folders:
                listing[key] = ("folder",)
            else:
                with open(path, "rb") as file:  # noqa: PTH123
                    listing[key] = ("file", hashlib.file_digest(file, "sha256").hexdigest())
    return listing


def judge(line: Line, run: Run, root: Path, before: Listing) -> list[Finding]:
    """Return all that is wrong with a run.

    Args:
        line: What was run.
        run: How it ended.
        root: The folder that holds `home`, where it ran.
        before: What lay there before it ran.
    """
    findings = [*_judge_end(run), *_judge_memory(run)]
    if not findings:
        findings += _judge_message(line, run)
    findings += _judge_files(line, run, root, before)
    if run.code == 0 and not findings:
        findings += _judge_content(line, run, root / "home")
    return findings


def _judge_end(run: Run) -> list[Finding]:
    tail = "\n".join(run.stderr.splitlines()[-12:])
    if run.is_late or run.code == -signal.SIGXCPU:
        limit = f"{CPU_SECONDS} s of CPU or {WALL_SECONDS} s"
        return [Finding("late", limit, tail)]
    if "Traceback (most recent call last)" in run.stderr:
        return [Finding("traceback", find_frame(run.stderr), tail)]
    if run.code < 0:
        return [Finding("signal", f"{signal.Signals(-run.code).name} {_find_fault(run)}", tail)]
    if run.code not in (0, 2):
        return [Finding("exit code", str(run.code), tail)]
    return []


def _judge_memory(run: Run) -> list[Finding]:
    if run.peak_bytes <= PEAK_BYTES:
        return []
    return [Finding("memory", f"above {PEAK_BYTES / 1e9:.1f} GB", f"{run.peak_bytes:,} bytes")]


def find_frame(stderr: str) -> str:
    """Return the exception of the last traceback and the innermost frame of terradelta in it."""
    last = stderr.rpartition("Traceback (most recent call last)")[2]
    frames = re.findall(r'File "[^"]*?/(terradelta/[^"]+)", line (\d+), in (\S+)', last)
    raised = re.findall(r"^([A-Za-z_][\w.]*)(?::|$)", last, re.MULTILINE)
    place = ":".join(frames[-1]) if frames else "no frame of terradelta"
    return f"{raised[0] if raised else 'unknown'} at {place}"


def _find_fault(run: Run) -> str:
    frames = re.findall(r'File "[^"]*?/(terradelta/[^"]+)", line (\d+) in (\S+)', run.stderr)
    return ":".join(frames[0]) if frames else ""


def _judge_message(line: Line, run: Run) -> list[Finding]:
    """Check that exit code 2 comes with one error and a fix, and 0 with none."""
    errors = re.findall(r"^terradelta: ", run.stderr, re.MULTILINE)
    if run.code == 0:
        return [Finding("message", "exit code 0 with an error", run.stderr)] if errors else []
    if line.verb in ("check", "doctor") and not errors and "FAIL" in run.stdout:
        return []
    is_usage = not errors and re.search(r"^[╭┌].*Error", run.stderr, re.MULTILINE)
    if is_usage:
        return []
    problem = run.stderr.partition("terradelta: ")[2]
    if len(errors) != 1:
        return [Finding("message", f"{len(errors)} errors", run.stderr[-1000:])]
    if not re.search(r"^  fix: \S", problem, re.MULTILINE):
        return [Finding("message", "no fix", problem)]
    return []


def _judge_files(line: Line, run: Run, root: Path, before: Listing) -> list[Finding]:
    after = list_files(root)
    made = [path for path in after if path not in before]
    changed = [path for path in before if after.get(path) != before[path]]
    findings = []
    lost = [path for path in changed if not _may_replace(path, line, run, root, before)]
    if lost:
        findings.append(Finding("lost", _summarize(lost), "\n".join(lost[:8])))
    if _drops_reviews(line, changed, made):
        findings.append(Finding("lost", "reviews", REVIEWED))
    touched = [path for path in made if not _may_make(path, line, run, root)]
    if touched:
        kind = "touched" if run.code == 0 else "leftover"
        findings.append(Finding(kind, _summarize(touched), "\n".join(touched[:8])))
    return findings


def _drops_reviews(line: Line, changed: list[str], made: list[str]) -> bool:
    """Return whether reviews are gone without a copy, and nobody said that they may."""
    is_kept = any(re.fullmatch(REVIEWS_COPY, path) for path in made)
    return REVIEWED in changed and not is_kept and not line.has("--discard-reviews")


def _summarize(paths: list[str]) -> str:
    tops = sorted({"/".join(Path(path).parts[:2]) for path in paths})
    tops = [re.sub(r"\.(\w+)-(old-)?\w{8}", r".\1-\2(random)", top) for top in tops]
    return ", ".join(dict.fromkeys(tops[:3])) + (" and more" if len(tops) > 3 else "")


def _place(path: str, root: Path) -> str:
    """Return where a path of the line really is, relative to `root`."""
    return os.path.relpath(os.path.realpath(root / "home" / path), root)


def _is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/") or folder == "."


def _may_make(path: str, line: Line, run: Run, root: Path) -> bool:
    """Return whether the run may have made this path."""
    outputs = [_place(output, root) for output in line.outputs]
    # The folders above an output are made for it.
    if run.code == 0 and any(_is_within(output, path) for output in outputs):
        return True
    if run.code == 0 and re.fullmatch(REVIEWS_COPY, path):
        return True
    if run.code == 0 or line.verb in ("train", "pseudo-label"):
        return any(_is_within(path, output) for output in outputs)
    partial = [output for output in outputs if output.endswith(".partial")]
    return line.verb in RESUMABLE and any(_is_within(path, output) for output in partial)


def _may_replace(path: str, line: Line, run: Run, root: Path, before: Listing) -> bool:
    """Return whether the run may have changed or removed this path, which was there before it."""
    outputs = [_place(output, root) for output in line.outputs]
    within = [output for output in outputs if _is_within(path, output)]
    if not within:
        return False
    if any(output.endswith(".partial") for output in within):
        return line.verb in RESUMABLE and path != "home/busy.partial"
    if line.has("--resume"):
        return True
    if run.code != 0:
        return False
    if line.verb in IN_PLACE:
        return line.has("--overwrite") or line.verb == "calibrate"
    inputs = [_place(text, root) for text in line.inputs if text]
    is_input = any(_is_within(a, b) or _is_within(b, a) for a in within for b in inputs)
    is_own = any(
        output.removeprefix("home/") in (*MADE, "reviewed", *OWN_FILES)
        or f"{output}/{MANIFEST_FILE}" in before
        for output in within
    )
    return line.has("--overwrite") and is_own and not is_input


def _judge_content(line: Line, run: Run, home: Path) -> list[Finding]:
    if line.has("--help") or line.has("--version"):
        return []
    try:
        if line.has("--json") and line.get("--json") not in FALSE:
            for text in run.stdout.splitlines() if line.verb == "pseudo-label" else [run.stdout]:
                _parse(text)
        if line.verb == "predict" and not line.has("--plan"):
            _check_prediction(home / (line.get("--output") or ""))
    except (AssertionError, ValueError, KeyError, OSError) as error:
        return [Finding("content", f"{line.verb}: {str(error)[:80]}", repr(error))]
    return []


def _parse(text: str) -> Any:
    """Read JSON as the standard has it, without nan and infinity."""

    def refuse(constant: str):
        raise ValueError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def _check_prediction(folder: Path):
    summary_path = folder / "summary.json"
    if not summary_path.is_file():
        # A shard, or a folder of another layout.
        assert not folder.exists() or (folder / "run.json").is_file(), "no summary.json"
        return
    summary = _parse(summary_path.read_text("utf-8"))
    run = _parse((folder / "run.json").read_text("utf-8"))
    assert run, "run.json is empty"
    maps = [path for path in (folder / "change.tif", folder / "change.vrt") if path.is_file()]
    if not maps:
        return
    with rasterio.open(maps[0]) as dataset:
        change_HW, nodata = dataset.read(1), dataset.nodata
    valid, total = summary["valid_pixels"], change_HW.size
    assert valid + summary["nodata_pixels"] == total, "valid and nodata pixels are not the size"
    assert valid == (change_HW != nodata).sum(), "valid pixels are not those of the map"
    changed = int(((change_HW != nodata) & (change_HW > 0)).sum())
    rows = summary["transitions"]
    assert sum(row["pixels"] for row in rows) == changed, "transitions are not the map's"
    table = (folder / "transitions.csv").read_text("utf-8").lower()
    assert not re.search(r"\b(nan|inf)\b", table), "transitions.csv holds nan or inf"
    if summary["changed_ha"] is not None and (folder / "changes.gpkg").is_file():
        with closing(sqlite3.connect(folder / "changes.gpkg")) as connection:
            asked = "SELECT count(*) FROM changes WHERE area_m2 IS NULL OR NOT area_m2 > 0"
            assert connection.execute(asked).fetchone() == (0,), "patches without an area"
