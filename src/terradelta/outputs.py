"""Outputs that appear whole or not at all: written beside their place, then renamed into it."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from terradelta.errors import OutputError, OutputExistsError


def refuse_existing(path: Path, overwrite: bool):
    """Raise if an output is there already and may not be replaced.

    An empty folder is no output.

    Raises:
        OutputExistsError: If `path` exists, is not an empty folder, and `overwrite` is False.
    """
    is_empty_folder = path.is_dir() and not any(path.iterdir())
    if path.exists() and not is_empty_folder and not overwrite:
        raise OutputExistsError(
            f"{path} exists already",
            fix="choose another output, or replace it with --overwrite",
        )


@contextmanager
def stage_folder(folder: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a folder beside `folder` that takes its place when the block ends well.

    When the block raises, what it wrote is removed and `folder` is as it was.

    Raises:
        OutputExistsError: If `folder` holds something and `overwrite` is False.
    """
    folder = Path(folder)
    refuse_existing(folder, overwrite)
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        staged.chmod(0o755)
        yield staged
        replace_folder(folder, staged)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def replace_folder(folder: Path, staged: Path):
    """Rename a staged folder into its place; what was there goes once the new one is in."""
    if folder.exists():
        replaced = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
        folder.rename(replaced / folder.name)
        staged.rename(folder)
        shutil.rmtree(replaced)
    else:
        staged.rename(folder)


def null_undefined(value: Any) -> Any:
    """Return nested dicts and sequences with None for nan and infinity, which JSON lacks."""
    if isinstance(value, dict):
        return {key: null_undefined(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [null_undefined(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, content: dict[str, Any]):
    """Write an object as readable JSON."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_bytes(path: Path, content: bytes):
    """Write a file that is there whole or not at all, and still there after a power cut.

    Raises:
        OutputError: If it cannot be written.
    """
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with staged.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        staged.replace(path)
    except OSError as error:
        staged.unlink(missing_ok=True)
        raise OutputError(
            f"{path} cannot be written: {error.strerror}",
            fix="make room or allow writing there, then run the same command again: it goes on "
            "where it stopped",
        ) from error


@contextmanager
def stage_file(path: str | Path) -> Iterator[Path]:
    """Yield a path beside `path`, of the same suffix, that replaces it when the block ends well."""
    path = Path(path)
    staged = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        yield staged
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)
