"""Where blocks are answered: in this process, or by a cluster."""

from __future__ import annotations

from terradelta.errors import ArgumentError
from terradelta.inference.backends import choose_backend
from terradelta.inference.rasters import answer_here
from terradelta.models.precision import choose_device
from terradelta.protocols import Executor

ENGINES = ("local", "ray")


class LocalEngine:
    """This process."""

    choose_device = staticmethod(choose_device)
    choose_backend = staticmethod(choose_backend)
    answer = staticmethod(answer_here)

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(self, *exception: object):
        pass


def make_engine(
    name: str,
    address: str | None = None,
    workers: int | None = None,
    worker_cpus: float | None = None,
    *,
    memory_bytes: int,
) -> Executor:
    """Return the engine of that name, to be entered.

    Args:
        name: "local" or "ray".
        address: Of a running cluster; see `RayEngine`, as for the others.
        workers: How many.
        worker_cpus: Cores of each.
        memory_bytes: What a worker may take.

    Raises:
        ArgumentError: If the name is unknown, Ray is not installed, or options of a cluster are
            given without one.
    """
    if name == "ray":
        # Ray is an extra, and takes a second to import.
        from terradelta.inference.cluster.ray_executor import RayEngine

        return RayEngine(
            address, workers=workers, worker_cpus=worker_cpus, memory_bytes=memory_bytes
        )
    if name != "local":
        raise ArgumentError(f"engine {name!r} is not known", fix=f"use one of {', '.join(ENGINES)}")
    given = {"--address": address, "--workers": workers, "--worker-cpus": worker_cpus}
    flags = [flag for flag, value in given.items() if value is not None]
    if flags:
        raise ArgumentError(
            f"{', '.join(flags)} was asked for and the engine is local",
            fix="add --engine ray, or leave it out",
        )
    return LocalEngine()
