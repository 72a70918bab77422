"""Tiles, which a network sees, and blocks of tiles, which are written at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from rasterio.windows import Window

from terradelta.errors import ArgumentError
from terradelta.geo.grid import cut_window

LARGEST_TILE_PX = 2048
"""Larger tiles see less twice, but take more memory: of an inner tile of the default network of
2,048 px, 56 % is kept, of one of 3,072 px 69 %."""
SMALLER_TILES_PX = (1536, 1280, 1024, 896, 768)
MIN_MARGINS_PER_TILE = 3
"""A smaller tile would keep less than a ninth of its answer."""
USUAL_MARGINS_PER_TILE = 5
"""A smaller tile, in margins, would discard more than two thirds of its answer."""


@dataclass(frozen=True)
class Tile:
    """A window that the network sees and the part of it whose answer is kept."""

    read: Window
    """The window that the network sees."""
    write: Window
    """The kept part of the answer; the `write` windows of a plan cover the map exactly once."""

    @classmethod
    def of(cls, rows: Cut, columns: Cut) -> Tile:
        """Return the tile of these rows and columns."""
        return cls(
            cut_window(
                columns.read_start,
                rows.read_start,
                columns.read_end - columns.read_start,
                rows.read_end - rows.read_start,
            ),
            cut_window(
                columns.write_start,
                rows.write_start,
                columns.write_end - columns.write_start,
                rows.write_end - rows.write_start,
            ),
        )

    @property
    def kept(self) -> tuple[slice, slice]:
        """Rows and columns of the answer that are kept."""
        return offset_slices(self.write, self.read)


class Cut(NamedTuple):
    """A tile along one axis, in pixels."""

    read_start: int
    read_end: int
    write_start: int
    write_end: int


@dataclass(frozen=True)
class Tiling:
    """How a map is cut into tiles.

    Origins of tiles are multiples of the network's output stride: a map shifted against the stride
    by a few pixels differs in 1 to 2 % of its labels.

    Raises:
        ArgumentError: If a tile is not larger than its margins.
    """

    tile_size_px: int
    """Side of the square that the network sees."""
    margin_px: int
    """Border of a tile whose answer is discarded, where a neighbouring tile covers it."""
    stride_px: int
    """Output stride of the network."""

    def __post_init__(self):
        if self.step_px < self.stride_px:
            raise ArgumentError(
                f"tiles of {self.tile_size_px} px with a margin of {self.margin_px} px leave "
                f"{self.tile_size_px - 2 * self.margin_px} px, less than the network's stride "
                f"of {self.stride_px} px",
                fix="use tiles of at least "
                f"{2 * self.margin_px + self.stride_px} px: --tile-size "
                f"{2 * self.margin_px + self.stride_px}",
            )

    @property
    def step_px(self) -> int:
        """Largest distance from tile to tile."""
        return (self.tile_size_px - 2 * self.margin_px) // self.stride_px * self.stride_px

    def cut(self, height: int, width: int) -> Iterator[Tile]:
        """Yield the tiles of a map of this size, row by row."""
        columns = self.cut_axis(width)
        for rows in self.cut_axis(height):
            for column in columns:
                yield Tile.of(rows, column)

    def count(self, height: int, width: int) -> int:
        """Return how many tiles `cut` yields."""
        return len(self.cut_axis(height)) * len(self.cut_axis(width))

    def cut_axis(self, length: int) -> list[Cut]:
        """Return the tiles along one axis: as few as possible, equal to within a stride."""
        if length <= self.tile_size_px:
            return [Cut(0, length, 0, length)]
        shared = length - 2 * self.margin_px
        count = -(-shared // self.step_px)
        starts = [
            -(-index * shared // (count * self.stride_px)) * self.stride_px
            for index in range(count)
        ]
        cuts = []
        done = 0
        for following in starts[1:]:
            end = following + 2 * self.margin_px
            cuts.append(Cut(starts[len(cuts)], end, done, end - self.margin_px))
            done = end - self.margin_px
        return [*cuts, Cut(starts[-1], length, done, length)]


@dataclass(frozen=True)
class Block:
    """Tiles that are read, answered and written as one."""

    index: int
    """Position among the blocks of the plan, row by row."""
    read: Window
    """The window that its tiles see."""
    write: Window
    """The window that it answers."""
    tiles: tuple[Tile, ...]
    """Its tiles, whose `write` windows cover the block's exactly once."""


@dataclass(frozen=True)
class BlockPlan:
    """How an area of a map is cut into blocks.

    The tiles are those of the whole map, for any area: the map of an area is the same part of
    the whole map, and blocks may be answered in any order on any machine.
    """

    tiling: Tiling
    """The tiles."""
    height: int
    """Rows of the whole map."""
    width: int
    """Columns of the whole map."""
    area: Window
    """The part of the map that is wanted."""
    tiles_per_side: int
    """Number of tiles of a block in each direction."""

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    def __getitem__(self, index: int) -> Block:
        row, column = divmod(range(len(self))[index], len(self.columns))
        rows, columns = self.rows[row], self.columns[column]
        tiles = tuple(Tile.of(r, c) for r in rows for c in columns)
        first, last = tiles[0], tiles[-1]
        return Block(
            index,
            _span(first.read, last.read),
            _span(first.write, last.write),
            tiles,
        )

    def __iter__(self) -> Iterator[Block]:
        return (self[index] for index in range(len(self)))

    def shard(self, number: int, count: int) -> range:
        """Return the indices of the blocks of one of `count` parts; `number` counts from 1."""
        return range(len(self) * (number - 1) // count, len(self) * number // count)

    @cached_property
    def rows(self) -> list[list[Cut]]:
        """Tiles of each row of blocks, along the rows' axis."""
        return self._group(self.height, int(self.area.row_off), int(self.area.height))

    @cached_property
    def columns(self) -> list[list[Cut]]:
        """Tiles of each column of blocks."""
        return self._group(self.width, int(self.area.col_off), int(self.area.width))

    def _group(self, length: int, start: int, size: int) -> list[list[Cut]]:
        """Return groups of the tiles along an axis that touch the area, cut to it."""
        end = start + size
        cuts = [
            cut._replace(write_start=max(cut.write_start, start), write_end=min(cut.write_end, end))
            for cut in self.tiling.cut_axis(length)
            if cut.write_start < end and cut.write_end > start
        ]
        step = self.tiles_per_side
        return [cuts[first : first + step] for first in range(0, len(cuts), step)]


def list_tile_sizes(margin_px: int, stride_px: int) -> list[int]:
    """Return the sides of tiles to choose from in pixels, the largest first.

    Args:
        margin_px: The margin of tiles.
        stride_px: Sides are multiples of it.
    """
    usual = max(LARGEST_TILE_PX, USUAL_MARGINS_PER_TILE * margin_px)
    smaller = [side for side in SMALLER_TILES_PX if side >= MIN_MARGINS_PER_TILE * margin_px]
    return [-(-side // stride_px) * stride_px for side in (usual, *smaller)]


def offset_slices(inner: Window, outer: Window) -> tuple[slice, slice]:
    """Return rows and columns of an inner window counted from an outer one's corner."""
    row = int(inner.row_off - outer.row_off)
    column = int(inner.col_off - outer.col_off)
    return slice(row, row + int(inner.height)), slice(column, column + int(inner.width))


def _span(first: Window, last: Window) -> Window:
    """Return the window from one's upper left to the other's lower right corner."""
    return cut_window(
        int(first.col_off),
        int(first.row_off),
        int(last.col_off + last.width - first.col_off),
        int(last.row_off + last.height - first.row_off),
    )
