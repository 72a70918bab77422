import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.warp import reproject
from rasterio.windows import Window

from terradelta.errors import ArgumentError, RasterError
from terradelta.geo.bands import select_bands
from terradelta.geo.pair import RasterPair
from terradelta.geo.pair_options import PairOptions

from .conftest import RGB, UTM_ORIGIN

BANDS = ("red", "green", "blue")


def read_whole(pair: RasterPair):
    return pair.read(Window(0, 0, pair.grid.width, pair.grid.height))


def test_rasters_on_one_grid_are_read_as_they_are(write_raster, picture_CHW):
    before = write_raster("before", picture_CHW)
    after = write_raster("after", 255 - picture_CHW)
    with RasterPair(before, after, BANDS) as pair:
        window = pair.read(Window(30, 10, 50, 40))
    assert (window.before_CHW == picture_CHW[:, 10:50, 30:80]).all()
    assert (window.after_CHW == 255 - picture_CHW[:, 10:50, 30:80]).all()
    assert window.valid_HW.all()


def test_a_whole_pixel_shift_is_cut_without_resampling(write_raster, picture_CHW):
    before = write_raster("before", picture_CHW)
    after = write_raster(
        "after", picture_CHW[:, 7:100, 12:], transform=UTM_ORIGIN @ Affine.translation(12, 7)
    )
    with RasterPair(before, after, BANDS) as pair:
        assert pair.grid.transform @ (0, 0) == (500_024.0, 4_999_986.0)
        whole = read_whole(pair)
    assert (whole.before_CHW == picture_CHW[:, 7:100, 12:]).all()
    assert (whole.after_CHW == whole.before_CHW).all()


def test_another_crs_and_resolution_is_warped_as_gdal_warps_it_whole(write_raster, picture_CHW):
    grid = Affine(2.6e-5, 0, 9.0003, 0, -1.9e-5, 45.1532)
    before = write_raster("before", picture_CHW)
    after = write_raster("after", picture_CHW, crs="EPSG:4326", transform=grid)
    with RasterPair(before, after, BANDS) as pair:
        whole = read_whole(pair)
        part = pair.read(Window(11, 5, 60, 33))
        expected = np.zeros_like(whole.after_CHW)
        reproject(
            picture_CHW,
            expected,
            src_transform=grid,
            src_crs=CRS.from_epsg(4326),
            dst_transform=pair.grid.transform,
            dst_crs=pair.grid.crs,
            resampling=Resampling.bilinear,
            tolerance=0.01,
        )
    assert whole.valid_HW.mean() > 0.5
    difference = np.abs(whole.after_CHW.astype(int) - expected)[:, whole.valid_HW]
    assert difference.max() <= 1
    assert (part.after_CHW == whole.after_CHW[:, 5:38, 11:71]).all()
    assert (part.valid_HW == whole.valid_HW[5:38, 11:71]).all()


def test_nodata_alpha_mask_and_nan_of_either_date_are_invalid(write_raster, picture_CHW):
    picture_CHW = np.maximum(picture_CHW, 1)
    holed = picture_CHW.copy()
    holed[:, 10:20, 10:20] = 0
    dark_water = holed.copy()
    dark_water[0, 50, 50] = 0  # 0 in one band only is a colour, not nodata
    alpha = np.concatenate([picture_CHW, np.full((1, 120, 160), 255, np.uint8)])
    alpha[3, 30:40, 30:40] = 0
    mask = np.full((120, 160), 255, np.uint8)
    mask[60:70, 60:70] = 0
    floating = picture_CHW.astype(np.float32)
    floating[1, 80:90, 80:90] = np.nan
    expected = np.ones((120, 160), bool)
    expected[10:20, 10:20] = False

    nodata = write_raster("nodata", dark_water, nodata=0)
    with RasterPair(nodata, write_raster("plain", picture_CHW), BANDS) as pair:
        assert (read_whole(pair).valid_HW == expected).all()
    with RasterPair(
        write_raster("alpha", alpha, colours=(*RGB, ColorInterp.alpha)), nodata, BANDS
    ) as pair:
        expected[30:40, 30:40] = False
        assert (read_whole(pair).valid_HW == expected).all()
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        RasterPair(
            write_raster("masked", picture_CHW, mask_HW=mask),
            write_raster("floating", floating),
            BANDS,
        ) as pair,
    ):
        whole = read_whole(pair)
    assert not whole.valid_HW[60:70, 60:70].any()
    assert not whole.valid_HW[80:90, 80:90].any()
    assert whole.valid_HW.sum() == 120 * 160 - 200
    assert np.isfinite(whole.after_CHW).all()


def test_nodata_stays_invalid_when_warped(write_raster, picture_CHW):
    holed = np.maximum(picture_CHW, 1)
    holed[:, 40:60, 40:60] = 0
    before = write_raster("before", picture_CHW)
    after = write_raster(
        "after", holed, nodata=0, transform=UTM_ORIGIN @ Affine.translation(0.5, 0.5)
    )
    with RasterPair(before, after, BANDS) as pair:
        valid_HW = read_whole(pair).valid_HW
    assert not valid_HW[41:60, 41:60].any()
    assert valid_HW[:39].all()


def test_bands_are_found_by_colour_by_name_and_by_number(write_raster, picture_CHW):
    four = np.concatenate([picture_CHW, picture_CHW[:1]])
    swapped = (ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.undefined)
    with rasterio.open(write_raster("swapped", four, colours=swapped)) as dataset:
        assert select_bands(dataset, BANDS) == [3, 2, 1]
        assert select_bands(dataset, BANDS, [1, 2, 4]) == [1, 2, 4]
        assert select_bands(dataset, BANDS, ["green", "4", "red"]) == [2, 4, 3]
        with pytest.raises(RasterError, match="has no band nir; it has 1 blue, 2 green"):
            select_bands(dataset, BANDS, ["nir", "red", "green"])
        with pytest.raises(ArgumentError, match=r"names 2 bands .* needs 3"):
            select_bands(dataset, BANDS, [1, 2])
    with (
        rasterio.open(
            write_raster("unnamed", np.tile(picture_CHW, (2, 1, 1)), colours=None)
        ) as dataset,
        pytest.raises(RasterError, match="--bands 1,2,3"),
    ):
        select_bands(dataset, BANDS)


def test_pairs_that_do_not_fit_are_refused_by_name(write_raster, picture_CHW, tmp_path):
    here = write_raster("here", picture_CHW)
    elsewhere = write_raster("elsewhere", picture_CHW, transform=Affine(2, 0, 9e5, 0, -2, 5e6))
    text = tmp_path / "notes.tif"
    text.write_text("not a raster")
    with pytest.raises(RasterError, match="do not overlap"):
        RasterPair(here, elsewhere, BANDS)
    with pytest.raises(RasterError, match=r"notes.tif cannot be opened"):
        RasterPair(here, text, BANDS)
    with pytest.raises(RasterError, match=r"missing.tif"):
        RasterPair(tmp_path / "missing.tif", here, BANDS)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_pictures_without_crs_need_the_same_pixels(write_raster, picture_CHW):
    plain = {"crs": None, "transform": Affine.identity()}
    before = write_raster("before", picture_CHW, **plain)
    with RasterPair(before, write_raster("after", picture_CHW, **plain), BANDS) as pair:
        assert pair.grid.crs is None
    with pytest.raises(RasterError, match=r"160 x 120.*150 x 120"):
        RasterPair(before, write_raster("small", picture_CHW[:, :, :150], **plain), BANDS)
    with pytest.raises(RasterError, match=r"before.tif has no coordinate reference system"):
        RasterPair(before, write_raster("georeferenced", picture_CHW), BANDS)


def test_a_truncated_file_is_an_error_that_names_it(write_raster, picture_CHW):
    before = write_raster("before", picture_CHW)
    after = write_raster("after", np.tile(picture_CHW, (1, 4, 4))[:, :120, :160], compress="lzw")
    after.write_bytes(after.read_bytes()[: after.stat().st_size // 2])
    with pytest.raises(RasterError, match=r"after.tif"), RasterPair(before, after, BANDS) as pair:
        read_whole(pair)


OVERVIEWS = {
    "pixel phase": {"transform": UTM_ORIGIN @ Affine.translation(-30.4, -20.3)},
    "turned": {"transform": UTM_ORIGIN @ Affine.translation(10, -60) @ Affine.rotation(20)},
    "other CRS": {
        "crs": "EPSG:4326",
        "transform": Affine(2.6e-5, 0, 8.997, 0, -1.9e-5, 45.158),
    },
    "shifted": {},
    "no place": {"crs": None, "transform": Affine.identity()},
    "finer": {"transform": UTM_ORIGIN @ Affine.scale(0.7) @ Affine.translation(-30.4, -20.3)},
}


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
@pytest.mark.parametrize("name", OVERVIEWS)
def test_an_overview_shows_what_the_fine_grid_does(write_raster, name, dtype):
    rows, columns = np.mgrid[0:640, 0:720] / 60
    waves = [120 + 90 * np.sin(rows * a + columns * b) for a, b in ((1, 2), (2, 1), (1, -1))]
    image_CHW = np.round(waves).astype(dtype)
    image_CHW[:, 270:380, 150:280] = 0
    same = OVERVIEWS[name] if name == "no place" else {}
    before = write_raster("before", image_CHW, **same)
    after = write_raster("after", image_CHW, nodata=0, **OVERVIEWS[name])
    step = 6
    with RasterPair(before, after, BANDS, PairOptions(shift_px=(3.3, -2.6))) as pair:
        assert pair.is_resampled[1]
        shape = (pair.grid.height - 12) // step, (pair.grid.width - 24) // step
        window = Window(24, 12, shape[1] * step, shape[0] * step)
        overview = pair.read_overview(shape, window)
        fine = pair.read(window)
    # The slow obvious version: every pixel of the fine grid resampled, then averaged.
    parts = shape[0], step, shape[1], step
    mean_CHW = fine.after_CHW.astype(float).reshape(3, *parts).mean(axis=(2, 4))
    valid_HW = fine.valid_HW.reshape(parts).mean(axis=(1, 3))
    assert (valid_HW == 1).mean() > 0.4
    assert (valid_HW == 0).any()
    assert not overview.valid_HW[valid_HW == 0].any()
    assert overview.valid_HW[valid_HW == 1].all()
    difference_CHW = np.abs(overview.after_CHW - mean_CHW)[:, valid_HW == 1]
    moved_CHW = np.abs(np.roll(mean_CHW, 1, axis=2) - mean_CHW)[:, valid_HW == 1]
    assert difference_CHW.mean() < 0.1 * moved_CHW.mean()
