"""An unfinished prediction: its request and its finished blocks, in `OUT.partial/`.

A killed run resumes from its blocks there; a run with another request does not touch
them; shards share the folder.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from terradelta.errors import OutputError, OutputExistsError, TerradeltaError
from terradelta.fields import write_fields
from terradelta.geo.dates import Dates
from terradelta.geo.grid import cut_window
from terradelta.geo.origin import find_differences
from terradelta.inference.store import BlockStore
from terradelta.inference.tiling import BlockPlan, Tiling
from terradelta.inputs import read_record
from terradelta.outputs import write_bytes
from terradelta.ownership import JOB_FILE, JOB_FILES, clear_folder, find_foreign
from terradelta.prediction.records import JobRecord

DROP_IT = "run the same `terradelta predict` with --overwrite, which drops the unfinished run"
NOT_COMPARED = ("path", "folder", "size_bytes", "origins", "dates", "findings")
"""Keys that may differ between runs of one job: files mounted elsewhere or fetched again, and
values that no block depends on. `find_differences` compares the content of the origins."""
BLOCK_BYTES_PER_PIXEL = 0.3
"""Size of a block's file, of drawn ground, which compresses better than most."""
MAP_BYTES_PER_PIXEL = 0.2
"""Size of maps and polygons."""
PARTIAL_ENDING = ".partial"

logger = logging.getLogger(__name__)


class Job:
    """A raster prediction as recorded in `job.json`.

    Args:
        output: Path of the prediction.
        record: All values that its maps depend on.
    """

    def __init__(self, output: Path, record: JobRecord):
        self.output = output
        self.folder = partial_folder(output)
        self.record = record
        self.classes = self.record.classes
        self.grid = self.record.grid.build()
        plan = self.record.plan
        self.plan = BlockPlan(
            Tiling(plan.tile_size_px, plan.margin_px, plan.stride_px),
            self.grid.height,
            self.grid.width,
            cut_window(*plan.area),
            plan.tiles_per_side,
        )
        self.store = BlockStore(self.folder / "blocks", self.grid, self.classes)
        self.answered_now: frozenset[int] = frozenset()
        """The blocks that this run answered; the others were answered earlier or by other
        shards."""

    @property
    def dates(self) -> Dates:
        """Dates of the two images, if known."""
        return (None, None) if self.record.dates is None else self.record.dates.build()

    @classmethod
    def load(cls, output: Path) -> Job:
        """Read the unfinished job of an output.

        Raises:
            OutputError: If there is no such job, or it is damaged.
        """
        path = partial_folder(output) / JOB_FILE
        check_partial(output)
        if not path.is_file():
            raise OutputError(
                f"{path} does not exist: no run is unfinished for {output}",
                fix="run `terradelta predict ... --shard 1/N` first, with this output",
            )
        record = _read_job(path)
        try:
            return cls(output, record)
        except (KeyError, TypeError, ValueError, AttributeError, TerradeltaError) as error:
            raise _refuse_damaged(path) from error

    def start(self, overwrite: bool):
        """Make the folder, or resume the existing one.

        Raises:
            OutputExistsError: If another request is unfinished for this output and `overwrite` is
                False.
            OutputError: If the existing folder cannot be resumed.
        """
        path = self.folder / JOB_FILE
        check_partial(self.output, overwrite)
        if path.is_file():
            differing = self._find_differences(path)
            if differing and not overwrite:
                raise OutputExistsError(
                    f"{self.folder} holds an unfinished run with other options: "
                    + "; ".join(differing),
                    fix="use the same options to finish it, or drop it with --overwrite",
                )
            if differing:
                self.discard()
        # Also for a resumed run: its files may have moved, or have new signatures.
        content = json.dumps(write_fields(self.record), indent=2) + "\n"
        write_bytes(path, content.encode())

    def _find_differences(self, path: Path) -> list[str]:
        """Return a line per value that differs between the unfinished job and this one."""
        try:
            begun = _read_job(path)
        except OutputError as error:
            return [error.problem]
        differing = _compare(write_fields(begun), write_fields(self.record))
        if not differing:
            was, now = begun.origins, self.record.origins
            differing += find_differences(was.before, now.before)
            differing += find_differences(was.after, now.after)
        return differing

    def discard(self):
        """Remove the folder, except files that terradelta did not make."""
        clear_folder(self.folder, JOB_FILES)
        if self.folder.exists():
            logger.warning(
                "%s stays: it holds %s", self.folder, find_foreign(self.folder, JOB_FILES)
            )

    @contextmanager
    def lock(self, part: str) -> Iterator[None]:
        """Lock this part of the work against other processes while the context is open.

        Raises:
            OutputError: If another process works on it.
        """
        path = self.folder / f"{part}.lock"
        try:
            with FileLock(path, timeout=0):
                yield
        except Timeout as error:
            raise OutputError(
                f"another process is working on {self.folder} (it holds {path.name})",
                fix="wait for it, or stop it first",
            ) from error

    def missing(self, indices: range) -> list[int]:
        """Return which of these blocks are not answered yet, or damaged."""
        return [index for index in indices if not self.store.has(index)]

    def discard_if_empty(self):
        """Remove the folder of a run that failed before its first block."""
        if not any(self.store.folder.rglob("*.tif")):
            self.discard()


def require_space(job: Job, missing: Sequence[int], is_whole: bool):
    """Raise if the disk clearly has too little space for the blocks and their maps.

    Args:
        job: The job.
        missing: The blocks to write.
        is_whole: Whether maps are made right after.

    Raises:
        OutputError: If so, with both numbers.
    """
    windows = (job.plan[index].write for index in missing)
    pixels = sum(int(window.width * window.height) for window in windows)
    needed = pixels * (BLOCK_BYTES_PER_PIXEL + MAP_BYTES_PER_PIXEL * is_whole)
    free = shutil.disk_usage(job.folder).free
    if free < needed:
        raise OutputError(
            f"{job.folder.absolute().parent} has {free / 1024**2:,.0f} MB of free space, and the "
            f"blocks and maps take about {needed / 1024**2:,.0f} MB",
            fix="make room there, or choose an output on another disk",
        )


def partial_folder(output: Path) -> Path:
    """Return the folder of an unfinished output."""
    return output.with_name(output.name + PARTIAL_ENDING)


def check_partial(output: Path, overwrite: bool = False):
    """Raise if an output has an unfinished run that cannot be resumed.

    Args:
        output: The output, with links followed.
        overwrite: Whether a damaged run may be dropped.

    Raises:
        OutputError: If it is not a folder, holds foreign files, or its job.json is damaged.
    """
    folder = partial_folder(output)
    path = folder / JOB_FILE
    aside = "move it away: this folder is for unfinished runs"
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        what = "a link" if folder.is_symlink() else "a file"
        raise OutputError(f"{folder} is {what}, not a folder", fix=aside)
    foreign = find_foreign(folder, JOB_FILES)
    if foreign is not None:
        raise OutputError(f"{foreign} exists, and terradelta did not make it", fix=aside)
    if path.is_file() and not overwrite:
        _read_job(path)
    elif not path.exists() and any(folder.glob("blocks/*/*")):
        raise OutputError(
            f"{folder} holds blocks but no {JOB_FILE}, which identifies their map",
            fix=f"restore {JOB_FILE}, or delete the folder",
        )


def _read_job(path: Path) -> JobRecord:
    """Return the content of a job.json.

    Raises:
        OutputError: If it is damaged.
    """
    return read_record(path, JobRecord, OutputError, DROP_IT)


def _refuse_damaged(path: Path) -> OutputError:
    return OutputError(
        f"{path} is damaged, or of another version of terradelta",
        fix=f"drop the unfinished run with `terradelta predict ... --overwrite`, or delete "
        f"{path.parent}",
    )


def _compare(begun: Any, asked: Any, name: str = "") -> list[str]:
    """Return a line per value that differs, except those that are not compared."""
    if isinstance(begun, dict) and isinstance(asked, dict):
        keys = sorted((begun.keys() | asked.keys()) - set(NOT_COMPARED))
        lines = [
            _compare(begun.get(key), asked.get(key), f"{name}.{key}" if name else key)
            for key in keys
        ]
        return [line for part in lines for line in part]
    if isinstance(begun, list) and isinstance(asked, list) and len(begun) == len(asked):
        pairs = enumerate(zip(begun, asked, strict=True), start=1)
        lines = [_compare(was, now, f"{name}[{number}]") for number, (was, now) in pairs]
        return [line for part in lines for line in part]
    return [] if begun == asked else [f"{name} was {begun!r} and is {asked!r}"]
