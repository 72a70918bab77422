"""Pairs that lie oddly: another grid, another CRS, the edges of the world."""

from __future__ import annotations

from dataclasses import replace

import geopandas
import rasterio
import shapely
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC
from rasterio.vrt import WarpedVRT

from .cases import UTM, Bench, Pair, home, mapped
from .drawing import Frame, open_quietly

GEOGRAPHIC_PIXEL = (0.00013, 0.00009)
"""About 10 m at home."""
LAEA = "+proj=laea +lat_0=48 +lon_0=11 +x_0=1000 +y_0=-2000 +ellps=GRS80 +units=m +no_defs"
GEOSTATIONARY = "+proj=geos +h=35785831 +lon_0=9.5 +sweep=y +datum=WGS84 +units=m +no_defs"
SINUSOIDAL = "+proj=sinu +lon_0=0 +x_0=0 +y_0=0 +R=6371007.181 +units=m +no_defs"


@mapped
def same_grid(bench: Bench) -> Pair:
    return bench.pair(home(), home())


@mapped
def other_extent(bench: Bench) -> Pair:
    return bench.pair(home(), home().cut(20, -13, 120, 80))


@mapped
def half_pixel_phase(bench: Bench) -> Pair:
    return bench.pair(home(), home().cut(3.5, -2.5))


@mapped
def after_inside_before(bench: Bench) -> Pair:
    return bench.pair(home(), home().cut(31, 17, 50, 40))


@mapped
def before_inside_after(bench: Bench) -> Pair:
    return bench.pair(home(), home().cut(-31.3, -17.6, 170, 140))


@mapped
def overlap_of_one_corner(bench: Bench) -> Pair:
    return bench.pair(home(), home().cut(80, 66))


@mapped
def overlap_of_one_pixel(bench: Bench) -> Pair:
    return bench.pair(home(), home().cut(111, 95))


@mapped
def overlap_of_the_greater_part_of_a_column(bench: Bench) -> Pair:
    return bench.pair(home(), home().cut(111.3, 0))


@mapped
def after_finer(bench: Bench) -> Pair:
    return bench.pair(home(), home().cut(5, 4).zoom(0.37, 250, 210))


@mapped
def after_2_7_times_coarser(bench: Bench) -> Pair:
    return bench.pair(home(), home().cut(5.2, 4.1).zoom(2.7, 36, 30), 27)


@mapped
def pixels_not_square(bench: Bench) -> Pair:
    return bench.pair(home(pixel=(10, 25)), home(), 25)


@mapped
def other_utm_zone(bench: Bench) -> Pair:
    return bench.pair(home(), home("EPSG:32632", size=(120, 120)))


@mapped
def before_projected_after_geographic(bench: Bench) -> Pair:
    return bench.pair(home(), home("EPSG:4326", GEOGRAPHIC_PIXEL))


@mapped
def before_geographic_after_projected(bench: Bench) -> Pair:
    return bench.pair(home("EPSG:4326", GEOGRAPHIC_PIXEL), home())


@mapped
def both_geographic_longitude_first_and_latitude_first(bench: Bench) -> Pair:
    frame = home("OGC:CRS84", GEOGRAPHIC_PIXEL)
    return bench.pair(frame, Frame("EPSG:4326", frame.transform, frame.width, frame.height))


@mapped
def before_south_up(bench: Bench) -> Pair:
    return bench.pair(home().flip(), home().cut(5, 7))


@mapped
def after_south_up(bench: Bench) -> Pair:
    return bench.pair(home(), home().cut(5, 7).flip())


@mapped
def both_south_up(bench: Bench) -> Pair:
    return bench.pair(home().flip(), home().flip().cut(5, 7))


@mapped
def mirrored_east_west(bench: Bench) -> Pair:
    mirror = Affine.translation(112, 0) @ Affine.scale(-1, 1)
    frame = Frame(UTM, home().transform @ mirror, 112, 96)
    return bench.pair(home(), frame)


@mapped
def before_rotated_by_30_degrees(bench: Bench) -> Pair:
    return bench.pair(home(turn=30), home(size=(150, 150)))


@mapped
def after_rotated_by_30_degrees(bench: Bench) -> Pair:
    return bench.pair(home(), home(size=(120, 110), turn=30))


@mapped
def after_rotated_meets_a_corner(bench: Bench) -> Pair:
    return bench.pair(home(), home(turn=30).cut(60, 40))


@mapped
def both_rotated_on_one_grid(bench: Bench) -> Pair:
    return bench.pair(home(turn=30), home(turn=30).cut(12, -9))


@mapped
def both_rotated_on_different_grids(bench: Bench) -> Pair:
    return bench.pair(home(turn=30), home(turn=-17, size=(120, 130)))


@mapped
def columns_run_northwards(bench: Bench) -> Pair:
    return bench.pair(home(turn=90), home())


@mapped
def after_sheared(bench: Bench) -> Pair:
    return bench.pair(home(), home(size=(130, 110), shear=20))


@mapped
def axis_order_northing_easting_new_zealand(bench: Bench) -> Pair:
    before, after = (
        Frame.around(crs, 174.8, -41.3, 10, size)
        for crs, size in (("EPSG:2193", (112, 96)), ("EPSG:32760", (130, 130)))
    )
    return bench.pair(before, after)


@mapped
def axis_order_gauss_krueger_other_datum(bench: Bench) -> Pair:
    return bench.pair(home(), home("EPSG:31468", size=(120, 120)))


@mapped
def axis_order_equal_area_europe(bench: Bench) -> Pair:
    return bench.pair(home("EPSG:3035"), home(size=(130, 120)))


@mapped
def crs_without_authority(bench: Bench) -> Pair:
    return bench.pair(home(), home(LAEA, size=(120, 110)))


@mapped
def same_crs_told_in_other_words(bench: Bench) -> Pair:
    words = "+proj=utm +zone=33 +datum=WGS84 +units=m +no_defs"
    return bench.pair(home(), Frame(words, home().cut(4, 3).transform, 112, 96))


@mapped
def feet(bench: Bench) -> Pair:
    before = Frame.around("EPSG:2263", -73.98, 40.7, 33)
    return bench.pair(before, Frame.around("EPSG:32618", -73.98, 40.7, 10, (120, 110)))


@mapped
def web_mercator_at_70_north(bench: Bench) -> Pair:
    before = Frame.around("EPSG:3857", 18.9, 70, 30)
    return bench.pair(before, Frame.around("EPSG:32634", 18.9, 70, 10, (130, 110)))


@mapped
def sphere_against_ellipsoid(bench: Bench) -> Pair:
    before = Frame.around(SINUSOIDAL, 0.3, 48.1, 463.3127)
    return bench.pair(before, Frame.around("EPSG:4326", 0.3, 48.1, 0.005, (140, 90)), 560)


@mapped
def antimeridian_utm_60_and_utm_1(bench: Bench) -> Pair:
    frames = [Frame.around(crs, 180, -17.5, 10, (120, 110)) for crs in ("EPSG:32760", "EPSG:32701")]
    return bench.pair(*frames)


@mapped
def antimeridian_utm_and_longitudes_beyond_180(bench: Bench) -> Pair:
    before = Frame.around("EPSG:32760", 180, -17.5, 100)
    return bench.pair(before, Frame.around("EPSG:4326", 180, -17.5, 0.001), 110)


@mapped
def antimeridian_longitudes_beyond_180_and_utm(bench: Bench) -> Pair:
    before = Frame.around("EPSG:4326", 180, -17.5, 0.001)
    return bench.pair(before, Frame.around("EPSG:32701", -180, -17.5, 100), 110)


@mapped
def antimeridian_at_plus_and_at_minus_180(bench: Bench) -> Pair:
    before = Frame.around("EPSG:4326", 180, -17.5, 0.001)
    return bench.pair(before, Frame.around("EPSG:4326", -180, -17.5, 0.001).cut(3, 4), 110)


@mapped
def antimeridian_at_minus_and_at_plus_180_other_phase(bench: Bench) -> Pair:
    before = Frame.around("EPSG:4326", -180, -17.5, 0.001)
    return bench.pair(before, Frame.around("EPSG:4326", 180, -17.5, 0.001).cut(30.4, 4.3), 110)


@mapped
def longitudes_from_0_to_360(bench: Bench) -> Pair:
    before = Frame.around("EPSG:4326", -70.1, -12.2, 0.001)
    return bench.pair(before, Frame.around("EPSG:4326", 289.9, -12.2, 0.001).cut(9.5, 4), 110)


@mapped
def polar_stereographic_and_geographic(bench: Bench) -> Pair:
    before = Frame.around("EPSG:3413", -40, 80, 1000)
    return bench.pair(
        before, Frame.around("EPSG:4326", -40, 80, (0.05, 0.01), (140, 110)), 1200, wrong_share=0.02
    )


@mapped
def geographic_and_antarctic_stereographic(bench: Bench) -> Pair:
    before = Frame.around("EPSG:4326", 165, -77, (0.04, 0.01))
    return bench.pair(
        before, Frame.around("EPSG:3031", 165, -77, 1000, (130, 130)), 1200, wrong_share=0.02
    )


@mapped
def around_the_pole_and_all_longitudes(bench: Bench) -> Pair:
    before = Frame.around("EPSG:3413", 0, 90, 10_000, (100, 100))
    return bench.pair(before, Frame.around("EPSG:4326", 0, 75, 0.5, (720, 60)), 55_000)


@mapped
def all_longitudes_and_around_the_pole(bench: Bench) -> Pair:
    before = Frame.around("EPSG:4326", 0, 84, (2, 0.2), (180, 60))
    return bench.pair(
        before, Frame.around("EPSG:3413", 0, 90, 10_000, (150, 150)), 25_000, wrong_share=0.03
    )


@mapped
def projected_and_longitudes_from_0_to_360(bench: Bench) -> Pair:
    before = Frame.around("EPSG:32719", -70.1, -12.2, 100)
    return bench.pair(before, Frame.around("EPSG:4326", 289.9, -12.2, 0.001), 110)


@mapped
def other_datum_and_longitudes_from_0_to_360(bench: Bench) -> Pair:
    before = Frame.around("EPSG:4269", -70.1, 42.2, 0.001)
    return bench.pair(before, Frame.around("EPSG:4326", 289.9, 42.2, 0.0008, (150, 130)), 110)


@mapped
def geostationary_to_the_edge_of_the_disc(bench: Bench) -> Pair:
    before = Frame.around("EPSG:4326", 20, 64, 0.2, (150, 80))
    after = Frame.around(GEOSTATIONARY, 15, 62, 9000, (190, 110))
    # Few pixels towards the edge of the disc.
    return bench.pair(before, after, 22_000, grey_levels=4, wrong_share=0.03)


@mapped
def map_on_the_grid_of_after(bench: Bench) -> Pair:
    after = home("EPSG:32632", 17, (90, 70))
    return bench.pair(home(), after, 17, options={"grid": "after"})


@mapped
def map_on_the_grid_of_after_exact(bench: Bench) -> Pair:
    return bench.pair(home(), home().cut(-20, 13), options={"grid": "after"})


@mapped
def map_on_a_grid_of_12_5_m(bench: Bench) -> Pair:
    after = home("EPSG:32632", size=(90, 70))
    return bench.pair(home().cut(0.3, 0.6), after, 12.5, options={"grid": 12.5})


@mapped
def map_on_a_grid_named_by_text(bench: Bench) -> Pair:
    after = home().cut(-7.4, 11.3)
    return bench.pair(home(), after, options={"grid": "4"})


@mapped
def map_of_a_rotated_image_on_a_north_up_grid(bench: Bench) -> Pair:
    return bench.pair(home(turn=30), home(size=(90, 80)), options={"grid": 10})


@mapped
def no_crs_same_size(bench: Bench) -> Pair:
    frame = Frame(None, Affine.identity(), 112, 96)
    return bench.pair(frame, frame)


@mapped
def no_crs_same_transform(bench: Bench) -> Pair:
    frame = Frame(None, home().transform, 112, 96)
    return bench.pair(frame, frame)


@mapped
def ground_control_points_only_after(bench: Bench) -> Pair:
    pair = bench.pair(home(), home(turn=12, size=(140, 130)))
    pair.after = place_by_points(bench, pair, 1)
    # Interpolated twice.
    return replace(pair, grey_levels=5, wrong_share=0.03)


@mapped
def ground_control_points_only_before(bench: Bench) -> Pair:
    pair = bench.pair(home(turn=12, size=(120, 110)), home(size=(150, 150)))
    pair.before = place_by_points(bench, pair, 0)
    # The grid is what GDAL suggests for the points.
    with WarpedVRT(bench.exits.enter_context(rasterio.open(pair.before)), src_crs=UTM) as suggested:
        frame = Frame(UTM, suggested.transform, suggested.width, suggested.height)
    return replace(pair, frame=frame, grey_levels=5, wrong_share=0.03)


def place_by_points(bench: Bench, pair: Pair, date: int):
    raster = pair.truth[date]
    plain = Frame(None, Affine.identity(), raster.frame.width, raster.frame.height)
    path = bench.write("points.tif", type(raster)(plain, raster.image_CHW, raster.valid_HW))
    with open_quietly(path, "r+") as dataset:
        dataset.gcps = (_find_points(raster.frame), rasterio.CRS.from_user_input(raster.frame.crs))
    return path


def _find_points(frame: Frame) -> list[GroundControlPoint]:
    return [
        GroundControlPoint(row, column, *frame.locate(column, row))
        for column in (0, frame.width // 2, frame.width)
        for row in (0, frame.height // 2, frame.height)
    ]


@mapped
def rational_polynomials_only(bench: Bench) -> Pair:
    frame = home("EPSG:4326", GEOGRAPHIC_PIXEL, (130, 120))
    pair = bench.pair(home(), frame)
    plain = Frame(None, Affine.identity(), frame.width, frame.height)
    image = type(pair.truth[1])(plain, pair.truth[1].image_CHW, pair.truth[1].valid_HW)
    pair.after = bench.write("polynomials.tif", image)
    middle = frame.width / 2, frame.height / 2
    longitude, latitude = frame.locate(*middle)
    one, x, y = ([float(index == place) for index in range(20)] for place in (0, 1, 2))
    with open_quietly(pair.after, "r+") as dataset:
        # RPCs count from the centre of the first pixel.
        dataset.rpcs = RPC(
            height_off=0, height_scale=1,
            lat_off=latitude, lat_scale=middle[1] * GEOGRAPHIC_PIXEL[1],
            line_off=middle[1] - 0.5, line_scale=middle[1],
            line_num_coeff=[-part for part in y], line_den_coeff=one,
            long_off=longitude, long_scale=middle[0] * GEOGRAPHIC_PIXEL[0],
            samp_off=middle[0] - 0.5, samp_scale=middle[0],
            samp_num_coeff=x, samp_den_coeff=one,
        )  # fmt: skip
    # Interpolated twice.
    return replace(pair, grey_levels=5, wrong_share=0.03)


def _with_area(bench: Bench, polygons: shapely.Geometry, crs: str) -> Pair:
    """Return a pair with an area of interest, given in UTM and written in some CRS."""
    frame = geopandas.GeoSeries([polygons], crs=UTM).segmentize(20).to_crs(crs)
    frame.to_file(bench.folder / "area.gpkg")
    options = {"aoi": bench.folder / "area.gpkg"}
    return bench.pair(home(), home().cut(4, 3), options=options, aoi=(frame.iloc[0], crs))


@mapped
def area_of_interest_in_another_crs(bench: Bench) -> Pair:
    x, y = home().locate(50.3, 40.2)
    return _with_area(bench, shapely.Point(x, y).buffer(333, quad_segs=32), "EPSG:4326")


@mapped
def area_of_interest_with_a_hole_and_two_parts(bench: Bench) -> Pair:
    x, y = home().locate(50.3, 40.2)
    ring = shapely.Point(x, y).buffer(333) - shapely.Point(x, y).buffer(111)
    return _with_area(bench, ring | shapely.Point(x + 400, y - 200).buffer(73), UTM)


@mapped
def area_of_interest_reaches_beyond(bench: Bench) -> Pair:
    x, y = home().locate(100, 90)
    return _with_area(bench, shapely.box(x - 321, y - 1234, x + 4321, y + 232), "EPSG:3035")


@mapped
def tiny_1_by_1(bench: Bench) -> Pair:
    return bench.pair(home(size=(1, 1)), home(size=(1, 1)))


@mapped
def tiny_1_by_300(bench: Bench) -> Pair:
    return bench.pair(home(size=(1, 300)), home(size=(1, 300)))


@mapped
def tiny_7_by_5_other_phase(bench: Bench) -> Pair:
    return bench.pair(home(size=(7, 5)), home(size=(12, 12)).cut(0.4, 0.3))


@mapped
def wider_than_65535(bench: Bench) -> Pair:
    frame = home(pixel=2.0, size=(70_000, 8))
    return bench.pair(frame, frame, 2)
