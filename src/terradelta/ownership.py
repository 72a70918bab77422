"""Recognizes the files that terradelta made in a folder: nothing else is ever deleted.

Predictions, models and runs are recognized by one of their files; the names of the others are
known. In other outputs the user chooses the names, so a list of the files lies beside them. A file
that is neither known nor listed is foreign.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

MANIFEST_FILE = ".terradelta.json"
"""The list of the files of an output, in its folder."""
_UNFINISHED = re.compile(r"\.terradelta-[0-9a-z_]{8}(\..*)?")
_SIDE_FILE = re.compile(r"(.+?)(\.aux\.xml|\.ovr|-wal|-shm|-journal)")
"""Suffixes of files that GDAL, QGIS and SQLite put beside a file."""


class _Layout(NamedTuple):
    """How an output is recognised, and which files it may hold."""

    mark: str
    """The file that identifies the folder."""
    is_ours: Callable[[Path], bool]
    """Whether terradelta wrote that file."""
    files: re.Pattern[str]
    """Paths of its files, relative to the folder."""


def _has_keys(*wanted: str) -> Callable[[Path], bool]:
    """Return a test of JSON files: whether the file holds an object with these keys."""

    def has_keys(path: Path) -> bool:
        content = _read_json(path)
        return isinstance(content, dict) and all(key in content for key in wanted)

    return has_keys


def _has_text(wanted: bytes) -> Callable[[Path], bool]:
    return lambda path: wanted in path.read_bytes()


_MAP = "(change|before_class|after_class|confidence)"
_MODEL = r"(model\.(safetensors|json)|README\.md|int8\.(xml|bin))"
_CHECKPOINT = r"(state\.safetensors|progress\.json)"
_ZONES = r"zones\.(csv|gpkg)"
_ESTIMATES = r"area_estimates\.(json|csv|png)|area_methods\.txt|error_matrix_(points|areas)\.csv"
_PREDICTION = (
    rf"{_MAP}\.(tif|vrt|qml)|cogs/r\d+_c\d+/{_MAP}\.tif|changes\.(gpkg|parquet|qml)"
    r"|(summary|run|items)\.json|transitions\.csv|report\.html|picture\.png"
    rf"|{_ESTIMATES}|zones/{_ZONES}"
    r"|scene/((before|after|before_class|after_class|change)\.tif|\.terradelta\.json)"
)
_RUN = (
    r"config\.yaml|log\.(csv|jsonl)|test\.json|report\.html|pictures/epoch-\d+\.png"
    rf"|(best|last)/{_MODEL}|checkpoints/epoch-\d+/{_CHECKPOINT}"
    r"|tensorboard/events\.out\.tfevents\..*"
)
_LAYOUTS = (
    _Layout("run.json", _has_keys("versions", "models", "parameters"), re.compile(_PREDICTION)),
    _Layout("model.json", _has_keys("architecture", "classes"), re.compile(_MODEL)),
    _Layout("config.yaml", _has_text(b"head_rate_factor:"), re.compile(_RUN)),
    _Layout("progress.json", _has_keys("epoch", "best_score"), re.compile(_CHECKPOINT)),
    _Layout("zones.csv", _has_text(b"zone,from,to,area_ha"), re.compile(_ZONES)),
    _Layout(
        "diagnosis.json",
        _has_keys("calibration"),
        re.compile(r"diagnosis\.json|(class_iou|transitions)\.csv|reliability\.png"),
    ),
)
ASSEMBLED_FILES = re.compile(rf"{_PREDICTION}|{_MAP}\..*|changes\..*|cogs/r\d+_c\d+/{_MAP}\..*")
"""Files of a prediction that is being assembled, with GDAL's temporary files."""
BLOCK_FILES = re.compile(r"\d{5,}/\d{8,}\.tif")
"""Files of a store of blocks."""
JOB_FILE = "job.json"
"""The request of an unfinished prediction."""
JOB_FILES = re.compile(
    r"job\.json|(shard-\d+-of-\d+|assembly)\.lock"
    rf"|(blocks|sieved)/{BLOCK_FILES.pattern}|assembled/({ASSEMBLED_FILES.pattern})"
)
"""Files of an unfinished prediction, in OUT.partial."""
_NESTED_OUTPUT = re.compile(r"round-\d+/(labels|run-\d+)/")
"""Outputs in the folder of `pseudo-label`, each recognised by itself."""


def name_unfinished(folder: Path, suffix: str = "") -> Path:
    """Return a new path in a folder for unfinished work, recognised if a kill leaves it behind."""
    path = folder / f".terradelta-{secrets.token_hex(4)}{suffix}"
    return name_unfinished(folder, suffix) if os.path.lexists(path) else path


def write_manifest(folder: Path):
    """Write the list of the files of a new output into it."""
    content = {"made_by": "terradelta", "files": sorted(_list_files(folder))}
    text = json.dumps(content, indent=1) + "\n"
    (folder / MANIFEST_FILE).write_text(text, encoding="utf-8")


def find_foreign(folder: Path, files: re.Pattern[str] | None = None) -> Path | None:
    """Return the first file of a folder, by name, that is not known to be terradelta's.

    Args:
        folder: The folder; empty folders in it do not count.
        files: Paths of the files that it may hold; by default those of the kind that its own files
            identify.
    """
    is_made = _recognise(folder, files)
    first = min((path for path in _list_files(folder) if not is_made(path)), default=None)
    return None if first is None else folder / first


def is_made(folder: Path) -> bool:
    """Return whether terradelta made a folder, whatever was added to it since."""
    try:
        return _read_manifest(folder) is not None or bool(_find_layouts(folder))
    except OSError:
        return False


def clear_folder(
    folder: Path,
    files: re.Pattern[str] | None = None,
    keep: Callable[[str], bool] = lambda path: False,
):
    """Remove what terradelta made in a folder, and the folder if nothing is left.

    Args:
        folder: The folder, which need not be there.
        files: See `find_foreign`.
        keep: Which paths to leave.
    """
    is_made = _recognise(folder, files)
    made = [path for path in _list_files(folder) if is_made(path) and not keep(path)]
    # The files that identify it are removed last, so that a killed removal can be resumed.
    marks = {layout.mark for layout in _LAYOUTS} | {MANIFEST_FILE, JOB_FILE}
    for path in sorted(made, key=lambda path: path.rpartition("/")[2] in marks):
        (folder / path).unlink(missing_ok=True)
    _prune(folder)


def _recognise(folder: Path, files: re.Pattern[str] | None) -> Callable[[str], bool]:
    """Return a test of the paths in a folder: whether they are terradelta's."""
    manifest = _read_manifest(folder)
    listed = frozenset() if manifest is None else manifest | {MANIFEST_FILE}
    layouts = [files] if files else [layout.files for layout in _find_layouts(folder)]
    nested: dict[str, Callable[[str], bool]] = {}

    def is_made(path: str) -> bool:
        if any(map(_UNFINISHED.fullmatch, path.split("/"))):
            return True
        if outer := _NESTED_OUTPUT.match(path):
            inner = outer[0]
            if inner not in nested:
                nested[inner] = _recognise(folder / inner, None)
            return nested[inner](path.removeprefix(inner))
        if path in listed or any(layout.fullmatch(path) for layout in layouts):
            return True
        side = _SIDE_FILE.fullmatch(path)
        return side is not None and is_made(side[1])

    return is_made


def _find_layouts(folder: Path) -> list[_Layout]:
    return [
        layout
        for layout in _LAYOUTS
        if (folder / layout.mark).is_file() and layout.is_ours(folder / layout.mark)
    ]


def _read_manifest(folder: Path) -> frozenset[str] | None:
    content = _read_json(folder / MANIFEST_FILE)
    if not isinstance(content, dict) or content.get("made_by") != "terradelta":
        return None
    files = content.get("files")
    return frozenset(map(str, files)) if isinstance(files, list) else None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _list_files(folder: Path, prefix: str = "") -> Iterator[str]:
    """Yield the paths of files and links, relative to the outermost folder."""
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _list_files(Path(entry.path), f"{prefix}{entry.name}/")
            else:
                yield prefix + entry.name


def _prune(folder: Path):
    """Remove a folder and those in it, if they are empty."""
    if not folder.is_dir() or folder.is_symlink():
        return
    with os.scandir(folder) as entries:
        folders = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    for inner in folders:
        _prune(inner)
    with suppress(OSError):
        folder.rmdir()
