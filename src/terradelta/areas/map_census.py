"""The from-to map of a prediction, read block by block: the population that points are drawn from.

Legend of the array names: H rows, W columns, C codes, B blocks, S strata, N points.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
from rasterio.warp import transform
from rasterio.windows import Window
from scipy.ndimage import distance_transform_edt
from tqdm import tqdm

from terradelta.errors import RasterError
from terradelta.geo.area import measure_pixels
from terradelta.geo.cog import find_map, read_classes
from terradelta.geo.grid import OPEN_ERRORS, Grid, allow_no_place, cut_window

BLOCK_SIZE_PX = 2048
"""Pixels are numbered block by block, so the points of a seed depend on it."""
NODATA_CODE = -1
HEADER_BYTES = 65_536


def identify(path: Path) -> str:
    """Return a hash that identifies a map, of its first 64 KiB and its size."""
    with path.open("rb") as file:
        digest = hashlib.sha256(file.read(HEADER_BYTES))
    digest.update(str(path.stat().st_size).encode())
    return digest.hexdigest()


class ChangeMap:
    """The from-to map in a prediction folder; a context manager.

    A pixel's code is its value in the map of changes; unchanged pixels near change have
    `near_code`, and pixels without data -1.

    Args:
        folder: Prediction folder of two rasters.
        buffer_px: Unchanged pixels whose centres are at most this far from that of a changed one
            are near change; 0 = none.

    Raises:
        RasterError: If the folder holds no from-to map, or one without CRS, whose pixels have no
            ground area.
    """

    def __init__(self, folder: str | Path, buffer_px: int = 0):
        self.path = find_map(Path(folder), "change")
        self.buffer_px = buffer_px
        self.classes = read_classes(find_map(Path(folder), "before_class"))
        self.near_code = self.classes.num_transitions
        self._exits = ExitStack()
        try:
            with allow_no_place():
                self._dataset = self._exits.enter_context(rasterio.open(self.path))
        except OPEN_ERRORS as error:
            raise RasterError(
                f"{self.path} cannot be opened: {error}",
                fix="give the folder that `terradelta predict` made from two rasters",
            ) from error
        self.grid = Grid.of(self._dataset)
        if self.grid.crs is None:
            self._exits.close()
            raise RasterError(
                f"{self.path} has no coordinate reference system, so its pixels have no area",
                fix="georeference the two rasters and predict again",
            )

    def __enter__(self) -> ChangeMap:
        return self

    def __exit__(self, *exception: object):
        self._exits.close()

    @property
    def windows(self) -> list[Window]:
        """The map's blocks, row by row."""
        width, height = self.grid.width, self.grid.height
        return [
            cut_window(
                column,
                row,
                min(BLOCK_SIZE_PX, width - column),
                min(BLOCK_SIZE_PX, height - row),
            )
            for row in range(0, height, BLOCK_SIZE_PX)
            for column in range(0, width, BLOCK_SIZE_PX)
        ]

    def read(self, window: Window) -> np.ndarray:
        """Return the codes of a window, (H, W) int32.

        Raises:
            RasterError: If the pixels cannot be read.
        """
        margin = self.buffer_px
        top, left = max(0, window.row_off - margin), max(0, window.col_off - margin)
        bottom = min(self.grid.height, window.row_off + window.height + margin)
        right = min(self.grid.width, window.col_off + window.width + margin)
        values_HW = self._read_values(cut_window(left, top, right - left, bottom - top))
        codes_HW = values_HW.astype(np.int32)
        codes_HW[values_HW == self._dataset.nodata] = NODATA_CODE
        if margin and (codes_HW > 0).any():
            distance_px_HW = np.asarray(distance_transform_edt(codes_HW <= 0))
            codes_HW[(distance_px_HW <= margin) & (codes_HW == 0)] = self.near_code
        rows = slice(window.row_off - top, window.row_off - top + window.height)
        return codes_HW[rows, window.col_off - left : window.col_off - left + window.width]

    def look_up(self, grid: Grid, row_N: np.ndarray, column_N: np.ndarray) -> np.ndarray:
        """Return the codes, (N,), at the centres of another grid's pixels; -1 outside.

        Args:
            grid: The other grid.
            row_N: Rows on it.
            column_N: Columns on it.
        """
        x_N, y_N = grid.transform @ (column_N + 0.5, row_N + 0.5)  # pyright: ignore[reportOperatorIssue]
        if grid.crs != self.grid.crs:
            x_N, y_N = map(np.array, transform(grid.crs, self.grid.crs, x_N, y_N))
        places = ~self.grid.transform @ (x_N, y_N)  # pyright: ignore[reportOperatorIssue]
        columns, rows = (np.floor(part).astype(int) for part in places)
        is_inside_N = (rows >= 0) & (rows < self.grid.height)
        is_inside_N &= (columns >= 0) & (columns < self.grid.width)
        return np.array(
            [
                self.read(cut_window(column, row, 1, 1))[0, 0] if is_inside else NODATA_CODE
                for row, column, is_inside in zip(
                    rows.tolist(), columns.tolist(), is_inside_N, strict=True
                )
            ]
        )

    def _read_values(self, window: Window) -> np.ndarray:
        try:
            values_HW = self._dataset.read(1, window=window)
        except OPEN_ERRORS as error:
            raise RasterError(
                f"{self.path}: pixels cannot be read in rows {window.row_off} to "
                f"{window.row_off + window.height}: {error}",
                fix="the file is probably truncated or damaged: predict again",
            ) from error
        most = self.classes.num_transitions - 1
        is_known_HW = (values_HW >= 0) & (values_HW <= most)
        is_known_HW |= values_HW == self._dataset.nodata
        if not is_known_HW.all():
            raise RasterError(
                f"{self.path} holds {values_HW[~is_known_HW][0]} in rows {window.row_off} to "
                f"{window.row_off + window.height}, and its transitions are 0 to {most}",
                fix="the file is damaged: predict again",
            )
        return values_HW


@dataclass(frozen=True)
class Census:
    """Number of pixels of each code, and their ground area."""

    pixels_C: np.ndarray
    """Pixels of each code, with `near_code` last, int64."""
    area_m2_C: np.ndarray
    """Their ground area."""
    codes_B: list[np.ndarray]
    """Codes that occur in each block."""
    counts_B: list[np.ndarray]
    """Pixels of each of these."""


def take_census(change_map: ChangeMap) -> Census:
    """Count the pixels of a map, in one pass.

    Raises:
        RasterError: If no pixel holds data, or no ground is covered.
    """
    size = change_map.near_code + 1
    pixels_C, area_m2_C = np.zeros(size, np.int64), np.zeros(size)
    codes_B, counts_B = [], []
    for window in tqdm(change_map.windows, desc="counting", unit="block", disable=None):
        codes_HW = change_map.read(window)
        valid_HW = codes_HW != NODATA_CODE
        codes = codes_HW[valid_HW]
        counts_C = np.bincount(codes, minlength=size)
        pixels_C += counts_C
        areas_m2 = measure_pixels(change_map.grid, window)[valid_HW]
        area_m2_C += np.bincount(codes, areas_m2, minlength=size)
        codes_B.append(np.flatnonzero(counts_C))
        counts_B.append(counts_C[codes_B[-1]])
    if not pixels_C.any():
        raise RasterError(
            f"{change_map.path} holds no data", fix="predict two rasters that share ground"
        )
    if not 0 < area_m2_C.sum() < np.inf:
        raise RasterError(
            f"{change_map.path} covers {area_m2_C.sum():g} m2 of ground",
            fix="its place is damaged: predict again",
        )
    return Census(pixels_C, area_m2_C, codes_B, counts_B)


class DrawnPixels(NamedTuple):
    """Pixels drawn from a map."""

    stratum_N: np.ndarray
    """Stratum that each was drawn from."""
    code_N: np.ndarray
    """Its code."""
    row_N: np.ndarray
    """Its row on the map."""
    column_N: np.ndarray
    """Its column."""
    area_m2_N: np.ndarray
    """Its ground area."""


def draw_pixels(
    change_map: ChangeMap,
    census: Census,
    stratum_C: np.ndarray,
    points_S: np.ndarray,
    seed: int,
) -> DrawnPixels:
    """Draw pixels at random within strata, with equal probability and without replacement.

    Only the blocks in which a pixel was drawn are read again.

    Args:
        change_map: The map.
        census: Census of that map.
        stratum_C: Stratum of each code, -1 = none.
        points_S: Number of pixels to draw from each.
        seed: Seed of the drawing; the same seed, map and strata give the same pixels.

    Returns:
        The pixels in random order, which does not reveal their strata.
    """
    random = np.random.default_rng(seed)
    ranks_S = _draw_ranks(random, census, stratum_C, points_S)
    before_S = np.zeros(len(points_S), np.int64)
    found: list[DrawnPixels] = []
    for window, codes, counts in zip(
        tqdm(change_map.windows, desc="drawing", unit="block", disable=None),
        census.codes_B,
        census.counts_B,
        strict=True,
    ):
        here_S = _sum_by_stratum(stratum_C[codes], counts, len(points_S))
        wanted_S = [
            ranks[np.searchsorted(ranks, start) : np.searchsorted(ranks, start + number)] - start
            for ranks, start, number in zip(ranks_S, before_S, here_S, strict=True)
        ]
        before_S += here_S
        if any(map(len, wanted_S)):
            found += _pick(change_map, window, stratum_C, wanted_S)
    pixels = DrawnPixels(*(np.concatenate(parts) for parts in zip(*found, strict=True)))
    order = random.permutation(len(pixels.stratum_N))
    return DrawnPixels(*(values[order] for values in pixels))


def _draw_ranks(
    random: np.random.Generator, census: Census, stratum_C: np.ndarray, points_S: np.ndarray
) -> list[np.ndarray]:
    """Return the numbers of each stratum's drawn pixels, counted from 0 in the order of blocks."""
    pixels_S = _sum_by_stratum(stratum_C, census.pixels_C, len(points_S))
    return [
        np.sort(random.choice(int(pixels), int(points), replace=False, shuffle=False))
        for pixels, points in zip(pixels_S, points_S, strict=True)
    ]


def _sum_by_stratum(stratum: np.ndarray, counts: np.ndarray, strata: int) -> np.ndarray:
    inside = stratum >= 0
    return np.bincount(stratum[inside], counts[inside], strata).astype(np.int64)


def _pick(
    change_map: ChangeMap, window: Window, stratum_C: np.ndarray, wanted_S: list[np.ndarray]
) -> Iterator[DrawnPixels]:
    codes_HW = change_map.read(window)
    areas_HW = measure_pixels(change_map.grid, window)
    # Code -1 takes the last entry.
    stratum_HW = np.append(stratum_C, -1)[codes_HW]
    for stratum, wanted in enumerate(wanted_S):
        if len(wanted) == 0:
            continue
        places = np.flatnonzero(stratum_HW == stratum)[wanted]
        rows, columns = np.unravel_index(places, codes_HW.shape)
        yield DrawnPixels(
            np.full(len(places), stratum),
            codes_HW[rows, columns],
            rows + int(window.row_off),
            columns + int(window.col_off),
            areas_HW[rows, columns],
        )
