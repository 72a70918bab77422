"""Answers the blocks of a raster prediction with Ray."""

from __future__ import annotations

import logging
import math
import os
import socket
import time
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from terradelta.errors import ArgumentError, ClusterError
from terradelta.inference.backends import Choice, choose_backend
from terradelta.inference.cluster.worker import (
    MAX_BLOCKS_AT_ONCE,
    Answer,
    Errand,
    Worker,
    read_model_files,
)
from terradelta.inference.prediction_options import Cluster
from terradelta.inference.rasters import Work, plan_pace

# Ray's settings, which it reads when it is imported.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
try:
    import ray
    from ray.exceptions import RayTaskError
except ImportError as missing:
    raise ArgumentError(
        f"engine ray was requested and Ray cannot be imported: {missing}",
        fix="pip install 'terradelta[ray]', or leave --engine out",
    ) from missing

from terradelta.inference.cluster.crew import PATIENCE_SECONDS, Crew

LOCAL = "local"
"""Address of a cluster that is started on this machine and stopped at the end."""
MAX_WORKER_CPUS = 4
"""Default; beyond it, another worker gains more than further cores for one."""

CONNECT_SECONDS = 10.0
"""Timeout for an answer of a cluster."""

logger = logging.getLogger(__name__)


class RayEngine:
    """Answers blocks by workers of a Ray cluster; a context manager.

    Each worker has a network of its own and reads the images itself. Its answers come back to
    this process, which writes them, so outputs need no shared file system. The driver holds a few
    answers per worker, however many blocks there are.

    Args:
        cluster: The cluster and its options. Without an address, it is that of the
            variable RAY_ADDRESS, otherwise one is started on this machine and stopped at the end.
            It runs as many workers as fit, also when the cluster grows; each has all cores of a
            machine, or of a GPU's share, up to 4.
        memory_bytes: Memory limit of a worker.

    Raises:
        ClusterError: If no cluster answers.
    """

    def __init__(self, cluster: Cluster, *, memory_bytes: int):
        self._address = cluster.address
        self._workers = cluster.workers
        self._asked_cpus = cluster.worker_cpus
        self._memory_bytes = memory_bytes
        self._uses_gpu = False
        self._counted = -math.inf
        self._wanted = 0

    def __enter__(self) -> RayEngine:
        self._is_own = not ray.is_initialized()
        if self._is_own:
            _connect(self._address or os.environ.get("RAY_ADDRESS") or LOCAL)
        elif self._address is not None:
            logger.warning("Ray is running in this process already: its cluster is used")
        return self

    def __exit__(self, *exception: object):
        if self._is_own:
            ray.shutdown()

    def choose_device(self, device: str) -> torch.device:
        """Return the device of the workers; "auto" takes GPUs where the cluster has some."""
        if device == "auto":
            device = "cuda" if ray.cluster_resources().get("GPU") else "cpu"
        chosen = torch.device(device)
        if chosen.index is not None:
            raise ArgumentError(
                f"device {device} was requested, and on a cluster each worker gets its own",
                fix="use --device cuda",
            )
        self._uses_gpu = chosen.type == "cuda"
        if self._workers is None and not self._count_room():
            machines = "; ".join(
                f"{node.get('CPU', 0):g} CPUs, {node.get('GPU', 0):g} GPUs, "
                f"{node.get('memory', 0) / 1024**3:.1f} GB"
                for node in _list_machines()
            )
            raise ClusterError(
                f"a worker needs {self._worker_cpus:g} CPUs, {int(self._uses_gpu)} GPUs and "
                f"{self._memory_bytes / 1024**3:.1f} GB, and the machines have only {machines}",
                fix="ask for less with --worker-cpus or --memory, or say how many --workers are "
                "to come and wait for them",
            )
        return chosen

    def choose_backend(
        self,
        backend: str = "auto",
        precision: str = "auto",
        device: torch.device | None = None,
        pixels: int | None = None,
    ) -> Choice:
        """Return the choice made on a worker's machine; see `terradelta.inference.backends`.

        Raises:
            ArgumentError: If that machine cannot run the requested backend.
        """
        task = ray.remote(choose_backend).options(**self._resources)  # pyright: ignore
        try:
            return ray.get(task.remote(backend, precision, device, pixels))  # pyright: ignore[reportCallIssue]
        except RayTaskError as error:
            raise getattr(error, "cause", error) from None

    def answer(self, work: Work):
        """Answer the blocks of a work.

        Raises:
            RasterError: If a worker cannot read the pixels of a block, in several attempts.
            ClusterError: If workers see other files or packages, or are lost repeatedly.
            OutputError: If an answer cannot be written.
        """
        job = work.job
        errand = Errand(job.record, work.maps.memory_bytes, str(Path.cwd()))
        actor = ray.remote(Worker).options(  # pyright: ignore
            **self._resources, max_concurrency=MAX_BLOCKS_AT_ONCE
        )
        crew = Crew(
            lambda: actor.remote(errand),
            self._count_wanted,
            [ray.put(read_model_files(model.folder)) for model in job.record.models],
        )
        pace = plan_pace(work.predictor, work.watch.started, work.maps.time_budget)
        pixels_left = sum(_count_pixels(work, index) for index in work.missing)

        def choose_views(index: int) -> int:
            # Workers share what is left.
            share = pixels_left // max(1, crew.num_ready)
            pixels = _count_pixels(work, index)
            return pace.choose(max(pixels, share))

        def keep(index: int, answer: Answer):
            nonlocal pixels_left
            job.store.keep(index, answer.content)
            pixels = _count_pixels(work, index)
            pixels_left -= pixels
            pace.learn(pixels, answer.facts.views, answer.facts.network_seconds)
            progress.update()

        with tqdm(
            total=work.total,
            initial=work.total - len(work.missing),
            desc="predicting",
            unit="block",
            disable=None,
        ) as progress:
            crew.answer(work.missing, choose_views, keep)

    @cached_property
    def _worker_cpus(self) -> float:
        if self._asked_cpus is not None:
            return self._asked_cpus
        shares = [
            node["CPU"] // (node["GPU"] if self._uses_gpu else 1)
            for node in _list_machines()
            if node.get("CPU") and (node.get("GPU") or not self._uses_gpu)
        ]
        return max(1, min(MAX_WORKER_CPUS, *shares)) if shares else 1

    @property
    def _resources(self) -> dict[str, float]:
        """Resources of a worker."""
        return {
            "num_cpus": self._worker_cpus,
            "num_gpus": int(self._uses_gpu),
            "memory": self._memory_bytes,
        }

    def _count_wanted(self) -> int:
        """Return the wanted number of workers."""
        if self._workers is not None:
            return self._workers
        if time.monotonic() - self._counted > PATIENCE_SECONDS:
            self._counted = time.monotonic()
            # At least one: where all machines are lost, it waits for the next.
            self._wanted = max(1, self._count_room())
        return self._wanted

    def _count_room(self) -> int:
        """Return how many workers the machines of the cluster hold."""
        needs = {"CPU": self._worker_cpus, "memory": self._memory_bytes}
        if self._uses_gpu:
            needs["GPU"] = 1
        return sum(
            int(min(node.get(name, 0) // need for name, need in needs.items()))
            for node in _list_machines()
        )


def _connect(address: str):
    # The output of workers is not needed: their errors are raised here.
    settings: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    # Checked before `ray.init`, whose message is about tokens.
    logging.getLogger("ray").setLevel(logging.ERROR)
    if address == LOCAL:
        settings["include_dashboard"] = False
    try:
        _require_listener(address)
        ray.init(address, **settings)
    except (OSError, ValueError, RuntimeError) as error:
        raise ClusterError(
            f"no Ray cluster answers at {address}: {error}",
            fix="start one with `ray start --head` and give the address it prints, or leave "
            "--address out to use this machine",
        ) from error


def _require_listener(address: str):
    """Raise if nothing listens at an address: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()


def _list_machines() -> list[dict[str, float]]:
    """Return the resources of each machine that is alive."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _count_pixels(work: Work, index: int) -> int:
    write = work.job.plan[index].write
    return int(write.width * write.height)
