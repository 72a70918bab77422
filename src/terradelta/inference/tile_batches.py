"""Batches of tiles that a network answers together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from terradelta.inference.tiling import Tile
from terradelta.models.crop import Crop


@dataclass(frozen=True)
class TileBatch:
    """Tiles of one size, of which the same part is kept."""

    tiles: list[Tile]
    """The tiles."""
    crop: Crop
    """The part of each that the network answers for: the kept one, and as far around it as the
    scores of its outermost pixels are interpolated with."""

    @property
    def kept(self) -> list[tuple[slice, slice]]:
        """Rows and columns of the crop that are kept, of each tile."""
        top, left = self.crop.top, self.crop.left
        return [
            (
                slice(rows.start - top, rows.stop - top),
                slice(columns.start - left, columns.stop - left),
            )
            for rows, columns in (tile.kept for tile in self.tiles)
        ]


def batch_alike(tiles: Sequence[Tile], stride_px: int, batch_size: int) -> Iterator[TileBatch]:
    """Yield batches of tiles that the network sees and answers in one way.

    Args:
        tiles: The tiles.
        stride_px: Sides of crops are multiples of it.
        batch_size: Largest number of tiles in a batch.
    """

    def describe(tile: Tile) -> tuple[tuple[int, int], Crop]:
        size = int(tile.read.height), int(tile.read.width)
        return size, _find_crop(tile, stride_px)

    for (_, crop), alike in groupby(sorted(tiles, key=describe), key=describe):
        rest = list(alike)
        for first in range(0, len(rest), batch_size):
            yield TileBatch(rest[first : first + batch_size], crop)


def _find_crop(tile: Tile, stride_px: int) -> Crop:
    rows, columns = tile.kept
    height, width = (
        -(-int(side) // stride_px) * stride_px for side in (tile.read.height, tile.read.width)
    )
    kept = Crop(rows.start, rows.stop, columns.start, columns.stop)
    return kept.widen(stride_px, stride_px, (height, width))
