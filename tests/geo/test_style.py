"""Styles, read back by what reads them: GDAL and QGIS where they are installed, XML elsewhere."""

import json
import shutil
import sqlite3
import subprocess
from contextlib import closing
from xml.etree import ElementTree

import geopandas
import numpy as np
import pyogrio
import pytest
import rasterio
from affine import Affine
from PIL import Image
from rasterio.crs import CRS
from rasterio.windows import Window

from terradelta.classes import SENSEEARTH
from terradelta.errors import OutputError
from terradelta.geo.grid import Grid
from terradelta.geo.patches import PatchTracer
from terradelta.geo.style import (
    UNCHANGED_ALPHA,
    write_layer_style,
    write_quantity_style,
    write_raster_style,
)
from terradelta.geo.vector import PolygonWriter

from ..qgis import ask_qgis

GRID = Grid(CRS.from_epsg(32632), Affine(2, 0, 500_000, 0, -2, 5_000_000), 60, 40)
TREE_TO_BUILDING, GROUND_TO_WATER = 33, 15
NODATA = 255
QGIS_PROBE = """
from qgis.core import QgsMapRendererParallelJob, QgsMapSettings, QgsRasterLayer, QgsVectorLayer
from qgis.PyQt.QtCore import QSize
from qgis.PyQt.QtGui import QColor

folder = sys.argv[1]
change = QgsRasterLayer(folder + "/change.tif")
confidence = QgsRasterLayer(folder + "/confidence.tif")
polygons = QgsVectorLayer(folder + "/changes.gpkg|layername=changes", "changes", "ogr")
layers = {"change": change, "confidence": confidence, "polygons": polygons}
for name, layer in layers.items():
    settings = QgsMapSettings()
    settings.setLayers([layer])
    settings.setBackgroundColor(QColor(0, 0, 0))
    settings.setOutputSize(QSize(60, 40))
    settings.setExtent(change.extent())
    settings.setDestinationCrs(change.crs())
    job = QgsMapRendererParallelJob(settings)
    job.start()
    job.waitForFinished()
    assert job.renderedImage().save(folder + "/" + name + ".png")
shader = confidence.renderer().shader().rasterShaderFunction()
answer = {
    "types": {name: layer.renderer().type() for name, layer in layers.items()},
    "change": [
        [entry.value, entry.label, entry.color.getRgb()] for entry in change.renderer().classes()
    ],
    "confidence": [[item.value, item.label] for item in shader.colorRampItemList()],
    "polygons": [
        [category.value(), category.label(), category.symbol().color().getRgb()]
        for category in polygons.renderer().categories()
    ],
}
"""


def describe(transition):
    return SENSEEARTH.name_transition(transition), SENSEEARTH.colour_transition(transition)


@pytest.fixture(scope="module")
def change_HW():
    change_HW = np.zeros((40, 60), np.uint8)
    change_HW[5:20, 10:30] = TREE_TO_BUILDING
    change_HW[25:35, 35:55] = GROUND_TO_WATER
    change_HW[:4] = NODATA
    return change_HW


@pytest.fixture(scope="module")
def folder(tmp_path_factory, change_HW):
    """A styled prediction."""
    folder = tmp_path_factory.mktemp("styled")
    confidence_HW = np.where(change_HW == NODATA, NODATA, 75).astype(np.uint8)
    for name, values_HW in (("change", change_HW), ("confidence", confidence_HW)):
        write_map(folder / f"{name}.tif", values_HW)
    values, counts = np.unique(change_HW[change_HW != NODATA], return_counts=True)
    write_raster_style(
        folder / "change.tif",
        {int(value): describe(int(value)) for value in values},
        {int(value): int(count) for value, count in zip(values, counts, strict=True)},
    )
    write_quantity_style(folder / "confidence.tif", 50, 100, "%")
    write_polygons(folder / "changes.gpkg", change_HW)
    write_layer_style(folder / "changes.gpkg", SENSEEARTH, values.tolist())
    return folder


def write_map(path, values_HW):
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=60,
        height=40,
        count=1,
        dtype="uint8",
        nodata=NODATA,
        crs=GRID.crs,
        transform=GRID.transform,
    ) as dataset:
        dataset.write(values_HW, 1)


def write_polygons(path, change_HW):
    tracer = PatchTracer(GRID, SENSEEARTH, nodata=NODATA)
    tracer.add(Window(0, 0, 60, 40), change_HW, change_HW, np.full((40, 60), 4.0))
    with PolygonWriter(path, GRID.crs) as writer:
        writer.write(tracer.take_finished())


def read_table(root):
    """Columns and rows of a raster attribute table."""
    table = root.find("PAMRasterBand[@band='1']/GDALRasterAttributeTable")
    columns = [definition.findtext("Name") for definition in table.iter("FieldDefn")]
    return columns, [[cell.text for cell in row] for row in table.iter("Row")]


def test_the_attribute_table_has_the_values_that_occur(folder, change_HW):
    columns, rows = read_table(ElementTree.parse(folder / "change.tif.aux.xml"))
    assert columns == ["Value", "Class name", "Count", "Red", "Green", "Blue", "Alpha"]
    assert [row[:3] for row in rows] == [
        ["0", "unchanged", str((change_HW == 0).sum())],
        ["15", "ground → water", "200"],
        ["33", "tree → building", "300"],
    ]
    assert tuple(map(int, rows[2][3:6])) == SENSEEARTH.colour_transition(TREE_TO_BUILDING)


def test_the_counts_are_optional_and_names_are_escaped(tmp_path):
    write_raster_style(tmp_path / "a.tif", {3: ("<\"&' →", (1, 2, 3))})
    columns, rows = read_table(ElementTree.parse(tmp_path / "a.tif.aux.xml"))
    assert "Count" not in columns
    assert rows == [["3", "<\"&' →", "1", "2", "3", "255"]]
    assert ElementTree.parse(tmp_path / "a.qml").find(".//paletteEntry").get("label") == "<\"&' →"


@pytest.mark.skipif(not shutil.which("gdalinfo"), reason="gdalinfo (gdal-bin) is not installed")
def test_gdal_reads_the_attribute_table(folder):
    answer = subprocess.run(
        ["gdalinfo", "-json", folder / "change.tif"], capture_output=True, check=True, text=True
    )
    table = json.loads(answer.stdout)["rat"]
    uses = {column["name"]: column["usage"] for column in table["fieldDefn"]}
    names = ("Value", "Class name", "Count", "Red", "Green", "Blue", "Alpha")
    # GFU_MinMax, GFU_Name, GFU_PixelCount, GFU_Red, GFU_Green, GFU_Blue, GFU_Alpha.
    assert uses == dict(zip(names, (5, 2, 1, 6, 7, 8, 9), strict=True))
    assert [row["f"][:3] for row in table["row"]][2] == [33, "tree → building", 300]


def test_a_styled_map_is_read_as_before(folder, change_HW):
    with rasterio.open(folder / "change.tif") as dataset:
        assert (dataset.read(1) == change_HW).all()
        assert dataset.nodata == NODATA


def test_unchanged_ground_is_veiled_and_changes_are_opaque(folder):
    entries = ElementTree.parse(folder / "change.qml").findall(".//paletteEntry")
    alphas = {int(entry.get("value")): int(entry.get("alpha")) for entry in entries}
    assert alphas == {0: UNCHANGED_ALPHA, TREE_TO_BUILDING: 255, GROUND_TO_WATER: 255}
    assert 0 < UNCHANGED_ALPHA < 128


def test_the_ramp_of_a_quantity_gets_brighter_from_low_to_high(tmp_path):
    write_quantity_style(tmp_path / "a.tif", 20, 60, "%")
    items = ElementTree.parse(tmp_path / "a.qml").findall(".//item")
    assert [item.get("value") for item in items] == ["20", "30", "40", "50", "60"]
    assert items[0].get("label") == "20 %"
    luminance = [
        np.dot([int(item.get("color")[i : i + 2], 16) for i in (1, 3, 5)], (0.299, 0.587, 0.114))
        for item in items
    ]
    assert (np.diff(luminance) > 20).all()


def test_the_geopackage_keeps_its_layer_and_lists_the_style(folder):
    path = folder / "changes.gpkg"
    assert {name for name, _ in pyogrio.list_layers(path)} == {"changes", "layer_styles"}
    assert len(geopandas.read_file(path, layer="changes")) == 2
    # The one layer with polygons is the one that is opened when none is named.
    assert pyogrio.read_info(path, layer=0)["layer_name"] == "changes"
    styles = pyogrio.read_dataframe(path, layer="layer_styles")
    assert styles.f_table_name.tolist() == ["changes"]
    assert styles.f_geometry_column.tolist() == [
        pyogrio.read_info(path, layer="changes")["geometry_name"]
    ]
    assert styles.useAsDefault.tolist() == [True]
    renderer = ElementTree.fromstring(styles.styleQML[0]).find("renderer-v2")
    labels = {c.get("value"): c.get("label") for c in renderer.iter("category")}
    assert labels == {"15": "ground → water", "33": "tree → building"}
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_equal_polygons_and_styles_give_equal_bytes(tmp_path, folder, change_HW):
    write_polygons(tmp_path / "changes.gpkg", change_HW)
    write_layer_style(tmp_path / "changes.gpkg", SENSEEARTH, [0, GROUND_TO_WATER, TREE_TO_BUILDING])
    assert (tmp_path / "changes.gpkg").read_bytes() == (folder / "changes.gpkg").read_bytes()


def test_other_files_of_polygons_get_their_style_beside_them(tmp_path, folder):
    write_layer_style(tmp_path / "changes.parquet", SENSEEARTH, [GROUND_TO_WATER, TREE_TO_BUILDING])
    stored = pyogrio.read_dataframe(folder / "changes.gpkg", layer="layer_styles").styleQML[0]
    assert (tmp_path / "changes.qml").read_text(encoding="utf-8") == stored


def test_a_map_without_change_has_an_empty_legend(tmp_path):
    write_polygons(tmp_path / "changes.gpkg", np.zeros((40, 60), np.uint8))
    write_layer_style(tmp_path / "changes.gpkg", SENSEEARTH, [0])
    stored = pyogrio.read_dataframe(tmp_path / "changes.gpkg", layer="layer_styles").styleQML[0]
    assert not list(ElementTree.fromstring(stored).iter("category"))


def test_a_geopackage_that_cannot_be_styled_is_named(tmp_path):
    (tmp_path / "changes.gpkg").write_text("not a database, but long enough to be taken for one")
    with pytest.raises(OutputError, match=r"changes\.gpkg cannot be given a style"):
        write_layer_style(tmp_path / "changes.gpkg", SENSEEARTH, [33])


@pytest.mark.slow
def test_qgis_opens_everything_styled(folder):
    legend = ask_qgis(QGIS_PROBE, folder)
    assert legend["types"] == {
        "change": "paletted",
        "confidence": "singlebandpseudocolor",
        "polygons": "categorizedSymbol",
    }
    occurring = [(value, *describe(value)) for value in (GROUND_TO_WATER, TREE_TO_BUILDING)]
    assert legend["change"] == [
        [0, "unchanged", [255, 255, 255, UNCHANGED_ALPHA]],
        *([value, name, [*colour, 255]] for value, name, colour in occurring),
    ]
    assert legend["confidence"][0] == [50, "50 %"]
    assert legend["confidence"][-1] == [100, "100 %"]
    assert [[int(value), label, rgba[:3]] for value, label, rgba in legend["polygons"]] == [
        [value, name, list(colour)] for value, name, colour in occurring
    ]
    # Drawn on black, so that what is clear is black and what is half clear is darker.
    for name in ("change", "polygons", "confidence"):
        drawn_HWC = np.asarray(Image.open(folder / f"{name}.png").convert("RGB")).astype(int)
        building, water, unchanged, nodata = drawn_HWC[[12, 30, 22, 1], [20, 45, 5, 5]]
        assert nodata.tolist() == [0, 0, 0], name
        if name == "change":
            assert tuple(building) == SENSEEARTH.colour_transition(TREE_TO_BUILDING)
            assert np.ptp(unchanged) == 0
            assert abs(unchanged[0] - UNCHANGED_ALPHA) <= 1
        elif name == "polygons":
            assert unchanged.tolist() == [0, 0, 0]
            assert water[2] > 80 > water[0]
        else:
            assert np.abs(building - (33, 145, 140)).max() <= 2
