"""Runs networks by torch, OpenVINO or ONNX Runtime, behind one protocol."""

from __future__ import annotations

import torch

from terradelta.inference.backends.choice import BACKENDS, PRECISIONS, Choice, choose_backend
from terradelta.inference.backends.interface import Request
from terradelta.models.bundle import Model
from terradelta.protocols import Backend

__all__ = [
    "BACKENDS",
    "PRECISIONS",
    "Choice",
    "Request",
    "choose_backend",
    "make_backend",
]


def make_backend(
    choice: Choice, model: Model, device: torch.device, pool_window_px: int | None
) -> Backend:
    """Prepare a model to run.

    Args:
        choice: Runtime and number format.
        model: The model, which is not changed.
        device: Where it is to run.
        pool_window_px: Side of the window that heads with global pooling take their means over.
    """
    # Runtimes are slow to import: only the chosen one is.
    if choice.backend == "openvino":
        from terradelta.inference.backends.openvino_backend import OpenVINOBackend

        return OpenVINOBackend(model, choice.precision, pool_window_px)
    if choice.backend == "onnx":
        from terradelta.inference.backends.onnx_backend import ONNXBackend

        return ONNXBackend(model, pool_window_px)
    from terradelta.inference.backends.torch_backend import TorchBackend

    return TorchBackend(
        model,
        device,
        choice.precision,
        pool_window_px,
        compiled=choice.backend == "torch-compile",
    )
