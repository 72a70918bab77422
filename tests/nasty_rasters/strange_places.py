"""Pairs in no place of the Earth, in a false one, and areas of interest of odd kinds."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from xml.sax.saxutils import escape

import geopandas
import numpy as np
import rasterio
import shapely
from affine import Affine
from rasterio.rpc import RPC
from rasterio.shutil import copy

from .cases import HOME, UTM, Bench, Pair, Refusal, draw_rgb, home, mapped, refused
from .drawing import Frame, open_quietly
from .placement import GEOGRAPHIC_PIXEL, place_by_points

SITE = 'LOCAL_CS["site grid",UNIT["metre",1]]'
ENGINEERING = (
    'ENGCRS["plant",EDATUM["gate"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],'
    'LENGTHUNIT["metre",1]]'
)
MARS, MOON, EUROPA = "IAU_2015:49900", "IAU_2015:30100", "+proj=eqc +R=1560800 +units=m"
ROTATED_POLE = (
    'GEOGCRS["rotated",BASEGEOGCRS["WGS 84",DATUM["World Geodetic System 1984",'
    'ELLIPSOID["WGS 84",6378137,298.257223563]]],DERIVINGCONVERSION["pole",'
    'METHOD["PROJ ob_tran o_proj=longlat"],PARAMETER["o_lat_p",39.25],PARAMETER["o_lon_p",0],'
    'PARAMETER["lon_0",18]],CS[ellipsoidal,2],AXIS["longitude",east],AXIS["latitude",north],'
    'ANGLEUNIT["degree",0.0174532925199433]]'
)
VERTICAL = "EPSG:5773"


def _in_plane(bench: Bench, crs: str, before: Frame, after: Frame, **fields) -> Pair:
    """Return a pair whose files have a CRS without a place on the Earth."""
    pair = bench.pair(before, after, **fields)
    for path in (pair.before, pair.after):
        with open_quietly(Path(path), "r+") as dataset:
            dataset.crs = rasterio.CRS.from_user_input(crs)
    return pair


def _plane(width: int = 112, height: int = 96, crs: str | None = None) -> Frame:
    return Frame(crs, Affine(1, 0, 400, 0, -1, 900), width, height)


@mapped
def site_grid(bench: Bench) -> Pair:
    return _in_plane(bench, SITE, _plane(), _plane())


@mapped
def engineering_crs(bench: Bench) -> Pair:
    return _in_plane(bench, ENGINEERING, _plane(), _plane())


@mapped
def site_grid_other_extent(bench: Bench) -> Pair:
    frame = _plane()
    return _in_plane(
        bench, SITE, frame, frame.cut(20, -13, 100, 90), frame=frame.cut(20, 0, 92, 77)
    )


@mapped
def vertical_crs(bench: Bench) -> Pair:
    return _in_plane(bench, VERTICAL, _plane(), _plane())


@mapped
def mars(bench: Bench) -> Pair:
    return _in_plane(bench, MARS, _plane(), _plane())


@mapped
def the_moon_after_half_a_pixel_off(bench: Bench) -> Pair:
    frame = _plane()
    return _in_plane(
        bench, MOON, frame, frame.cut(3.5, 2.5), frame=frame.cut(3, 2, 109, 94), likeness=0.98
    )


@mapped
def europa(bench: Bench) -> Pair:
    return _in_plane(bench, EUROPA, _plane(), _plane())


@mapped
def rotated_pole(bench: Bench) -> Pair:
    pair = bench.pair(_plane(), _plane())
    pair.before, pair.after = (
        _write_virtual(Path(path), ROTATED_POLE) for path in (pair.before, pair.after)
    )
    return pair


def _write_virtual(path: Path, crs: str) -> Path:
    """Return a VRT of a raster in another CRS."""
    virtual = path.with_suffix(".vrt")
    copy(path, virtual, driver="VRT")
    head, rest = virtual.read_text().split(">", 1)
    virtual.write_text(f"{head}><SRS>{escape(crs)}</SRS>{rest}")
    return virtual


@mapped
def both_south_up_on_one_grid(bench: Bench) -> Pair:
    return bench.pair(home().flip(), home().flip())


@mapped
def before_south_up_and_mirrored(bench: Bench) -> Pair:
    mirror = Affine.translation(112, 0) @ Affine.scale(-1, 1)
    frame = Frame(UTM, home().flip().transform @ mirror, 112, 96)
    return bench.pair(frame, home().cut(-4, 9))


@mapped
def before_mirrored(bench: Bench) -> Pair:
    mirror = Affine.translation(112, 0) @ Affine.scale(-1, 1)
    return bench.pair(Frame(UTM, home().transform @ mirror, 112, 96), home())


@mapped
def south_up_with_holes(bench: Bench) -> Pair:
    truth = draw_rgb(home().flip(), "before").punch(), draw_rgb(home(), "after")
    files = (
        bench.write("before.tif", truth[0], nodata=0),
        bench.write("after.tif", truth[1]),
    )
    return Pair(*files, truth)


@mapped
def square_degrees_at_60_north(bench: Bench) -> Pair:
    frame = Frame.around("EPSG:4326", 18.1, 60, 0.0002, (100, 80))
    return bench.pair(frame, frame.cut(4, 3), 22)


@mapped
def wide_pixels_on_the_grid_of_after(bench: Bench) -> Pair:
    return bench.pair(home(), home(pixel=(25, 10)), 25, options={"grid": "after"})


@mapped
def control_points_beside_an_identity_and_a_crs(bench: Bench) -> Pair:
    pair = bench.pair(home(), home(turn=12, size=(140, 130)))
    pair.after = place_by_points(bench, pair, 1)
    with open_quietly(Path(pair.after), "r+") as dataset:
        points, _ = dataset.gcps
    virtual = Path(pair.after).with_suffix(".vrt")
    listed = "".join(
        f'<GCP Id="{number}" Pixel="{point.col!r}" Line="{point.row!r}" X="{float(point.x)!r}" '
        f'Y="{float(point.y)!r}"/>'
        for number, point in enumerate(points, start=1)
    )
    copy(pair.after, virtual, driver="VRT")
    text = virtual.read_text()
    text = text[: text.index("<GCPList")] + text[text.index("</GCPList>") + 10 :]
    head, rest = text.split(">", 1)
    virtual.write_text(
        f'{head}><SRS>{UTM}</SRS><GCPList Projection="{UTM}">{listed}</GCPList>{rest}'
    )
    pair.after = virtual
    # Interpolated twice.
    return replace(pair, grey_levels=5, wrong_share=0.03)


@mapped
def polynomials_beside_an_identity_and_a_crs(bench: Bench) -> Pair:
    frame = home("EPSG:4326", GEOGRAPHIC_PIXEL, (130, 120))
    pair = bench.pair(home(), frame)
    middle = frame.width / 2, frame.height / 2
    longitude, latitude = frame.locate(*middle)
    one, x, y = ([float(index == place) for index in range(20)] for place in (0, 1, 2))
    image = replace(pair.truth[1], frame=Frame("EPSG:4326", Affine.identity(), 130, 120))
    pair.after = bench.write("polynomials.tif", image)
    with open_quietly(pair.after, "r+") as dataset:
        dataset.rpcs = RPC(
            height_off=600, height_scale=1,
            lat_off=latitude, lat_scale=middle[1] * GEOGRAPHIC_PIXEL[1],
            line_off=middle[1] - 0.5, line_scale=middle[1],
            line_num_coeff=[-part for part in y], line_den_coeff=one,
            long_off=longitude, long_scale=middle[0] * GEOGRAPHIC_PIXEL[0],
            samp_off=middle[0] - 0.5, samp_scale=middle[0],
            samp_num_coeff=x, samp_den_coeff=one,
        )  # fmt: skip
    # Interpolated twice.
    return replace(pair, grey_levels=5, wrong_share=0.03)


@mapped
def a_grid_asked_for_twice(bench: Bench) -> Pair:
    frame = home(size=(12, 10))
    pair = bench.pair(frame, frame, options={"grid": "0.5!"}, likeness=None)
    x, y = frame.transform @ (0, 0)
    return replace(pair, frame=Frame(UTM, Affine(0.5, 0, x, 0, -0.5, y), 240, 200))


def _with_file(bench: Bench, name: str, shape: shapely.Geometry, crs: str, **options) -> Pair:
    """Return a pair with an area of interest in a file that is there."""
    aoi = str(bench.folder / name)
    return bench.pair(home(), home().cut(4, 3), options={"aoi": aoi, **options}, aoi=(shape, crs))


def _box() -> shapely.Polygon:
    x, y = home().locate(np.array(50.3), np.array(40.2))
    return shapely.box(x - 303, y - 207, x + 211, y + 123)


@mapped
def area_in_a_collection(bench: Bench) -> Pair:
    x, y = home().locate(np.array(20.0), np.array(20.0))
    mixed = shapely.GeometryCollection(
        [
            shapely.Point(x, y),
            shapely.GeometryCollection([_box(), shapely.LineString([(x, y), (0, 0)])]),
        ]
    )
    geopandas.GeoDataFrame(geometry=[mixed, None, shapely.Polygon()], crs=UTM).to_file(
        bench.folder / "mixed.gpkg"
    )
    return _with_file(bench, "mixed.gpkg", _box(), UTM)


@mapped
def area_in_the_only_layer_with_polygons(bench: Bench) -> Pair:
    path = bench.folder / "layers.gpkg"
    geopandas.GeoDataFrame(geometry=[shapely.Point(4e5, 5e6)], crs=UTM).to_file(path, layer="a")
    geopandas.GeoDataFrame(geometry=[_box()], crs=UTM).to_file(path, layer="b")
    return _with_file(bench, "layers.gpkg", _box(), UTM)


@mapped
def area_in_a_named_layer(bench: Bench) -> Pair:
    path = bench.folder / "layers.gpkg"
    away = shapely.transform(_box(), lambda points: points + 1e5)
    for layer, shape in (("away", away), ("here", _box())):
        geopandas.GeoDataFrame(geometry=[shape], crs=UTM).to_file(path, layer=layer)
    return _with_file(bench, "layers.gpkg#here", _box(), UTM)


@mapped
def area_of_the_northern_half_of_the_world(bench: Bench) -> Pair:
    shape = shapely.box(-180, HOME[1], 180, 90)
    geopandas.GeoDataFrame(geometry=[shape], crs="EPSG:4326").to_file(bench.folder / "half.geojson")
    # The part around the pair, which the oracle can project.
    near = shapely.box(HOME[0] - 1, HOME[1], HOME[0] + 1, HOME[1] + 1)
    return _with_file(bench, "half.geojson", near.segmentize(0.001), "EPSG:4326")


@mapped
def area_like_a_bow_tie(bench: Bench) -> Pair:
    left, bottom, right, top = _box().bounds
    tie = shapely.Polygon([(left, bottom), (right, top), (right, bottom), (left, top)])
    geopandas.GeoDataFrame(geometry=[tie], crs=UTM).to_file(bench.folder / "tie.gpkg")
    return _with_file(bench, "tie.gpkg", shapely.make_valid(tie), UTM)


@mapped
def area_across_the_antimeridian(bench: Bench) -> Pair:
    shape = shapely.box(179.96, -17.55, 180.03, -17.47)
    halves = [shapely.box(179.96, -17.55, 180, -17.47), shapely.box(-180, -17.55, -179.97, -17.47)]
    geopandas.GeoDataFrame(geometry=[shapely.MultiPolygon(halves)], crs="EPSG:4326").to_file(
        bench.folder / "halves.gpkg"
    )
    frame = Frame.around("EPSG:4326", 180, -17.5, 0.001)
    pair = bench.pair(
        frame, frame.cut(3, 4), 110, options={"aoi": str(bench.folder / "halves.gpkg")}
    )
    return replace(pair, aoi=(shape, "EPSG:4326"))


def _refuse_place(bench: Bench, crs: str, transform: Affine, *problem: str) -> Refusal:
    """Return a pair in a place where no raster can lie."""
    raster = draw_rgb(Frame(None, Affine.identity(), 112, 96), "before")
    after = bench.write("after.tif", raster, crs=crs, transform=transform)
    before = bench.write("before.tif", raster, crs=crs, transform=transform)
    return Refusal(before, after, (r"before\.tif", *problem))


@refused
def identity_and_crs(bench: Bench) -> Refusal:
    path = bench.write("before.tif", draw_rgb(home(), "before"))
    with open_quietly(path, "r+") as dataset:
        dataset.transform = Affine(1, 0, 0, 0, -1, 0)
    return Refusal(path, path, (r"before\.tif", "EPSG:32633", r"\(1, 0, 0, 0, -1, 0\)"))


@refused
def identity_of_gdal_and_crs(bench: Bench) -> Refusal:
    path = bench.write("before.tif", draw_rgb(Frame(UTM, Affine.identity(), 112, 96), "before"))
    return Refusal(path, path, (r"before\.tif", "EPSG:32633", r"\(1, 0, 0, 0, 1, 0\)"))


@refused
def metres_in_degrees(bench: Bench) -> Refusal:
    place = Affine(10, 0, 400_000, 0, -10, 5_300_000)
    return _refuse_place(bench, "EPSG:4326", place, "longitudes 400000", "EPSG:4326")


@refused
def small_metres_in_degrees(bench: Bench) -> Refusal:
    return _refuse_place(bench, "EPSG:4326", Affine(1, 0, 0, 0, -1, 100), "4 to 100", "EPSG:4326")


@refused
def latitude_above_90(bench: Bench) -> Refusal:
    return _refuse_place(bench, "EPSG:4326", Affine(0.5, 0, 9, 0, -0.5, 97), "latitudes 49 to 97")


@refused
def utm_far_out(bench: Bench) -> Refusal:
    place = Affine(10, 0, 1e9, 0, -10, 1e9)
    return _refuse_place(bench, UTM, place, "1000000000", "no part of that lies on the Earth")


@refused
def utm_around_the_earth(bench: Bench) -> Refusal:
    return _refuse_place(bench, UTM, Affine(10, 0, 5e5, 0, -10, 1e8), "km off its own longitudes")


@refused
def more_than_the_earth(bench: Bench) -> Refusal:
    place = Affine(1e6, 0, -5.6e7, 0, -4e5, 1.9e7)
    return _refuse_place(bench, "EPSG:3857", place, "the Earth has|off its own")


@refused
def geocentric(bench: Bench) -> Refusal:
    return _refuse_place(bench, "EPSG:4978", Affine(10, 0, 4e6, 0, -10, 1e6), "geocentric")


@refused
def transform_with_nan(bench: Bench) -> Refusal:
    place = Affine(10, 0, math.nan, 0, -10, 5e6)
    return _refuse_place(bench, UTM, place, "not all of its numbers are coordinates")


@refused
def transform_with_infinity(bench: Bench) -> Refusal:
    place = Affine(10, 0, 5e5, 0, -10, math.inf)
    return _refuse_place(bench, UTM, place, "not all of its numbers are coordinates")


@refused
def transform_that_is_singular(bench: Bench) -> Refusal:
    return _refuse_place(bench, UTM, Affine(10, 10, 5e5, 10, 10, 5e6), "no area")


@refused
def pixels_of_a_picometre(bench: Bench) -> Refusal:
    return _refuse_place(
        bench,
        UTM,
        Affine(1e-12, 0, 5e5, 0, -1e-12, 5e6),
        "pixels of 1e-12 are too small for",
    )


@refused
def pixels_wider_than_the_earth(bench: Bench) -> Refusal:
    return _refuse_place(bench, UTM, Affine(1e300, 0, 5e5, 0, -1, 5e6), r"before\.tif")


@refused
def two_planes(bench: Bench) -> Refusal:
    pair = _in_plane(bench, SITE, _plane(), _plane(96, 96))
    with open_quietly(Path(pair.after), "r+") as dataset:
        dataset.crs = rasterio.CRS.from_wkt(ENGINEERING)
    problem = (r"before\.tif is 112 x 96 in \"site grid\"", r"after\.tif is 96 x 96 in \"plant\"")
    return Refusal(pair.before, pair.after, problem)


@refused
def plane_before_and_earth_after(bench: Bench) -> Refusal:
    pair = _in_plane(bench, MARS, home(), home())
    with open_quietly(Path(pair.after), "r+") as dataset:
        dataset.crs = rasterio.CRS.from_user_input(UTM)
    problem = (r"before\.tif is in IAU_2015:49900", r"after\.tif has EPSG:32633")
    return Refusal(pair.before, pair.after, problem)


def _refuse_grid(bench: Bench, grid: str, *problem: str, frame: Frame | None = None) -> Refusal:
    pair = bench.pair(frame or home(), frame or home())
    return Refusal(pair.before, pair.after, problem, {"grid": grid})


@refused
def grid_of_a_tenth_of_a_millimetre(bench: Bench) -> Refusal:
    return _refuse_grid(bench, "0.0001", r"--grid 0\.0001", "11,200,000 x 9,600,000 px", "metres")


@refused
def grid_17_times_finer(bench: Bench) -> Refusal:
    return _refuse_grid(bench, "0.58", "more than 16 times finer than the 10 m")


@refused
def grid_of_a_nanometre(bench: Bench) -> Refusal:
    return _refuse_grid(bench, "1e-9!", "more than a raster can have")


@refused
def grid_of_tiny_degrees(bench: Bench) -> Refusal:
    return _refuse_grid(bench, "EPSG:4326@0.0000001", "degrees", "in all|times finer")


@refused
def grid_of_10_degrees(bench: Bench) -> Refusal:
    frame = home("EPSG:4326", GEOGRAPHIC_PIXEL)
    return _refuse_grid(bench, "10", "10 degrees", "one pixel", frame=frame)


@refused
def grid_in_a_geocentric_crs(bench: Bench) -> Refusal:
    return _refuse_grid(bench, "EPSG:4978@10", "EPSG:4978")


@refused
def grid_for_a_plane(bench: Bench) -> Refusal:
    pair = _in_plane(bench, SITE, _plane(), _plane())
    return Refusal(pair.before, pair.after, ("--grid 2", r"before\.tif"), {"grid": "2"})


def _refuse_area(bench: Bench, name: str, *problem: str) -> Refusal:
    pair = bench.pair(home(), home())
    return Refusal(pair.before, pair.after, problem, {"aoi": str(bench.folder / name)})


@refused
def area_in_two_layers(bench: Bench) -> Refusal:
    for layer in ("north", "south"):
        geopandas.GeoDataFrame(geometry=[_box()], crs=UTM).to_file(
            bench.folder / "two.gpkg", layer=layer
        )
    return _refuse_area(bench, "two.gpkg", r"two\.gpkg", "north, south")


@refused
def area_in_a_layer_that_is_missing(bench: Bench) -> Refusal:
    geopandas.GeoDataFrame(geometry=[_box()], crs=UTM).to_file(bench.folder / "a.gpkg", layer="x")
    return _refuse_area(bench, "a.gpkg#y", r"a\.gpkg", "no layer y", "it has x")


@refused
def area_that_is_empty(bench: Bench) -> Refusal:
    frame = geopandas.GeoDataFrame(geometry=[shapely.Polygon(), None], crs=UTM)
    frame.to_file(bench.folder / "empty.gpkg")
    return _refuse_area(bench, "empty.gpkg", "no polygon")


@refused
def area_that_is_a_table(bench: Bench) -> Refusal:
    (bench.folder / "table.csv").write_text("name,size\na,1\n")
    return _refuse_area(bench, "table.csv", "no polygon")


@refused
def area_on_mars(bench: Bench) -> Refusal:
    geopandas.GeoDataFrame(geometry=[_box()], crs=MARS).to_file(bench.folder / "mars.gpkg")
    return _refuse_area(bench, "mars.gpkg", r"mars\.gpkg", "Mars")
