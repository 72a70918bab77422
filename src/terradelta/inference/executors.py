"""Where blocks are answered: in this process, or by a cluster."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

import torch

from terradelta.inference.backends import Choice, choose_backend
from terradelta.inference.prediction_options import Cluster
from terradelta.inference.rasters import Work, answer_here
from terradelta.models.precision import choose_device


class Engine(AbstractContextManager, Protocol):
    """What runs the networks of a raster prediction."""

    def choose_device(self, device: str) -> torch.device:
        """Return what networks compute on there."""
        ...

    def choose_backend(
        self,
        backend: str = "auto",
        precision: str = "auto",
        device: torch.device | None = None,
        pixels: int | None = None,
    ) -> Choice:
        """Return what runs them there; see `terradelta.inference.backends.choose_backend`."""
        ...

    def answer(self, work: Work):
        """Answer the blocks of a work into the store of its job."""
        ...


class LocalEngine:
    """This process."""

    choose_device = staticmethod(choose_device)
    choose_backend = staticmethod(choose_backend)
    answer = staticmethod(answer_here)

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(self, *exception: object):
        pass


def make_engine(cluster: Cluster, *, memory_bytes: int) -> Engine:
    """Return what answers the blocks, to be entered.

    Args:
        cluster: Which one.
        memory_bytes: What a worker may take.

    Raises:
        ArgumentError: If Ray is asked for and not installed.
    """
    if cluster.engine == "local":
        return LocalEngine()
    # Ray is an extra, and takes a second to import.
    from terradelta.inference.cluster.ray_executor import RayEngine

    return RayEngine(cluster, memory_bytes=memory_bytes)
