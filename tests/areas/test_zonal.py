"""Hectares by polygon: what tiles the map has its totals, whatever the CRS of the polygons."""

import csv

import geopandas
import numpy as np
import pytest
import shapely

from terradelta.areas import map_census as census_module
from terradelta.areas.map_census import ChangeMap, take_census
from terradelta.areas.zonal import stats
from terradelta.errors import ArgumentError, OutputExistsError, RasterError
from tests.areas.maps import DEGREES, FREQUENT, UTM, draw_map, write_prediction


def tile(grid, parts=(5, 4), margin=0.02):
    """Rectangles that cover the map and a little more, their edges anywhere within pixels."""
    left, bottom, right, top = grid.bounds
    width, height = right - left, top - bottom
    x = np.linspace(left - margin * width, right + margin * width, parts[0] + 1)
    y = np.linspace(bottom - margin * height, top + margin * height, parts[1] + 1)
    boxes = [
        shapely.box(x[i], y[j], x[i + 1], y[j + 1])
        for i in range(parts[0])
        for j in range(parts[1])
    ]
    names = [f"zone {index}" for index in range(len(boxes))]
    return geopandas.GeoDataFrame({"name": names}, geometry=boxes, crs=grid.crs.to_wkt())


@pytest.fixture
def holed(truth_HW, tmp_path):
    map_HW = draw_map(truth_HW)
    map_HW[60:90, 100:180] = 255
    return write_prediction(tmp_path / "out", map_HW, UTM)


@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:4326", "EPSG:3857", "EPSG:3035"])
def test_zones_that_tile_the_map_have_its_totals(holed, tmp_path, crs, monkeypatch):
    tile(UTM).to_crs(crs).to_file(tmp_path / "zones.gpkg")
    monkeypatch.setattr(census_module, "BLOCK_SIZE_PX", 128)
    areas = stats(holed, tmp_path / "zones.gpkg")
    with ChangeMap(holed) as change_map:
        census = take_census(change_map)
    expected_m2 = census.area_m2_C[list(areas.transitions)]
    assert areas.area_m2_ZT.sum(axis=0) == pytest.approx(expected_m2, rel=1e-6)
    assert areas.area_m2_ZT.sum() == pytest.approx(census.area_m2_C.sum(), rel=1e-9)
    assert areas.nodata_m2_Z.sum() == pytest.approx(30 * 80 * 100 / 0.9996**2, rel=1e-4)


def test_pixels_of_a_geographic_map_count_by_their_ground_area(truth_HW, tmp_path):
    folder = write_prediction(tmp_path / "out", truth_HW, DEGREES)
    tile(DEGREES, margin=0).to_file(tmp_path / "zones.gpkg")
    areas = stats(folder, tmp_path / "zones.gpkg")
    with ChangeMap(folder) as change_map:
        census = take_census(change_map)
    assert areas.area_m2_ZT.sum() == pytest.approx(census.area_m2_C.sum(), rel=1e-9)
    # As large in degrees, and not on the ground; the southernmost comes first.
    totals_m2 = areas.area_m2_ZT.sum(axis=1)[:4]
    geod_m2 = [
        abs(shape_area(zone)) for zone in geopandas.read_file(tmp_path / "zones.gpkg").geometry[:4]
    ]
    assert totals_m2 == pytest.approx(geod_m2, rel=1e-4)


def shape_area(polygon):
    from pyproj import Geod

    # Edges along parallels, which geodesics are not.
    return Geod(ellps="WGS84").geometry_area_perimeter(polygon.segmentize(0.01))[0]


def test_files_hold_the_areas(holed, tmp_path):
    tile(UTM).to_file(tmp_path / "zones.geojson", driver="GeoJSON")
    areas = stats(holed, tmp_path / "zones.geojson", tmp_path / "by-zone", name="name")
    assert sorted(path.name for path in (tmp_path / "by-zone").iterdir()) == [
        "zones.csv",
        "zones.gpkg",
    ]
    with (tmp_path / "by-zone" / "zones.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    index = areas.transitions.index(FREQUENT)
    listed = [
        float(row["area_ha"]) for row in rows if (row["from"], row["to"]) == ("tree", "building")
    ]
    assert listed == pytest.approx((areas.area_m2_ZT[:, index] / 1e4).tolist())
    assert {row["zone"] for row in rows} == {f"zone {index}" for index in range(20)}
    frame = geopandas.read_file(tmp_path / "by-zone" / "zones.gpkg")
    assert frame["tree → building (ha)"].tolist() == pytest.approx(listed)
    assert frame["zone"].tolist() == frame["name"].tolist() == list(areas.names)
    changed = areas.area_m2_ZT[:, 1:].sum() / 1e4
    assert frame["changed_ha"].sum() == pytest.approx(changed)
    shares = 100 * frame["changed_ha"] / frame["valid_ha"]
    assert frame["changed_percent"].tolist() == pytest.approx(shares.tolist())


def test_zones_that_overlap_count_twice_and_those_outside_nothing(holed, tmp_path):
    whole, away = shapely.box(*UTM.bounds), shapely.box(0, 0, 1, 1)
    zones = geopandas.GeoDataFrame(geometry=[whole, whole, away], crs=UTM.crs.to_wkt())
    zones.to_file(tmp_path / "zones.gpkg")
    areas = stats(holed, tmp_path / "zones.gpkg")
    assert areas.area_m2_ZT[0].tolist() == areas.area_m2_ZT[1].tolist()
    assert areas.area_m2_ZT[2].sum() == 0
    assert areas.names == ("1", "2", "3")


def test_what_cannot_be_summed_is_refused(holed, tmp_path):
    tile(UTM).to_file(tmp_path / "zones.gpkg")
    with pytest.raises(ArgumentError, match="has no column 'district', it has name"):
        stats(holed, tmp_path / "zones.gpkg", name="district")
    away = geopandas.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1)], crs="EPSG:4326")
    away.to_file(tmp_path / "away.gpkg")
    with pytest.raises(RasterError, match="no polygon of"):
        stats(holed, tmp_path / "away.gpkg")
    with pytest.raises(RasterError, match="cannot be opened as a vector file"):
        stats(holed, tmp_path / "missing.gpkg")
    assert not (holed / "zones").exists()
    stats(holed, tmp_path / "zones.gpkg")
    with pytest.raises(OutputExistsError):
        stats(holed, tmp_path / "zones.gpkg")
