"""Outputs that appear whole or not at all: written beside their place, then renamed into it."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from terradelta.destination import Inputs, claim_folder, follow_link
from terradelta.errors import OutputError, OutputExistsError
from terradelta.ownership import clear_folder, find_foreign, name_unfinished, write_manifest
from terradelta.review_copies import keep_reviews

logger = logging.getLogger(__name__)


@contextmanager
def stage_folder(
    folder: str | Path,
    inputs: Inputs = (),
    *,
    overwrite: bool = False,
    discard_reviews: bool = False,
    listed: bool = True,
) -> Iterator[Path]:
    """Yield a folder beside `folder` that takes its place when the block ends well.

    When the block raises, what it wrote is removed and `folder` is as it was.

    Args:
        folder: The folder to make.
        inputs: Files that are read to make it.
        overwrite: Replace an output that is there.
        discard_reviews: Drop reviews that people made of it.
        listed: Whether its files are to be listed in it: names that are not known beforehand.

    Raises:
        OutputExistsError: If `folder` holds something that may not be replaced.
        OutputError: If it cannot be made; see `claim_folder`.
    """
    folder = claim_folder(folder, inputs, overwrite=overwrite, discard_reviews=discard_reviews)
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged = name_unfinished(folder.parent)
    staged.mkdir()
    try:
        yield staged
        if listed:
            write_manifest(staged)
        replace_folder(folder, staged, discard_reviews=discard_reviews)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def replace_folder(folder: Path, staged: Path, *, discard_reviews: bool = False) -> Path | None:
    """Rename a staged folder into its place; what was there goes once the new one is in.

    Of what was there only terradelta's own files are deleted.

    Returns:
        The file with the reviews that people made of the old one; None without reviews.

    Raises:
        OutputError: If reviews cannot be kept.
    """
    if not folder.exists():
        staged.rename(folder)
        return None
    kept = None if discard_reviews else set_reviews_aside(folder)
    aside = name_unfinished(folder.parent)
    folder.rename(aside)
    staged.rename(folder)
    clear_folder(aside)
    if foreign := find_foreign(aside):
        logger.warning("files that were added to %s meanwhile are kept: %s", folder, foreign)
    return kept


def clear_output(folder: Path):
    """Remove what terradelta made in an output; reviews that people made are kept beside it.

    Raises:
        OutputError: If reviews cannot be kept.
    """
    set_reviews_aside(folder)
    clear_folder(folder)


def set_reviews_aside(folder: Path) -> Path | None:
    """Copy reviews to a file beside a prediction that is to be replaced, and say so.

    Raises:
        OutputError: If they cannot be kept.
    """
    kept = keep_reviews(folder)
    if kept is not None:
        logger.warning("the reviews of %s are kept, with their patches, in %s", folder, kept)
    return kept


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
    """Write a file completely or not at all, so that it survives a power cut.

    Raises:
        OutputError: If it cannot be written.
    """
    path = follow_link(path)
    staged = name_unfinished(path.parent)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with staged.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        staged.replace(path)
    except OSError as error:
        with suppress(OSError):
            staged.unlink(missing_ok=True)
        raise OutputError(
            f"{path} cannot be written: {error.strerror}",
            fix="make room or allow writing there, then run the same command again: it resumes "
            "where it stopped",
        ) from error


@contextmanager
def stage_file(path: str | Path) -> Iterator[Path]:
    """Yield a new path of the same suffix that replaces `path` when the block ends well.

    Raises:
        OutputExistsError: If the path is a folder.
    """
    path = follow_link(path)
    if path.is_dir():
        raise OutputExistsError(
            f"{path} is a folder, and a file is to be written there",
            fix="move that folder away, then run the same command again",
        )
    follow_link(path.parent).mkdir(parents=True, exist_ok=True)
    staged = name_unfinished(path.parent, path.suffix)
    try:
        yield staged
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)
