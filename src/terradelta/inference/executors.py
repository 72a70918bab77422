"""Chooses where blocks are answered: in this process, or by a cluster."""

from __future__ import annotations

from terradelta.errors import ArgumentError
from terradelta.inference.backends import choose_backend
from terradelta.inference.prediction_options import Cluster
from terradelta.inference.rasters import answer_here
from terradelta.models.precision import choose_device
from terradelta.protocols import Executor


class LocalEngine:
    """This process."""

    choose_device = staticmethod(choose_device)
    choose_backend = staticmethod(choose_backend)
    answer = staticmethod(answer_here)

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(self, *exception: object):
        pass


def find_executor(cluster: Cluster | Executor, *, memory_bytes: int) -> Executor:
    """Return what answers the blocks, to be entered.

    Args:
        cluster: Which one, or an executor itself.
        memory_bytes: What a worker may take.

    Raises:
        ArgumentError: If Ray is requested and not installed, or `cluster` is something else.
    """
    if not isinstance(cluster, Cluster):
        if not callable(getattr(cluster, "answer", None)):
            raise ArgumentError(
                f"cluster is a {type(cluster).__name__}, and neither a td.Cluster nor an executor",
                fix='give cluster=td.Cluster(engine="ray"), or see terradelta.protocols.Executor',
            )
        return cluster
    if cluster.engine == "local":
        return LocalEngine()
    # Ray is an extra, and takes a second to import.
    from terradelta.inference.cluster.ray_executor import RayEngine

    return RayEngine(cluster, memory_bytes=memory_bytes)
