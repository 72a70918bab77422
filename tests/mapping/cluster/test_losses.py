"""Workers and machines are taken away in mid-run, at random times: the map stays the same."""

import json
import os
import random
import time

import psutil
import pytest

from ..small_blocks import assert_same_bytes
from . import scenes

pytest.importorskip("ray")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def job(large_model_folder, tmp_path_factory):
    scene, whole = scenes.make_scene(tmp_path_factory.mktemp("job"), large_model_folder)
    assert json.loads((whole / "run.json").read_text())["blocks"] >= 64
    return scene, whole


@pytest.fixture(scope="module")
def cluster():
    """Three nodes of one processor each, as Ray simulates them on one machine."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in scenes.SETTINGS.items():
            patch.setenv(name, value)
        from ray.cluster_utils import Cluster

        cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
        )
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        yield cluster
        family = psutil.Process(os.getpid()).children(recursive=True)
        cluster.shutdown()
    _, alive = psutil.wait_procs(family, timeout=240)
    assert not alive


@pytest.mark.parametrize("seed", range(20))
def test_a_worker_and_a_node_are_lost(cluster, job, large_model_folder, tmp_path, seed):
    scene, whole = job
    moments = random.Random(seed)
    output = tmp_path / "out"
    process = scenes.start(scene, large_model_folder, output, cluster.address)
    done = scenes.wait_for_blocks(process, output, moments.randint(1, 20))
    time.sleep(moments.uniform(0, 0.5))
    moments.choice(scenes.find_processes("ray::Worker")).kill()
    done = scenes.wait_for_blocks(process, output, done + moments.randint(1, 20))
    time.sleep(moments.uniform(0, 0.5))
    cluster.remove_node(moments.choice(sorted(cluster.worker_nodes, key=id)), allow_graceful=False)
    _, log = process.communicate()
    cluster.add_node(num_cpus=1)
    assert process.returncode == 0, log
    assert log.count("a worker was lost") >= 1, log
    assert_same_bytes(output, whole)
    print(f"seed {seed}: killed after {done} blocks")


def test_workers_that_always_die_end_the_run_with_one_error(cluster):
    import ray

    from terradelta.errors import ClusterError
    from terradelta.inference.cluster.crew import Crew
    from terradelta.inference.cluster.worker import Post

    class Doomed:
        def start(self):
            return Post("here", 2)

        def answer(self, index, num_views):
            os._exit(1)

    ray.init(cluster.address, log_to_driver=False)
    try:
        crew = Crew(ray.remote(Doomed).options(num_cpus=0).remote, lambda: 1, [])
        with pytest.raises(ClusterError, match=r"10 workers were lost .* on here with block \d"):
            crew.answer(range(4), lambda index: 1, lambda index, answer: None)
    finally:
        ray.shutdown()
