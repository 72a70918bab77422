"""The files on this machine that a raster is read from, and checks whether they have changed."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import BinaryIO

from terradelta.errors import RasterError
from terradelta.extensions import find_reader
from terradelta.geo.listing import (
    RasterPaths,
    is_file,
    is_remote,
    list_rasters,
    split_asset,
    split_files,
)
from terradelta.geo.raster_record import OriginRecord
from terradelta.geo.source import open_raster

SAMPLED_BYTES = 64 * 1024**2
"""Bytes read to recognise an image, spread over its files; smaller ones are read completely."""
MIN_SAMPLED_BYTES = 256 * 1024
"""Bytes of each file."""
READ_BYTES = 1024**2
MAX_SAMPLES = 64
"""Most parts of a file that are read, including the first and the last."""
MIN_SAMPLE_BYTES = 16 * 1024
"""Smallest size of a part: many small ones take longer, especially over a network."""
_PREFIX = re.compile(r"/vsi[a-z]+/|[a-z]+://", re.IGNORECASE)

logger = logging.getLogger(__name__)


def list_origins(source: RasterPaths) -> list[Path]:
    """Return the files and folders on this machine that a raster or mosaic is read from.

    Lists and the files in them, files of bands, archives behind `/vsizip/`, VRTs and their sources;
    but no files read over a network.

    Args:
        source: See `list_rasters`.

    Raises:
        RasterError: If a list cannot be read.
    """
    rasters = list_rasters(source)
    found: dict[Path, None] = {}
    if rasters is None:
        assert isinstance(source, str | Path)
        rasters = [str(source)]
    elif isinstance(source, str | Path):
        found[Path(split_asset(str(source))[0])] = None
    for raster in rasters:
        for file in split_files(raster):
            _add_origins(file, found)
    return list(found)


def _add_origins(name: str, found: dict[Path, None]):
    if is_remote(name):
        return
    path = _find_file(name)
    is_plain = path is not None and path == Path(name) and path.suffix.lower() != ".vrt"
    if path is not None:
        if path in found:
            return
        found[path] = None
    if is_plain or find_reader(name) is not None:
        return
    # A virtual raster, or a name only GDAL understands: GDAL lists its files. Rasters that
    # cannot be opened are refused later, when they are read.
    with suppress(RasterError), closing(open_raster(name)) as dataset:
        files = list(dataset.files)
        for file in files:
            if file != name:
                _add_origins(file, found)


def _find_file(name: str) -> Path | None:
    """Return the file or folder that GDAL's name of a raster begins with, or None."""
    if name.lstrip().startswith("<"):
        return None
    if _exists(name):
        return Path(name)
    bare = name
    while match := _PREFIX.match(bare):
        bare = bare[match.end() :]
    bare = bare.partition("!")[0].replace("{", "").replace("}", "")
    path = Path(bare)
    return next((part for part in (path, *path.parents) if is_file(part)), None)


def _exists(name: str) -> bool:
    try:
        return Path(name).exists()
    except (OSError, ValueError):
        return False


def describe_origins(source: RasterPaths) -> tuple[OriginRecord, ...]:
    """Return, for each file that a source is read from, data that show whether it has changed.

    Its name, size and time of change, and a hash of parts spread over the file, or of all of it
    unless the files of the source are larger than `SAMPLED_BYTES`.

    Raises:
        RasterError: If one cannot be read.
    """
    files = [path for path in list_origins(source) if path.is_file()]
    budget_bytes = max(MIN_SAMPLED_BYTES, SAMPLED_BYTES // max(1, len(files)))
    return tuple(_describe_file(path, budget_bytes) for path in files)


def _describe_file(path: Path, budget_bytes: int) -> OriginRecord:
    try:
        status = path.stat()
        return OriginRecord(
            path=str(path),
            size_bytes=status.st_size,
            modified_ns=status.st_mtime_ns,
            sampled_bytes=budget_bytes,
            sha256=_hash_samples(path, status.st_size, budget_bytes),
        )
    except OSError as error:
        raise RasterError(
            f"{path} cannot be read: {error.strerror}", fix="allow reading it, or fetch it again"
        ) from error


def find_differences(before: Sequence[OriginRecord], now: Sequence[OriginRecord]) -> Iterator[str]:
    """Yield the differences of the files of a source from their earlier state.

    Names may differ, as files may have moved, and so may times. A file may also
    be longer than the earlier one and begin with it: it was truncated, and fetched again.

    Args:
        before: Earlier result of `describe_origins`.
        now: Its result now.
    """
    if len(before) != len(now):
        yield f"it was read from {len(before)} files and is now from {len(now)}"
        return
    for was, found in zip(before, now, strict=True):
        path, size_bytes = Path(found.path), was.size_bytes
        if found.size_bytes < size_bytes:
            yield f"{path} had {size_bytes:,} bytes and has {found.size_bytes:,}"
        elif _hash_samples(path, size_bytes, was.sampled_bytes) != was.sha256:
            yield f"{path} has changed: its content differs"
        elif _may_differ(was, found):
            logger.warning(
                "%s was rewritten; its size and %d samples of it are unchanged",
                path,
                _count_samples(was.sampled_bytes),
            )


def _may_differ(was: OriginRecord, found: OriginRecord) -> bool:
    """Return whether a file that is too large to be read whole was touched."""
    is_touched = was.modified_ns != found.modified_ns and was.path == found.path
    return is_touched and was.size_bytes > was.sampled_bytes


def _update(digest: hashlib._Hash, file: BinaryIO, length: int):
    """Read a file chunk by chunk."""
    while length > 0 and (part := file.read(min(length, READ_BYTES))):
        digest.update(part)
        length -= len(part)


def _count_samples(budget_bytes: int) -> int:
    return max(2, min(MAX_SAMPLES, budget_bytes // MIN_SAMPLE_BYTES))


def _hash_samples(path: Path, size_bytes: int, budget_bytes: int) -> str:
    """Return the SHA-256 of parts of the first bytes of a file, or of all if they are few."""
    digest = hashlib.sha256()
    number = 1 if size_bytes <= budget_bytes else _count_samples(budget_bytes)
    length = min(size_bytes, budget_bytes) // number
    with path.open("rb") as file:
        for index in range(number):
            file.seek((size_bytes - length) * index // max(1, number - 1))
            _update(digest, file, length)
    return digest.hexdigest()
