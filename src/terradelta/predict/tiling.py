"""Tiles: which windows a network sees, and which part of each it answers for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rasterio.windows import Window

from terradelta.errors import ArgumentError
from terradelta.geo.grid import cut_window


@dataclass(frozen=True)
class Tile:
    """A window that the network sees and the part of it whose answer is kept."""

    read: Window
    """What the network sees."""
    write: Window
    """What is kept of the answer; the `write` windows of a plan cover the map exactly once."""

    @property
    def kept(self) -> tuple[slice, slice]:
        """Rows and columns of the answer that are kept."""
        row = int(self.write.row_off - self.read.row_off)
        column = int(self.write.col_off - self.read.col_off)
        return (
            slice(row, row + int(self.write.height)),
            slice(column, column + int(self.write.width)),
        )


@dataclass(frozen=True)
class Tiling:
    """How a map is cut into tiles.

    Origins of tiles are multiples of the network's output stride: a map shifted against the stride
    by a few pixels differs in 1 to 2 % of its labels.

    Raises:
        ArgumentError: If nothing of a tile would be left between its margins.
    """

    tile_size_px: int
    """Side of the square that the network sees."""
    margin_px: int
    """Border of a tile whose answer is thrown away, where another tile answers for it."""
    stride_px: int
    """Output stride of the network."""

    def __post_init__(self):
        if self._step < self.stride_px:
            raise ArgumentError(
                f"tiles of {self.tile_size_px} px with a margin of {self.margin_px} px leave "
                f"{self.tile_size_px - 2 * self.margin_px} px, less than the network's stride "
                f"of {self.stride_px} px",
                fix="use larger tiles",
            )

    @property
    def _step(self) -> int:
        return (self.tile_size_px - 2 * self.margin_px) // self.stride_px * self.stride_px

    def cut(self, height: int, width: int) -> Iterator[Tile]:
        """Yield the tiles of a map of this size, row by row."""
        for read_row, read_height, write_row, write_height in self._cut_axis(height):
            for read_column, read_width, write_column, write_width in self._cut_axis(width):
                yield Tile(
                    cut_window(read_column, read_row, read_width, read_height),
                    cut_window(write_column, write_row, write_width, write_height),
                )

    def count(self, height: int, width: int) -> int:
        """Return how many tiles `cut` yields."""
        return len(self._cut_axis(height)) * len(self._cut_axis(width))

    def _cut_axis(self, length: int) -> list[tuple[int, int, int, int]]:
        """Return (read start, read length, write start, write length) along one axis."""
        if length <= self.tile_size_px:
            return [(0, length, 0, length)]
        # The last tile ends with the map and is full-sized, to within a stride.
        last = -(-(length - self.tile_size_px) // self.stride_px) * self.stride_px
        starts = [*range(0, last, self._step), last]
        cuts = []
        done = 0
        for start in starts:
            end = min(start + self.tile_size_px, length)
            keep_until = length if start == last else end - self.margin_px
            cuts.append((start, end - start, done, keep_until - done))
            done = keep_until
        return cuts
