"""Prediction folders whose files are damaged: every reader answers, or refuses and names the file.

The mutants are drawn from fixed seeds: some of very many, which `make fuzz` tries more of.
"""

from __future__ import annotations

import json
import random
import shutil
import warnings
from pathlib import Path

import pytest
from tests.areas.maps import label
from tests.mutants import list_places, mutate_bytes, mutate_json, mutate_tables
from tests.weights import DRAWN_MODEL

import terradelta as td
from terradelta.data.synthetic import write_geotiff_pair
from terradelta.errors import OutputError, TerradeltaError
from terradelta.inference.job import partial_folder
from terradelta.prediction.folder import PredictionFolder
from terradelta.viewer.checked import export_checked
from terradelta.viewer.endpoints import create_application
from terradelta.viewer.result import Result
from terradelta.viewer.reviews import ReviewStore


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "scene"
    write_geotiff_pair(folder, 11, (128, 160))
    return folder


@pytest.fixture(scope="module")
def made(scene) -> Path:
    output = scene.with_name("out")
    td.predict(scene / "before.tif", scene / "after.tif", output, model=DRAWN_MODEL)
    return output


@pytest.fixture
def folder(made, tmp_path) -> Path:
    """A copy of the prediction that a test may damage."""
    return Path(shutil.copytree(made, tmp_path / "out"))


def answers(*calls) -> int:
    """Return how many calls refuse; whatever else they raise fails the test."""
    refused = 0
    for call in calls:
        # GDAL warns of what it finds in damaged files.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                call()
            except TerradeltaError as error:
                refused += 1
                str(error).encode()
    return refused


def look(folder: Path):
    prediction = td.open_prediction(folder)
    assert len(prediction.transitions) >= 0
    assert len(prediction.changes) >= 0
    assert prediction._repr_html_()


def choose(mutants, count, seed=1):
    every = list(mutants)
    return random.Random(seed).sample(every, count)


@pytest.mark.parametrize("name", ["run.json", "summary.json"])
def test_damaged_json_is_read_or_refused_by_every_reader(folder, name):
    path = folder / name
    files = PredictionFolder(folder)
    readers = {
        "run.json": [files.read_run, files.read_pair, files.read_grid],
        "summary.json": [lambda: files.read_summary(files.read_classes())],
    }[name]
    every = list(mutate_json(json.loads(path.read_text())))
    assert len(every) > 250
    refused = 0
    for _, text in every:
        path.write_text(text)
        refused += answers(*readers)
    assert refused > len(every) / 4
    for _, text in random.Random(1).sample(every, 12):
        path.write_text(text)
        answers(
            lambda: td.report(folder, overwrite=True),
            lambda: create_application(Result.load(folder), "a token"),
            lambda: look(folder),
            lambda: td.sample(folder, folder / "p.gpkg", chip_size_px=16, overwrite=True),
        )


def test_an_error_names_file_key_and_value(folder):
    for name, key, value, words in (
        ("run.json", "models", [{"folder": 3}], r"run\.json: models\[0\]\.folder is 3, and it m"),
        ("run.json", "findings", [{"name": "a", "level": "", "message": "b"}], "one of OK, WARN"),
        ("run.json", "shift_px", [0, None], r"run\.json: shift_px\[1\] is None"),
        ("summary.json", "changed_ha", -1, r"summary\.json: changed_ha is -1, .* at least 0"),
        ("summary.json", "changed_percent", float("nan"), r"changed_percent is nan"),
        ("summary.json", "valid_ha", None, "valid_ha is None, and it must be a number where"),
        ("summary.json", "transitions", [{}], r"transitions\[0\]\.from is missing"),
    ):
        path = folder / name
        content = path.read_text()
        path.write_text(json.dumps({**json.loads(content), key: value}))
        with pytest.raises(OutputError, match=words) as caught:
            td.report(folder, overwrite=True)
        assert "terradelta predict" in caught.value.fix
        path.write_text(content)
    row = json.loads((folder / "summary.json").read_text())["transitions"][0]
    content = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(
        json.dumps({**content, "transitions": [{**row, "to": "lava"}]})
    )
    with pytest.raises(OutputError, match=r"transitions\[0\]\.to is 'lava', .* a class of the map"):
        td.report(folder, overwrite=True)


def test_what_a_later_version_adds_and_an_earlier_one_lacks_is_read(folder):
    run = json.loads((folder / "run.json").read_text())
    summary = json.loads((folder / "summary.json").read_text())
    run |= {"weather": [{"cloud": 0.2}], "orbits": {"before": "2019-01-01"}}
    run["parameters"]["filters"] = {"before": None}
    run["before"]["nodata"] = ["0", "0", "0"]
    summary["weather"] = ["fair"]
    for key in ("shift_px", "views_of_blocks", "blocks", "seconds", "plan", "cautions", "findings"):
        del run[key]
    del run["dates"], run["masks"], run["light"]
    for key in ("aoi", "register", "tta", "min_area_m2", "time_budget_seconds", "cog_size_px"):
        del run["parameters"][key]
    for key in ("nodata", "mask", "mask_values", "match_light", "after_value_range"):
        del run["parameters"][key]
    for key in ("patches", "nodata_ha", "cautions", "dates"):
        del summary[key]
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "summary.json").write_text(json.dumps(summary))
    assert (
        answers(
            lambda: td.report(folder, overwrite=True),
            lambda: create_application(Result.load(folder), "a token"),
            lambda: look(folder),
        )
        == 0
    )
    assert td.open_prediction(folder).summary.others["weather"] == ["fair"]


@pytest.mark.slow
def test_damaged_polygons_are_read_or_refused_by_every_reader(folder):
    path = folder / "changes.gpkg"
    content = path.read_bytes()
    tables = ("changes", "gpkg_geometry_columns", "gpkg_contents")
    generator = random.Random(2)
    tried = 0
    for _ in mutate_tables(path, tables):
        if generator.random() < 0.04:
            tried += 1
            answers(*_readers_of_polygons(folder))
    assert tried > 8
    for _, damaged in mutate_bytes(content, seed=1, count=6):
        path.write_bytes(damaged)
        answers(*_readers_of_polygons(folder))


def _readers_of_polygons(folder):
    return (
        lambda: td.report(folder, overwrite=True),
        lambda: create_application(Result.load(folder), "a token"),
        lambda: look(folder),
        lambda: export_checked(folder, folder / "checked.gpkg", overwrite=True),
    )


def test_damaged_geoparquet_is_read_or_refused(scene, tmp_path):
    pytest.importorskip("pyarrow")
    folder = tmp_path / "out"
    before, after = (scene / f"{date}.tif" for date in ("before", "after"))
    td.predict(before, after, folder, maps=td.MapOptions(vector="parquet"), model=DRAWN_MODEL)
    path = folder / "changes.parquet"
    refused = 0
    for _, damaged in mutate_bytes(path.read_bytes(), seed=1, count=6):
        (folder / "changes.gpkg").unlink(missing_ok=True)
        path.write_bytes(damaged)
        refused += answers(
            lambda: td.report(folder, overwrite=True),
            lambda: look(folder),
            lambda: create_application(Result.load(folder), "a token"),
        )
    assert refused > 4


def test_damaged_reviews_are_named(folder):
    with create_client(folder) as client:
        for fid in (1, 2):
            answer = client.put(
                f"/api/patches/{fid}/review",
                json={"status": "relabelled", "from_id": 4, "to_id": 1},
                headers={"X-Terradelta-Token": "a token"},
            )
            assert answer.status_code == 200
    refused = 0
    for _ in mutate_tables(folder / "changes.gpkg", ("reviews",)):
        refused += answers(lambda: ReviewStore(folder / "changes.gpkg").read())
        if refused % 8 == 1:
            answers(
                lambda: create_application(Result.load(folder), "a token"),
                lambda: export_checked(folder, folder / "checked.gpkg", overwrite=True),
            )
    assert refused > 20


def create_client(folder):
    from starlette.testclient import TestClient

    app = create_application(Result.load(folder), "a token")
    return TestClient(app, base_url="http://127.0.0.1:8765")


@pytest.fixture(scope="module")
def surveyed(made) -> Path:
    """A prediction with points that are labelled, area estimates and zones."""
    import geopandas
    import rasterio
    import shapely

    folder = Path(shutil.copytree(made, made.with_name("surveyed") / "out"))
    points = folder.with_name("points.gpkg")
    td.sample(folder, points, td.SampleDesign(points=60, floor=5), chip_size_px=0)
    with rasterio.open(folder / "change.tif") as dataset:
        label(points, dataset.read(1))
        box, crs = shapely.box(*dataset.bounds), dataset.crs
    td.assess(points)
    zones = geopandas.GeoDataFrame({"name": ["all"]}, geometry=[box], crs=crs.to_wkt())
    zones.to_file(folder.with_name("zones.gpkg"))
    td.stats(folder, folder.with_name("zones.gpkg"))
    return folder


def test_damaged_estimates_are_read_or_refused(surveyed, tmp_path):
    path = tmp_path / "estimates.json"
    content = json.loads((surveyed / "area_estimates.json").read_text())
    places = list(list_places(content))
    assert len(places) > 150
    refused = 0
    for _, text in choose(mutate_json(content), 10):
        path.write_text(text)
        refused += answers(lambda: td.report(surveyed, areas=path, overwrite=True))
    assert refused > 2


@pytest.mark.slow
def test_damaged_zones_are_read_or_refused(surveyed, tmp_path):
    path = Path(shutil.copy(surveyed / "zones" / "zones.gpkg", tmp_path))
    generator = random.Random(1)
    refused = 0
    for _ in mutate_tables(path, ("zones", "gpkg_geometry_columns")):
        if generator.random() < 0.03:
            refused += answers(lambda: td.report(surveyed, zones=path, overwrite=True))
    for _, damaged in mutate_bytes(path.read_bytes(), seed=1, count=6):
        path.write_bytes(damaged)
        refused += answers(lambda: td.report(surveyed, zones=path, overwrite=True))
    assert refused > 1


@pytest.mark.slow
def test_damaged_points_are_read_or_refused(surveyed, tmp_path):
    path = Path(shutil.copy(surveyed.with_name("points.gpkg"), tmp_path))
    generator = random.Random(1)
    refused = tried = 0
    for _ in mutate_tables(path, ("points", "design", "strata", "mapped", "survey")):
        if generator.random() < 0.06:
            tried += 1
            refused += answers(lambda: td.assess(path, tmp_path / "results", overwrite=True))
    assert refused > tried / 3 > 3
    for _, damaged in mutate_bytes(path.read_bytes(), seed=1, count=3):
        path.write_bytes(damaged)
        answers(lambda: td.assess(path, tmp_path / "results", overwrite=True))


@pytest.fixture(scope="module")
def sharded(scene) -> Path:
    """A prediction of which one of two shards is answered."""
    output = scene.with_name("shards")
    before, after = (scene / f"{date}.tif" for date in ("before", "after"))
    td.predict(before, after, output, maps=td.MapOptions(shard="1/2"), model=DRAWN_MODEL)
    return output


def test_a_damaged_job_is_merged_or_refused(sharded, tmp_path):
    output = tmp_path / "shards"
    path = partial_folder(output) / "job.json"
    shutil.copytree(partial_folder(sharded), path.parent)
    every = list(mutate_json(json.loads(path.read_text())))
    for _, text in random.Random(1).sample(every, 60):
        if not path.parent.exists():
            shutil.copytree(partial_folder(sharded), path.parent)
        path.write_text(text)
        answers(lambda: td.merge(output, overwrite=True))


def test_a_damaged_job_is_in_nobodys_way_who_drops_it(sharded, scene, tmp_path):
    output = tmp_path / "shards"
    shutil.copytree(partial_folder(sharded), partial_folder(output))
    (partial_folder(output) / "job.json").write_text("{")
    files = scene / "before.tif", scene / "after.tif"
    with pytest.raises(OutputError, match=r"job\.json cannot be read") as caught:
        td.predict(*files, output, model=DRAWN_MODEL)
    assert "--overwrite" in caught.value.fix
    assert td.predict(*files, output, model=DRAWN_MODEL, overwrite=True).folder == output


def test_a_raster_that_is_a_folder_is_no_folder_of_images(tmp_path, scene):
    """GDAL opens a Zarr, whose arrays are subdatasets; check names them, and so does predict."""
    import numpy as np

    for date in ("before", "after"):
        array = tmp_path / f"{date}.zarr" / "band"
        array.mkdir(parents=True)
        (array.parent / ".zgroup").write_text('{"zarr_format": 2}')
        header = {"zarr_format": 2, "shape": [8, 8], "chunks": [8, 8], "dtype": "|u1"}
        header |= {"compressor": None, "fill_value": 0, "order": "C", "filters": None}
        (array / ".zarray").write_text(json.dumps(header))
        (array / "0.0").write_bytes(np.ones((8, 8), np.uint8).tobytes())
    import rasterio

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rasterio.open(tmp_path / "before.zarr").close()
    except rasterio.errors.RasterioIOError:
        pytest.skip("this GDAL reads no Zarr")
    report = td.check(tmp_path / "before.zarr", tmp_path / "after.zarr")
    with pytest.raises(TerradeltaError) as caught:
        td.predict(tmp_path / "before.zarr", tmp_path / "after.zarr", tmp_path / "out")
    assert "no images" not in caught.value.problem
    assert caught.value.problem.split(": ")[0] in report.to_text()


# rasterio cannot report damaged bytes of GDAL's own messages.
@pytest.mark.filterwarnings("ignore:Exception ignored in.*rasterio._env.log_error")
@pytest.mark.parametrize("name", ["change.tif", "before_class.tif"])
def test_damaged_maps_are_read_or_refused(surveyed, folder, name):
    zones = surveyed.with_name("zones.gpkg")
    path = folder / name
    refused = 0
    for _, damaged in mutate_bytes(path.read_bytes(), seed=5, count=4):
        path.write_bytes(damaged)
        refused += answers(
            lambda: td.report(folder, overwrite=True),
            lambda: td.stats(folder, zones, overwrite=True),
            lambda: td.sample(folder, folder / "p.gpkg", chip_size_px=0, overwrite=True),
            lambda: create_application(Result.load(folder), "a token"),
            lambda: look(folder),
        )
    assert refused > 8
