"""Values are stored * scale + offset, whatever way a raster is read."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.windows import Window

from terradelta.errors import RasterError
from terradelta.geo.mosaic import describe_images
from terradelta.geo.pair import RasterPair
from terradelta.geo.pair_options import PairOptions
from terradelta.geo.scaling import BandScaling, merge_scaling

from .conftest import UTM_ORIGIN

BANDS = ("red", "green", "blue")
WHOLE = Window(0, 0, 160, 120)


@pytest.fixture
def write_tagged(write_raster):
    def write(name, image_CHW, scales, offsets, **profile):
        path = write_raster(name, image_CHW, **profile)
        with rasterio.open(path, "r+") as dataset:
            dataset.scales, dataset.offsets = scales, offsets
        return path

    return write


def test_trivial_tags_leave_the_stored_bytes(write_tagged, picture_CHW):
    path = write_tagged("plain", picture_CHW, (1.0,) * 3, (0.0,) * 3)
    with RasterPair(path, path, BANDS) as pair:
        assert pair.bytes_per_pixel == 6
        pixels = pair.read(WHOLE)
    assert pixels.before_CHW.dtype == np.uint8
    assert (pixels.before_CHW == picture_CHW).all()


def test_an_overview_and_an_empty_window_hold_values_too(write_tagged, picture_CHW, tmp_path):
    path = write_tagged("deep", picture_CHW.astype(np.uint16) * 16, (1e-4,) * 3, (-0.1,) * 3)
    moved = write_tagged(
        "moved",
        picture_CHW.astype(np.uint16) * 16,
        (1e-4,) * 3,
        (-0.1,) * 3,
        transform=UTM_ORIGIN @ Affine.translation(0.3, 0.3),
    )
    expected_CHW = picture_CHW * 0.0016 - 0.1
    with RasterPair(path, moved, BANDS) as pair:
        assert pair.dtypes == ("float32", "float32")
        assert pair.bytes_per_pixel == 24
        small = pair.read_overview((12, 16))
        whole = pair.read(WHOLE)
    assert small.before_CHW.dtype == np.float32
    assert abs(small.before_CHW.mean() - expected_CHW.mean()) < 0.02
    assert abs(small.after_CHW.mean() - expected_CHW.mean()) < 0.02
    assert np.abs(whole.before_CHW - expected_CHW).max() < 1e-6
    with RasterPair(path, [path], BANDS) as pair:
        outside = pair.read(Window(500, 500, 4, 4))
    assert outside.after_CHW.dtype == np.float32
    assert not outside.valid_HW.any()


def test_other_tags_make_another_input(write_tagged, picture_CHW):
    digests = set()
    for offset in (0.0, 5.0):
        path = write_tagged("one", picture_CHW, (2.0,) * 3, (offset,) * 3)
        with RasterPair(path, [path], BANDS) as pair:
            single = describe_images(pair.datasets[0], path)
            mosaic = describe_images(pair.datasets[1], [path])
        assert single.offsets == [offset] * 3
        digests |= {single.header_sha256, mosaic.header_sha256}
    assert len(digests) == 4


def test_a_bad_scale_counts_in_bands_that_are_read(write_tagged, picture_CHW):
    four_CHW = np.concatenate([picture_CHW, picture_CHW[:1]])
    path = write_tagged("four", four_CHW, (1.0, 1.0, 1.0, 0.0), (0.0,) * 4, colours=None)
    with RasterPair(path, path, BANDS, PairOptions(bands=(1, 2, 3))) as pair:
        assert pair.read(WHOLE).valid_HW.all()
    for source in (path, [path]):
        with pytest.raises(RasterError, match=r"four\.tif: band 4 has the scale 0"):
            RasterPair(source, source, BANDS, PairOptions(bands=(4, 2, 3)))


def test_values_are_made_in_double_precision():
    stored_CHW = np.array([[[2**31 + 1]], [[7]]], np.uint32)
    scaling = BandScaling((0.5, 3.0), (-(2.0**30), 0.0))
    values_CHW, valid_HW = scaling.apply(stored_CHW, np.ones((1, 1), bool))
    assert values_CHW.dtype == np.float32
    assert values_CHW.ravel().tolist() == [0.5, 21.0]
    assert valid_HW.all()


def test_a_catalogue_speaks_of_bands_or_of_none():
    plain = BandScaling((1.0,) * 3, (0.0,) * 3)
    merged = merge_scaling(plain, [[(2.0, 1.0)], []], (2, 1), "a + b")
    assert merged == BandScaling((2.0, 2.0, 1.0), (1.0, 1.0, 0.0))
    tagged = BandScaling((2.0,) * 3, (1.0,) * 3)
    assert merge_scaling(tagged, [[]], (3,), "a") == tagged
    with pytest.raises(RasterError, match=r"a: band 1 has the scale 2 .* item says 3 and 1"):
        merge_scaling(tagged, [[(3.0, 1.0)]], (3,), "a")
