"""Known shifts are found within a tenth of a pixel, whatever else changed."""

import tracemalloc

import numpy as np
import pytest
import rasterio

from terradelta.data.synthetic import draw_pair
from terradelta.geo.pair import RasterPair
from terradelta.geo.pair_options import PairOptions
from terradelta.geo.registration import measure_shift, measure_stack

RGB = ("red", "green", "blue")
STEPS = np.arange(-5, 5.01, 0.25)
BORDER_PX = 8
REACH_PX = 12
SIDE_PX = 180


def move(image_HW, rows_px, columns_px):
    """Move a picture's content down and to the right, exactly, through its spectrum."""
    frequencies = [np.fft.fftfreq(length) for length in image_HW.shape]
    turn = np.outer(
        *(
            np.exp(-2j * np.pi * f * d)
            for f, d in zip(frequencies, (rows_px, columns_px), strict=True)
        )
    )
    return np.fft.ifft2(np.fft.fft2(image_HW) * turn).real


def grey(image_CHW):
    return image_CHW.astype(float).mean(axis=0)


def cut_patches(image_HW, side=SIDE_PX):
    inner = image_HW[BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX]
    starts = [range(0, length - side + 1, side) for length in inner.shape]
    patches = [inner[r : r + side, c : c + side] for r in starts[0] for c in starts[1]]
    return np.stack([patch - patch.mean() for patch in patches])


def measure_errors(before_HW, after_HW, steps, side=SIDE_PX, reach=REACH_PX):
    """Return the errors of shifts put on top of what the pair has by itself."""
    patches = cut_patches(before_HW, side)
    own = measure_stack(patches, cut_patches(after_HW, side), reach)
    assert own.reliable
    errors = []
    for number, rows_px in enumerate(steps):
        columns_px = steps[(7 * number + 3) % len(steps)]
        moved = cut_patches(move(after_HW, rows_px, columns_px), side)
        found = measure_stack(patches, moved, reach)
        assert found.reliable
        errors.append(abs(found.rows_px - own.rows_px - rows_px))
        errors.append(abs(found.columns_px - own.columns_px - columns_px))
    return errors


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_shifts_of_drawn_scenes_with_change_in_them(seed):
    scene = draw_pair((70, seed), 560)
    errors = measure_errors(grey(scene.before_CHW), grey(scene.after_CHW), STEPS[::3])
    assert max(errors) < 0.1


@pytest.mark.parametrize("year", ["20100629", "20190904"])
def test_shifts_of_aerial_images_ten_years_of_fields_apart(shared, year):
    images = []
    for date in ("20090818", year):
        path = next((shared / "data" / "naip_nd10").glob(f"*_{date}.tif"))
        with rasterio.open(path) as dataset:
            images.append(grey(dataset.read((1, 2, 3))[:, :720, :720]))
    assert max(measure_errors(*images, STEPS[::5], side=304, reach=24)) < 0.1


def test_the_shift_is_absolute_where_nothing_else_differs():
    image = grey(draw_pair((71, 0), 420).before_CHW)
    noise = np.random.default_rng(0).normal(0, 8, image.shape)
    for rows_px, columns_px in ((0, 0), (0.5, -0.5), (3.3, -10.8)):
        moved = move(image, rows_px, columns_px) + noise
        found = measure_stack(cut_patches(image), cut_patches(moved), REACH_PX)
        assert found.rows_px == pytest.approx(rows_px, abs=0.05)
        assert found.columns_px == pytest.approx(columns_px, abs=0.05)
        assert found.spread_px < 0.1


def test_light_turned_around_does_not_hide_the_shift():
    scene = draw_pair((72, 0), 420)
    image = grey(scene.before_CHW)
    found = measure_stack(cut_patches(image), cut_patches(-0.4 * move(image, 2, -3)), REACH_PX)
    assert found.reliable
    assert (round(found.rows_px), round(found.columns_px)) == (2, -3)


def test_reading_with_the_measured_shift_undoes_it(write_raster):
    scene = draw_pair((73, 0), 480)
    before = scene.before_CHW
    moved = np.stack([move(band.astype(float), 1.5, -2.25) for band in before])
    inner = (slice(None), slice(16, -16), slice(16, -16))
    paths = [
        write_raster(name, np.clip(np.rint(image), 0, 255).astype(np.uint8)[inner])
        for name, image in (("before", before), ("after", moved))
    ]
    with RasterPair(*paths, RGB) as pair:
        shift = measure_shift(pair)
    assert shift.reliable
    assert (shift.columns_px, shift.rows_px) == pytest.approx((-2.25, 1.5), abs=0.05)
    with RasterPair(*paths, RGB, PairOptions(shift_px=(shift.columns_px, shift.rows_px))) as pair:
        left = measure_shift(pair)
    assert left.length_px < 0.1


def test_what_has_no_shift_to_find_is_unreliable(write_raster):
    random = np.random.default_rng(0)
    noise = [random.integers(0, 255, (3, 300, 300), dtype=np.uint8) for _ in range(2)]
    flat = np.full((3, 300, 300), 7, np.uint8)
    tiny = [image[:, :20, :40] for image in noise]
    for pair_CHW in (noise, (flat, flat), (noise[0], flat), tiny):
        paths = [write_raster(f"{n}", image) for n, image in enumerate(pair_CHW)]
        with RasterPair(*paths, RGB) as pair:
            assert not measure_shift(pair).reliable


def test_nodata_does_not_count_as_detail(write_raster):
    scene = draw_pair((74, 0), 480)
    after = np.stack([move(band.astype(float), 0, 3) for band in scene.before_CHW])
    after = np.clip(np.rint(after), 1, 255).astype(np.uint8)
    holes = np.zeros(after.shape[1:], bool)
    holes[:, 100:130] = holes[200:240] = True
    before = np.where(holes, 0, np.maximum(scene.before_CHW, 1)).astype(np.uint8)
    paths = [
        write_raster("b", before, nodata=0),
        write_raster("a", np.where(holes, 0, after).astype(np.uint8), nodata=0),
    ]
    with RasterPair(*paths, RGB) as pair:
        shift = measure_shift(pair)
    assert (shift.columns_px, shift.rows_px) == pytest.approx((3, 0), abs=0.1)


def test_many_patches_take_no_more_memory_than_few():
    patches = np.random.default_rng(0).standard_normal((32, 96, 96))
    peaks = []
    for count in (2, 32):
        tracemalloc.start()
        measure_stack(patches[:count], patches[:count], 8)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
