"""What the values of a pair mean, and what is done where they mean something else."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import rasterio
from tests.flat_options import predict_flat, sort_options

import terradelta as td
from terradelta.data.synthetic import write_folders
from terradelta.errors import ArgumentError, RasterError
from terradelta.inference import rasters
from terradelta.inference.cluster.worker import Errand, Worker, read_model_files
from terradelta.inference.job import Job

from .small_blocks import MAPS, TILE_SIZE_PX, assert_same_bytes

REFLECTANCE = (0.0, 255 * 0.0016)


@pytest.fixture(scope="module")
def write(scene, tmp_path_factory):
    """A function that writes a date of the scene with other stored numbers."""
    folder = tmp_path_factory.mktemp("written")

    def write(name, date, convert=lambda image: image, scale=1.0, offset=0.0) -> Path:
        with rasterio.open(scene / f"{date}.tif") as source:
            image_CHW, profile = convert(source.read().astype(float)), source.profile
        path = folder / f"{name}.tif"
        profile.update(dtype=image_CHW.dtype)
        with rasterio.open(path, "w", **profile) as target:
            target.write(image_CHW)
            target.scales, target.offsets = (scale,) * 3, (offset,) * 3
        return path

    return write


def deepen(shift, image_CHW):
    return (image_CHW * 16 + shift).astype(np.uint16)


@pytest.fixture(scope="module")
def darken():
    def darken(image_CHW):
        return (image_CHW * 0.5 + 60).round().astype(np.uint8)

    return darken


@pytest.fixture(scope="module")
def predict(model_folder, tmp_path_factory):
    def predict(before, after, **options):
        folder = tmp_path_factory.mktemp("maps") / "out"
        options = {"model": model_folder, "precision": "fp32", **options}
        return td.predict(before, after, folder, **sort_options(options)).folder

    return predict


@pytest.fixture(scope="module")
def plain(scene, predict):
    """The map of the 8-bit pair."""
    return predict(scene / "before.tif", scene / "after.tif")


def read(folder, name="change"):
    with rasterio.open(folder / f"{name}.tif") as dataset:
        return dataset.read(1)


def read_run(folder):
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))


def test_scale_and_offset_of_each_date_are_applied(write, predict, plain):
    before = write("old", "before", partial(deepen, 0), 1e-4)
    after = write("new", "after", partial(deepen, 1000), 1e-4, -0.1)
    folder = predict(before, after, value_range=REFLECTANCE)
    assert (read(folder) == read(plain)).mean() >= 0.999
    run = read_run(folder)
    assert run["after"]["scales"] == [1e-4] * 3
    assert run["after"]["offsets"] == [-0.1] * 3
    assert run["parameters"]["value_range"] == list(REFLECTANCE)
    assert run["parameters"]["after_value_range"] is None


def test_ranges_may_differ_by_date(write, predict, plain):
    before = write("deep", "before", partial(deepen, 0))
    after = write("deeper", "after", partial(deepen, 1000))
    ranges = {"value_range": (0, 4080), "after_value_range": (1000, 5080)}
    folder = predict(before, after, **ranges)
    assert (read(folder) == read(plain)).mean() >= 0.999
    assert read_run(folder)["parameters"]["after_value_range"] == [1000, 5080]


def test_dates_swapped_with_their_ranges_swap_the_maps(write, predict):
    before = write("deep", "before", partial(deepen, 0))
    after = write("deeper", "after", partial(deepen, 1000))
    ahead = predict(before, after, value_range=(0, 4080), after_value_range=(1000, 5080))
    back = predict(after, before, value_range=(1000, 5080), after_value_range=(0, 4080))
    assert (read(ahead, "before_class") == read(back, "after_class")).mean() >= 0.999
    assert (read(ahead, "after_class") == read(back, "before_class")).mean() >= 0.999


@pytest.mark.parametrize("shift", [0, 1000])
def test_check_and_predict_suggest_the_same_range_and_it_fits(write, predict, model_folder, shift):
    before = write("deep", "before", partial(deepen, 0))
    after = write(f"deep{shift}", "after", partial(deepen, shift))
    with pytest.raises(RasterError) as refused:
        predict(before, after)
    found = {f.name: f for f in td.check(before, after, model=model_folder).findings}
    assert found["depth"].level == "FAIL"
    assert found["depth"].fix in refused.value.fix
    texts = found["depth"].fix.split()
    assert texts[::2] == ["--value-range", "--after-value-range"][: 1 + (shift > 0)]
    ranges = [tuple(map(float, text.split(","))) for text in texts[1::2]]
    given = dict(zip(("value_range", "after_value_range"), ranges, strict=False))
    levels = {
        f.name: f.level
        for f in td.check(before, after, **sort_options(given, model=model_folder)).findings
    }
    assert levels["depth"] == levels["values"] == "OK"
    predict(before, after, **given)


def test_windows_of_another_depth_get_the_same_suggestion(write, model, monkeypatch):
    """What the samples missed, the windows find."""
    before = write("deep", "before", partial(deepen, 0))
    after = write("deep0", "after", partial(deepen, 0))
    predictor = rasters.Predictor([model])
    with rasters.RasterPair(before, after, predictor.bands) as pair:
        suggested = rasters.PixelSamples.read(pair).suggest_ranges()
        read_window = rasters.prepare_reading(pair, predictor, None)
        with pytest.raises(RasterError) as refused:
            read_window(pair.area)
    assert refused.value.fix.endswith(suggested)


def test_a_plan_reads_the_light_option_of_the_run(scene, model_folder):
    with pytest.raises(ArgumentError, match="match-light and --after-value-range both say"):
        td.plan_pair(
            scene / "before.tif",
            scene / "after.tif",
            rasters=td.RasterOptions(
                match_light="linear", value_range=(0, 255), after_value_range=(0, 200)
            ),
            model=model_folder,
        )


@pytest.mark.parametrize(
    ("ranges", "error", "problem"),
    [
        ((1000, 3000), RasterError, r"before\.tif .* to \d+; no value lies in .* 1000 to 3"),
        ((0, float("inf")), ArgumentError, r"value_range\[1\] is inf"),
        ((float("nan"), 5), ArgumentError, r"value_range\[0\] is nan"),
        ((5, 4), ArgumentError, "from 5 to 4"),
    ],
)
def test_a_range_that_holds_nothing_is_refused_before_the_work(
    scene, model_folder, tmp_path, ranges, error, problem
):
    pair = scene / "before.tif", scene / "after.tif"
    options = {"model": model_folder, "value_range": ranges}
    for work in (partial(td.predict, *pair, tmp_path / "out"), partial(td.plan_pair, *pair)):
        with pytest.raises(error, match=problem) as refused:
            work(**sort_options(options))
        assert "--value-range " in refused.value.fix
    assert not list(tmp_path.iterdir())
    if error is ArgumentError:
        with pytest.raises(error, match=problem):
            td.check(*pair, **sort_options(options))
    else:
        found = {f.name: f for f in td.check(*pair, **sort_options(options)).findings}
        assert found["depth"].level == "FAIL"


def test_folders_of_pictures_are_held_against_the_range_too(model_folder, tmp_path):
    write_folders(tmp_path / "data", 3, 2, size_px=128)
    before, after = tmp_path / "data" / "im1", tmp_path / "data" / "im2"
    run = partial(predict_flat, before, after, tmp_path / "out", model=model_folder)
    with pytest.raises(RasterError, match=r"im1 holds uint8 values up to .* no value lies"):
        run(value_range=(1000, 3000))
    with pytest.raises(ArgumentError, match="--match-light was given"):
        run(match_light="linear")
    run(value_range=(0, 255), after_value_range=(0, 250))
    assert read_run(tmp_path / "out")["parameters"]["after_value_range"] == [0, 250]


@pytest.fixture(scope="module")
def dark(write, darken):
    return write("dark", "after", darken)


@pytest.mark.parametrize("kind", ["linear", "histogram"])
def test_matched_light_gives_the_map_of_the_undistorted_pair(scene, predict, plain, dark, kind):
    before = scene / "before.tif"
    as_it_is = predict(before, scene / "after.tif", match_light=kind)
    distorted, matched = predict(before, dark), predict(before, dark, match_light=kind)
    agreement = [(read(folder) == read(as_it_is)).mean() for folder in (distorted, matched)]
    # The network is untrained: it takes every grey level to heart.
    assert agreement[0] < 0.6
    assert agreement[1] > 0.9
    run = read_run(matched)
    assert run["parameters"]["match_light"] == run["light"]["kind"] == kind
    assert [round(band["gain"], 1) for band in run["light"]["bands"]] != [1, 1, 1]
    assert f"{kind}, after red" in (matched / "report.html").read_text(encoding="utf-8")
    assert read_run(plain)["light"] is None


def test_an_identical_pair_is_not_touched(scene, predict):
    pair = (scene / "before.tif",) * 2
    plain, matched = predict(*pair), predict(*pair, match_light="histogram")
    for name in ("change", "confidence"):
        assert (read(plain, name) == read(matched, name)).all()


def test_matched_depths_are_read_by_the_range_of_the_before_image(write, scene, predict):
    before = write("deep", "before", partial(deepen, 0))
    after = write("far", "after", lambda image: (image * 40 + 9000).astype(np.uint16))
    deep = predict(before, after, match_light="linear", value_range=(0, 4080))
    eight = predict(scene / "before.tif", scene / "after.tif", match_light="linear")
    assert (read(deep) == read(eight)).mean() > 0.95
    with pytest.raises(ArgumentError, match="--match-light and --after-value-range"):
        predict(before, after, match_light="linear", after_value_range=(9000, 19_200))


def test_tiles_memory_and_shards_match_the_light_alike(scene, dark, model_folder, tmp_path):
    options = {"model": model_folder, "precision": "fp32", "match_light": "histogram"}
    run = partial(predict_flat, scene / "before.tif", dark, **options, tile_size=TILE_SIZE_PX)
    whole = run(tmp_path / "whole").folder
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rasters, "MAX_BLOCK_SIZE_PX", TILE_SIZE_PX)
        run(tmp_path / "blocks", shard="2/2")
        _answer_as_a_worker(tmp_path / "blocks", model_folder)
        run(tmp_path / "blocks", shard="1/2")
        td.merge(tmp_path / "blocks")
    assert_same_bytes(whole, tmp_path / "blocks", MAPS)
    assert read_run(whole)["light"] == read_run(tmp_path / "blocks")["light"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rasters, "MAX_BLOCK_SIZE_PX", TILE_SIZE_PX)
        run(tmp_path / "other", shard="2/2")
        with pytest.raises(td.TerradeltaError, match="match_light was 'histogram' and is 'none'"):
            run(tmp_path / "other", shard="1/2", match_light="none")


def _answer_as_a_worker(output, model_folder):
    """Have a block of a shard answered again by a machine that knows but the request."""
    job = Job.load(output)
    index = max(index for index in range(len(job.plan)) if job.store.has(index))
    worker = Worker(Errand(job.record, 4 * 1024**3, "."))
    worker.start(read_model_files(model_folder))
    content = worker.answer(index, 1).content
    with rasterio.MemoryFile(content) as memory, memory.open() as dataset:
        answer = dataset.read()
    assert (answer == np.stack(job.store.read(index)[0])).all()
