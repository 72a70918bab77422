"""What QGIS sees of a prediction: a drawn pair, mapped by the model of drawn scenes."""

import csv
import json

import pytest
import rasterio

import terradelta as td
from terradelta.classes import SENSEEARTH
from terradelta.data.synthetic import write_geotiff_pair
from terradelta.geo.style import UNCHANGED_ALPHA
from tests.weights import DRAWN_MODEL

from .qgis import ask_qgis

PROBE = """
from qgis.core import QgsRasterLayer, QgsVectorLayer

folder = sys.argv[1]
answer = {}
for name in ("change", "before_class", "after_class", "confidence"):
    layer = QgsRasterLayer(folder + "/" + name + ".tif", name)
    assert layer.isValid(), name
    renderer = layer.renderer()
    seen = {"renderer": renderer.type(), "crs": layer.crs().authid()}
    if renderer.type() == "paletted":
        seen["legend"] = [[c.value, c.label, c.color.getRgb()] for c in renderer.classes()]
    else:
        items = renderer.shader().rasterShaderFunction().colorRampItemList()
        seen["legend"] = [[item.value, item.label, item.color.getRgb()] for item in items]
    answer[name] = seen
# As by drag and drop: the file's first layer, whatever else is in it.
layer = QgsVectorLayer(folder + "/changes.gpkg", "changes", "ogr")
assert layer.isValid()
features = list(layer.getFeatures())
answer["changes"] = {
    "renderer": layer.renderer().type(),
    "crs": layer.crs().authid(),
    "legend": [
        [category.value(), category.label(), category.symbol().color().getRgb()]
        for category in layer.renderer().categories()
    ],
    "fields": layer.fields().names(),
    "features": layer.featureCount(),
    "from_to_m2": [[f["from"], f["to"], f["area_m2"]] for f in features],
    "valid": all(f.geometry().isGeosValid() for f in features),
}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qgis")
    write_geotiff_pair(folder / "scene", 7, (384, 448))
    return td.predict(
        folder / "scene" / "before.tif",
        folder / "scene" / "after.tif",
        folder / "out",
        model=DRAWN_MODEL,
    ).folder


@pytest.fixture(scope="module")
def seen(folder):
    return ask_qgis(PROBE, folder)


@pytest.fixture(scope="module")
def rows(folder):
    with (folder / "transitions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def encode(row):
    ids = (SENSEEARTH.names.index(row[name]) for name in ("from", "to"))
    return SENSEEARTH.encode_transition(*ids)


@pytest.mark.slow
def test_the_from_to_map_has_a_legend_of_what_occurs(seen, rows):
    expected = [(0, SENSEEARTH.names[0], (255, 255, 255, UNCHANGED_ALPHA))]
    for transition in sorted(encode(row) for row in rows[:-3]):
        colour = (*SENSEEARTH.colour_transition(transition), 255)
        expected.append((transition, SENSEEARTH.name_transition(transition), colour))
    assert seen["change"]["renderer"] == "paletted"
    assert [(v, name, tuple(rgba)) for v, name, rgba in seen["change"]["legend"]] == expected
    assert len(expected) > 4, "a scene without changes tests nothing"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "column"), [("before_class", "from"), ("after_class", "to")])
def test_the_class_maps_have_the_class_tables_names_and_colours(seen, rows, name, column):
    occurring = {SENSEEARTH.names.index(row[column]) for row in rows[:-3]} | {0}
    assert seen[name]["renderer"] == "paletted"
    assert [(v, label, tuple(rgba[:3])) for v, label, rgba in seen[name]["legend"]] == [
        (value, SENSEEARTH.names[value], SENSEEARTH.colours[value]) for value in sorted(occurring)
    ]


@pytest.mark.slow
def test_confidence_is_a_ramp_in_percent(seen):
    assert seen["confidence"]["renderer"] == "singlebandpseudocolor"
    legend = seen["confidence"]["legend"]
    assert [label for _, label, _ in legend] == ["0 %", "25 %", "50 %", "75 %", "100 %"]
    assert [sum(rgba[:3]) for *_, rgba in legend] == sorted(sum(rgba[:3]) for *_, rgba in legend)


@pytest.mark.slow
def test_the_polygons_open_styled_and_sum_up_to_the_hectares_of_the_table(seen, rows, folder):
    layer = seen["changes"]
    assert layer["renderer"] == "categorizedSymbol"
    assert [(int(v), label, tuple(rgba[:3])) for v, label, rgba in layer["legend"]] == [
        (t, SENSEEARTH.name_transition(t), SENSEEARTH.colour_transition(t))
        for t in sorted(encode(row) for row in rows[:-3])
    ]
    fields = ["from", "to", "transition", "pixels", "area_m2", "confidence"]
    assert layer["fields"] == ["fid", *fields]
    assert layer["valid"]
    summary = json.loads((folder / "summary.json").read_text())
    assert layer["features"] == len(layer["from_to_m2"]) == summary["patches"]
    sums_ha = {}
    for before, after, area_m2 in layer["from_to_m2"]:
        sums_ha[before, after] = sums_ha.get((before, after), 0) + area_m2 / 10_000
    assert sums_ha == pytest.approx(
        {(row["from"], row["to"]): float(row["area_ha"]) for row in rows[:-3]}
    )


@pytest.mark.slow
def test_every_file_lies_where_the_imagery_does(seen, folder):
    with rasterio.open(folder / "change.tif") as dataset:
        crs = f"EPSG:{dataset.crs.to_epsg()}"
    assert {layer["crs"] for layer in seen.values()} == {crs}
