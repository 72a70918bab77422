"""A prediction under way: what was asked for and what of it is done, in `OUT.partial/`.

A killed run finds its blocks there and goes on; a run that asks for something else does not touch
them; shards meet there.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from filelock import FileLock, Timeout
from rasterio.crs import CRS
from rasterio.windows import Window

from terradelta.classes import ClassTable
from terradelta.errors import OutputError, OutputExistsError
from terradelta.geo.grid import Grid, cut_window
from terradelta.inputs import ContentError, read_json, read_object, read_record
from terradelta.outputs import write_bytes
from terradelta.predict.store import BlockStore
from terradelta.predict.tiling import BlockPlan, Tiling
from terradelta.prediction.records import Request

JOB_FILE = "job.json"
DROP_IT = "run the same `terradelta predict` with --overwrite, which drops what is under way"
NOT_COMPARED = ("path", "folder", "size_bytes")
"""Keys that may differ between runs of one job: the same files mounted elsewhere, or one that was
truncated and has been fetched again."""

logger = logging.getLogger(__name__)


class Job:
    """What a raster prediction does, as it stands in `job.json`.

    Args:
        output: Where the prediction will be.
        request: Everything that its maps depend on, JSON-ready; see `describe_request`.
    """

    def __init__(self, output: Path, request: dict[str, Any]):
        self.output = output
        self.folder = partial_folder(output)
        self.request = request
        self.classes = ClassTable.from_dict(request["classes"])
        grid = request["grid"]
        crs = None if grid["crs"] is None else CRS.from_wkt(grid["crs"])
        self.grid = Grid(crs, Affine(*grid["transform"]), grid["width"], grid["height"])
        plan = request["plan"]
        self.plan = BlockPlan(
            Tiling(plan["tile_size_px"], plan["margin_px"], plan["stride_px"]),
            self.grid.height,
            self.grid.width,
            cut_window(*plan["area"]),
            plan["tiles_per_side"],
        )
        self.store = BlockStore(self.folder / "blocks", self.grid, self.classes)

    @classmethod
    def load(cls, output: Path) -> Job:
        """Read the job that is under way for an output.

        Raises:
            OutputError: If there is none, or it is damaged.
        """
        path = partial_folder(output) / JOB_FILE
        if not path.is_file():
            raise OutputError(
                f"{path} is not there: nothing is under way for {output}",
                fix="run `terradelta predict ... --shard 1/N` first, with this output",
            )
        read_record(path, Request, OutputError, DROP_IT)
        return cls(output, read_object(path, OutputError, DROP_IT))

    def start(self, overwrite: bool):
        """Make the folder, or take up the one that is there.

        Raises:
            OutputExistsError: If another request is under way for this output and `overwrite` is
                False.
            OutputError: If what was asked for before cannot be read and `overwrite` is False.
        """
        path = self.folder / JOB_FILE
        if path.is_file():
            begun = self._read_begun(path, overwrite)
            differing = _compare(begun, json.loads(json.dumps(self.request)))
            if differing:
                if not overwrite:
                    raise OutputExistsError(
                        f"{self.folder} holds an unfinished run that asked for something else: "
                        + "; ".join(differing),
                        fix="ask for the same to finish it, or drop it with --overwrite",
                    )
                shutil.rmtree(self.folder)
        # Also of a run that is taken up: its files may lie elsewhere now, or be signed anew.
        content = json.dumps(self.request, indent=2) + "\n"
        write_bytes(path, content.encode())

    @staticmethod
    def _read_begun(path: Path, overwrite: bool) -> Any:
        """Return what was asked for before; of a damaged file nothing that matters with overwrite.

        Raises:
            OutputError: If it cannot be read and may not be dropped.
        """
        try:
            return read_json(path)
        except ContentError as error:
            if overwrite:
                return None
            raise OutputError(f"{path} cannot be read: {error}", DROP_IT) from error

    @contextmanager
    def lock(self, part: str) -> Iterator[None]:
        """Keep other processes from the same part of the work for as long as the context lasts.

        Raises:
            OutputError: If another process is at them.
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
        """Return which of these blocks are not answered yet."""
        return [index for index in indices if not self.store.has(index)]

    def discard_if_empty(self):
        """Remove the folder of a run that failed before its first block."""
        if not any(self.store.folder.rglob("*.tif")):
            shutil.rmtree(self.folder, ignore_errors=True)


def partial_folder(output: Path) -> Path:
    """Return where an output is under way."""
    return output.with_name(f"{output.name}.partial")


def describe_grid(grid: Grid) -> dict[str, Any]:
    """Return a grid as JSON."""
    return {
        "crs": None if grid.crs is None else grid.crs.to_wkt(),
        "transform": list(grid.transform)[:6],
        "width": grid.width,
        "height": grid.height,
    }


def describe_plan(tiling: Tiling, area: Window, tiles_per_side: int) -> dict[str, Any]:
    """Return how a map is cut into blocks and tiles as JSON."""
    edges = (area.col_off, area.row_off, area.width, area.height)
    return {
        "tile_size_px": tiling.tile_size_px,
        "margin_px": tiling.margin_px,
        "stride_px": tiling.stride_px,
        "area": [int(np.round(edge)) for edge in edges],
        "tiles_per_side": tiles_per_side,
    }


def _compare(begun: Any, asked: Any, name: str = "") -> list[str]:
    """Return a line per value that differs, those that are not compared aside."""
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
