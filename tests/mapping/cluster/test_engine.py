"""A raster job shared among the workers of a Ray cluster on this machine gives the same map."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest
import rasterio
from tests.flat_options import sort_options

import terradelta as td
from terradelta.errors import ArgumentError, ClusterError, ModelError, OutputError, RasterError
from terradelta.inference import rasters
from terradelta.inference.job import Job

from ..small_blocks import PROGRAM, TILE_SIZE_PX, assert_same_bytes
from .scenes import QUIET

ray = pytest.importorskip("ray")

OPTIONS = {"tile_size": TILE_SIZE_PX, "precision": "fp32"}
MEMORY = {"local": "16GB", "ray": "2GB"}
"""This process holds what other tests have left there, a worker starts again."""


@pytest.fixture
def predict(scene, model_folder, small_blocks):
    def run(output, *, engine="local", **options):
        options = {"model": model_folder, "memory": MEMORY.get(engine, "2GB"), **OPTIONS, **options}
        return td.predict(
            scene / "before.tif",
            scene / "after.tif",
            output,
            **sort_options(options, engine=engine),
        )

    return run


@pytest.fixture(scope="module")
def whole(scene, model_folder, tmp_path_factory):
    """The map made by one process."""
    output = tmp_path_factory.mktemp("whole") / "out"
    pair = (scene / "before.tif", scene / "after.tif")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rasters, "MAX_BLOCK_SIZE_PX", TILE_SIZE_PX)
        options = {"model": model_folder, "memory": MEMORY["local"], **OPTIONS}
        return td.predict(*pair, output, **sort_options(options)).folder


@pytest.fixture(scope="module")
def cluster():
    """A cluster that the tests share; engines take the one that this process is in."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in QUIET.items():
            patch.setenv(name, value)
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
    assert not find_processes("raylet", "gcs_server", "ray::")


def find_processes(*names):
    """Return the processes below this one whose command has one of these words."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            command = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if any(name in command for name in names):
            found.append(process)
    return found


def count_blocks(output):
    return len(list(output.with_name(f"{output.name}.partial").rglob("*.tif")))


def test_blocks_are_the_same_wherever_answered_and_engines_share_a_map(
    cluster, predict, whole, tmp_path
):
    for engine in ("ray", "local"):
        predict(tmp_path / engine, engine=engine, shard="1/2")
    jobs = [Job.load(tmp_path / engine) for engine in ("ray", "local")]
    assert jobs[0].record == jobs[1].record
    half = jobs[0].plan.shard(1, 2)
    assert len(half) >= 3
    for index in half:
        layers, others = (job.store.read(index)[0] for job in jobs)
        for layer_HW, other_HW in zip(layers, others, strict=True):
            assert (layer_HW == other_HW).all()
    # What the cluster has begun one process ends.
    predict(tmp_path / "ray", engine="local", shard="2/2")
    assert_same_bytes(td.merge(tmp_path / "ray").folder, whole)


def test_the_blocks_of_a_killed_worker_go_to_others(cluster, predict, tmp_path, caplog):
    """Of eight views, so that there is something left to do."""
    output, whole = tmp_path / "out", tmp_path / "whole"
    predict(whole, tta="d4")
    killed = []

    def kill_a_worker():
        while not count_blocks(output):
            time.sleep(0.01)
        killed.extend(find_processes("ray::Worker")[:1])
        killed[0].kill()

    killer = threading.Thread(target=kill_a_worker)
    killer.start()
    with caplog.at_level(logging.WARNING):
        predict(output, engine="ray", tta="d4", workers=2, worker_cpus=1)
    killer.join()
    assert "a worker was lost on" in caplog.text
    assert_same_bytes(output, whole)


def test_a_block_that_cannot_be_read_is_its_error_and_the_rest_is_kept(
    cluster, scene, model_folder, small_blocks, whole, tmp_path, caplog, monkeypatch
):
    after = tmp_path / "after.tif"
    with rasterio.open(scene / "after.tif") as dataset:
        image, profile = dataset.read(), dataset.profile
    profile.update(blockysize=16, tiled=False, compress=None)
    del profile["blockxsize"]
    with rasterio.open(after, "w", **profile) as dataset:
        dataset.write(image)
    content = after.read_bytes()
    look_over = rasters.look_over

    def look_and_lose(*arguments):
        """The real thing, after which the last rows are lost; the upper blocks do without."""
        report = look_over(*arguments)
        after.write_bytes(content[: -4 * 420 * 3])
        return report

    pair = (scene / "before.tif", after)
    options = {"model": model_folder, "memory": MEMORY["ray"], **OPTIONS}
    options |= {"engine": "ray", "worker_cpus": 1}
    output = tmp_path / "out"
    read_error = pytest.raises(RasterError, match=r"after.tif: pixels cannot be read in rows")
    with monkeypatch.context() as patch, read_error:
        patch.setattr(rasters, "look_over", look_and_lose)
        td.predict(*pair, output, **sort_options(options))
    assert "attempt 3" in caplog.text
    assert not output.exists()
    done = count_blocks(output)
    assert done
    after.write_bytes(content)
    with caplog.at_level(logging.INFO):
        td.predict(*pair, output, **sort_options(options))
    assert f"resuming after {done} of" in caplog.text
    assert_same_bytes(output, whole, ("changes.gpkg", "transitions.csv"))


def test_a_time_budget_drops_views_on_a_cluster_too(cluster, predict, whole, tmp_path):
    late = predict(tmp_path / "late", tta="d4", time_budget=0.01, engine="ray", worker_cpus=1)
    run = json.loads((late.folder / "run.json").read_text())
    assert run["views_of_blocks"] == [{"views": 1, "first": 1, "last": run["blocks"]}]
    assert_same_bytes(late.folder, whole, ("changes.gpkg", "transitions.csv"))


def test_workers_that_cannot_do_what_is_asked_say_so(cluster, predict, tmp_path):
    output = tmp_path / "out"
    with pytest.raises(ModelError, match="int8 was requested and the model has no int8 graph"):
        predict(output, engine="ray", precision="int8")
    with pytest.raises(ArgumentError, match="backend onnx computes in fp32, not in bf16"):
        predict(output, engine="ray", backend="onnx", precision="bf16")
    with pytest.raises(ArgumentError, match=r"memory budget is 300 MB and this job needs"):
        predict(output, engine="ray", memory="300MB")
    with pytest.raises(ClusterError, match=r"needs 64 CPUs, 0 GPUs and 2.0 GB.*have only 2 CPUs"):
        predict(output, engine="ray", worker_cpus=64)
    with pytest.raises(ArgumentError, match=r"cuda:1 was requested.*each worker gets its own"):
        predict(output, engine="ray", device="cuda:1")
    assert not list(tmp_path.iterdir())


def test_options_of_a_cluster_need_one(predict, tmp_path):
    with pytest.raises(ArgumentError, match="--address, --workers was given, and the engine is"):
        predict(tmp_path / "out", address="auto", workers=2)
    with pytest.raises(ArgumentError, match="engine is 'spark'"):
        predict(tmp_path / "out", engine="spark")
    with pytest.raises(ArgumentError, match=r"workers is 0, and it must be .* at least 1"):
        predict(tmp_path / "out", engine="ray", workers=0)


def start(scene, model_folder, output, *options, program=PROGRAM, **settings):
    """Start a prediction in a process of its own."""
    line = [sys.executable, "-c", program, "predict"]
    line += [str(scene / "before.tif"), str(scene / "after.tif"), "-o", str(output)]
    line += ["--model", str(model_folder), "--tile-size", str(TILE_SIZE_PX), "--memory", "2GB"]
    line += ["--precision", "fp32", *options]
    settings["env"] = {**os.environ, **QUIET}
    return subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **settings
    )


@pytest.mark.slow
def test_a_killed_driver_leaves_no_process_and_the_same_command_resumes(
    scene, model_folder, predict, tmp_path
):
    output, whole = tmp_path / "out", tmp_path / "whole"
    predict(whole, tta="d4")
    line = (scene, model_folder, output, "--tta", "d4", "--engine", "ray", "--workers", "1")
    process = start(*line)
    while not count_blocks(output):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    family = psutil.Process(process.pid).children(recursive=True)
    assert any("raylet" in member.name() for member in family)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    _, alive = psutil.wait_procs(family, timeout=240)
    assert not alive
    assert not output.exists()
    process = start(*line)
    printed, log = process.communicate()
    assert "changed:" in printed
    assert "resuming after" in log
    # No bar and nothing of Ray's where nobody looks.
    assert "block/s" not in log
    assert "ray" not in log.lower()
    assert_same_bytes(output, whole)


def test_a_cluster_that_is_not_there_and_ray_that_is_not_installed(scene, model_folder, tmp_path):
    line = (scene, model_folder, tmp_path / "out", "--engine", "ray")
    hidden = "import sys; sys.modules['ray'] = None\n" + PROGRAM
    for process, message in (
        (start(*line, "--address", "127.0.0.1:9"), "no Ray cluster answers at 127.0.0.1:9"),
        (start(*line, program=hidden), "pip install 'terradelta[ray]'"),
    ):
        _, log = process.communicate()
        assert process.returncode == 2, log
        assert message in log
        assert "Traceback" not in log


def test_one_process_needs_no_ray(scene, model_folder, whole, tmp_path):
    program = "import sys; sys.modules['ray'] = None\n" + PROGRAM
    process = start(scene, model_folder, tmp_path / "out", program=program)
    process.communicate()
    assert process.returncode == 0
    assert_same_bytes(tmp_path / "out", whole)


def test_two_drivers_do_not_work_on_one_map(cluster, predict, tmp_path):
    from filelock import FileLock

    output = tmp_path / "out"
    predict(output, engine="ray", shard="1/2", worker_cpus=2)
    with (
        FileLock(tmp_path / "out.partial" / "shard-2-of-2.lock"),
        pytest.raises(OutputError, match="another process is working on"),
    ):
        predict(output, engine="ray", shard="2/2")
