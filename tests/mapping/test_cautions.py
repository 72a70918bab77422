"""What makes a map doubtful is said before its numbers, and `strict` refuses it."""

import json
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from functools import partial

import geopandas
import numpy as np
import pystac
import pytest
import rasterio
from rasterio.windows import Window
from tests.flat_options import predict_flat, sort_options

import terradelta as td
from terradelta.cautions import Caution
from terradelta.cli import main
from terradelta.data.synthetic import write_folders
from terradelta.errors import ArgumentError, CautionError, ModelError, RasterError
from terradelta.geo.area import measure_pixels
from terradelta.geo.grid import Grid
from terradelta.inference import confidence
from terradelta.models.bundle import load_model, save_model
from terradelta.prediction.records import Summary

from ..conftest import make_model
from .small_blocks import TILE_SIZE_PX, assert_same_bytes


@pytest.fixture(scope="module")
def fine_model(tmp_path_factory):
    """A model that knows finer pixels than those of the scene, and is mostly unsure."""
    folder = tmp_path_factory.mktemp("models") / "fine"
    save_model(make_model(resolution_m=(0.1, 0.2)), folder)
    return folder


@pytest.fixture(scope="module")
def predict(scene, fine_model):
    pair = scene / "before.tif", scene / "after.tif"
    return partial(predict_flat, *pair, precision="fp32", model=fine_model)


@pytest.fixture(scope="module")
def doubtful(predict, tmp_path_factory):
    dates = {"before_date": "2019-06-01", "after_date": "2010"}
    return predict(tmp_path_factory.mktemp("doubtful") / "out", cog_size=512, **dates)


@pytest.fixture(scope="module")
def sound(scene, tmp_path_factory):
    """A pair without fault: the before image, and itself with other ground in some places."""
    folder = tmp_path_factory.mktemp("sound")
    with rasterio.open(scene / "before.tif") as dataset:
        image_CHW, profile = dataset.read(), dataset.profile
    changed_CHW = image_CHW.copy()
    for top, left in ((20, 30), (120, 250), (230, 90)):
        place = np.s_[:, top : top + 60, left : left + 80]
        changed_CHW[place] = np.roll(image_CHW, (97, 143), axis=(1, 2))[place]
    for date, pixels_CHW in (("before", image_CHW), ("after", changed_CHW)):
        with rasterio.open(folder / f"{date}.tif", "w", **profile) as dataset:
            dataset.write(pixels_CHW)
    return folder / "before.tif", folder / "after.tif"


def run(*line):
    """Run a line in this process and return its exit code."""
    with pytest.raises(SystemExit) as stop:
        main([str(part) for part in line])
    return stop.value.code or 0


def read(path):
    with rasterio.open(path) as dataset:
        return dataset.read(1)


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def names_of(cautions):
    return [caution.name for caution in cautions]


def test_what_check_warns_of_lies_above_the_numbers_of_the_map(doubtful, scene, fine_model):
    dates = {"before_date": "2019-06-01", "after_date": "2010"}
    report = td.check(
        scene / "before.tif",
        scene / "after.tif",
        **sort_options(dates, model=fine_model),
    )
    assert {"scale", "dates"} <= set(names_of(report.cautions))
    known = [caution for caution in doubtful.cautions if caution.name != "confidence"]
    assert known == list(report.cautions)
    made, summary = (read_json(doubtful.folder / f"{name}.json") for name in ("run", "summary"))
    assert made["cautions"] == summary["cautions"] == [c.to_dict() for c in doubtful.cautions]
    assert next(iter(summary)) == "cautions"
    assert [row["message"] for row in made["findings"]] == [f.message for f in report.findings]


def test_advice_and_what_is_ok_are_no_cautions(sound, model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(confidence, "CAUTION_SHARE", 1.1)
    options = {"model": model_folder, "precision": "fp32", "strict": True}
    result = td.predict(*sound, tmp_path / "out", **sort_options(options))
    assert result.cautions == ()
    assert result.summary.changed_pixels > 0
    # A part of the before image: the overlap is told, and it is no doubt.
    with rasterio.open(sound[0]) as dataset:
        profile, image = {**dataset.profile, "width": 200}, dataset.read()[:, :, :200]
    with rasterio.open(tmp_path / "part.tif", "w", **profile) as dataset:
        dataset.write(image)
    part = td.predict(tmp_path / "part.tif", sound[1], tmp_path / "part", **sort_options(options))
    levels = {row["name"]: row["level"] for row in read_json(part.folder / "run.json")["findings"]}
    assert levels["overlap"] == "WARN"
    assert part.cautions == ()


@pytest.mark.parametrize("min_area", ["0", "20m2"])
def test_unsure_change_is_the_sum_over_the_maps(
    predict, model_folder, small_blocks, tmp_path, min_area
):
    """Also where small patches, some of them across blocks, are gone again."""
    folder = predict(
        tmp_path / "out", model=model_folder, min_area=min_area, tile_size=TILE_SIZE_PX
    ).folder
    made, summary = read_json(folder / "run.json"), read_json(folder / "summary.json")
    assert made["blocks"] > 4
    change, percent = read(folder / "change.tif"), read(folder / "confidence.tif")
    unsure = (change > 0) & (change != 255) & (percent < 50)
    with rasterio.open(folder / "change.tif") as dataset:
        whole = Window(0, 0, dataset.width, dataset.height)
        areas = measure_pixels(Grid.of(dataset), whole)
    assert summary["unsure_pixels"] == unsure.sum() > 0
    assert summary["unsure_ha"] * 10_000 == pytest.approx(areas[unsure].sum(), rel=1e-9)
    share = 100 * areas[unsure].sum() / areas[(change > 0) & (change != 255)].sum()
    assert summary["unsure_percent"] == pytest.approx(share, rel=1e-9)
    told = [caution for caution in summary["cautions"] if caution["name"] == "confidence"]
    assert bool(told) == (share >= 25)


def test_a_map_of_little_sure_change_says_how_much():
    summary = Summary(
        valid_pixels=20,
        changed_pixels=12,
        valid_ha=310.5,
        changed_ha=186.3,
        changed_percent=60.0,
        transitions=(),
        unsure_pixels=10,
        unsure_ha=160.6,
        unsure_percent=86.2,
    )
    (caution,) = confidence.doubt_confidence(summary)
    assert caution.message.startswith("86 % of the mapped change (160.6 of 186.3 ha)")
    pixels = replace(summary, unsure_ha=None, changed_ha=None, valid_ha=None)
    assert "(10 of 12 px)" in confidence.doubt_confidence(pixels)[0].message
    assert confidence.doubt_confidence(replace(summary, unsure_percent=24.9)) == ()


def test_strict_refuses_what_is_known_before_the_work_before_it(predict, tmp_path):
    with pytest.raises(CautionError, match=r"--strict .* scale: pixels of .* learned from 0.1"):
        predict(tmp_path / "out", strict=True)
    with pytest.raises(CautionError, match="dates: before is dated 2020"):
        predict(tmp_path / "out", strict=True, before_date="2020", after_date="2010")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shards", [1, 2])
def test_strict_keeps_the_map_aside_that_turned_out_doubtful(
    sound, model_folder, small_blocks, tmp_path, monkeypatch, shards
):
    predict = partial(predict_flat, *sound)
    monkeypatch.setattr(confidence, "CAUTION_SHARE", 0.0)
    output = tmp_path / "out"
    options = {"model": model_folder, "tile_size": TILE_SIZE_PX, "precision": "fp32"}
    with pytest.raises(CautionError, match=r"confidence: ") as caught:
        if shards == 1:
            predict(output, strict=True, **options)
        else:
            for number in (1, 2):
                predict(output, strict=True, shard=f"{number}/2", **options)
            td.merge(output, strict=True)
    assert "out.partial keeps the map" in caught.value.fix
    assert [path.name for path in tmp_path.iterdir()] == ["out.partial"]
    result = td.merge(output) if shards == 2 else predict(output, **options)
    assert names_of(result.cautions) == ["confidence"]
    whole = predict(tmp_path / "whole", **options)
    assert_same_bytes(output, whole.folder)
    assert not (tmp_path / "out.partial").exists()


def test_the_command_line_prints_cautions_first_and_strict_is_exit_code_2(
    scene, fine_model, tmp_path, capsys
):
    line = ["predict", str(scene / "before.tif"), str(scene / "after.tif"), "-m", str(fine_model)]
    assert run(*line, "-o", tmp_path / "out", "--strict") == 2
    printed, log = capsys.readouterr()
    assert printed == ""
    assert "scale: pixels of" in log
    assert list(tmp_path.iterdir()) == []
    assert run(*line, "-o", tmp_path / "out") == 0
    printed, log = capsys.readouterr()
    rows = printed.splitlines()
    assert rows[0].startswith("CAUTION  scale: pixels of")
    assert rows[1].strip().startswith("fix: ")
    cautions = [index for index, row in enumerate(rows) if row.startswith("CAUTION")]
    assert max(cautions) < min(index for index, row in enumerate(rows) if "→" in row)
    assert run(*line, "--plan") == 0
    assert capsys.readouterr().out.startswith("CAUTION  scale: pixels of")
    assert run(*line, "--plan", "--strict") == 2


@pytest.mark.parametrize("kind", ["bright", "empty", "damaged"])
def test_what_check_fails_predict_refuses_before_the_work(scene, model_folder, tmp_path, kind):
    with rasterio.open(scene / "after.tif") as dataset:
        image, profile = dataset.read(), dataset.profile
    if kind == "bright":
        image, profile = image.astype(np.uint16) * 16, {**profile, "dtype": "uint16"}
    elif kind == "empty":
        image, profile = np.zeros_like(image), {**profile, "nodata": 0}
    after = tmp_path / "after.tif"
    with rasterio.open(after, "w", **profile) as dataset:
        dataset.write(image)
    if kind == "damaged":
        after.write_bytes(after.read_bytes()[:-20_000])
    report = td.check(scene / "before.tif", after, model=model_folder)
    failed = next(finding for finding in report.findings if finding.level == "FAIL")
    with pytest.raises(RasterError) as caught:
        td.predict(scene / "before.tif", after, tmp_path / "out", model=model_folder)
    assert caught.value.problem.endswith(failed.message)
    assert "after.tif" in caught.value.problem
    assert caught.value.fix.removeprefix("add ") == failed.fix
    assert [path.name for path in tmp_path.iterdir()] == ["after.tif"]


def test_dates_that_are_none_are_refused_before_anything(predict, tmp_path):
    with pytest.raises(ArgumentError, match="--before-date 2019-13 is not a date"):
        predict(tmp_path / "out", before_date="2019-13")
    assert list(tmp_path.iterdir()) == []


def test_dates_reach_every_output(doubtful, scene):
    folder = doubtful.folder
    made, summary = (read_json(folder / f"{name}.json") for name in ("run", "summary"))
    assert made["dates"] == summary["dates"]
    assert made["dates"]["before"]["text"] == "2019-06-01"
    assert made["dates"]["after"] == {
        "text": "2010",
        "start": "2010-01-01T00:00:00+00:00",
        "end": "2010-12-31T23:59:59.999999+00:00",
        "origin": "flag",
    }
    patches = geopandas.read_file(folder / "changes.gpkg", layer="changes")
    assert set(patches.before_date) == {"2019-06-01"}
    assert set(patches.after_date) == {"2010"}
    with rasterio.open(folder / "change.vrt") as dataset:
        tags = dataset.tags()
    assert (tags["TERRADELTA_BEFORE_DATE"], tags["TERRADELTA_AFTER_DATE"]) == ("2019-06-01", "2010")
    for item in pystac.ItemCollection.from_file(str(folder / "items.json")):
        assert item.datetime is None
        period = item.common_metadata
        assert str(period.start_datetime)[:10] == "2010-01-01"
        assert str(period.end_datetime)[:10] == "2019-06-01"
        assert abs(time.time() - period.created.timestamp()) < 3600
    page = (folder / "report.html").read_text()
    assert "before.tif (2019-06-01)" in page
    assert "taken 2010 (as given)" in page


def test_patches_without_dates_have_the_columns_empty(predict, model_folder, tmp_path):
    path = predict(tmp_path / "out", model=model_folder).folder / "changes.gpkg"
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT DISTINCT before_date, after_date FROM changes").fetchall()
    assert rows == [(None, None)]


def test_other_dates_go_on_with_the_blocks_that_are_there(
    predict, model_folder, small_blocks, tmp_path
):
    options = {"model": model_folder, "tile_size": TILE_SIZE_PX}
    predict(tmp_path / "out", shard="1/2", before_date="2019", **options)
    assert list((tmp_path / "out.partial").rglob("*.tif"))
    result = predict(tmp_path / "out", before_date="2018", **options)
    seconds = read_json(result.folder / "run.json")["seconds"]
    assert seconds["of_earlier_runs"] > 0
    assert result.summary.dates.before.text == "2018"


def test_folders_of_images_carry_cautions_and_dates_too(fine_model, tmp_path, capsys):
    write_folders(tmp_path / "drawn", 2, seed=7, size_px=64)
    (tmp_path / "drawn" / "im1").rename(tmp_path / "2020")
    (tmp_path / "drawn" / "im2").rename(tmp_path / "2012")
    folders, out = (tmp_path / "2020", tmp_path / "2012"), tmp_path / "out"
    with pytest.raises(CautionError, match=r"scale: the size of the pixels .* is unknown"):
        td.predict(*folders, out, maps=td.MapOptions(strict=True), model=fine_model)
    assert not out.exists()
    assert run("predict", *folders, "-o", out, "-m", fine_model) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("CAUTION  dates: before is dated 2020 (folder name), after 2012")
    made, summary = (read_json(out / f"{name}.json") for name in ("run", "summary"))
    assert made["cautions"] == summary["cautions"]
    names = [row["name"] for row in made["cautions"]]
    assert names[:2] == ["dates", "scale"]
    assert ("confidence" in names) == (summary["unsure_percent"] >= 25)
    assert made["dates"]["after"]["text"] == "2012"
    assert made["seconds"]["total"] >= made["seconds"]["predicting"] > 0


def test_rasters_without_crs_have_an_unknown_scale(scene, fine_model, tmp_path):
    paths = []
    for date in ("before", "after"):
        with rasterio.open(scene / f"{date}.tif") as dataset:
            image = dataset.read()
        paths.append(tmp_path / f"{date}.png")
        with (
            pytest.warns(rasterio.errors.NotGeoreferencedWarning),
            rasterio.open(
                paths[-1], "w", driver="PNG", count=3, dtype="uint8", height=330, width=420
            ) as dataset,
        ):
            dataset.write(image)
    result = td.predict(*paths, tmp_path / "out", model=fine_model)
    # That there is no CRS is no doubt by itself.
    assert names_of(result.cautions)[0] == "scale"
    assert "crs" not in names_of(result.cautions)


def test_seconds_run_from_the_start_of_the_process_to_the_end(scene, model_folder, tmp_path):
    line = [sys.executable, "-m", "terradelta.cli", "predict", str(scene / "before.tif")]
    line += [str(scene / "after.tif"), "-o", str(tmp_path / "out"), "-m", str(model_folder)]
    began = time.monotonic()
    done = subprocess.run(line, check=True, capture_output=True, text=True)
    passed = time.monotonic() - began
    made = read_json(tmp_path / "out" / "run.json")
    seconds = made["seconds"]
    parts = {
        name: part for name, part in seconds.items() if name not in ("total", "of_earlier_runs")
    }
    assert list(parts) == [
        "start_up",
        "planning",
        "compiling",
        "reading",
        "network",
        "assembly",
        "report",
    ]
    assert sum(parts.values()) <= seconds["total"] + 0.01
    # Half of what the caller sees at least, whatever the machine does beside: imports are in it.
    assert passed / 2 < seconds["total"] < passed + 0.1
    assert parts["start_up"] > 0
    area_km2 = read_json(tmp_path / "out" / "summary.json")["valid_ha"] / 100
    assert made["km2_per_minute"] == pytest.approx(60 * area_km2 / seconds["total"], rel=1e-3)
    assert "km2 a minute" in done.stderr
    assert "to start" in done.stderr


def test_a_run_that_was_taken_up_counts_the_blocks_of_the_one_before(
    predict, model_folder, small_blocks, tmp_path
):
    options = {"model": model_folder, "tile_size": TILE_SIZE_PX}
    predict(tmp_path / "out", shard="1/2", **options)
    spent = 0.0
    for path in (tmp_path / "out.partial" / "blocks").rglob("*.tif"):
        with rasterio.open(path) as dataset:
            spent += float(dataset.tags()["seconds"])
    seconds = read_json(predict(tmp_path / "out", **options).folder / "run.json")["seconds"]
    assert seconds["of_earlier_runs"] == pytest.approx(spent, abs=0.01) != 0
    assert seconds["total"] > seconds["of_earlier_runs"]
    # Called as a function, it did not start before the call.
    assert seconds["start_up"] < 1


def test_where_nothing_was_found_the_terminal_says_so(scene, model_folder, tmp_path, capsys):
    from dataclasses import replace

    model = load_model(model_folder)
    save_model((model.network, replace(model.card, change_threshold=1 - 1e-9)), tmp_path / "blind")
    pair = scene / "before.tif", scene / "after.tif"
    options = "--picture", "-o", tmp_path / "out", "-m", tmp_path / "blind"
    assert run("predict", *pair, *options) == 0
    printed = capsys.readouterr().out
    assert "no change found: 0.000 of " in printed
    assert read_json(tmp_path / "out" / "summary.json")["unsure_percent"] == 0


def test_answers_that_are_no_numbers_leave_nothing(scene, model_folder, tmp_path):
    import torch

    model = load_model(model_folder)
    with torch.no_grad():
        model.network.change_head.classifier.weight.fill_(3e38)
    save_model(model, tmp_path / "hot")
    with pytest.raises(ModelError, match=r"the model .*hot answers with NaN or infinite"):
        td.predict(
            scene / "before.tif", scene / "after.tif", tmp_path / "out", model=tmp_path / "hot"
        )
    assert [path.name for path in tmp_path.iterdir()] == ["hot"]


def test_cautions_are_read_back_as_they_were():
    caution = Caution("scale", "pixels of 5 m", "--grid 0.5")
    assert caution.to_text() == "CAUTION  scale: pixels of 5 m\n         fix: --grid 0.5"
    assert Caution(**caution.to_dict()) == caution
