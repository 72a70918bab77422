import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from terradelta.errors import ArgumentError
from terradelta.predict.tiling import Tiling

TILINGS = st.builds(
    lambda stride, step, margin, extra: Tiling(stride * step + 2 * margin + extra, margin, stride),
    stride=st.sampled_from([1, 4, 8, 32]),
    step=st.integers(1, 8),
    margin=st.integers(0, 40),
    extra=st.integers(0, 5),
)


@given(TILINGS, st.integers(1, 700), st.integers(1, 300))
def test_tiles_cover_every_pixel_once_and_see_their_margin(tiling, height, width):
    covered = np.zeros((height, width), dtype=int)
    tiles = list(tiling.cut(height, width))
    assert len(tiles) == tiling.count(height, width)
    for tile in tiles:
        rows, columns = tile.write.toslices()
        covered[rows, columns] += 1
        for start, size, write_start, write_size, length in (
            (tile.read.row_off, tile.read.height, rows.start, rows.stop - rows.start, height),
            (
                tile.read.col_off,
                tile.read.width,
                columns.start,
                columns.stop - columns.start,
                width,
            ),
        ):
            assert start % tiling.stride_px == 0
            assert size <= tiling.tile_size_px
            assert start >= 0
            assert start + size <= length
            assert write_start == 0 or write_start - start >= tiling.margin_px
            end = write_start + write_size
            assert end == length or start + size - end >= tiling.margin_px
    assert (covered == 1).all()


@given(TILINGS, st.integers(1, 2000))
def test_tiles_are_full_sized_where_the_map_allows(tiling, length):
    for tile in tiling.cut(length, 1):
        shortest = min(length, tiling.tile_size_px - tiling.stride_px + 1)
        assert tile.read.height >= shortest


def test_kept_is_the_written_part_of_the_answer():
    for tile in Tiling(64, 8, 8).cut(200, 90):
        answer = np.arange(200)[tile.read.toslices()[0]]
        assert (answer[tile.kept[0]] == np.arange(200)[tile.write.toslices()[0]]).all()


def test_margins_that_leave_nothing_are_refused():
    with pytest.raises(ArgumentError, match="64 px with a margin of 32 px leave 0 px"):
        Tiling(64, 32, 8)
