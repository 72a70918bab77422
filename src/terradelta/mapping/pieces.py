"""Maps cut into pieces: a COG per map and piece, a VRT per map, and STAC items of all.

One file is too large to write, move and repair for a map of a country.

Legend of the array names: H rows, W columns.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rasterio.windows import Window

from terradelta.classes import Colour
from terradelta.geo.cog import BLOCK_SIZE_PX, MapFormat, write_cog, write_virtual
from terradelta.geo.grid import Grid, cut_window, shift_window
from terradelta.geo.stac import describe_asset, describe_item
from terradelta.inference.maps import MAP_LAYERS, find_band
from terradelta.outputs import write_json
from terradelta.ownership import ASSEMBLED_FILES, clear_folder

FOLDER = "cogs"
ITEMS_FILE = "items.json"


class Piece(NamedTuple):
    """Row and column of a piece, counted from 0."""

    row: int
    column: int

    @property
    def name(self) -> str:
        """STAC item in its folder."""
        return f"r{self.row:05d}_c{self.column:05d}"


def discard_unfinished(folder: Path):
    """Remove the files that a killed assembly left in a folder, except finished pieces."""
    finished = re.compile(rf"{FOLDER}/[^/]+/({'|'.join(MAP_LAYERS)})\.tif")
    clear_folder(folder, ASSEMBLED_FILES, keep=lambda path: bool(finished.fullmatch(path)))


class Pieces:
    """The pieces of a prediction's maps.

    Args:
        folder: Where the prediction is assembled.
        grid: The pixels of the map.
        size_px: Side of a piece.
        maps: Content of each map, by name.
    """

    def __init__(self, folder: Path, grid: Grid, size_px: int, maps: Mapping[str, MapFormat]):
        self._folder, self._grid, self._size_px = folder, grid, size_px
        self._maps = maps
        self._filled: set[Piece] = set()

    def mark(self, window: Window, valid_HW: np.ndarray):
        """Note which pieces hold data; the others are not written.

        Args:
            window: A part of the map.
            valid_HW: Where it holds data.
        """
        for piece in self._find(window):
            place = self._place(piece)
            rows, columns = (
                slice(max(0, int(start)), max(0, int(start) + self._size_px))
                for start in (place.row_off - window.row_off, place.col_off - window.col_off)
            )
            if valid_HW[rows, columns].any():
                self._filled.add(piece)

    def write(
        self,
        pool: ThreadPoolExecutor,
        parts: Iterable[tuple[Path, Window]],
        tags: Mapping[str, str],
    ) -> list[Future[None]]:
        """Start to write the COGs.

        Args:
            pool: Pool that writes them.
            parts: The file of each block, and its place on the map.
            tags: Further tags of the headers.
        """
        parts_of: defaultdict[Piece, list[tuple[Path, Window]]] = defaultdict(list)
        for path, window in parts:
            for piece in self._find(window):
                parts_of[piece].append((path, window))
        return [
            pool.submit(self._write_piece, piece, name, parts_of[piece], tags)
            for piece in sorted(self._filled)
            for name in self._maps
        ]

    def join(
        self,
        prefix: str,
        tags: Mapping[str, str],
        period: Sequence[datetime],
        legends: Mapping[str, Mapping[int, tuple[str, Colour]] | None],
    ):
        """Write the VRTs and the items, once all COGs are there.

        Args:
            prefix: Prefix of the names of the items.
            tags: Further tags of the headers.
            period: Begin and end of the period that the maps show; empty if unknown.
            legends: Name and colour of the values that occur in each map of classes.
        """
        places = {piece: self._place(piece) for piece in sorted(self._filled)}
        factors = [2**power for power in range(1, (self._size_px // BLOCK_SIZE_PX).bit_length())]
        for name, map_format in self._maps.items():
            parts = [(self._path(piece, name), place) for piece, place in places.items()]
            path = self._folder / f"{name}.vrt"
            write_virtual(path, self._grid, parts, 1, map_format, tags, overviews=factors)
        created = datetime.now(UTC)
        items = [
            describe_item(
                f"{prefix}_{piece.name}",
                self._grid.crop(place),
                period,
                {
                    name: describe_asset(
                        self._path(piece, name).relative_to(self._folder).as_posix(),
                        map_format,
                        legends[name],
                    )
                    for name, map_format in self._maps.items()
                },
                created,
            )
            for piece, place in places.items()
        ]
        collection = {"type": "FeatureCollection", "features": items}
        write_json(self._folder / ITEMS_FILE, collection)

    def _write_piece(
        self,
        piece: Piece,
        name: str,
        parts: Iterable[tuple[Path, Window]],
        tags: Mapping[str, str],
    ):
        place = self._place(piece)
        moved = [
            (path, shift_window(window, -place.col_off, -place.row_off)) for path, window in parts
        ]
        path = self._path(piece, name)
        # An existing piece is complete and the same, as its blocks and the request are.
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            begun = path.with_name(f"{name}.unfinished.tif")
            grid = self._grid.crop(place)
            write_cog(begun, grid, moved, find_band(name), self._maps[name], tags)
            begun.rename(path)

    def _path(self, piece: Piece, name: str) -> Path:
        return self._folder / FOLDER / piece.name / f"{name}.tif"

    def _find(self, window: Window) -> Iterator[Piece]:
        """Yield the pieces that a window of the map reaches into."""
        rows, columns = (
            range(int(start) // self._size_px, int(start + length - 1) // self._size_px + 1)
            for start, length in (
                (window.row_off, window.height),
                (window.col_off, window.width),
            )
        )
        yield from (Piece(row, column) for row in rows for column in columns)

    def _place(self, piece: Piece) -> Window:
        """Return the window of a piece on the map."""
        column, row = piece.column * self._size_px, piece.row * self._size_px
        return cut_window(
            column,
            row,
            min(self._size_px, self._grid.width - column),
            min(self._size_px, self._grid.height - row),
        )
