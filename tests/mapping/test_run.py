import csv
import hashlib
import json

import geopandas
import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.windows import Window
from tests.flat_options import sort_options

import terradelta as td
from terradelta.classes import SENSEEARTH
from terradelta.data.images import read_mask
from terradelta.data.synthetic import write_folders, write_geotiff_pair
from terradelta.errors import ArgumentError, DataError, OutputExistsError
from terradelta.fields import write_fields
from terradelta.geo.area import measure_pixels
from terradelta.geo.grid import Grid
from terradelta.inference.folders import ImagePair, predict_images
from terradelta.inference.predictor import Predictor
from terradelta.models.bundle import save_model

from ..conftest import make_model


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scene") / "scene"
    write_geotiff_pair(folder, 5, (300, 420))
    return folder


@pytest.fixture(scope="module")
def prediction(scene, model_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("predicted") / "out"
    return td.predict(
        scene / "before.tif",
        scene / "after.tif",
        out,
        maps=td.MapOptions(picture=True),
        model=model_folder,
    )


def read(path):
    with rasterio.open(path) as dataset:
        return dataset.read(1)


def test_the_folder_has_every_part_and_nothing_else(prediction):
    assert sorted(path.name for path in prediction.folder.iterdir()) == [
        "after_class.qml",
        "after_class.tif",
        "after_class.tif.aux.xml",
        "before_class.qml",
        "before_class.tif",
        "before_class.tif.aux.xml",
        "change.qml",
        "change.tif",
        "change.tif.aux.xml",
        "changes.gpkg",
        "confidence.qml",
        "confidence.tif",
        "picture.png",
        "report.html",
        "run.json",
        "summary.json",
        "transitions.csv",
    ]


def test_the_maps_are_the_models_answer_to_the_pixels(prediction, scene, model):
    images = []
    for date in ("before", "after"):
        with rasterio.open(scene / f"{date}.tif") as dataset:
            images.append(dataset.read())
    before, after = predict_images(Predictor([model]), ImagePair(*images))
    assert (read(prediction.folder / "before_class.tif") == before).all()
    assert (read(prediction.folder / "after_class.tif") == after).all()
    change = read(prediction.folder / "change.tif")
    assert (change == SENSEEARTH.encode_transition(before, after)).all()
    assert 0 < (change > 0).mean() < 1, "a test model that says one thing everywhere tests nothing"


def test_hectares_are_the_same_in_every_output(prediction):
    folder = prediction.folder
    change = read(folder / "change.tif")
    with rasterio.open(folder / "change.tif") as dataset:
        areas = measure_pixels(Grid.of(dataset), Window(0, 0, dataset.width, dataset.height))
    changed_ha = areas[change > 0].sum() / 10_000
    summary = json.loads((folder / "summary.json").read_text())
    assert summary == write_fields(prediction.summary)
    assert summary["changed_ha"] == pytest.approx(changed_ha, rel=1e-9)
    frame = geopandas.read_file(folder / "changes.gpkg", layer="changes")
    assert frame.area_m2.sum() / 10_000 == pytest.approx(changed_ha, rel=1e-9)
    with (folder / "transitions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    from_csv = [float(row["area_ha"]) for row in rows[:-3]]
    assert sum(from_csv) == pytest.approx(changed_ha, rel=1e-9)
    assert summary["patches"] == len(frame)


def test_provenance_names_the_model_and_the_parameters(prediction, model_folder):
    run = json.loads((prediction.folder / "run.json").read_text())
    digest = hashlib.sha256((model_folder / "model.safetensors").read_bytes()).hexdigest()
    assert run["models"] == [{"folder": str(model_folder), "sha256": digest}]
    assert run["parameters"]["tta"] == "none"
    assert run["versions"]["terradelta"] == td.__version__


def test_nodata_of_either_date_is_nodata_in_every_map(scene, model_folder, tmp_path):
    with rasterio.open(scene / "after.tif") as dataset:
        image, profile = dataset.read(), dataset.profile
    image = np.maximum(image, 1)
    image[:, 50:80, 100:160] = 0
    profile.update(nodata=0)
    with rasterio.open(tmp_path / "holed.tif", "w", **profile) as dataset:
        dataset.write(image)
    result = td.predict(
        scene / "before.tif", tmp_path / "holed.tif", tmp_path / "out", model=model_folder
    )
    hole = np.zeros((300, 420), bool)
    hole[50:80, 100:160] = True
    for name in ("before_class", "after_class", "change", "confidence"):
        assert ((read(result.folder / f"{name}.tif") == 255) == hole).all()
    assert result.summary.nodata_pixels == 1800
    assert result.summary.valid_pixels == 300 * 420 - 1800


def test_an_existing_output_is_kept_without_overwrite(scene, model_folder, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious").write_text("mine")
    arguments = (scene / "before.tif", scene / "after.tif", out)
    with pytest.raises(OutputExistsError, match="--overwrite"):
        td.predict(*arguments, model=model_folder)
    assert (out / "precious").read_text() == "mine"
    with pytest.raises(OutputExistsError, match="precious"):
        td.predict(*arguments, model=model_folder, overwrite=True)
    assert (out / "precious").read_text() == "mine"
    (out / "precious").unlink()
    first = td.predict(*arguments, model=model_folder).folder / "run.json"
    made = first.stat().st_ino
    with pytest.raises(OutputExistsError, match="--overwrite"):
        td.predict(*arguments, model=model_folder)
    td.predict(*arguments, model=model_folder, overwrite=True)
    assert first.stat().st_ino != made


def test_a_failed_run_leaves_nothing_behind(scene, model_folder, tmp_path):
    broken = tmp_path / "broken.tif"
    broken.write_bytes((scene / "after.tif").read_bytes()[:40_000])
    with pytest.raises(td.TerradeltaError, match=r"broken.tif"):
        td.predict(scene / "before.tif", broken, tmp_path / "out", model=model_folder)
    assert [path.name for path in tmp_path.iterdir()] == ["broken.tif"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "drawn"
    write_folders(root, 3, seed=7, size_px=96)
    return root


def test_image_folders_become_indexed_pngs_that_score(folders, model_folder, model, tmp_path):
    result = td.predict(folders / "im1", folders / "im2", tmp_path / "out", model=model_folder)
    for name in ("before", "after", "change"):
        assert sorted(p.name for p in (result.folder / name).iterdir()) == [
            "00000.png",
            "00001.png",
            "00002.png",
        ]
    images = [
        np.moveaxis(np.asarray(Image.open(folders / date / "00001.png")), -1, 0)
        for date in ("im1", "im2")
    ]
    before, after = predict_images(Predictor([model]), ImagePair(*images))
    assert (read_mask(result.folder / "before" / "00001.png", SENSEEARTH) == before).all()
    change = np.asarray(Image.open(result.folder / "change" / "00001.png"))
    assert (change == SENSEEARTH.encode_transition(before, after)).all()

    scored = td.score(result.folder, folders)
    evaluated = td.evaluate(model_folder, folders, split="all")
    assert scored.numbers == evaluated.numbers
    assert scored.pairs == 3


def test_the_contest_layout_scores_the_same(folders, model_folder, tmp_path):
    options = {"model": model_folder}
    ours = td.predict(folders / "im1", folders / "im2", tmp_path / "a", **sort_options(options))
    contest = td.predict(
        folders / "im1",
        folders / "im2",
        tmp_path / "b",
        **sort_options(options, layout="senseearth"),
    )
    assert {path.name for path in contest.folder.iterdir()} >= {"im1", "im2"}
    assert not (contest.folder / "change").exists()
    for protocol in ("second", "from-to", "ual"):
        numbers = [td.score(out.folder, folders, protocol=protocol) for out in (ours, contest)]
        assert numbers[0].numbers == pytest.approx(numbers[1].numbers, nan_ok=True)
        assert numbers[0].numbers["iou_changed"] > 0


def test_an_ensemble_with_views_runs(folders, model_folder, tmp_path):
    save_model(make_model(seed=1), tmp_path / "other")
    models = [model_folder, tmp_path / "other"]
    result = td.predict(
        folders / "im1",
        folders / "im2",
        tmp_path / "out",
        runtime=td.Runtime(tta="flips"),
        model=models,
    )
    run = json.loads((result.folder / "run.json").read_text())
    assert len(run["models"]) == 2
    assert run["parameters"]["tta"] == "flips"


def test_what_cannot_be_predicted_is_refused(folders, scene, model_folder, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ArgumentError, match=r"is a folder and .* is a raster"):
        td.predict(folders / "im1", scene / "after.tif", out, model=model_folder)
    with pytest.raises(ArgumentError, match="layout is 'mine'"):
        td.predict(
            folders / "im1",
            folders / "im2",
            out,
            maps=td.MapOptions(layout="mine"),
            model=model_folder,
        )
    small = tmp_path / "small"
    small.mkdir()
    for path in (folders / "im2").iterdir():
        Image.open(path).resize((90, 80)).save(small / path.name)
    with pytest.raises(DataError, match=r"96 x 96 px and .* is 90 x 80 px"):
        td.predict(folders / "im1", small, out, model=model_folder)
    (small / "00002.png").unlink()
    with pytest.raises(DataError, match=r"00002.png has no counterpart"):
        td.predict(folders / "im1", small, out, model=model_folder)
    assert not out.exists()
