"""A raster job as a whole: killed, sharded, short of memory, disk or time, it gives one map."""

import json
import random
import resource
import signal
import subprocess
import sys
import time
from functools import partial

import geopandas
import numpy as np
import psutil
import pytest
import rasterio
from rasterio import features
from shapely.geometry import box
from tests.flat_options import predict_flat, sort_options

import terradelta as td
from terradelta.errors import (
    ArgumentError,
    ModelError,
    OutputError,
    OutputExistsError,
    RasterError,
)
from terradelta.inference import rasters
from terradelta.models.bundle import Model, save_model
from terradelta.models.card import ModelCard
from terradelta.models.registry import create_model

from ..conftest import make_model
from .small_blocks import MAPS, PROGRAM, TILE_SIZE_PX, assert_same_bytes

GIGABYTE = 1024**3


@pytest.fixture
def predict(scene, model_folder, small_blocks):
    return partial(
        predict_flat,
        scene / "before.tif",
        scene / "after.tif",
        tile_size=TILE_SIZE_PX,
        precision="fp32",
        model=model_folder,
    )


@pytest.fixture(scope="module")
def whole(scene, model_folder, tmp_path_factory):
    """The map made in one go."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rasters, "MAX_BLOCK_SIZE_PX", TILE_SIZE_PX)
        return td.predict(
            scene / "before.tif",
            scene / "after.tif",
            tmp_path_factory.mktemp("whole") / "out",
            runtime=td.Runtime(tile_size=TILE_SIZE_PX, precision="fp32"),
            model=model_folder,
        ).folder


def read(path):
    with rasterio.open(path) as dataset:
        return dataset.read(1)


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_map_has_many_blocks_and_both_answers(whole):
    assert read_json(whole / "run.json")["blocks"] >= 6
    assert 0.2 < (read(whole / "change.tif") > 0).mean() < 0.8


def test_shards_in_any_order_give_the_bytes_of_one_run(predict, whole, tmp_path):
    output = tmp_path / "out"
    for number in (3, 1, 2):
        part = predict(output, shard=f"{number}/3")
        assert part.folder == tmp_path / "out.partial"
        assert not output.exists()
        if number != 2:
            with pytest.raises(OutputError, match=r"lacks \d+ of \d+ blocks"):
                td.merge(output)
    assert part.blocks_done == part.blocks
    td.merge(output)
    assert_same_bytes(output, whole)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_memory_and_block_size_do_not_change_the_map(scene, model_folder, whole, tmp_path):
    # The tests before this one count towards what the process holds.
    held = psutil.Process().memory_info().rss
    for name, memory in (("much", held + 8 * GIGABYTE), ("little", held + GIGABYTE)):
        result = td.predict(
            scene / "before.tif",
            scene / "after.tif",
            tmp_path / name,
            maps=td.MapOptions(memory=memory),
            runtime=td.Runtime(tile_size=TILE_SIZE_PX, precision="fp32"),
            model=model_folder,
        )
        assert read_json(result.folder / "run.json")["blocks"] == 1
        assert_same_bytes(result.folder, whole, MAPS)
    # Sums of areas round by block.
    sums = [read_json(folder / "summary.json") for folder in (result.folder, whole)]
    assert sums[0]["changed_ha"] == pytest.approx(sums[1]["changed_ha"], rel=1e-12)
    assert sums[0]["patches"] == sums[1]["patches"]


def test_little_memory_is_refused_with_what_is_needed(predict, tmp_path):
    with pytest.raises(ArgumentError, match=r"is 300 MB and this job needs about .* MB"):
        predict(tmp_path / "out", memory="300MB")
    assert not list(tmp_path.iterdir())


def start(scene, model_folder, output, *options, **settings):
    """Start a prediction in a process of its own."""
    line = [sys.executable, "-c", PROGRAM, "predict"]
    line += [str(scene / "before.tif"), str(scene / "after.tif"), "-o", str(output)]
    line += ["--model", str(model_folder), "--tile-size", str(TILE_SIZE_PX)]
    line += ["--precision", "fp32", *options]
    return subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **settings
    )


def test_a_run_killed_at_random_times_ends_with_the_same_bytes(
    scene, model_folder, whole, tmp_path
):
    moments = random.Random(int.from_bytes(random.randbytes(4)))
    output = tmp_path / "out"
    blocks = output.with_name("out.partial") / "blocks"
    kills = 0
    while kills < 5:
        process = start(scene, model_folder, output)
        # From importing to writing the maps; a run that got through before ends the test early.
        already = len(list(blocks.rglob("*.tif")))
        while process.poll() is None and len(list(blocks.rglob("*.tif"))) == already:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.6))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += 1
        if output.exists():
            break
    left = {"out"}
    if output.exists():
        # Killed once the map was in its place, and before the last block was removed.
        left |= {path.name for path in [output.with_name("out.partial")] if path.exists()}
    else:
        _, log = start(scene, model_folder, output).communicate()
        assert "resuming after" in log
    assert_same_bytes(output, whole)
    assert {path.name for path in tmp_path.iterdir()} == left


def test_a_full_disk_is_one_clear_error_and_the_run_resumes_later(
    scene, model_folder, whole, tmp_path
):
    def limit_files():
        # Writing beyond the limit fails as on a full disk, instead of killing the process.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, resource.RLIM_INFINITY))

    output = tmp_path / "out"
    process = start(scene, model_folder, output, preexec_fn=limit_files)
    printed, log = process.communicate()
    assert process.returncode == 2
    assert "cannot be written" in log
    assert "fix:" in log
    assert "Traceback" not in log
    assert not printed
    assert not output.exists()
    process = start(scene, model_folder, output)
    process.communicate()
    assert process.returncode == 0
    assert_same_bytes(output, whole)


def test_a_raster_truncated_in_the_middle_can_be_fetched_again(
    scene, model_folder, small_blocks, whole, tmp_path
):
    after = tmp_path / "after.tif"
    with rasterio.open(scene / "after.tif") as dataset:
        image, profile = dataset.read(), dataset.profile
    profile.update(blockysize=16, tiled=False, compress=None)
    del profile["blockxsize"]
    with rasterio.open(after, "w", **profile) as dataset:
        dataset.write(image)
    content = after.read_bytes()
    options = {"model": model_folder, "tile_size": TILE_SIZE_PX, "precision": "fp32"}
    output = tmp_path / "out"
    td.predict(scene / "before.tif", after, output, **sort_options(options, shard="1/2"))
    done = list((tmp_path / "out.partial" / "blocks").rglob("*.tif"))
    assert done
    # The last rows are missing, which the look at the pair finds before any more work.
    after.write_bytes(content[: -4 * 420 * 3])
    with pytest.raises(RasterError, match=r"after.tif: pixels cannot be read in rows"):
        td.predict(scene / "before.tif", after, output, **sort_options(options))
    assert not output.exists()
    assert list((tmp_path / "out.partial" / "blocks").rglob("*.tif")) == done
    after.write_bytes(content)
    td.predict(scene / "before.tif", after, output, **sort_options(options))
    for name in MAPS:
        assert (read(output / name) == read(whole / name)).all()


# Serves parts of the files of a folder, and nothing at all while there is one named `lost`. In a
# process of its own: GDAL keeps Python's other threads waiting while it opens a file.
SERVER = """
import http.server
import sys
from functools import partial
from pathlib import Path

class Server(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        path = Path(self.translate_path(self.path))
        if path.with_name("lost").exists() or not path.is_file():
            self.send_error(503 if path.is_file() else 404)
            return
        content = path.read_bytes()
        wanted = self.headers.get("Range", f"bytes=0-{len(content) - 1}").removeprefix("bytes=")
        first, last = (int(part) for part in wanted.split("-"))
        part = content[first : last + 1]
        self.send_response(206)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(content)}")
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *arguments):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Server, directory=sys.argv[1]))
print(server.server_port, flush=True)
server.serve_forever()
"""


@pytest.fixture
def served(tmp_path):
    """A folder and the address at which its files are served."""
    folder = tmp_path / "served"
    folder.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, str(folder)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield folder, f"http://127.0.0.1:{process.stdout.readline().strip()}"
        process.terminate()


def test_a_network_file_that_is_lost_is_an_error_and_the_run_resumes_later(
    scene, model_folder, small_blocks, whole, served, tmp_path, monkeypatch
):
    folder, address = served
    with rasterio.open(scene / "after.tif") as dataset:
        image, profile = dataset.read(), dataset.profile
    profile.update(blockxsize=64, blockysize=64, compress=None)
    with rasterio.open(folder / "after.tif", "w", **profile) as dataset:
        dataset.write(image)
    monkeypatch.setenv("GDAL_DISABLE_READDIR_ON_OPEN", "EMPTY_DIR")
    monkeypatch.setenv("CPL_VSIL_CURL_CHUNK_SIZE", "16384")
    # This server does not come back by itself; tests/predict/test_mosaics.py has one that does.
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "0")
    # What the look at the pair has fetched is to be fetched again.
    monkeypatch.setenv("CPL_VSIL_CURL_NON_CACHED", f"/vsicurl/{address}")
    answer_blocks = rasters.answer_blocks
    windows = []

    def answer_until_lost(predictor, read_window, *arguments, **options):
        """The real thing, with a server that is gone after the second window."""

        def read_until_lost(window):
            windows.append(window)
            if len(windows) > 2:
                (folder / "lost").touch()
            return read_window(window)

        answer_blocks(predictor, read_until_lost, *arguments, **options)

    options = {"model": model_folder, "tile_size": TILE_SIZE_PX, "precision": "fp32"}
    arguments = (scene / "before.tif", f"{address}/after.tif", tmp_path / "out")
    with monkeypatch.context() as patch, pytest.raises(RasterError, match=r"cannot be read in"):
        patch.setattr(rasters, "answer_blocks", answer_until_lost)
        td.predict(*arguments, **sort_options(options))
    assert list((tmp_path / "out.partial" / "blocks").rglob("*.tif"))
    (folder / "lost").unlink()
    result = td.predict(*arguments, **sort_options(options))
    for name in MAPS:
        assert (read(result.folder / name) == read(whole / name)).all()


def test_an_unfinished_run_that_asked_for_something_else_is_kept(predict, tmp_path):
    output = tmp_path / "out"
    predict(output, shard="1/2")
    blocks = sorted((tmp_path / "out.partial").rglob("*.tif"))
    with pytest.raises(OutputExistsError, match=r"parameters.tta was 'none' and is 'flips'"):
        predict(output, shard="2/2", tta="flips")
    assert sorted((tmp_path / "out.partial").rglob("*.tif")) == blocks
    predict(output, tta="flips", overwrite=True)
    assert output.is_dir()


def test_two_processes_do_not_work_on_the_same_shard(predict, scene, model_folder, tmp_path):
    output = tmp_path / "out"
    predict(output, shard="1/2")
    from filelock import FileLock

    with (
        FileLock(tmp_path / "out.partial" / "shard-2-of-2.lock"),
        pytest.raises(OutputError, match="another process is working on"),
    ):
        predict(output, shard="2/2")
    predict(output, shard="2/2")


def test_the_map_of_an_area_is_the_same_part_of_the_whole_map(predict, whole, tmp_path):
    with rasterio.open(whole / "change.tif") as dataset:
        left, _, _, top = dataset.bounds
        grid = dataset.transform
        crs = dataset.crs
    area = box(left + 50.2, top - 140.1, left + 151.3, top - 40.7)
    hole = box(left + 90, top - 100, left + 110, top - 80)
    frame = geopandas.GeoDataFrame(geometry=[area - hole], crs=crs).to_crs("EPSG:4326")
    frame.to_file(tmp_path / "aoi.gpkg")
    result = predict(tmp_path / "out", aoi=tmp_path / "aoi.gpkg")
    inside = features.geometry_mask([area - hole], (330, 420), grid, invert=True)
    with rasterio.open(result.folder / "change.tif") as dataset:
        column, row = (round(number) for number in ~grid @ (dataset.bounds[0], dataset.bounds[3]))
        rows, columns = slice(row, row + dataset.height), slice(column, column + dataset.width)
        assert dataset.height < 210
        assert (
            dataset.read(1) == np.where(inside, read(whole / "change.tif"), 255)[rows, columns]
        ).all()
    assert inside[rows, columns].sum() == inside.sum()
    assert result.summary.valid_pixels == inside.sum()


def test_small_patches_are_unchanged_in_every_output(predict, whole, tmp_path):
    from rasterio.warp import transform_geom  # noqa: F401

    result = predict(tmp_path / "out", min_area="25m2")
    before = read(whole / "change.tif")
    patches = geopandas.read_file(whole / "changes.gpkg", layer="changes")
    small = patches[patches.area_m2 < 25]
    assert len(small) > 5
    with rasterio.open(whole / "change.tif") as dataset:
        gone = features.geometry_mask(small.geometry, before.shape, dataset.transform, invert=True)
    change = read(result.folder / "change.tif")
    assert (change == np.where(gone, 0, before)).all()
    for name in ("before_class.tif", "after_class.tif"):
        expected = np.where(gone, 0, read(whole / name))
        assert (read(result.folder / name) == expected).all()
    confidence = read(result.folder / "confidence.tif")
    assert (confidence == read(whole / "confidence.tif"))[~gone].all()
    assert (confidence[gone] <= 100).all()
    kept = geopandas.read_file(result.folder / "changes.gpkg", layer="changes")
    assert len(kept) == len(patches) - len(small)
    assert result.summary.changed_pixels == (change > 0).sum()
    assert result.summary.changed_ha * 10_000 == pytest.approx(kept.area_m2.sum(), rel=1e-9)
    whole_summary = read_json(whole / "summary.json")
    assert result.summary.valid_ha == pytest.approx(whole_summary["valid_ha"], rel=1e-12)


def test_a_time_budget_drops_views_but_never_part_of_the_map(predict, whole, tmp_path):
    late = predict(tmp_path / "late", tta="d4", time_budget=0.01)
    run = read_json(late.folder / "run.json")
    assert run["views_of_blocks"] == [{"views": 1, "first": 1, "last": run["blocks"]}]
    assert_same_bytes(late.folder, whole, ("changes.gpkg", "transitions.csv"))
    relaxed = predict(tmp_path / "relaxed", tta="flips", time_budget=600)
    run = read_json(relaxed.folder / "run.json")
    assert run["views_of_blocks"] == [{"views": 4, "first": 1, "last": run["blocks"]}]
    all_views = predict(tmp_path / "all", tta="flips")
    assert_same_bytes(relaxed.folder, all_views.folder, ("changes.gpkg", "transitions.csv"))


def test_several_models_are_averaged_and_must_know_the_same_classes(
    predict, model_folder, tmp_path
):
    save_model(make_model(seed=1), tmp_path / "other")
    alone = read(predict(tmp_path / "alone").folder / "change.tif")
    both = predict(tmp_path / "both", model=[model_folder, tmp_path / "other"])
    assert (read(both.folder / "change.tif") != alone).any()
    assert len(read_json(both.folder / "run.json")["models"]) == 2

    network = create_model("fcn", "resnet18", num_classes=1)
    binary = Model(network, ModelCard(architecture=network.config, classes=td.BINARY))
    save_model(binary, tmp_path / "binary")
    with pytest.raises(ModelError, match=r"differ in their classes: .*'water'.* and .*'changed'"):
        predict(tmp_path / "no", model=[model_folder, tmp_path / "binary"])


def test_values_of_another_depth_are_refused_and_a_range_fixes_it(
    scene, model_folder, whole, predict, tmp_path
):
    pair = []
    for date in ("before", "after"):
        with rasterio.open(scene / f"{date}.tif") as dataset:
            image, profile = dataset.read(), dataset.profile
        profile.update(dtype="uint16")
        pair.append(tmp_path / f"{date}.tif")
        with rasterio.open(pair[-1], "w", **profile) as dataset:
            dataset.write(image.astype(np.uint16) * 16)
    options = {"model": model_folder, "tile_size": TILE_SIZE_PX, "precision": "fp32"}
    told = r"after\.tif: uint16, values \d+ to \d+; the model was trained on values up to 255"
    with pytest.raises(RasterError, match=told):
        td.predict(*pair, tmp_path / "out", **sort_options(options))
    assert not (tmp_path / "out.partial").exists()
    result = td.predict(*pair, tmp_path / "out", **sort_options(options, value_range=(0, 255 * 16)))
    same = read(result.folder / "change.tif") == read(whole / "change.tif")
    assert same.mean() > 0.9999


def test_provenance_says_what_the_map_was_made_of(whole, scene, model_folder):
    run = read_json(whole / "run.json")
    assert run["before"]["size_bytes"] == (scene / "before.tif").stat().st_size
    assert len(run["before"]["header_sha256"]) == 64
    assert run["before"]["header_sha256"] != run["after"]["header_sha256"]
    assert run["models"][0]["folder"] == str(model_folder)
    assert 0 < run["seconds"]["network"] < run["seconds"]["total"]
    assert run["km2_per_minute"] > 0
    with rasterio.open(whole / "change.tif") as dataset:
        tags = dataset.tags()
    assert tags["TERRADELTA_MODELS"] == run["models"][0]["sha256"]
    assert json.loads(tags["TERRADELTA_PARAMETERS"]) == run["parameters"]


def test_a_shift_is_undone_on_request(scene, model_folder, tmp_path):
    """A shifted after image gives the map of the unshifted one."""
    with rasterio.open(scene / "before.tif") as dataset:
        image, profile = dataset.read(), dataset.profile
    pair = {}
    # Four columns to the left and three rows up, on pixels that claim to be the same.
    for name, rows, columns in (("before", 8, 8), ("after", 8, 8), ("shifted", 11, 12)):
        part = image[:, rows : rows + 310, columns : columns + 400]
        profile.update(height=310, width=400, tiled=False)
        pair[name] = tmp_path / f"{name}.tif"
        with rasterio.open(pair[name], "w", **profile) as dataset:
            dataset.write(part)
    options = {"model": model_folder, "precision": "fp32"}
    unshifted = td.predict(pair["before"], pair["after"], tmp_path / "a", **sort_options(options))
    result = td.predict(
        pair["before"],
        pair["shifted"],
        tmp_path / "b",
        **sort_options(options, register=True),
    )
    run = read_json(result.folder / "run.json")
    assert run["shift_px"] == pytest.approx([-4, -3], abs=0.02)
    inner = slice(60, -60), slice(60, -60)
    changes = [read(part.folder / "change.tif")[inner] for part in (unshifted, result)]
    assert (changes[0] == changes[1]).mean() > 0.98
    noise = tmp_path / "noise.tif"
    with rasterio.open(noise, "w", **profile) as dataset:
        dataset.write(np.random.default_rng(0).integers(0, 255, (3, 310, 400), np.uint8))
    with pytest.raises(RasterError, match=r"shift between .* and .*noise.tif cannot be measured"):
        td.predict(
            pair["before"],
            noise,
            tmp_path / "c",
            **sort_options(options, register=True),
        )
