"""Mosaics against what merging the files, or warping them whole, gives."""

import json
from itertools import product

import numpy as np
import psutil
import pytest
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp, Resampling
from rasterio.merge import merge
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform
from rasterio.windows import Window

from terradelta.errors import ArgumentError, RasterError
from terradelta.geo import header as headers
from terradelta.geo import mosaic as mosaics
from terradelta.geo.check import examine_pair
from terradelta.geo.listing import list_rasters
from terradelta.geo.mosaic import Mosaic, describe_images, open_images
from terradelta.geo.pair import RasterPair
from terradelta.geo.pair_options import ModelNeeds, PairOptions

from .conftest import RGB, UTM_ORIGIN

BANDS = ("red", "green", "blue")


@pytest.fixture
def noise_CHW():
    """What resampling a pixel further left or right would give away at once."""
    return np.random.default_rng(0).integers(1, 255, (3, 120, 160), np.uint8)


def read_in_parts(pair: RasterPair, side: int):
    """Return the whole pair as windows of this side put together."""
    height, width = pair.grid.height, pair.grid.width
    after_CHW = np.zeros((3, height, width), np.uint8)
    valid_HW = np.zeros((height, width), bool)
    for row, column in product(range(0, height, side), range(0, width, side)):
        window = Window(column, row, min(side, width - column), min(side, height - row))
        rows, columns = window.toslices()
        part = pair.read(window)
        after_CHW[:, rows, columns], valid_HW[rows, columns] = part.after_CHW, part.valid_HW
    return np.where(valid_HW, after_CHW, 0), valid_HW


def cut_tiles(write_raster, image_CHW, side=50, prefix="tile", **profile):
    """Write an image as tiles of this side, whose seams do not overlap."""
    origin = profile.pop("transform", UTM_ORIGIN)
    paths = []
    for row, column in product(range(0, 120, side), range(0, 160, side)):
        part_CHW = image_CHW[:, row : row + side, column : column + side]
        place = origin @ Affine.translation(column, row)
        name = f"{prefix}_{row}_{column}"
        paths.append(write_raster(name, part_CHW, transform=place, **profile))
    return paths


def test_overlapping_rasters_read_as_rasterio_merges_them(write_raster, noise_CHW):
    rng = np.random.default_rng(1)
    paths = []
    for number in range(12):
        row, column = rng.integers(0, 80), rng.integers(0, 110)
        part_CHW = noise_CHW[:, row : row + 40, column : column + 50] // (number + 1)
        # All bands of a hole, as merge knows no pixel of which but one band is nodata.
        part_CHW = np.where(rng.random((40, 50))[None] < 0.2, 0, np.maximum(part_CHW, 1))
        place = UTM_ORIGIN @ Affine.translation(column, row)
        paths.append(
            write_raster(f"part{number}", part_CHW.astype(np.uint8), transform=place, nodata=0)
        )
    merged_CHW, place = merge(paths, method="first")
    whole = write_raster("whole", merged_CHW, transform=place)
    with RasterPair(whole, paths, BANDS) as pair:
        assert pair.is_resampled == (False, False)
        for side in (23, 64, 200):
            after_CHW, valid_HW = read_in_parts(pair, side)
            assert (after_CHW == merged_CHW).all()
            assert (valid_HW == merged_CHW.any(axis=0)).all()


def test_the_mask_of_each_raster_is_its_own(write_raster, noise_CHW):
    """Nodata of two values, alpha, a mask and none at all, under each other."""
    hole = np.ones((120, 160), bool)
    hole[20:40, 20:40] = False
    low, high = (np.where(hole, noise_CHW, value).astype(np.uint8) for value in (0, 255))
    low[0, 60, 60] = 0  # one band at the nodata value is a colour
    alpha = np.concatenate([noise_CHW, np.where(hole, 255, 0)[None]]).astype(np.uint8)
    mask_HW = np.where(hole, 255, 0).astype(np.uint8)
    under = write_raster("under", 255 - noise_CHW)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        tops = {
            "nodata 0": (write_raster("low", low, nodata=0), low),
            "nodata 255": (write_raster("high", high, nodata=255), high),
            "alpha": (
                write_raster("alpha", alpha, colours=(*RGB, ColorInterp.alpha)),
                alpha[:3],
            ),
            "mask": (write_raster("masked", noise_CHW, mask_HW=mask_HW), noise_CHW),
        }
    for top, image_CHW in tops.values():
        with RasterPair(under, [top, under], BANDS) as pair:
            after_CHW, valid_HW = read_in_parts(pair, 70)
        assert valid_HW.all()
        assert (after_CHW == np.where(hole, image_CHW, 255 - noise_CHW)).all()
        with RasterPair(under, [top], BANDS) as pair:
            assert (read_in_parts(pair, 70)[1] == hole).all()


@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:32633", "EPSG:4326"])
def test_seams_leave_no_trace_when_resampled(write_raster, noise_CHW, crs):
    """Tiles on other pixels than the map's read, to the bit, like the raster they were cut from."""
    noise_CHW[:, 30:50, 40:60] = 0
    (x,), (y,) = transform("EPSG:32632", "EPSG:32633", [500_010], [4_999_990])
    places = {
        "EPSG:32632": UTM_ORIGIN @ Affine.translation(0.4, -0.3) @ Affine.scale(1.1),
        "EPSG:32633": Affine(2, 0, x, 0, -2, y),
        "EPSG:4326": Affine(2.2e-5, 0, 9.0002, 0, -1.6e-5, 45.1533),
    }
    profile = {"crs": crs, "transform": places[crs], "nodata": 0}
    before = write_raster("before", noise_CHW)
    whole = write_raster("whole", noise_CHW, **profile)
    tiles = cut_tiles(write_raster, noise_CHW, **profile)
    with RasterPair(before, whole, BANDS) as one, RasterPair(before, tiles, BANDS) as many:
        assert one.grid == many.grid
        assert many.is_resampled == (False, True)
        for side in (37, 200):
            expected_CHW, expected_HW = read_in_parts(one, side)
            after_CHW, valid_HW = read_in_parts(many, side)
            assert expected_HW.mean() > 0.5
            assert (valid_HW == expected_HW).all()
            assert (after_CHW == expected_CHW).all()


def test_rasters_of_two_crs_are_each_warped_and_the_first_wins(write_raster, noise_CHW):
    (x,), (y,) = transform("EPSG:32632", "EPSG:32633", [500_100], [5_000_000])
    here = write_raster("here", noise_CHW, nodata=255)
    there = write_raster(
        "there",
        255 - noise_CHW,
        crs="EPSG:32633",
        transform=Affine(3, 0, round(x), 0, -3, round(y) + 50),
    )
    base = write_raster("base", np.full((3, 300, 300), 9, np.uint8))
    expected = []
    with RasterPair(base, [there, here], BANDS) as pair:
        for path in (there, here):
            with (
                rasterio.open(path) as dataset,
                WarpedVRT(
                    dataset,
                    crs=pair.grid.crs,
                    transform=pair.grid.transform,
                    width=pair.grid.width,
                    height=pair.grid.height,
                    resampling=Resampling.bilinear,
                    tolerance=0.01,
                    add_alpha=True,
                ) as warped,
            ):
                expected.append((warped.read([1, 2, 3]), warped.read(4) > 0))
        (upper_CHW, upper_HW), (lower_CHW, lower_HW) = expected
        assert (upper_HW & lower_HW).any()
        for side in (41, 128, 400):
            after_CHW, valid_HW = read_in_parts(pair, side)
            assert (valid_HW == (upper_HW | lower_HW)).all()
            merged_CHW = np.where(upper_HW, upper_CHW, lower_CHW)
            assert (after_CHW == np.where(valid_HW, merged_CHW, 0)).all()


def test_a_mosaic_reaches_as_far_as_its_rasters_on_the_pixels_of_the_first(write_raster, noise_CHW):
    (x,), (y,) = transform("EPSG:32632", "EPSG:32633", [500_500], [4_999_500])
    there = write_raster("there", noise_CHW, crs="EPSG:32633", transform=Affine(3, 0, x, 0, -3, y))
    with Mosaic([str(write_raster("here", noise_CHW)), str(there)], "two") as mosaic:
        grid = mosaic.grid
        assert grid.crs == "EPSG:32632"
        assert grid.transform @ (0, 0) == (500_000, 5_000_000)
        assert len(mosaic.sheets) == 2
        assert mosaic.bounds_in(grid.crs)[2] > 500_900
        assert 0 <= grid.bounds[2] - mosaic.bounds_in(grid.crs)[2] <= 2


def test_the_grid_may_be_a_crs_and_the_side_of_a_pixel(write_raster, noise_CHW):
    before = write_raster("before", noise_CHW)
    with RasterPair(before, [before], BANDS, PairOptions(grid="EPSG:3035@4")) as pair:
        assert pair.grid.crs == "EPSG:3035"
        assert pair.grid.pixel_size == (4, 4)
        assert all(edge % 4 == 0 for edge in pair.grid.bounds)
        assert read_in_parts(pair, 50)[1].mean() > 0.8
    with pytest.raises(ArgumentError, match="EPSG:3035@10"):
        RasterPair(before, before, BANDS, PairOptions(grid="EPSG:nothing@4"))


def test_where_no_raster_lies_nothing_is_read(write_raster, noise_CHW, tmp_path):
    """Damaged pixels are found only where both dates have a raster."""
    before = cut_tiles(write_raster, noise_CHW, prefix="before")
    after = cut_tiles(write_raster, noise_CHW, prefix="after", driver="COG")
    after[0].write_bytes(after[0].read_bytes()[:6000])
    with RasterPair(before, after, BANDS) as pair:
        with pytest.raises(RasterError, match="after_0_0"):
            pair.read(Window(0, 0, 40, 40))
        assert pair.read(Window(60, 60, 40, 40)).valid_HW.all()
    with RasterPair(before[1:], after, BANDS) as pair:
        assert not pair.touches(Window(0, 0, 40, 40))
        assert not pair.read(Window(0, 0, 40, 40)).valid_HW.any()


def test_pictures_of_a_mosaic_are_those_of_the_merged_raster(write_raster, picture_CHW):
    whole = write_raster("whole", picture_CHW)
    tiles = cut_tiles(write_raster, picture_CHW)
    with RasterPair(whole, tiles, BANDS) as pair:
        picture = pair.read_overview((30, 40))
    assert picture.valid_HW.all()
    difference = picture.after_CHW.astype(int) - picture.before_CHW
    # Both pick or weigh pixels at most two apart of a smooth picture.
    assert np.abs(difference).max() < 40
    assert np.abs(difference).mean() < 8


def test_many_rasters_are_opened_once_and_few_at_a_time(tmp_path, monkeypatch):
    side, count = 4, 20
    base = tmp_path / "base.tif"
    profile = {"driver": "GTiff", "count": 3, "dtype": "uint8", "crs": "EPSG:32632"}
    with rasterio.open(
        base, "w", width=side, height=side, transform=UTM_ORIGIN, photometric="RGB", **profile
    ) as dataset:
        dataset.write(np.full((3, side, side), 7, np.uint8))
    content = base.read_bytes()
    with rasterio.open(base) as dataset:
        origin = np.array([dataset.transform.c, dataset.transform.f]).tobytes()
    paths = []
    for row, column in product(range(count), range(count)):
        path = tmp_path / f"{row}" / f"{column}.tif"
        path.parent.mkdir(exist_ok=True)
        x, y = UTM_ORIGIN @ (column * side, row * side)
        path.write_bytes(content.replace(origin, np.array([x, y]).tobytes()))
        paths.append(str(path))
    opened = []
    true_open = headers.open_header

    def counting(path):
        opened.append(path)
        return true_open(path)

    monkeypatch.setattr(headers, "open_header", counting)
    files_before = psutil.Process().num_fds()
    for _ in range(2):
        with Mosaic(paths, "many") as mosaic:
            assert len(mosaic) == count**2
    with Mosaic(paths, "many") as mosaic:
        (sheet,) = mosaic.sheets
        image_CHW, valid_HW = sheet.read([1, 2, 3], Window(0, 0, 80, 80))
        assert psutil.Process().num_fds() <= files_before + mosaics.MAX_OPEN_RASTERS + 8
    assert sorted(opened) == sorted(paths)
    assert valid_HW.all()
    assert (image_CHW == 7).all()


def test_rasters_that_make_no_mosaic_are_refused_by_name(write_raster, noise_CHW):
    good = write_raster("good", noise_CHW)
    single = write_raster("single", noise_CHW[:1], colours=None)
    deep = write_raster("deep", noise_CHW.astype(np.uint16))
    placeless = write_raster("placeless", noise_CHW, crs=None)
    swapped = write_raster("swapped", noise_CHW, colours=RGB[::-1])
    for other, message in (
        (single, r"good\.tif has 3 bands of uint8 and .*single\.tif has 1 bands of uint8"),
        (deep, r"deep\.tif has 3 bands of uint16"),
        (placeless, r"placeless\.tif has no coordinate reference system"),
        (swapped, r"band 1 is red in .*good\.tif and blue in .*swapped\.tif"),
        ("absent.tif", r"absent\.tif cannot be opened"),
    ):
        with pytest.raises(RasterError, match=message):
            RasterPair(good, [good, other], BANDS)


def test_a_list_is_read_beside_its_file_and_distinguished_by_its_rasters(
    write_raster, noise_CHW, tmp_path
):
    paths = cut_tiles(write_raster, noise_CHW)
    listing = tmp_path / "after.txt"
    listing.write_text("# tiles\n\n" + "\n".join(path.name for path in paths) + "\n")
    assert list_rasters(listing) == [str(path) for path in paths]
    with open_images(listing) as images:
        described = describe_images(images, listing)
    assert described.path == str(listing)
    assert described.sources == len(paths)
    digests = {described.header_sha256}
    for changed in (paths[1:], paths[::-1]):
        with open_images(changed) as images:
            digests.add(describe_images(images, changed).header_sha256)
    assert len(digests) == 3
    with pytest.raises(RasterError, match="names no raster"):
        list_rasters([])
    listing.write_text("# nothing\n")
    with pytest.raises(RasterError, match=r"after\.txt names no raster"):
        list_rasters(listing)


def test_stac_items_name_their_asset(write_raster, noise_CHW, tmp_path):
    pystac = pytest.importorskip("pystac")
    paths = cut_tiles(write_raster, noise_CHW)
    items = []
    for number, path in enumerate(paths):
        item = pystac.Item(f"tile{number}", None, None, _date(), {})
        item.add_asset("visual", pystac.Asset(path.name, roles=["data"]))
        item.add_asset("thumbnail", pystac.Asset("small.jpg", roles=["thumbnail"]))
        items.append(item)
    collection = tmp_path / "items.json"
    collection.write_text(json.dumps(pystac.ItemCollection(items).to_dict()))
    expected = [str(path) for path in paths]
    assert list_rasters(f"{collection}#visual") == expected
    assert list_rasters(collection) == expected  # but one asset is data
    single = tmp_path / "item.json"
    single.write_text(json.dumps(items[3].to_dict(include_self_link=False)))
    assert list_rasters(single) == expected[3:4]
    for asset in ("B04", "visual,B04"):
        with pytest.raises(RasterError, match="tile0 has no asset 'B04'; it has visual, thumbnail"):
            list_rasters(f"{collection}#{asset}")
    whole = write_raster("whole", noise_CHW)
    with RasterPair(whole, f"{collection}#visual", BANDS) as pair:
        assert (read_in_parts(pair, 64)[0] == noise_CHW).all()


def test_stac_items_may_have_an_asset_for_each_band(write_raster, noise_CHW, tmp_path):
    pystac = pytest.importorskip("pystac")
    bands = [
        cut_tiles(write_raster, noise_CHW[band : band + 1], prefix=name, colours=None)
        for band, name in enumerate(BANDS)
    ]
    items = []
    for number, files in enumerate(zip(*bands, strict=True)):
        item = pystac.Item(f"tile{number}", None, None, _date(), {})
        for name, path in zip(BANDS, files, strict=True):
            item.add_asset(name, pystac.Asset(path.name, roles=["data"]))
        items.append(item)
    collection = tmp_path / "items.json"
    collection.write_text(json.dumps(pystac.ItemCollection(items).to_dict()))
    with pytest.raises(RasterError, match="none was chosen"):
        list_rasters(collection)
    whole = write_raster("whole", noise_CHW)
    digests = set()
    for names in (BANDS, BANDS[::-1]):
        source = f"{collection}#{','.join(names)}"
        with RasterPair(whole, source, BANDS) as pair:
            order = [BANDS.index(name) for name in names]
            assert (read_in_parts(pair, 64)[0] == noise_CHW[order]).all()
            digests.add(describe_images(pair.datasets[1], source).header_sha256)
    assert len(digests) == 2
    # A list says the same.
    listing = tmp_path / "after.txt"
    lines = (" + ".join(path.name for path in files) for files in zip(*bands, strict=True))
    listing.write_text("\n".join(lines))
    assert list_rasters(listing) == list_rasters(f"{collection}#red,green,blue")


def test_a_check_says_what_a_mosaic_is_made_of(write_raster, picture_CHW):
    tiles = cut_tiles(write_raster, picture_CHW)
    report = examine_pair(write_raster("before", picture_CHW), tiles, PairOptions(), ModelNeeds())
    described = {finding.name: finding for finding in report.findings}
    assert described["after"].message.startswith("12 rasters, together 160 x 120 px, 3 bands")
    assert described["after"].values["sources"] == 12
    assert report.level != "FAIL"


def _date():
    import datetime

    return datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC)
