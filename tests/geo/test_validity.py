"""Which pixels hold data, against whole-array numpy: nodata, mask, alpha, type, grid, source."""

from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.warp import Resampling, reproject, transform
from rasterio.windows import Window
from scipy.ndimage import binary_dilation

from terradelta.errors import RasterError
from terradelta.geo.pair import RasterPair
from terradelta.geo.pair_options import DateOptions, PairOptions
from terradelta.geo.source import open_source
from terradelta.geo.virtual import name_raster

from .conftest import RGB, UTM_ORIGIN

BANDS = ("red", "green", "blue")
RGBA = (*RGB, ColorInterp.alpha)
CASES = Path(__file__).parents[3] / "shared" / "cases" / "rasters"
SIZE = 48
NODATA = {"uint8": 7, "uint16": 0, "int16": -32768, "float32": -9999.0}


@dataclass(frozen=True)
class Kind:
    """One way to say which pixels hold data."""

    nodata: str = "none"
    mask: str = "none"
    alpha: str = "none"
    dtype: str = "uint8"


def list_kinds():
    """Every combination of holes for two types, and every type and alpha once more."""
    holes = product(
        ("none", "all bands", "one band", "nan", "given"), ("none", "internal", "beside")
    )
    for (nodata, mask), alpha in product(holes, ("none", "true", "false")):
        for dtype in ("float32",) if nodata == "nan" else ("uint8", "float32"):
            yield Kind(nodata, mask, alpha, dtype)
    for dtype, alpha in product(("uint16", "int16"), ("none", "true", "255", "false")):
        yield Kind("one band", "internal", alpha, dtype)


KINDS = list(dict.fromkeys(list_kinds()))


def draw_holes():
    """Return four holes that overlap in part, each (H, W) bool."""
    holes = np.zeros((4, SIZE, SIZE), bool)
    holes[0, 4:16, 6:30] = True
    holes[1, 10:26, 20:40] = True
    holes[2, 22:36, 4:18] = True
    holes[3, 30:44, 14:44] = True
    return holes


def write(path: Path, kind: Kind, place: Affine, crs: str, column: int = 0, width: int = SIZE):
    """Write some columns of a raster of a kind, and return where they hold data."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    image_CHW = np.stack([60 + rows + columns, 80 + rows, 90 + columns]).astype(kind.dtype)
    value_hole, mask_hole, alpha_hole, impossible_hole = draw_holes()
    valid_HW = np.ones((SIZE, SIZE), bool)
    value = np.nan if kind.nodata == "nan" else NODATA[kind.dtype]
    if kind.nodata in ("all bands", "nan", "given"):
        image_CHW[:, value_hole] = value
        valid_HW &= ~value_hole
    elif kind.nodata == "one band":
        image_CHW[1, value_hole] = value
        # In 8 bits every value is a colour.
        valid_HW &= ~value_hole | (kind.dtype == "uint8")
    if kind.dtype == "float32":
        image_CHW[0, impossible_hole] = -3.4e38
        valid_HW &= ~impossible_hole
    colours = RGB
    if kind.alpha != "none":
        opaque = {"255": 255, "true": 1}.get(kind.alpha, 0)
        if kind.alpha == "true" and kind.dtype != "float32":
            opaque = np.iinfo(kind.dtype).max
        alpha_HW = np.where(alpha_hole, 0, opaque) if opaque else 30 + rows * 2 + columns
        valid_HW &= ~alpha_hole | (kind.alpha == "false")
        image_CHW = np.concatenate([image_CHW, alpha_HW[None].astype(kind.dtype)])
        colours = RGBA
    part = slice(column, column + width)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=kind.mask == "internal"),
        rasterio.open(
            path,
            "w",
            driver="GTiff",
            width=width,
            height=SIZE,
            count=len(image_CHW),
            dtype=kind.dtype,
            crs=crs,
            transform=place @ Affine.translation(column, 0),
            nodata=None if kind.nodata in ("none", "given") else value,
        ) as dataset,
    ):
        dataset.colorinterp = colours
        dataset.write(image_CHW[..., part])
        if kind.mask != "none":
            dataset.write_mask(~mask_hole[:, part])
            valid_HW &= ~mask_hole
    return valid_HW


def write_source(folder: Path, kind: Kind, source: str, place: Affine, crs: str):
    """Write a raster of a kind as a file, files of bands, a VRT or a mosaic."""
    if source == "mosaic":
        parts = ((0, 20), (20, SIZE - 20))
        paths = [folder / f"part{column}.tif" for column, _ in parts]
        for path, (column, width) in zip(paths, parts, strict=True):
            valid_HW = write(path, kind, place, crs, column, width)
        return paths, valid_HW
    path = folder / "after.tif"
    valid_HW = write(path, kind, place, crs)
    if source == "virtual":
        rasterio.shutil.copy(path, folder / "after.vrt", driver="VRT")
        return folder / "after.vrt", valid_HW
    if source == "joined":
        # The other bands come from a file that is valid throughout.
        other = folder / "other.tif"
        write(other, Kind(dtype=kind.dtype), place, crs)
        with rasterio.open(other, "r+") as dataset:
            image_CHW = dataset.read()
            dataset.write(np.where(np.abs(image_CHW) > 1e30, 1, image_CHW).astype(kind.dtype))
        return f"{path} + {other}", valid_HW
    return path, valid_HW


def find_places():
    (x,), (y,) = transform("EPSG:32632", "EPSG:32633", [500_010], [4_999_990])
    return {
        "on grid": ("EPSG:32632", UTM_ORIGIN),
        "shifted": ("EPSG:32632", UTM_ORIGIN @ Affine.translation(0.1, 0.1)),
        "other CRS": ("EPSG:32633", Affine(2.2, 0, round(x), 0, -2.2, round(y))),
    }


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    path = tmp_path_factory.mktemp("before") / "before.tif"
    write(path, Kind(), UTM_ORIGIN, "EPSG:32632")
    return path


def read(before, after, kind: Kind, source: str):
    given = NODATA[kind.dtype] if kind.nodata == "given" else None
    options = PairOptions(bands=(1, 2, 3), after=DateOptions(nodata=given))
    if source == "joined":
        # The third band is the last of the second file.
        before = f"{before} + {before} + {before}"
        options = replace(options, bands=(1, 2, 7 if kind.alpha == "false" else 6))
    with RasterPair(before, after, BANDS, options) as pair:
        whole = Window(0, 0, pair.grid.width, pair.grid.height)
        image, parts = pair.read(whole), []
        for row in range(0, pair.grid.height, 17):
            window = Window(0, row, pair.grid.width, min(17, pair.grid.height - row))
            parts.append(pair.read(window).valid_HW)
        assert (np.concatenate(parts) == image.valid_HW).all()
        overview = pair.read_overview((pair.grid.height // 2, pair.grid.width // 2))
        return pair.grid, image, overview


@pytest.mark.parametrize("place", ["on grid", "shifted", "other CRS"])
@pytest.mark.parametrize("source", ["file", "joined", "virtual", "mosaic"])
def test_validity_is_the_union_of_all_that_says_so(before, tmp_path, source, place):
    crs, transform_ = find_places()[place]
    kinds = KINDS if place == "on grid" else KINDS[len(source + place) % 3 :: 3]
    for number, kind in enumerate(kinds):
        folder = tmp_path / str(number)
        folder.mkdir()
        after, expected_HW = write_source(folder, kind, source, transform_, crs)
        grid, image, overview = read(before, after, kind, source)
        message = f"{kind} as {source} {place}"
        if place == "on grid":
            assert (image.valid_HW == expected_HW).all(), message
        else:
            warped_HW = np.zeros((grid.height, grid.width), np.uint8)
            reproject(
                expected_HW.astype(np.uint8) + 1,
                warped_HW,
                src_crs=crs,
                src_transform=transform_,
                dst_crs=grid.crs,
                dst_transform=grid.transform,
                resampling=Resampling.nearest,
            )
            wrong_HW = image.valid_HW != (warped_HW == 2)
            inside_HW = erode(warped_HW == 2) | erode(warped_HW != 2)
            assert not (wrong_HW & inside_HW).any(), message
            # Neither nodata nor impossible values bleed into what is valid.
            values = image.after_CHW[::2, image.valid_HW]
            assert values.min() >= 59, message
            assert values.max() < 200, message
        seen_HW = np.kron(overview.valid_HW, np.ones((2, 2), bool))
        whole_HW = image.valid_HW[: seen_HW.shape[0], : seen_HW.shape[1]]
        assert not (seen_HW & erode(~whole_HW, 3)).any(), message
        assert not (~seen_HW & erode(whole_HW, 3)).any(), message


def erode(mask_HW, by=1):
    return ~binary_dilation(~mask_HW, np.ones((3, 3)), iterations=by)


def count_valid(before, after, /, **options):
    with RasterPair(before, after, BANDS, PairOptions(**options)) as pair:
        return int(pair.read(Window(0, 0, pair.grid.width, pair.grid.height)).valid_HW.sum())


def draw_scene(size=256, dtype="uint8"):
    """Return colours of which none is 0 or opaque."""
    rows, columns = np.mgrid[:size, :size]
    return np.stack([40 + rows // 2, 60 + columns // 2, 50 + (rows + columns) // 4]).astype(dtype)


@pytest.mark.parametrize("date", ["before", "after"])
@pytest.mark.parametrize("shift_m", [0, 0.2])
def test_nodata_and_a_mask_of_one_file_add_up(write_raster, date, shift_m):
    scene_CHW = draw_scene()
    scene_CHW[:, 60:90] = 0
    mask_HW = np.full((256, 256), 255, np.uint8)
    mask_HW[:, 100:150] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        holed = write_raster("holed", scene_CHW, nodata=0, mask_HW=mask_HW)
    place = Affine.translation(500_000 - shift_m, 5_000_000) @ Affine.scale(2, -2)
    plain = write_raster("plain", draw_scene(), transform=place)
    pair = (holed, plain) if date == "before" else (plain, holed)
    # On another grid the mask may begin a pixel earlier or later.
    slack = 256 + 2 * 50 + 256 * 3 if shift_m else 0
    assert 256 * 256 - count_valid(*pair) == pytest.approx(18_980, abs=slack)


@pytest.mark.parametrize("is_internal", [True, False])
@pytest.mark.parametrize("place", [UTM_ORIGIN, UTM_ORIGIN @ Affine.translation(0.01, 0)])
def test_a_mask_beside_false_alpha_counts(write_raster, is_internal, place):
    scene_CHW = draw_scene(96)
    four_CHW = np.concatenate([scene_CHW, scene_CHW[:1] // 2])
    mask_HW = np.full((96, 96), 255, np.uint8)
    mask_HW[20:60] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=is_internal):
        after = write_raster("after", four_CHW, colours=None, mask_HW=mask_HW, transform=place)
    with rasterio.open(after) as dataset:
        assert dataset.colorinterp[3] == ColorInterp.alpha
    before = write_raster("before", scene_CHW)
    assert count_valid(before, after, bands=(1, 2, 3)) == pytest.approx(5_376, abs=56)


def test_a_real_alpha_band_of_16_bits_with_8_bit_values_counts():
    path = CASES / "rasterio_rgba_uint16.tif"
    if not path.is_file():
        pytest.skip("../shared/cases is absent")
    assert count_valid(path, path) == 127_316


def test_nodata_of_one_band_or_of_one_file_suffices(write_raster):
    before = write_raster("before", draw_scene())
    deep_CHW = draw_scene(dtype="float32")
    deep_CHW[1, 30:80] = -9999
    after = write_raster("after", deep_CHW, nodata=-9999)
    assert count_valid(before, after) == 256 * 256 - 12_800
    bands = draw_scene()
    bands[1, 30:80] = 0
    files = [write_raster(f"band{n}", bands[n : n + 1], nodata=0, colours=None) for n in range(3)]
    joined = " + ".join(map(str, files))
    assert count_valid(before, joined) == 256 * 256 - 12_800
    moved = write_raster("moved", draw_scene(), transform=UTM_ORIGIN @ Affine.translation(0.01, 0))
    assert count_valid(moved, joined) == pytest.approx(256 * 256 - 12_800, abs=256)
    # What gdalbuildvrt -separate makes of them.
    layers = "".join(
        f'<VRTRasterBand dataType="Byte" band="{n}"><NoDataValue>0</NoDataValue><SimpleSource>'
        f'<SourceFilename relativeToVRT="1">{file.name}</SourceFilename><SourceBand>1</SourceBand>'
        "</SimpleSource></VRTRasterBand>"
        for n, file in enumerate(files, start=1)
    )
    virtual = before.with_suffix(".vrt")
    place = ", ".join(map(repr, UTM_ORIGIN.to_gdal()))
    virtual.write_text(
        f'<VRTDataset rasterXSize="256" rasterYSize="256"><SRS>EPSG:32632</SRS><GeoTransform>'
        f"{place}</GeoTransform>{layers}</VRTDataset>"
    )
    assert count_valid(before, virtual) == 256 * 256 - 12_800
    # In one file of 8 bits a band of 0 is a colour.
    assert count_valid(before, write_raster("one", bands, nodata=0)) == 256 * 256


def test_float_nodata_that_passed_through_text_is_found(write_raster):
    before = write_raster("before", draw_scene())
    deep_CHW = draw_scene(dtype="float32")
    deep_CHW[:, 30:80] = np.float32(0.1)
    after = write_raster("after", deep_CHW, nodata=0.1)
    assert count_valid(before, after) == 256 * 256 - 12_800
    deep_CHW[:, 30:80] = np.finfo("float32").min
    assert count_valid(before, write_raster("low", deep_CHW)) == 256 * 256 - 12_800


def test_a_palette_has_nodata_a_mask_and_clear_colours(write_raster):
    index_HW = (draw_scene(96)[0] % 5 + 1).astype(np.uint8)
    index_HW[:10], index_HW[90:] = 9, 8
    mask_HW = np.full((96, 96), 255, np.uint8)
    mask_HW[:, :20] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        after = write_raster("after", index_HW[None], nodata=9, colours=None, mask_HW=mask_HW)
    with rasterio.open(after, "r+") as dataset:
        dataset.write_colormap(1, {n: (20 * n, 10, 200, 255) for n in range(10)})
    before = write_raster("before", draw_scene(96))
    assert count_valid(before, after) == (96 - 10) * (96 - 20)
    given = DateOptions(nodata=8)
    assert count_valid(before, after, after=given) == (96 - 16) * (96 - 20)


@pytest.mark.parametrize("place", [UTM_ORIGIN, UTM_ORIGIN @ Affine.translation(0.01, 0)])
def test_a_nodata_value_may_be_given_for_one_date(write_raster, place):
    scene_CHW = draw_scene(96)
    scene_CHW[:, 70:] = 0
    before = write_raster("before", scene_CHW)
    after = write_raster("after", scene_CHW, transform=place)
    given = DateOptions(nodata=0)
    assert count_valid(before, before) == 96 * 96
    assert count_valid(before, after, before=given) == 96 * 70
    assert count_valid(before, after, after=given) == pytest.approx(96 * 70, abs=96)
    mosaic = [after]
    assert count_valid(before, mosaic, after=given) == pytest.approx(96 * 70, abs=96)


@pytest.mark.parametrize("value", [-9999, 0.5, float("nan")])
def test_a_nodata_value_that_a_raster_cannot_hold_is_refused(write_raster, value):
    path = write_raster("before", draw_scene(32))
    with pytest.raises(RasterError, match=r"before\.tif holds uint8, which is never"):
        count_valid(path, path, before=DateOptions(nodata=value))


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_holes_of_a_raster_of_control_points_add_up(write_raster, dtype):
    scene_CHW = draw_scene(64, dtype)
    scene_CHW[:, :20], scene_CHW[:, 60:] = 0, 200
    scene_CHW[1, 30:40, 30:35] = 0
    mask_HW = np.full((64, 64), 255, np.uint8)
    mask_HW[:, :10] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        path = write_raster(
            "points", scene_CHW, nodata=0, mask_HW=mask_HW, crs=None, transform=None
        )
    corners = [(row, column) for row in (0, 64) for column in (0, 64)]
    with rasterio.open(path, "r+") as dataset:
        points = [GroundControlPoint(r, c, *(UTM_ORIGIN @ (c, r))) for r, c in corners]
        dataset.gcps = points, rasterio.CRS.from_epsg(32632)
    expected = 44 * 54 - (0 if dtype == "uint8" else 10 * 5)
    with open_source(path) as opened:
        assert "VRT" not in name_raster(opened)
        assert (opened.height, opened.width) == (64, 64)
    assert count_valid(path, path) == expected
    given = DateOptions(nodata=200)
    assert count_valid(path, path, after=given) == expected - 4 * 54
