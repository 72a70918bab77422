"""Areas of interest of any CRS, laid on grids of any: pixels whose centres lie inside."""

import geopandas
import numpy as np
import pyproj
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS
from rasterio.windows import Window

from terradelta.errors import RasterError
from terradelta.geo.aoi import AreaOfInterest
from terradelta.geo.grid import Grid
from terradelta.geo.polygons import read_polygons

GEOSTATIONARY = "+proj=geos +h=35785831 +lon_0=9.5 +sweep=y +datum=WGS84 +units=m +no_defs"
GRIDS = {
    "utm": ("EPSG:32633", Affine(10, 0, 400_000, 0, -10, 5.3e6), 150, 100),
    "turned": ("EPSG:32633", Affine(8, 5, 400_000, 5, -8, 5.3e6), 150, 100),
    "degrees": ("EPSG:4326", Affine(0.02, 0, 12, 0, -0.02, 48), 150, 100),
    "degrees beyond 180": ("EPSG:4326", Affine(0.02, 0, 179, 0, -0.02, -17), 150, 100),
    "utm 1 beyond its zone": ("EPSG:32701", Affine(200, 0, 100_000, 0, -200, 8.1e6), 150, 100),
    "the world": ("EPSG:4326", Affine(2, 0, -180, 0, -2, 90), 180, 90),
    "around the pole": ("EPSG:3413", Affine(4e4, 0, -3e6 + 7, 0, -4e4, 3e6), 150, 150),
    "a disc": (GEOSTATIONARY, Affine(8e4, 0, -5.6e6, 0, -8e4, 5.6e6), 140, 140),
    "mercator": ("EPSG:3857", Affine(2e5, 0, -2e7, 0, -2e5, 2e7), 200, 200),
}
AREAS = {
    "world": ("EPSG:4326", shapely.box(-180, -90, 180, 90)),
    "north": ("EPSG:4326", shapely.box(-180, 47.503, 180, 90)),
    "across 180": ("EPSG:4326", shapely.box(179.203, -18.003, 181.103, -16.903)),
    "two halves": (
        "EPSG:4326",
        shapely.MultiPolygon(
            [shapely.box(179.203, -18.003, 180, -16.9), shapely.box(-180, -18.003, -178.9, -16.9)]
        ),
    ),
    "bow tie": ("EPSG:4326", shapely.Polygon([(12, 47.701), (15, 47.9), (15, 47.7), (12, 47.902)])),
    "utm 60 across 180": ("EPSG:32760", shapely.box(700_000, 7.9e6, 900_000, 8.1e6)),
    "the pole": ("EPSG:3413", shapely.Point(0, 0).buffer(1.5e6)),
    "a ring around the pole": (
        "EPSG:3413",
        shapely.Point(1e5, 0).buffer(2.5e6) - shapely.Point(0, 0).buffer(5e5),
    ),
    "europe": ("EPSG:3035", shapely.box(4.0003e6, 2.0003e6, 5e6, 3e6)),
    "more than once around": ("EPSG:3857", shapely.box(-3e7, 5.03e6, 3e7, 7.03e6)),
}


def find_inside(area: shapely.Geometry, crs: str, grid: Grid) -> np.ndarray:
    """The other way round: the pixels' centres in the area's CRS."""
    columns, rows = np.meshgrid(np.arange(grid.width) + 0.5, np.arange(grid.height) + 0.5)
    x, y = pyproj.Transformer.from_crs(grid.crs.to_wkt(), crs, always_xy=True).transform(
        *(grid.transform @ (columns, rows))
    )
    inside_HW = np.zeros(x.shape, bool)
    # A hair wider: the two sides of 180 degrees are one line, and centres lie on it.
    area = shapely.make_valid(area).buffer(1e-9 * max(map(abs, area.bounds)))
    for turn in (0, 360, -360) if pyproj.CRS(crs).is_geographic else (0,):
        inside_HW |= shapely.contains_xy(area, x + turn, y)
    return inside_HW


@pytest.mark.parametrize("place", GRIDS)
@pytest.mark.parametrize("name", AREAS)
def test_a_pixel_is_inside_where_its_centre_is(name, place, tmp_path):
    crs, area = AREAS[name]
    code, transform, width, height = GRIDS[place]
    grid = Grid(CRS.from_user_input(code), transform, width, height)
    path = tmp_path / "area.gpkg"
    geopandas.GeoDataFrame(geometry=[area], crs=crs).to_file(path)
    expected_HW = find_inside(area, crs, grid)
    try:
        laid = AreaOfInterest(path, grid)
    except RasterError as error:
        refusal = error.problem
    else:
        refusal = None
    if refusal is not None:
        assert "lies outside" in refusal
        assert not expected_HW.any()
        return
    inside_HW = laid.mask(Window(0, 0, width, height))
    assert (inside_HW == expected_HW).all()
    rows, columns = laid.area.toslices()
    inside_HW[rows, columns] = False
    assert not inside_HW.any()
    part = Window(31, 17, 40, 30)
    assert (laid.mask(part) == expected_HW[17:47, 31:71]).all()
    assert laid.touches(part) or not expected_HW[17:47, 31:71].any()


def test_attributes_stay_with_their_polygons_and_the_world_is_cut_to_the_grid(tmp_path):
    path = tmp_path / "zones.gpkg"
    shapes = [
        shapely.box(-180, -90, 180, 90),
        None,
        shapely.GeometryCollection([shapely.Point(0, 0), shapely.box(12.1, 47.5, 12.2, 47.6)]),
        shapely.Point(12, 47),
    ]
    names = ["world", "none", "here", "point"]
    geopandas.GeoDataFrame({"name": names}, geometry=shapes, crs="EPSG:4326").to_file(path)
    grid = Grid(CRS.from_epsg(32633), Affine(100, 0, 250_000, 0, -100, 5.35e6), 500, 900)
    frame = read_polygons(path, grid, "--zones")
    assert frame.name.tolist() == ["world", "here"]
    ground = shapely.box(*grid.bounds)
    assert frame.geometry.iloc[0].contains(ground)
    assert frame.geometry.is_valid.all()
    assert 50e6 < frame.geometry.iloc[1].area < 100e6
    with pytest.raises(RasterError, match=r"cannot show all of .*zones.gpkg"):
        read_polygons(path, grid, "AREA", is_whole=True)


def test_a_file_whose_name_holds_the_mark_is_opened_as_it_is(tmp_path):
    path = tmp_path / "plot #3.geojson"
    geopandas.GeoDataFrame(geometry=[shapely.box(12, 47, 13, 48)], crs="EPSG:4326").to_file(path)
    grid = Grid(CRS.from_epsg(4326), Affine(0.1, 0, 12, 0, -0.1, 48), 9, 9)
    assert len(read_polygons(path, grid, "--aoi")) == 1


@pytest.mark.filterwarnings("ignore:Non closed ring:RuntimeWarning")
def test_a_ring_that_is_none_is_refused_with_the_file(tmp_path):
    path = tmp_path / "area.geojson"
    path.write_text('{"type": "Polygon", "coordinates": [[[12, 47], [13, 47]]]}')
    with pytest.raises(RasterError, match=r"area\.geojson cannot be opened as a vector file"):
        read_polygons(path, Grid(CRS.from_epsg(4326), Affine(1, 0, 12, 0, -1, 48), 5, 5), "--aoi")


def test_a_vertex_that_is_not_finite_is_refused_with_the_file(tmp_path):
    path = tmp_path / "broken.gpkg"
    with np.errstate(invalid="ignore"):
        shape = shapely.Polygon([(0, 0), (1, float("nan")), (1, 1), (0, 0)])
    geopandas.GeoDataFrame(geometry=[shape], crs="EPSG:4326").to_file(path)
    grid = Grid(CRS.from_epsg(4326), Affine(0.1, 0, 0, 0, -0.1, 1), 9, 9)
    with pytest.raises(RasterError, match=r"broken.gpkg"):
        AreaOfInterest(path, grid)
