"""What a case is: a pair that is written to disk, and what is right for it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from shapely import Geometry

from .drawing import Frame, Raster, draw, write

HOME = (11.98, 48.1)
"""Longitude and latitude where most of the ground lies: beside the border of two UTM zones."""
UTM = "EPSG:32633"


@dataclass
class Pair:
    """A pair that has a right map."""

    before: str | Path | list[Path]
    """What is given to the library."""
    after: str | Path | list[Path]
    truth: tuple[Raster, Raster]
    """What the two show, in the bands that the model must see."""
    options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of `predict`."""
    aoi: tuple[Geometry, str] | None = None
    """Polygons and their CRS, where the options name a file with them."""
    grey_levels: float = 2.0
    """How far resampled values may be off, in stored units."""
    pixel_m: float = 10.0
    """Of the drawing: the coarsest pixel in play."""
    bands: tuple[int, ...] = (0, 1, 2)
    """Which of the drawing's bands the model sees, counted from 0."""
    likeness: float | None = 0.99
    """Least correlation of what is read with the drawing; a shift by half a pixel gives less."""
    wrong_share: float = 0.005
    """Of the labels, which may differ where values are resampled and round differently."""
    frame: Frame | None = None
    """The map's grid, where GDAL is free to choose it."""
    left_out_HW: np.ndarray | None = None
    """Which pixels of the map the masks leave out; the network sees them all the same."""


@dataclass
class Refusal:
    """A pair that has none, and the error that says so."""

    before: str | Path
    after: str | Path
    problem: tuple[str, ...]
    """Regular expressions that the error's problem must all match: files and values."""
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Bench:
    """Where a case is built."""

    folder: Path
    exits: ExitStack
    """What must be ended after the test, such as a server."""

    def write(self, name: str, raster: Raster, **options) -> Path:
        """Write a raster into the folder; options as of `drawing.write`."""
        return write(self.folder / name, raster, **options)

    def pair(self, before: Frame, after: Frame, pixel_m: float = 10.0, **fields) -> Pair:
        """Draw and write a plain pair on two grids; `fields` as of `Pair`."""
        truth = draw_rgb(before, "before", pixel_m), draw_rgb(after, "after", pixel_m)
        files = (
            self.write(f"{date}.tif", raster, **({} if raster.valid_HW.all() else {"nodata": 0}))
            for date, raster in zip(("before", "after"), truth, strict=True)
        )
        return Pair(*files, truth, pixel_m=pixel_m, **fields)


Builder = Callable[[Bench], Any]
MAPPED: dict[str, Builder] = {}
"""Name: what builds a `Pair`."""
REFUSED: dict[str, Builder] = {}
"""Name: what builds a `Refusal`."""


def mapped(build: Builder) -> Builder:
    """Add a case that has a right map."""
    MAPPED[build.__name__] = build
    return build


def refused(build: Builder) -> Builder:
    """Add a case that has a right error."""
    REFUSED[build.__name__] = build
    return build


def home(crs: str = UTM, pixel: Any = 10.0, size: tuple[int, int] = (112, 96), **shape) -> Frame:
    """Return a frame where most pairs lie."""
    return Frame.around(crs, *HOME, pixel, size, **shape)


def draw_rgb(frame: Frame, date: str, pixel_m: float = 10.0) -> Raster:
    """Draw without the near infrared."""
    return draw(frame, date, pixel_m).arrange(0, 1, 2)
