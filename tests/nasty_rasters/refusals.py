"""Pairs that have no right map, and what the error must say."""

from __future__ import annotations

import re
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path

import geopandas
import numpy as np
import rasterio
import shapely
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.shutil import copy

from .cases import UTM, Bench, Refusal, draw_rgb, home, refused
from .drawing import Frame, draw, open_quietly
from .range_server import serve
from .values import write_virtual


def _refuse(bench: Bench, before: Frame, after: Frame, *problem: str, **options) -> Refusal:
    pair = bench.pair(before, after)
    return Refusal(pair.before, pair.after, problem, options)


def _refuse_after(bench: Bench, after: str | Path, *problem: str, **options) -> Refusal:
    """Return a refusal with a good before image and this after image."""
    before = bench.write("before.tif", draw_rgb(home(), "before"))
    return Refusal(before, after, problem, options)


@refused
def no_overlap(bench: Bench) -> Refusal:
    x = round(home().transform.c)
    return _refuse(bench, home(), home().cut(500, 0), "do not overlap", str(x), str(x + 5000))


@refused
def no_overlap_other_crs(bench: Bench) -> Refusal:
    far = Frame.around("EPSG:4326", 100, -20, 0.0001)
    return _refuse(bench, home(), far, "do not overlap")


@refused
def no_overlap_but_bounds_do(bench: Bench) -> Refusal:
    # The corner of the turned image's bounding box is empty.
    turned = home(turn=45, size=(96, 96)).transform
    x, y = turned @ (96 / 2, 96 / 2)
    corner = Frame(UTM, Affine(10, 0, x + 500, 0, -10, y + 680), 20, 18)
    return _refuse(bench, home(turn=45, size=(96, 96)), corner, "overlap|no pixel")


@refused
def overlap_without_a_pixel_centre(bench: Bench) -> Refusal:
    return _refuse(bench, home(), home().cut(111.8, 0), "no pixel", "before.tif", "after.tif")


@refused
def touching_edges(bench: Bench) -> Refusal:
    return _refuse(bench, home(), home().cut(112, 0), "do not overlap")


@refused
def no_crs_and_different_sizes(bench: Bench) -> Refusal:
    before, after = (Frame(None, Affine.identity(), 96, size) for size in (96, 80))
    problem = ("coordinate reference system", "before.tif is 96 x 96", "after.tif is 96 x 80")
    return _refuse(bench, before, after, *problem)


@refused
def crs_on_before_only(bench: Bench) -> Refusal:
    after = Frame(None, home().transform, 112, 96)
    return _refuse(bench, home(), after, r"after\.tif has no coord", r"before\.tif has EPSG:32633")


@refused
def crs_on_after_only(bench: Bench) -> Refusal:
    before = Frame(None, home().transform, 112, 96)
    return _refuse(bench, before, home(), r"before\.tif has no coord", r"after\.tif has EPSG:32633")


@refused
def control_points_that_place_nothing(bench: Bench) -> Refusal:
    after = bench.write("after.tif", draw_rgb(Frame(None, Affine.identity(), 112, 96), "after"))
    with open_quietly(after, "r+") as dataset:
        points = [GroundControlPoint(10 * i, 10 * i, 300_000 + i, 5_300_000 + i) for i in range(4)]
        dataset.gcps = (points, rasterio.CRS.from_epsg(32633))
    return _refuse_after(bench, after, r"after\.tif")


@refused
def virtual_raster_that_is_no_xml(bench: Bench) -> Refusal:
    after = bench.write("after.tif", draw_rgb(home(), "after"))
    virtual = after.with_suffix(".vrt")
    copy(after, virtual, driver="VRT")
    # GDAL reads it, and ends the text there.
    virtual.write_text(virtual.read_text() + "\0<")
    return _refuse_after(bench, virtual, r"after\.vrt is not well-formed XML")


@refused
def virtual_raster_with_bytes_that_are_no_text(bench: Bench) -> Refusal:
    virtual = bench.folder / "after.vrt"
    virtual.write_bytes(b"<VRTDataset><\xff\xfe")
    return _refuse_after(bench, virtual, r"after\.vrt cannot be opened as a raster")


@refused
def alpha_band_that_is_truncated(bench: Bench) -> Refusal:
    four = draw(home(), "after").arrange(0, 1, 2, 3)
    after = bench.write("after.tif", four, photometric="RGB", alpha="yes", interleave="band")
    after.write_bytes(after.read_bytes()[:-2000])
    return _refuse_after(bench, after, r"after\.tif: pixels cannot be read in rows")


@refused
def grey_image(bench: Bench) -> Refusal:
    after = bench.write("after.tif", draw(home(), "after").arrange(0))
    return _refuse_after(bench, after, r"after\.tif has the bands 1", "needs red, green, blue")


@refused
def palette_without_colours(bench: Bench) -> Refusal:
    after = bench.write("after.tif", draw(home(), "after").arrange(0))
    virtual = after.with_suffix(".vrt")
    copy(after, virtual, driver="VRT")
    named = re.sub("<ColorInterp>.*?<", "<ColorInterp>Palette<", virtual.read_text())
    assert "Palette" in named
    virtual.write_text(named)
    return _refuse_after(bench, virtual, r"after\.vrt has the bands 1", "needs red, green, blue")


@refused
def five_bands_without_names(bench: Bench) -> Refusal:
    five = draw(home(), "after").arrange(0, 1, 2, 3, 0)
    after = bench.write("after.tif", five, photometric="MINISBLACK")
    problem = (r"after\.tif has the bands 1 \S+, 2 \S+, 3 \S+, 4", "needs red, green, blue")
    return _refuse_after(bench, after, *problem)


@refused
def band_number_that_is_missing(bench: Bench) -> Refusal:
    after = bench.write("after.tif", draw_rgb(home(), "after"))
    problem = (r"before\.tif has no band 4", "3 blue")
    return _refuse_after(bench, after, *problem, bands=(4, 1, 2))


@refused
def band_name_that_is_missing_after_only(bench: Bench) -> Refusal:
    names = ("B04", "B03", "B02")
    before = bench.write("before.tif", draw_rgb(home(), "before"), names=names)
    after = bench.write("after.tif", draw_rgb(home(), "after"), names=("B4", "B3", "B2"))
    problem = (r"after\.tif has no band B04", "1 b4, 2 b3, 3 b2")
    return Refusal(before, after, problem, {"bands": names})


@refused
def two_bands_asked_for_and_three_needed(bench: Bench) -> Refusal:
    after = bench.write("after.tif", draw_rgb(home(), "after"))
    return _refuse_after(bench, after, "2 bands", r"needs 3 \(red, green, blue\)", bands=(1, 2))


@refused
def values_far_brighter_than_the_model_knows(bench: Bench) -> Refusal:
    after = bench.write("after.tif", draw_rgb(home(), "after").recode("uint16", 40))
    return _refuse_after(bench, after, r"after\.tif: uint8 and uint16, values \d+ to \d{4}", "255")


@refused
def data_type_differs_between_bands(bench: Bench) -> Refusal:
    after = bench.write("after.tif", draw_rgb(home(), "after").recode("uint16"))
    kinds = {1: "UInt16", 2: "Float32", 3: "Byte"}
    after = write_virtual(after, {1: "", 2: "", 3: ""}, kinds)
    return _refuse_after(bench, after, r"after\.vrt", "uint16.*float32.*uint8")


@refused
def complex_values(bench: Bench) -> Refusal:
    after = bench.write("after.tif", draw_rgb(home(), "after").recode("complex64"))
    return _refuse_after(bench, after, r"after\.tif", "complex64")


@refused
def wholly_nodata(bench: Bench) -> Refusal:
    raster = draw_rgb(home(), "after")
    empty = replace(raster, valid_HW=np.zeros_like(raster.valid_HW))
    after = bench.write("after.tif", empty, nodata=0)
    return _refuse_after(bench, after, "no pixel", r"before\.tif", r"after\.tif", "valid")


@refused
def valid_parts_that_do_not_meet(bench: Bench) -> Refusal:
    paths = []
    for date, columns in (("before", slice(0, 50)), ("after", slice(50, None))):
        raster = draw_rgb(home(), date)
        valid_HW = np.zeros_like(raster.valid_HW)
        valid_HW[:, columns] = True
        paths.append(bench.write(f"{date}.tif", replace(raster, valid_HW=valid_HW), nodata=0))
    return Refusal(*paths, ("no pixel", r"before\.tif", r"after\.tif"))


@refused
def all_nan(bench: Bench) -> Refusal:
    raster = draw_rgb(home(), "after").recode("float32", np.nan)
    return _refuse_after(bench, bench.write("after.tif", raster), "no pixel", r"after\.tif")


@refused
def container_of_subdatasets(bench: Bench) -> Refusal:
    container = bench.folder / "after.gpkg"
    source = bench.write("after.tif", draw_rgb(home(), "after"))
    copy(source, container, driver="GPKG", RASTER_TABLE="summer")
    copy(source, container, driver="GPKG", RASTER_TABLE="winter", APPEND_SUBDATASET="YES")
    return _refuse_after(
        bench, container, r"after\.gpkg", "subdatasets", "(?i)summer", "(?i)winter"
    )


@refused
def vector_file(bench: Bench) -> Refusal:
    after = bench.folder / "after.geojson"
    geopandas.GeoSeries([shapely.Point(1, 2)], crs=4326).to_file(after)
    return _refuse_after(bench, after, r"after\.geojson cannot be opened as a raster")


@refused
def truncated_in_the_header(bench: Bench) -> Refusal:
    after = bench.write("after.tif", draw_rgb(home(), "after"))
    after.write_bytes(after.read_bytes()[:60])
    return _refuse_after(bench, after, r"after\.tif")


@refused
def truncated_in_the_pixels(bench: Bench) -> Refusal:
    after = bench.write("after.tif", draw_rgb(home(), "after"), blockysize=4)
    after.write_bytes(after.read_bytes()[:20_000])
    return _refuse_after(bench, after, r"after\.tif")


@refused
def truncated_and_resampled(bench: Bench) -> Refusal:
    after = bench.write("after.tif", draw_rgb(home().cut(0.5, 0), "after"), blockysize=4)
    after.write_bytes(after.read_bytes()[:20_000])
    return _refuse_after(bench, after, r"after\.tif")


@refused
def damaged_compression(bench: Bench) -> Refusal:
    after = bench.write("after.tif", draw_rgb(home(), "after"), compress="deflate")
    content = bytearray(after.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 400] = bytes(400)
    after.write_bytes(content)
    return _refuse_after(bench, after, r"after\.tif")


@refused
def virtual_raster_whose_file_is_gone(bench: Bench) -> Refusal:
    after = bench.write("after.tif", draw_rgb(home(), "after"))
    virtual = bench.folder / "after.vrt"
    copy(after, virtual, driver="VRT")
    # Not unlinked: GDAL may keep a file open that it has read.
    virtual.write_text(virtual.read_text().replace("after.tif", "gone.tif"))
    return _refuse_after(bench, virtual, r"after\.vrt")


@refused
def empty_file(bench: Bench) -> Refusal:
    after = bench.folder / "after.tif"
    after.touch()
    return _refuse_after(bench, after, r"after\.tif cannot be opened as a raster")


@refused
def text_file(bench: Bench) -> Refusal:
    after = bench.folder / "after.tif"
    after.write_text("the licence of the imagery\n" * 99)
    return _refuse_after(bench, after, r"after\.tif cannot be opened as a raster")


@refused
def file_that_is_missing(bench: Bench) -> Refusal:
    after = bench.folder / "after.tif"
    return _refuse_after(bench, after, r"after\.tif", "cannot be opened|does not exist|No such")


@refused
def folder_that_is_missing(bench: Bench) -> Refusal:
    after = bench.folder / "nowhere" / "after.tif"
    return _refuse_after(bench, after, r"nowhere", "cannot be opened|does not exist|No such")


@refused
def folder_and_file(bench: Bench) -> Refusal:
    return _refuse_after(bench, bench.folder, r"before\.tif is a raster", "is a folder")


@refused
def archive_of_two_rasters(bench: Bench) -> Refusal:
    after = bench.folder / "after.zip"
    image = bench.write("image.tif", draw_rgb(home(), "after"))
    with zipfile.ZipFile(after, "w") as archive:
        archive.write(image, "one.tif")
        archive.write(image, "two.tif")
    return _refuse_after(bench, after, r"after\.zip")


@refused
def url_that_is_not_there(bench: Bench) -> Refusal:
    url = bench.exits.enter_context(serve(bench.folder))
    return _refuse_after(bench, f"{url}/after.tif", r"after\.tif cannot be opened", "404|not")


@refused
def grid_that_is_no_grid(bench: Bench) -> Refusal:
    return _refuse(bench, home(), home(), "grid", "finer", grid="finer")


@refused
def grid_with_pixels_of_no_size(bench: Bench) -> Refusal:
    return _refuse(bench, home(), home(), "grid", "0", grid=0)


def _refuse_area(bench: Bench, geometry: shapely.Geometry, crs, *problem: str) -> Refusal:
    area = bench.folder / "area.gpkg"
    geopandas.GeoSeries([geometry], crs=crs).to_file(area)
    return _refuse(bench, home(), home(), r"area\.gpkg", *problem, aoi=area)


@refused
def area_of_interest_outside(bench: Bench) -> Refusal:
    return _refuse_area(bench, shapely.box(10, 50, 10.1, 50.1), 4326, "outside", str(5_300_000)[:2])


@refused
def area_of_interest_between_pixel_centres(bench: Bench) -> Refusal:
    x, y = home().locate(50, 40)
    return _refuse_area(bench, shapely.box(x - 1, y - 1, x + 1, y + 1), UTM, "no pixel|centre")


@refused
def area_of_interest_without_crs(bench: Bench) -> Refusal:
    area = bench.folder / "area.shp"
    square = shapely.box(*home().locate(10, 90), *home().locate(90, 10))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        geopandas.GeoSeries([square]).to_file(area)
    problem = (r"area\.shp has no coordinate reference system", "EPSG:32633")
    return _refuse(bench, home(), home(), *problem, aoi=area)


@refused
def area_of_interest_of_points(bench: Bench) -> Refusal:
    return _refuse_area(bench, shapely.Point(*home().locate(50, 50)), UTM, "no polygon")


@refused
def area_of_interest_that_is_missing(bench: Bench) -> Refusal:
    area = bench.folder / "area.gpkg"
    return _refuse(bench, home(), home(), r"area\.gpkg cannot be opened", aoi=area)


@refused
def area_of_interest_on_rasters_without_crs(bench: Bench) -> Refusal:
    area = bench.folder / "area.gpkg"
    geopandas.GeoSeries([shapely.box(0, 0, 1, 1)], crs=4326).to_file(area)
    plain = Frame(None, Affine.identity(), 112, 96)
    return _refuse(bench, plain, plain, r"area\.gpkg", "no coordinate reference system", aoi=area)


@refused
def band_files_of_other_ground(bench: Bench) -> Refusal:
    after = draw_rgb(home(), "after")
    aside = draw_rgb(home().cut(1, 0), "after")
    good, bad = bench.write("good.tif", after), bench.write("bad.tif", aside)
    return _refuse_after(bench, f"{good} + {bad}", r"good\.tif and .*bad\.tif", r"EPSG:32633")


@refused
def a_band_file_that_is_missing(bench: Bench) -> Refusal:
    good = bench.write("good.tif", draw_rgb(home(), "after"))
    return _refuse_after(bench, f"{good} + {bench.folder}/absent.tif", r"absent\.tif cannot be")


@refused
def too_few_band_files(bench: Bench) -> Refusal:
    after = draw_rgb(home(), "after")
    files = [bench.write(f"{band}.tif", after.arrange(band)) for band in range(2)]
    return _refuse_after(bench, " + ".join(map(str, files)), r"^[^<]*0\.tif \+ [^<]*1\.tif has the")


@refused
def too_few_bands_beside_alpha(bench: Bench) -> Refusal:
    after = draw_rgb(home(), "after").arrange(0)
    colours = ColorInterp.red, ColorInterp.alpha
    opaque_HW = np.full(after.valid_HW.shape, 255)
    file = bench.write("after.tif", after, colours=colours, extra_HW=opaque_HW)
    return _refuse_after(bench, file, r"^[^<]*after\.tif has the bands 1 red")
