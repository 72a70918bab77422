import csv
import re
import shutil

import geopandas
import numpy as np
import pytest
import rasterio
import shapely

import terradelta as td
from terradelta.classes import SENSEEARTH
from terradelta.errors import DataError
from terradelta.geo.grid import Grid
from terradelta.reports.zones import draw_zones

ZONES = ["South <b>West</b>", "South East", "North", "Away"]


def read_shapes(path):
    """Polygons of an SVG path."""
    rings = [
        [tuple(map(float, point.split())) for point in ring.split("L")]
        for ring in re.findall(r"M([^z]*)z", path)
    ]
    return shapely.union_all([shapely.Polygon(ring) for ring in rings])


@pytest.fixture
def grid(surveyed):
    with rasterio.open(surveyed / "change.tif") as dataset:
        return Grid.of(dataset)


def test_the_table_is_that_of_the_csv(surveyed, read_page):
    page = read_page(surveyed / "report.html")
    _, *rows = next(table for table in page.tables if "zone" in table[0])
    with (surveyed / "zones" / "zones.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    expected = {}
    for line in lines:
        zone = expected.setdefault(line["zone"], {"changed": 0.0})
        if line["from"] == "all valid":
            zone["valid"] = float(line["area_ha"])
        elif line["from"] not in ("nodata", "unchanged"):
            zone["changed"] += float(line["area_ha"])
            zone[f"{line['from']} → {line['to']}"] = float(line["area_ha"])
    assert [int(row[0]) for row in rows] == [1, 2, 3, 4]
    changed = [expected[row[1]]["changed"] for row in rows]
    assert changed == sorted(changed, reverse=True)
    for _, name, valid, amount, share, largest in rows:
        zone = expected.pop(name)
        assert float(valid) == pytest.approx(zone["valid"], abs=0.0006)
        if amount == "< 0.001":
            assert 0 < zone["changed"] < 0.001
        else:
            assert float(amount) == pytest.approx(zone["changed"], abs=0.0006)
        if name == "Away":
            assert (share, largest) == ("–", "–")
            continue
        assert float(share.split()[0]) == pytest.approx(
            100 * zone["changed"] / zone["valid"], abs=0.06
        )
        steps = {key: value for key, value in zone.items() if "→" in key}
        assert largest.startswith(max(steps, key=steps.__getitem__))
    assert expected == {}


def test_the_map_has_each_zone_in_its_place_and_shade(surveyed, grid):
    zones = geopandas.read_file(surveyed / "zones" / "zones.gpkg")
    drawing = draw_zones(
        zones.sort_values("changed_ha", ascending=False, ignore_index=True), grid, SENSEEARTH
    )
    assert drawing.width / drawing.height == pytest.approx(grid.width / grid.height, rel=0.01)
    assert drawing.has_empty
    assert len(drawing.zones) == 3, "what lies away from the map is not drawn"
    whole = drawing.width * drawing.height
    for zone in drawing.zones:
        row = zones[[zone.label.startswith(f"{name}:") for name in zones["zone"]]].iloc[0]
        shape = read_shapes(zone.path)
        assert shape.area / whole == pytest.approx(row.valid_ha / zones.valid_ha.sum(), abs=0.005)
        south, west = shape.centroid.y > drawing.height / 2, shape.centroid.x < drawing.width / 2
        assert south == ("South" in row.zone)
        assert west == ("West" in row.zone) or "North" in row.zone
        low, high = map(float, re.findall(r"[\d.]+", drawing.steps[zone.shade]))
        assert low <= row.changed_percent <= high


def test_very_many_zones_fit_into_the_page(grid):
    left, bottom, right, top = grid.bounds
    x, y = np.meshgrid(np.linspace(left, right, 201)[:-1], np.linspace(bottom, top, 201)[:-1])
    width, height = (right - left) / 200, (top - bottom) / 200
    boxes = shapely.box(x.ravel(), y.ravel(), x.ravel() + width, y.ravel() + height)
    count = len(boxes)
    columns = {
        "zone": [f"a zone of a rather long name, {n}" for n in range(count)],
        "valid_ha": np.ones(count),
        "changed_ha": np.linspace(1, 0, count),
        "changed_percent": np.linspace(100, 0, count),
    }
    drawing = draw_zones(geopandas.GeoDataFrame(columns, geometry=boxes), grid, SENSEEARTH)
    assert sum(len(zone.path) + len(zone.label) for zone in drawing.zones) < 2_000_000
    assert len(drawing.rows) < drawing.count == count


def test_zones_of_another_map_are_refused(prediction, surveyed, tmp_path, read_page):
    folder = shutil.copytree(prediction.folder, tmp_path / "out")
    page = read_page(td.report(folder, zones=surveyed / "zones" / "zones.gpkg", overwrite=True))
    assert all(name in page.text for name in ZONES)
    frame = geopandas.read_file(surveyed / "zones" / "zones.gpkg").to_crs(4326)
    frame.to_file(tmp_path / "degrees.gpkg", layer="zones")
    with pytest.raises(DataError, match="WGS 84"):
        td.report(folder, zones=tmp_path / "degrees.gpkg", overwrite=True)
    frame.drop(columns="changed_ha").to_file(tmp_path / "other.gpkg", layer="zones")
    with pytest.raises(DataError, match="lacks changed_ha"):
        td.report(folder, zones=tmp_path / "other.gpkg", overwrite=True)
    with pytest.raises(DataError, match="cannot be read as zones"):
        td.report(folder, zones=tmp_path / "absent.gpkg", overwrite=True)
