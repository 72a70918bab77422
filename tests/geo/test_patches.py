"""A map traced block by block gives the patches of the map traced as a whole."""

import gc
import tracemalloc

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio import features
from rasterio.crs import CRS
from rasterio.windows import Window
from shapely.geometry import shape

from terradelta.classes import SENSEEARTH, ClassTable
from terradelta.geo.grid import Grid
from terradelta.geo.patches import PatchTracer

from .drawings import draw_maps

UTM = CRS.from_epsg(32632)
# Sums of powers of two, so that coordinates are exact.
TRANSFORMS = {
    "north-up": Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000),
    "south-up": Affine(2, 0, 500_000, 0, 2, 4_000_000),
    "mirrored": Affine(-2, 0, 500_000, 0, -2, 4_000_000),
    "rotated": Affine(0.75, 0.5, 500_000, 0.5, -0.75, 5_000_000),
}
NODATA = 255


def cut(length, inner):
    """Offsets and lengths of the parts that a length is cut into."""
    edges = sorted({0, length, *(edge for edge in inner if edge < length)})
    return list(zip(edges[:-1], np.diff(edges).tolist(), strict=True))


@st.composite
def draw_jobs(draw):
    """A map with nodata, confidence and areas, and a lattice of blocks."""
    change_HW = draw(draw_maps())
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    change_HW[random.random(change_HW.shape) < draw(st.sampled_from([0, 0.05]))] = NODATA
    confidence_HW = random.integers(0, 101, change_HW.shape).astype(np.uint8)
    # Whole numbers, so that sums are exact in any order.
    area_m2_HW = random.integers(1, 9, change_HW.shape).astype(float)
    height, width = change_HW.shape
    edges = st.lists(st.integers(1, 27), max_size=5)
    block_rows, block_columns = cut(height, draw(edges)), cut(width, draw(edges))
    blocks = [
        Window(left, top, columns, rows)
        for top, rows in block_rows
        for left, columns in block_columns
    ]
    return change_HW, confidence_HW, area_m2_HW, blocks


def trace(job, transform=TRANSFORMS["north-up"], crs=UTM, min_area_m2=0.0):
    """Return the patches, and the map without those that are too small."""
    change_HW, confidence_HW, area_m2_HW, blocks = job
    height, width = change_HW.shape
    grid = Grid(crs, transform, width, height)
    tracer = PatchTracer(grid, SENSEEARTH, nodata=NODATA, min_area_m2=min_area_m2)
    sieved_HW = change_HW.copy()
    rows = []
    for window in blocks:
        part = window.toslices()
        areas = area_m2_HW[part] if crs else None
        removed_HW = tracer.add(window, change_HW[part], confidence_HW[part], areas)
        assert removed_HW.shape == change_HW[part].shape
        sieved_HW[part][removed_HW] = 0
        rows += tracer.take_finished().itertuples(index=False, name=None)
    for patch in tracer.dropped:
        burnt = 0
        for window, piece in patch.pieces:
            assert any(window == block for block in blocks)
            part = sieved_HW[window.toslices()]
            inside_HW = features.geometry_mask(
                [piece],
                part.shape,
                Affine.translation(window.col_off, window.row_off),
                invert=True,
            )
            assert (part[inside_HW] == patch.transition).all()
            part[inside_HW] = 0
            burnt += inside_HW.sum()
        assert burnt == patch.pixels
    return rows, sieved_HW


def trace_whole(job, transform=TRANSFORMS["north-up"]):
    """The slow way: GDAL outlines the whole map, and each patch is burnt to sum its pixels."""
    change_HW, confidence_HW, area_m2_HW, _ = job
    mask_HW = (change_HW > 0) & (change_HW != NODATA)
    for outline, value in features.shapes(change_HW, mask=mask_HW, connectivity=4):
        polygon = shape(outline)
        inside_HW = features.geometry_mask(
            [polygon], change_HW.shape, Affine.identity(), invert=True
        )
        from_id, to_id = SENSEEARTH.decode_transition(int(value))
        placed = shapely.transform(
            polygon, lambda xy_N2: np.array([transform @ tuple(xy) for xy in xy_N2])
        )
        yield (
            inside_HW,
            (
                SENSEEARTH.names[from_id],
                SENSEEARTH.names[to_id],
                int(value),
                int(inside_HW.sum()),
                float(area_m2_HW[inside_HW].sum()),
                float(confidence_HW[inside_HW].mean() / 100),
                placed,
            ),
        )


def comparable(rows):
    return sorted((*row[:5], round(row[5], 9), shapely.normalize(row[6]).wkt) for row in rows)


@settings(max_examples=100, deadline=None)
@given(draw_jobs(), st.sampled_from(sorted(TRANSFORMS)))
def test_patches_are_those_of_the_whole_map(job, name):
    transform = TRANSFORMS[name]
    rows, sieved_HW = trace(job, transform)
    assert comparable(rows) == comparable(row for _, row in trace_whole(job, transform))
    assert (sieved_HW == job[0]).all()
    assert all(row[6].is_valid for row in rows)


@settings(max_examples=50, deadline=None)
@given(draw_jobs())
def test_polygons_burn_back_to_the_map(job):
    rows, _ = trace(job)
    change_HW = np.where(job[0] == NODATA, 0, job[0])
    burnt_HW = features.rasterize(
        [(row[6], row[2]) for row in rows] or [(shapely.Point(0, 0), 0)],
        out_shape=change_HW.shape,
        transform=TRANSFORMS["north-up"],
        dtype="uint8",
    )
    assert (burnt_HW == change_HW).all()


@settings(max_examples=60, deadline=None)
@given(draw_jobs(), st.sampled_from([1.5, 6, 30, 200, 1e9]))
def test_small_patches_are_sieved_as_on_the_whole_map(job, min_area_m2):
    rows, sieved_HW = trace(job, min_area_m2=min_area_m2)
    expected_HW, kept = job[0].copy(), []
    for inside_HW, row in trace_whole(job):
        if row[4] < min_area_m2:
            expected_HW[inside_HW] = 0
        else:
            kept.append(row)
    assert (sieved_HW == expected_HW).all()
    assert comparable(rows) == comparable(kept)


@settings(max_examples=50, deadline=None)
@given(draw_jobs())
def test_equal_maps_give_equal_patches_in_equal_order(job):
    first, second = trace(job)[0], trace(job)[0]
    assert [row[6].wkb for row in first] == [row[6].wkb for row in second]
    assert [row[:6] for row in first] == [row[:6] for row in second]


def trace_column(num_blocks):
    """Peak of what is held while a map of many blocks with a patch on each seam is traced."""
    grid = Grid(UTM, TRANSFORMS["north-up"], 64, 64 * num_blocks)
    tracer = PatchTracer(grid, SENSEEARTH, nodata=NODATA)
    change_HW = np.zeros((64, 64), np.uint8)
    change_HW[:, ::4] = 9
    change_HW[30:34] = 0
    count = 0
    # What waits for the garbage collector is not held.
    gc.freeze()
    tracemalloc.start()
    for index in range(num_blocks):
        window = Window(0, 64 * index, 64, 64)
        tracer.add(window, change_HW, change_HW, np.ones((64, 64)))
        count += len(tracer.take_finished())
        gc.collect()
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    gc.unfreeze()
    assert count == 16 * (num_blocks + 1)
    return peak_bytes


def test_memory_does_not_grow_with_the_map():
    trace_column(2)
    # Ten times the blocks hold ten times the patches where none is let go; the rest is noise of the
    # process (a first call's caches, other threads).
    assert trace_column(120) < 2 * trace_column(12)


def test_a_patch_is_handed_out_as_soon_as_it_cannot_grow():
    tracer = PatchTracer(Grid(UTM, TRANSFORMS["north-up"], 20, 10), SENSEEARTH, nodata=NODATA)
    change_HW = np.zeros((10, 20), np.uint8)
    change_HW[2, 2] = change_HW[5, 9] = 9
    counts = []
    for left in (0, 10):
        window = Window(left, 0, 10, 10)
        part = change_HW[window.toslices()]
        tracer.add(window, part, part, np.ones((10, 10)))
        counts.append(len(tracer.take_finished()))
    assert counts == [1, 1]


def test_without_crs_areas_are_missing():
    job = (np.full((4, 5), 33, np.uint8), np.full((4, 5), 80, np.uint8), None, [Window(0, 0, 5, 4)])
    ((*texts, transition, pixels, area_m2, confidence, _),), _ = trace(job, crs=None)
    assert (texts, transition, pixels, confidence) == (["tree", "building"], 33, 20, 0.8)
    assert np.isnan(area_m2)


@pytest.mark.parametrize("transition", [17, 255, 399])
def test_many_classes_take_two_bytes(transition):
    classes = ClassTable.numbered(19)
    grid = Grid(UTM, TRANSFORMS["north-up"], 6, 4)
    tracer = PatchTracer(grid, classes, nodata=65535)
    change_HW = np.full((4, 6), 65535, np.uint16)
    change_HW[:, 2:4] = transition
    confidence_HW = np.full((4, 6), 50, np.uint16)
    for left in (0, 3):
        window = Window(left, 0, 3, 4)
        part = window.toslices()
        tracer.add(window, change_HW[part], confidence_HW[part], np.ones((4, 3)))
    frame = tracer.take_finished()
    assert frame.transition.tolist() == [transition]
    assert frame["to"].tolist() == [classes.names[transition % 20]]
    assert frame.pixels.tolist() == [8]
