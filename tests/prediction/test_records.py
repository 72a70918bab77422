"""run.json and summary.json as records: what is read is what was written, byte for byte."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tests.flat_options import sort_options
from tests.weights import DRAWN_MODEL

import terradelta as td
from terradelta.data.synthetic import write_folders, write_geotiff_pair
from terradelta.fields import FieldError, read_fields, write_fields
from terradelta.prediction.folder import PredictionFolder
from terradelta.prediction.records import RasterRecord, Run, Summary
from terradelta.prediction.reopening import recall_options

TOTALS = (
    "cautions dates valid_pixels changed_pixels nodata_pixels nodata_ha valid_ha changed_ha "
    "changed_percent transitions unsure_pixels unsure_ha unsure_percent"
)
RUN = (
    "cautions format versions before after masks parameters band_names classes dates grid plan "
    "findings models shift_px light blocks views_of_blocks seconds km2_per_minute"
)
FOLDER_RUN = (
    "cautions findings dates before after models parameters versions views_of_pairs seconds"
)
PARAMETERS = (
    "tta bands grid nodata mask mask_values value_range after_value_range match_light aoi register "
    "change_threshold reduction enlargement decided_by sensitivity device backend precision "
    "min_area_m2 vector "
    "time_budget_seconds picture cog_size_px"
)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, Path]:
    """Predictions of two rasters, of two mosaics, and of two folders of images."""
    root = tmp_path_factory.mktemp("made")
    scene = root / "scene"
    write_geotiff_pair(scene, 11, (128, 160))
    write_folders(root / "drawn", 2, seed=7, size_px=96)
    pair = scene / "before.tif", scene / "after.tif"
    # Whole numbers stay whole numbers, and each part of the record is there once.
    options = {"value_range": (0, 250), "nodata": (0, None), "time_budget": 100, "min_area": 1}
    dates = {"before_date": "2019-06", "after_date": "2020-07-01"}
    td.predict(
        *pair,
        root / "raster",
        **sort_options(model=DRAWN_MODEL, bands=(1, 2, 3), **options, **dates),
    )
    lists = ([path] for path in pair)
    light = {"match_light": "histogram", "mask": (scene / "change.tif", None), "mask_values": "48"}
    td.predict(*lists, root / "mosaic", **sort_options(light, model=DRAWN_MODEL))
    folders = (root / "drawn" / name for name in ("im1", "im2"))
    td.predict(
        *folders, root / "folder", **sort_options(dates, model=DRAWN_MODEL, value_range=(0, 255))
    )
    return {name: root / name for name in ("raster", "mosaic", "folder")}


@pytest.mark.parametrize("kind", ["raster", "mosaic", "folder"])
def test_what_is_read_is_written_with_the_same_bytes(made, tmp_path, kind):
    folder = Path(shutil.copytree(made[kind], tmp_path / "copy"))
    files = PredictionFolder(folder)
    run = files.read_folder_run() if kind == "folder" else files.read_run()
    for name, record in (("summary.json", files.read_summary()), ("run.json", run)):
        written = (folder / name).read_bytes()
        assert record.others == {}, "each key has a field"
        (folder / name).unlink()
        files.write(record)
        assert (folder / name).read_bytes() == written


@pytest.mark.parametrize(
    ("kind", "count", "run"),
    [("raster", "patches", RUN), ("mosaic", "patches", RUN), ("folder", "pairs", FOLDER_RUN)],
)
def test_the_files_have_their_documented_keys_in_their_order(made, kind, count, run):
    summary = json.loads((made[kind] / "summary.json").read_text())
    assert list(summary) == [*TOTALS.split(), count]
    # That mosaic's light is matched, and nothing is left that changed.
    assert (kind == "mosaic") == (summary["transitions"] == [])
    for row in summary["transitions"]:
        assert " ".join(row) == "from to pixels area_ha share_percent"
    content = json.loads((made[kind] / "run.json").read_text())
    assert list(content) == run.split()
    if kind == "folder":
        assert content["parameters"]["value_range"] == [0, 255]
        return
    assert list(content["parameters"]) == PARAMETERS.split()
    # A mosaic says so, and when its items were taken where they say it.
    is_mosaic = kind == "mosaic"
    assert (content["before"]["driver"] == "mosaic") == is_mosaic
    for key in ("sources", "sheets", "dates"):
        assert (key in content["before"]) == is_mosaic


def test_a_pair_is_opened_again_as_it_was_read(made):
    run = PredictionFolder(made["raster"]).read_run()
    options = recall_options(run)
    assert options == recall_options(PredictionFolder(made["raster"]).read_pair())
    assert (options.before.nodata, options.after.nodata) == (0, None)
    assert options.before.value_range == options.after.value_range == (0, 250)
    other = replace(run, parameters=replace(run.parameters, after_value_range=(5, 9)))
    assert recall_options(other).after.value_range == (5, 9)
    mosaic = PredictionFolder(made["mosaic"]).read_run()
    assert recall_options(mosaic).before.mask is not None
    assert recall_options(mosaic).after.mask is None
    assert mosaic.light is not None
    assert mosaic.light.kind == "histogram"


def test_what_a_later_version_adds_is_kept_and_written_again(made):
    for cls, name in ((Summary, "summary.json"), (Run, "run.json")):
        content = json.loads((made["raster"] / name).read_text())
        content |= {"weather": ["fair"], "others": {"a": None}}
        record = read_fields(cls, content)
        assert record.others == {"weather": ["fair"], "others": {"a": None}}
        assert write_fields(record) == content


def test_a_scale_is_written_where_there_is_one():
    raster = RasterRecord(
        path="a.tif", width=2, height=2, bands=1, dtypes=("uint8",), header_sha256="0"
    )
    assert "scales" not in write_fields(raster)
    # A band that is not read may have a scale that is no number.
    scaled = replace(raster, scales=[0.5, math.inf], offsets=[-1, 0.0])
    assert json.dumps(write_fields(scaled)["scales"]) == "[0.5, Infinity]"
    assert read_fields(RasterRecord, write_fields(scaled)) == scaled


def test_numbers_that_contradict_each_other_are_not_written():
    with pytest.raises(FieldError, match=r"changed_pixels is 3, .* at most valid_pixels, 2"):
        Summary(valid_pixels=2, changed_pixels=3, changed_percent=1.0, transitions=())
