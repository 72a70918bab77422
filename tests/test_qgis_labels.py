"""A labelling round trip on real imagery: points drawn, labelled through QGIS's form, assessed.

The pair is North Dakota 2009 and 2019; the truth comes from its near infrared band, which the
network does not see, by two indices: wetland that dries and floods. It is known for every pixel, so
that estimates can be held against it.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.vrt import WarpedVRT

import terradelta as td
from terradelta.areas.assessment import FEW_POINTS
from terradelta.areas.survey import STATES, read_survey
from terradelta.classes import SENSEEARTH
from terradelta.geo.area import measure_pixels
from terradelta.geo.grid import Grid, cut_window

from .qgis import ask_qgis

pytestmark = pytest.mark.slow

BEFORE, AFTER = (f"naip_nd10/m_4709963_se_14_1_{date}.tif" for date in ("20090818", "20190904"))
WATER, GROUND, LOW_VEGETATION = 1, 2, 3

LABELLER = """
from qgis.core import QgsEditFormConfig, QgsFieldConstraints, QgsProject, QgsVectorLayer
from qgis.core import QgsVectorLayerUtils
from qgis.gui import QgsAttributeEditorContext, QgsAttributeForm, QgsGui
from qgis.PyQt.QtWidgets import QApplication

path, truth_path, picture = sys.argv[1:]
QgsGui.editorWidgetRegistry().initEditors()
# As by drag and drop: the first layer, with its style and form.
layer = QgsVectorLayer(path, "points", "ogr")
assert layer.isValid()
QgsProject.instance().addMapLayer(layer)
index = layer.fields().indexOf
widgets = {field.name(): layer.editorWidgetSetup(index(field.name())) for field in layer.fields()}
lists = {
    name: [entry for item in setup.config()["map"] for entry in item.items()]
    for name, setup in widgets.items()
    if setup.type() == "ValueMap"
}

def choose(name, word):
    return dict(lists[name])[word]

form = QgsAttributeForm(layer, next(layer.getFeatures()), QgsAttributeEditorContext())
form.resize(700, 1000)
form.show()
for _ in range(20):
    QApplication.processEvents()
assert form.grab().save(picture)

truth = json.load(open(truth_path))
assert layer.startEditing()
hard = QgsFieldConstraints.ConstraintStrengthHard
refused = 0
for feature in layer.getFeatures():
    state, before, after = truth[str(feature["point"])]
    feature["changed"] = choose("changed", state)
    if state == "yes":
        # What the form does not let through: change without land cover.
        for name in ("from", "to"):
            held, _ = QgsVectorLayerUtils.validateAttribute(layer, feature, index(name), hard)
            refused += not held
        feature["from"], feature["to"] = choose("from", before), choose("to", after)
    for name in ("changed", "from", "to"):
        held, why = QgsVectorLayerUtils.validateAttribute(layer, feature, index(name), hard)
        assert held, why
    assert layer.updateFeature(feature)
assert layer.commitChanges(), layer.commitErrors()
answer = {
    "fields": layer.fields().names(),
    "widgets": {name: setup.type() for name, setup in widgets.items()},
    "lists": {name: [word for word, _ in entries] for name, entries in lists.items()},
    "states": [category.value() for category in layer.renderer().categories()],
    "features": layer.featureCount(),
    "refused": refused,
}
"""


@pytest.fixture(scope="module")
def folder(shared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("naip")
    # Knows drawn scenes only, and takes dark wetland for playgrounds.
    model = Path(__file__).parent / "weights" / "drawn"
    pair = (shared / "data" / name for name in (BEFORE, AFTER))
    td.predict(*pair, folder / "out", rasters=td.RasterOptions(bands=["1", "2", "3"]), model=model)
    design = td.SampleDesign(points=500, floor=30)
    td.sample(folder / "out", folder / "points.gpkg", design)
    return folder


@pytest.fixture(scope="module")
def truth_HW(shared, folder):
    """The transition of every pixel of the map by the indices of both dates."""
    with rasterio.open(folder / "out" / "change.tif") as dataset:
        grid = Grid.of(dataset)
    before_HW, after_HW = (read_land_cover(shared / "data" / p, grid) for p in (BEFORE, AFTER))
    return np.where(before_HW == after_HW, 0, SENSEEARTH.encode_transition(before_HW, after_HW))


def read_land_cover(path, grid):
    placed = {"crs": grid.crs, "transform": grid.transform}
    with (
        rasterio.open(path) as dataset,
        WarpedVRT(dataset, width=grid.width, height=grid.height, **placed) as warped,
    ):
        red, green, _, near_infrared = warped.read().astype(float) + 1e-9
    water_index = (green - near_infrared) / (green + near_infrared)
    vegetation_index = (near_infrared - red) / (near_infrared + red)
    cover_HW = np.where(vegetation_index > 0.1, LOW_VEGETATION, GROUND)
    return np.where(water_index > 0.1, WATER, cover_HW)


@pytest.fixture(scope="module")
def seen(folder, truth_HW):
    """What QGIS saw as it labelled the points."""
    pixels = read_survey(folder / "points.gpkg").pixels
    truth = {}
    for number, transition in enumerate(truth_HW[pixels.row_N, pixels.column_N].tolist(), 1):
        before, after = (SENSEEARTH.names[i] for i in SENSEEARTH.decode_transition(transition))
        truth[number] = ("yes", before, after) if transition else ("no", None, None)
    (folder / "truth.json").write_text(json.dumps(truth))
    arguments = (folder / "points.gpkg", folder / "truth.json", folder / "form.png")
    return ask_qgis(LABELLER, *arguments, gui=True), truth


def test_the_form_asks_with_value_lists_and_pictures(seen):
    form, truth = seen
    covers = list(SENSEEARTH.names[1:])
    assert form["lists"] == {"changed": list(STATES), "from": covers, "to": covers}
    assert form["widgets"]["fid"] == "Hidden"
    assert form["widgets"]["before_chip"] == form["widgets"]["after_chip"] == "ExternalResource"
    assert form["states"] == ["to label", *STATES]
    assert form["features"] == len(truth) == 500
    assert not {"stratum", "transition"} & set(form["fields"])


def test_change_without_land_cover_is_not_let_through(seen):
    form, truth = seen
    assert form["refused"] == 2 * sum(state == "yes" for state, *_ in truth.values())


def test_the_form_shows_the_chips(seen, folder):
    """The picture of the first point is in the form that QGIS drew."""
    from PIL import Image

    form = np.asarray(Image.open(folder / "form.png").convert("RGB")).astype(int)
    first = sorted((folder / "points_chips").glob("*_before.png"))[0]
    chip = np.asarray(Image.open(first).convert("RGB").resize((360, 360))).astype(int)
    # Slid over the form column by column and row by row, at a few places that tell.
    best = min(
        np.abs(form[y : y + 360 : 24, x : x + 360 : 24] - chip[::24, ::24]).mean()
        for y in range(0, form.shape[0] - 360, 1)
        for x in range(0, form.shape[1] - 360, 2)
    )
    assert best < 12


def test_the_labels_that_qgis_saved_give_areas_that_hold_the_truth(seen, folder, truth_HW):
    content = td.assess(folder / "points.gpkg").estimates.to_json()
    with rasterio.open(folder / "out" / "change.tif") as dataset:
        grid, valid_HW = Grid.of(dataset), dataset.read(1) != dataset.nodata
    areas_HW = measure_pixels(grid, cut_window(0, 0, grid.width, grid.height)) / 1e4
    for legend, is_class_HW in (
        ("change", {"changed": truth_HW > 0, "unchanged": truth_HW == 0}),
        (
            "transitions",
            {
                SENSEEARTH.name_transition(t): truth_HW == t
                for t in np.unique(truth_HW[truth_HW > 0]).tolist()
            },
        ),
    ):
        rows = {row["class"]: row for row in content[legend]["classes"]}
        matrix = content[legend]["error_matrix"]
        points = dict(zip(matrix["classes"], np.sum(matrix["points"], axis=0), strict=True))
        assert sum(count >= FEW_POINTS for count in points.values()) >= 2
        for name, class_HW in is_class_HW.items():
            if points.get(name, 0) < FEW_POINTS:
                continue
            true_ha = areas_HW[class_HW & valid_HW].sum()
            area = rows[name]["area_ha"]
            # Four standard errors: no seed was looked for.
            assert abs(area["value"] - true_ha) < 4 * area["standard_error"], name
    mapped_ha = sum(
        row["mapped_ha"]
        for row in content["transitions"]["classes"]
        if "playground" in row["class"]
    )
    assert mapped_ha > 100, "the model mistakes this wetland, which is the point"
