import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from terradelta.errors import ArgumentError
from terradelta.geo.grid import cut_window
from terradelta.inference.tiling import BlockPlan, Tiling, offset_slices

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
def test_tiles_are_equal_to_within_a_stride_and_as_few_as_possible(tiling, length):
    stride = tiling.stride_px
    tiling = replace(tiling, margin_px=tiling.margin_px // stride * stride)
    cuts = tiling.cut_axis(length)
    # As the network sees them: its images are padded to a multiple of its stride.
    sizes = [-(-(cut.read_end - cut.read_start) // stride) * stride for cut in cuts]
    assert max(sizes) - min(sizes) <= tiling.stride_px
    # The largest tiles, of which neighbours share two margins, would not cover it with one less.
    reach = 2 * tiling.margin_px + (len(cuts) - 1) * tiling.step_px
    assert length > reach or len(cuts) == 1


def test_kept_is_the_written_part_of_the_answer():
    for tile in Tiling(64, 8, 8).cut(200, 90):
        answer = np.arange(200)[tile.read.toslices()[0]]
        assert (answer[tile.kept[0]] == np.arange(200)[tile.write.toslices()[0]]).all()


def test_margins_that_leave_nothing_are_refused():
    with pytest.raises(ArgumentError, match="64 px with a margin of 32 px leave 0 px"):
        Tiling(64, 32, 8)


@given(
    TILINGS,
    st.integers(1, 700),
    st.integers(1, 300),
    st.integers(1, 5),
    st.tuples(*[st.floats(0, 1)] * 4),
)
def test_blocks_are_the_tiles_of_the_whole_map_cut_to_the_area(
    tiling, height, width, tiles_per_side, area
):
    top, left = int(area[0] * (height - 1)), int(area[1] * (width - 1))
    window = cut_window(
        left, top, 1 + int(area[2] * (width - left - 1)), 1 + int(area[3] * (height - top - 1))
    )
    plan = BlockPlan(tiling, height, width, window, tiles_per_side)
    whole = {(t.read.row_off, t.read.col_off): t for t in tiling.cut(height, width)}
    covered = np.zeros((height, width), dtype=int)
    for index, block in enumerate(plan):
        assert block.index == index
        rows, columns = block.write.toslices()
        covered[rows, columns] += 1
        inside = np.zeros((int(block.write.height), int(block.write.width)), dtype=int)
        for tile in block.tiles:
            same = whole[tile.read.row_off, tile.read.col_off]
            assert same.read == tile.read
            assert _contains(same.write, tile.write)
            assert _contains(block.read, tile.read)
            inside[offset_slices(tile.write, block.write)] += 1
        assert (inside == 1).all()
    wanted = np.zeros((height, width), dtype=int)
    wanted[window.toslices()] = 1
    assert (covered == wanted).all()


@given(st.integers(1, 40), st.integers(1, 60))
def test_shards_are_all_blocks_once(count, length):
    plan = BlockPlan(Tiling(64, 0, 8), 64 * length, 64, cut_window(0, 0, 64, 64 * length), 1)
    indices = [index for number in range(1, count + 1) for index in plan.shard(number, count)]
    assert indices == list(range(length))


def _contains(outer, inner):
    (top, bottom), (left, right) = outer.toranges()
    (inner_top, inner_bottom), (inner_left, inner_right) = inner.toranges()
    return (
        top <= inner_top and inner_bottom <= bottom and left <= inner_left and inner_right <= right
    )


@given(st.sampled_from([1, 8, 32]), st.integers(0, 90), st.integers(0, 100))
def test_the_tile_size_that_a_refusal_names_is_the_least_that_works(stride, margin, short):
    least = 2 * margin + stride
    assert Tiling(least, margin, stride).step_px == stride
    with pytest.raises(ArgumentError) as caught:
        Tiling(least - 1 - short, margin, stride)
    assert re.findall(r"least (\d+) px: --tile-size (\d+)", str(caught.value)) == [
        (str(least), str(least))
    ]
