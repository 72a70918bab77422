"""Polygons drawn by hand, from which the default model learns (recipes/default/labels)."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt
from shapely import Point, Polygon

from terradelta.classes import SENSEEARTH
from terradelta.data.images import IGNORE
from terradelta.models.bundle import save_model

from .conftest import make_model

RECIPE = Path(__file__).parents[1] / "recipes" / "default"
SHARED = Path(__file__).parents[2] / "shared" / "data"
FILES = sorted((RECIPE / "labels").glob("*/*.json"))
needs_images = pytest.mark.skipif(not SHARED.exists(), reason="../shared/data is not there")


@pytest.fixture(scope="module")
def load():
    """A function that imports a module of the recipe, which is not a package."""
    sys.path.insert(0, str(RECIPE))
    yield importlib.import_module
    sys.path.remove(str(RECIPE))


def test_every_file_holds_polygons_of_known_classes(load):
    polygons = load("polygons")
    assert len(FILES) > 150
    for path in FILES:
        drawing = polygons.read_drawing(path)
        assert len(drawing.images) == (2 if path.parent.name.startswith("changes") else 1)
        assert len(drawing.base) in (0, len(drawing.images))
        assert drawing.regions, path
        for region in drawing.regions:
            corners = np.array(region.corners)
            assert np.isfinite(corners).all()
            # Crowns may reach beyond the window.
            assert (corners > -64).all(), path
            assert (corners < 1088).all(), path
            is_change = len(region.ids) == 2 and IGNORE not in region.ids
            assert not is_change or region.ids[0] != region.ids[1] or region.ids == (0, 0), path


def test_a_pixel_has_the_class_of_the_polygon_that_its_centre_lies_in(load):
    """Against shapely, to half a pixel: outlines are painted too, and drawn to about one."""
    polygons = load("polygons")
    corners = ((4.7, 3.2), (22.1, 1.4), (27.3, 16.9), (12.4, 11.3), (6.2, 18.8))
    painted_HW = polygons.paint_over(np.zeros((20, 30), np.uint8), [(5, corners)])
    assert set(np.unique(painted_HW)) == {0, 5}
    polygon = Polygon(corners)
    inner, outer = polygon.buffer(-0.5), polygon.buffer(0.5)
    for row, column in np.ndindex(20, 30):
        centre = Point(column + 0.5, row + 0.5)
        if inner.contains(centre):
            assert painted_HW[row, column] == 5
        elif not outer.contains(centre):
            assert painted_HW[row, column] == 0
    over_HW = polygons.paint_over(painted_HW, [(IGNORE, ((0, 0), (30, 0), (30, 5.3), (0, 5.3)))])
    assert (over_HW[:5] == IGNORE).all()
    assert (over_HW[6:] == painted_HW[6:]).all()


@needs_images
def test_polygons_paint_the_masks_that_came_with_the_data(load):
    """Those of naip_change, up to the pixels on outlines."""
    import json

    polygons = load("polygons")
    different = total = 0
    for path in sorted((SHARED / "naip_change/polygons").glob("*.json"))[::8]:
        drawn = json.loads(path.read_text())
        for date, key in ((1, "from"), (2, "to")):
            from terradelta.data.images import read_image

            mask_HW = read_image(SHARED / f"naip_change/label{date}/{path.stem}.png")[0]
            shapes = [(polygons.find_id(c[key]), c["polygon"]) for c in drawn["changes"]]
            shapes += [(IGNORE, corners) for corners in drawn["ignore"]]
            painted_HW = polygons.paint_over(np.zeros_like(mask_HW), shapes)
            different += int((painted_HW != mask_HW).sum())
            total += mask_HW.size
    assert different / total < 0.005


@needs_images
@pytest.mark.parametrize("name", ["first", "second", "other_places"])
def test_no_place_is_trained_on_and_tested(load, name):
    labels, data = load("hand_labels"), load("data")
    places = data.ROUNDS[name].test_places
    sites = labels.list_sites(SHARED)
    hand = labels.HandLabels.read(SHARED)
    splits: dict[str, set[str]] = {}
    for image in hand.tiles:
        split = data.find_tile_split(SHARED, hand, image, places)
        splits.setdefault(Path(image).stem, set()).add(split)
    for pair in labels.read_pairs(SHARED):
        splits.setdefault(pair.name, set()).add(labels.find_split(pair.name, sites, places))
    assert all(len(found) == 1 for found in splits.values())
    for place in places:
        of_place = [found for name, found in splits.items() if name.startswith(place)]
        assert of_place
        assert set().union(*of_place) == {"test"}
    counted = [found for found in splits.values() if found == {"train"}]
    assert len(counted) > 90


def test_each_place_abroad_is_held_out_of_one_training_and_claremont_of_all(load):
    rounds = load("data").ROUNDS
    two = {*rounds["first"].test_places, *rounds["second"].test_places}
    other = {*rounds["other_places"].test_places}
    assert two | other == {"claremont", "rio", "banepa", "zanzibar"}
    assert two & other == {"claremont"}


@needs_images
def test_unchanged_ground_is_never_of_a_site_whose_changes_are_drawn(load):
    labels, data, scenes = load("hand_labels"), load("data"), load("scenes")
    hand = labels.HandLabels()
    numbers = []
    for wanted in (data.FIRST, data.SECOND):
        drawn = labels.list_drawn_sites(wanted.changes)
        couples = list(scenes.read_couples(SHARED / "naip_urbantree", "val", hand, drawn))
        found = {site.rsplit("_", 2)[0] + "_" + site.rsplit("_", 1)[1] for (site, *_), _ in couples}
        assert not found & drawn
        numbers.append(len(found))
    assert numbers[0] > numbers[1] > 0


@needs_images
def test_where_a_site_changed_its_later_date_shows_the_earlier_one(load):
    data, scenes = load("data"), load("scenes")
    changed = data.find_changed(SHARED, data.OTHER_PLACES.changes)
    hand = load("hand_labels").HandLabels()
    folder = SHARED / "naip_urbantree"
    couples = list(scenes.read_restored(folder, "val", hand, changed))
    assert len(couples) > 15
    for before, after in couples:
        city, number = after.name.rsplit("_", 2)[0::2]
        is_changed_HW = changed[f"{city}_{number}"]
        real = scenes.read_urbantree(folder / "images" / f"{after.name}.tif", scenes.LABELS, hand)
        assert (after.image_CHW == before.image_CHW)[:, is_changed_HW].all()
        assert (after.ids_HW == before.ids_HW)[is_changed_HW].all()
        is_real_HW = (after.image_CHW == real.image_CHW).all(axis=0)
        assert is_real_HW[is_changed_HW].mean() < 0.5 or not is_changed_HW.any()
        far_HW = distance_transform_edt(~is_changed_HW) > 1.5 * scenes.RIM_PX + 1
        assert is_real_HW[far_HW].all()


@needs_images
def test_the_pairs_of_the_recipe_are_read_by_the_data_layer(load, tmp_path):
    import csv

    from terradelta.data.dataset import ChangeDataset
    from terradelta.data.layouts import find_pairs

    data = load("data")
    rows = [row for row in data.write_changed(SHARED, tmp_path, data.SECOND) if row[-2] == "val"]
    with (tmp_path / "pairs.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        header = ["before", "after", "before_label", "after_label", "label", "split", "name"]
        writer.writerows([header, *rows])
    dataset = ChangeDataset(find_pairs(tmp_path / "pairs.csv", split="val"))
    known = {name.removeprefix("changed-val-"): 0 for *_, name in rows}
    assert len(dataset) == len(known) > 17
    ignored = changed = 0
    for sample in dataset:
        ignored += int((sample.change_HW == -1).sum())
        changed += int((sample.change_HW == 1).sum())
        both = (sample.change_HW == 1) & (sample.before_labels_HW == sample.after_labels_HW)
        assert not both.any()
        assert int(sample.after_labels_HW.max()) <= SENSEEARTH.num_classes
    assert ignored > 10_000
    assert changed > 10_000


def test_the_average_of_models_has_the_average_of_their_weights(load, tmp_path):
    models = [make_model(seed) for seed in (0, 1)]
    folders = [tmp_path / name for name in ("one", "other")]
    for model, folder in zip(models, folders, strict=True):
        save_model(model, folder)
    joined = load("train").average(dict(zip(folders, (0.25, 0.75), strict=True)))
    one, other = (model.network.state_dict() for model in models)
    for key, value in joined.network.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, 0.25 * one[key] + 0.75 * other[key])
