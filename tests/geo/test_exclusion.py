"""A mask leaves out the pixels that whole-array numpy says, on any grid."""

import numpy as np
import pytest
from affine import Affine
from rasterio.warp import Resampling, reproject, transform
from rasterio.windows import Window

from terradelta.errors import ArgumentError, RasterError
from terradelta.geo.check import examine_pair
from terradelta.geo.exclusion import MaskValues
from terradelta.geo.pair import RasterPair
from terradelta.geo.pair_options import DateOptions, ModelNeeds, PairOptions

from .conftest import UTM_ORIGIN

BANDS = ("red", "green", "blue")


def open_pair(before, after, mask=None, **options):
    return RasterPair(before, after, BANDS, PairOptions(after=DateOptions(mask=mask), **options))


def read_whole(pair: RasterPair):
    return pair.read(Window(0, 0, pair.grid.width, pair.grid.height))


@pytest.fixture
def classes_HW():
    return np.kron(np.random.default_rng(0).integers(0, 12, (30, 40)), np.ones((2, 2), int))


@pytest.mark.parametrize(
    ("text", "left_out"),
    [
        (None, list(range(1, 12))),
        ("3,8-11", [3, 8, 9, 10, 11]),
        (" 0 , 2 - 3", [0, 2, 3]),
        ("scl", [0, 1, 3, 8, 9, 10]),
        ("OmniCloudMask", [1, 2, 3]),
        ("bits:0,3", [n for n in range(12) if n & 0b1001]),
        ("bits:1-2", [n for n in range(12) if n & 0b110]),
    ],
)
def test_values_ranges_bits_and_products_name_what_is_left_out(text, left_out):
    values = np.arange(12, dtype=np.uint8)
    assert np.flatnonzero(MaskValues.parse(text).find(values)).tolist() == left_out


def test_landsat_bits_are_those_of_16_bit_fields():
    clear, cloud, shadow, fill, water = 21824, 22280, 23888, 1, 21952
    values = np.array([clear, cloud, shadow, fill, water], np.uint16)
    assert MaskValues.parse("qa_pixel").find(values).tolist() == [False, True, True, True, False]
    negative = np.array([-32768, 1], np.int16)
    assert MaskValues.parse("bits:15").find(negative).tolist() == [True, False]


@pytest.mark.parametrize("text", ["", "clouds", "3,", "9-8", "bits:", "bits:64", "bits:-1", "1.5"])
def test_other_texts_are_refused(text):
    with pytest.raises(ArgumentError, match="names no values of a mask"):
        MaskValues.parse(text)


@pytest.mark.parametrize("nodata", [None, 0, 3])
def test_a_mask_on_the_grid_leaves_out_its_values_only(
    write_raster, picture_CHW, classes_HW, nodata
):
    before, after = write_raster("before", picture_CHW), write_raster("after", 255 - picture_CHW)
    mask = write_raster("mask", classes_HW[None].astype(np.uint8), colours=None, nodata=nodata)
    with open_pair(before, after, mask, mask_values="3,8-11") as pair:
        whole = read_whole(pair)
        part = pair.read(Window(13, 7, 50, 30))
    left_out_HW = np.zeros((120, 160), bool)
    left_out_HW[:60, :80] = np.isin(classes_HW, [3, 8, 9, 10, 11])
    # Outside of the mask nothing is left out, and its own nodata is a value like others.
    assert (whole.valid_HW == ~left_out_HW).all()
    assert (part.valid_HW == ~left_out_HW[7:37, 13:63]).all()
    # The network may see what is left out: it is context.
    assert whole.data_HW.all()
    assert (whole.after_CHW == 255 - picture_CHW).all()


def find_places():
    (x,), (y,) = transform("EPSG:32632", "EPSG:32633", [500_020], [4_999_980])
    return {
        "coarser": ("EPSG:32632", UTM_ORIGIN @ Affine.scale(2) @ Affine.translation(3, 4)),
        "half a pixel off": ("EPSG:32632", UTM_ORIGIN @ Affine.translation(10.5, 20.5)),
        "turned": ("EPSG:32632", UTM_ORIGIN @ Affine.translation(60, 10) @ Affine.rotation(30)),
        "other CRS": ("EPSG:32633", Affine(4, 0, round(x), 0, -4, round(y))),
        "degrees": ("EPSG:4326", Affine(4e-5, 0, 9.0003, 0, -3e-5, 45.153)),
    }


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("name", find_places())
def test_a_mask_on_other_pixels_is_the_nearest_of_them(
    write_raster, picture_CHW, classes_HW, name, kind
):
    crs, place = find_places()[name]
    before = write_raster("before", picture_CHW)
    values = classes_HW[None].astype(kind)
    mask = write_raster("mask", values, colours=None, crs=crs, transform=place)
    with open_pair(before, before, mask, mask_values="3,8-11") as pair:
        whole = read_whole(pair)
        for row in range(0, 120, 23):
            height = min(23, 120 - row)
            part = pair.read(Window(5, row, 140, height))
            assert (part.valid_HW == whole.valid_HW[row : row + height, 5:145]).all()
    expected_HW = np.zeros((120, 160), np.uint8)
    reproject(
        classes_HW.astype(np.uint8),
        expected_HW,
        src_crs=crs,
        src_transform=place,
        dst_crs="EPSG:32632",
        dst_transform=UTM_ORIGIN,
        resampling=Resampling.nearest,
    )
    wrong_HW = whole.valid_HW == np.isin(expected_HW, [3, 8, 9, 10, 11])
    # Halfway between two pixels either is the nearest.
    if name != "half a pixel off":
        assert wrong_HW.mean() <= (0 if name == "coarser" else 0.01)
    assert 0.05 < (~whole.valid_HW).mean() < 0.6


def test_each_date_has_its_mask_and_it_moves_with_its_image(write_raster, picture_CHW):
    before = write_raster("before", picture_CHW)
    cloud = np.zeros((1, 120, 160), np.uint8)
    cloud[0, 40:60, 50:80] = 1
    mask = write_raster("mask", cloud, colours=None)
    other = write_raster("other", cloud[:, ::-1], colours=None)
    dates = {"before": DateOptions(mask=other), "after": DateOptions(mask=mask)}
    options = PairOptions(shift_px=(3, 2), **dates)
    with RasterPair(before, before, BANDS, options) as pair:
        left_out_HW = read_whole(pair).data_HW & ~read_whole(pair).valid_HW
    expected_HW = cloud[0, ::-1] > 0
    expected_HW[38:58, 47:77] = True
    assert (left_out_HW == expected_HW)[:118, :157].all()


def test_masks_may_be_a_mosaic(write_raster, picture_CHW):
    before = write_raster("before", picture_CHW)
    left, right = np.zeros((1, 120, 80), np.uint8), np.zeros((1, 120, 80), np.uint8)
    left[0, 10:20], right[0, 30:40] = 1, 2
    parts = [
        write_raster("left", left, colours=None),
        write_raster(
            "right", right, colours=None, transform=UTM_ORIGIN @ Affine.translation(80, 0)
        ),
    ]
    listing = parts[0].with_suffix(".txt")
    listing.write_text("\n".join(path.name for path in parts))
    with open_pair(before, before, listing) as pair:
        valid_HW = read_whole(pair).valid_HW
    assert (valid_HW == (np.concatenate([left, right], axis=2)[0] == 0)).all()


def test_a_mask_is_distinguished_by_what_it_holds(write_raster, picture_CHW):
    before = write_raster("before", picture_CHW)
    cloud = np.zeros((1, 120, 160), np.uint8)
    digests = set()
    for row in (10, 50):
        cloud[0, row] = 1
        mask = write_raster("mask", cloud, colours=None)
        with open_pair(before, before, mask) as pair:
            assert pair.masks[0] is None
            digests.add(pair.masks[1].describe().header_sha256)
            assert pair.bytes_per_pixel > 6
    assert len(digests) == 2


def test_masks_that_cannot_be_used_are_refused_by_name(write_raster, picture_CHW):
    before = write_raster("before", picture_CHW)
    one = picture_CHW[:1]
    far = UTM_ORIGIN @ Affine.translation(500, 0)
    for mask, values, message in (
        (before, None, r"the mask before\.tif has 3 bands"),
        (write_raster("far", one, colours=None, transform=far), None, r"far\.tif does not overlap"),
        (
            write_raster("bare", one, colours=None, crs=None),
            None,
            r"bare\.tif has no coordinate reference",
        ),
        (
            write_raster("real", one.astype("float32"), colours=None),
            "bits:3",
            r"real\.tif holds float32",
        ),
        ("absent.tif", None, r"absent\.tif cannot be opened"),
    ):
        with pytest.raises(RasterError, match=message):
            open_pair(before, before, mask, mask_values=values)
    with pytest.raises(ArgumentError, match="without a mask"):
        open_pair(before, before, mask_values="scl")


def test_a_check_looks_past_the_mask(write_raster, picture_CHW):
    before = write_raster("before", picture_CHW)
    cloud = np.ones((1, 120, 160), np.uint8)
    mask = write_raster("mask", cloud, colours=None)
    options = PairOptions(after=DateOptions(mask=mask))
    report = examine_pair(before, before, options, ModelNeeds())
    assert next(finding for finding in report.findings if finding.name == "nodata").level == "FAIL"
