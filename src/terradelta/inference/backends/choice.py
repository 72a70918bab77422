"""Chooses runtime and number format, with the reason."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from typing import get_args

import torch

from terradelta.errors import ArgumentError
from terradelta.inference.prediction_options import BackendName, PrecisionName
from terradelta.models.precision import choose_precision

BACKENDS = get_args(BackendName)
PRECISIONS = get_args(PrecisionName)
SUPPORTED = {
    "torch": ("fp32", "bf16", "fp16"),
    "torch-compile": ("fp32", "bf16", "fp16"),
    "openvino": ("fp32", "bf16", "int8"),
    "onnx": ("fp32",),
}
PACKAGES = {"openvino": "openvino", "onnx": "onnxruntime"}
"""The package that a backend needs, from the extra of the same name."""
COMPILE_FROM_PIXELS = 2_000_000
"""Pixels of all views and models together. Compiling for OpenVINO takes a second or two; below
this, torch finishes sooner."""


@dataclass(frozen=True)
class Choice:
    """Runtime of the network."""

    backend: str
    """"torch", "torch-compile", "openvino" or "onnx"."""
    precision: str
    """"fp32", "bf16", "fp16" or "int8"."""
    reason: str
    """The reason, in a few words."""


def choose_backend(
    backend: str = "auto",
    precision: str = "auto",
    device: torch.device | None = None,
    pixels: int | None = None,
) -> Choice:
    """Return the runtime and the number format of a network.

    The choice depends only on the machine and on the size of the whole job, so that every part of a
    job makes the same one.

    Args:
        backend: A name in `BACKENDS`.
        precision: A name in `PRECISIONS`.
        device: Device; the CPU by default.
        pixels: Number of pixels to answer, of all views and models; None if unknown.

    Raises:
        ArgumentError: If a name is unknown, a runtime is not installed, or the two do not fit each
            other.
    """
    device = device or torch.device("cpu")
    for kind, value, known in (
        ("backend", backend, BACKENDS),
        ("precision", precision, PRECISIONS),
    ):
        if value not in known:
            raise ArgumentError(
                f"{kind} {value!r} is not known", fix=f"use one of {', '.join(known)}"
            )
    reasons = []
    if backend == "auto":
        backend, reason = _choose_runtime(precision, device, pixels)
        reasons.append(reason)
    _require_runtime(backend, device)
    if precision == "auto":
        precision, reason = _choose_precision(backend, device)
        reasons.append(reason)
    if precision not in SUPPORTED[backend]:
        able = [name for name, formats in SUPPORTED.items() if precision in formats]
        raise ArgumentError(
            f"backend {backend} computes in {', '.join(SUPPORTED[backend])}, not in {precision}",
            fix=f"use --backend {' or '.join(able)}, or --precision {SUPPORTED[backend][-1]}",
        )
    return Choice(backend, precision, "; ".join(reasons) or "as requested")


def _choose_runtime(precision: str, device: torch.device, pixels: int | None) -> tuple[str, str]:
    if device.type != "cpu":
        return "torch", f"the network runs on {device.type}"
    if precision == "int8":
        return "openvino", "int8 was requested"
    if pixels is None or pixels < COMPILE_FROM_PIXELS:
        return "torch", "too few pixels to compile the network for"
    if find_spec("openvino") is None:
        return "torch", f"openvino is faster and not installed: {_name_install('openvino')}"
    return "openvino", "the fastest on this kind of processor"


def _choose_precision(backend: str, device: torch.device) -> tuple[str, str]:
    if backend == "onnx":
        return "fp32", "onnx has no other format"
    if backend == "openvino":
        # Imported here as it takes 0.2 s.
        from terradelta.inference.backends.openvino_backend import multiplies_bfloat16

        is_fast = multiplies_bfloat16()
    else:
        is_fast = choose_precision(device) is torch.bfloat16
    if is_fast:
        return "bf16", f"the {device.type} multiplies bfloat16 fast"
    if device.type == "cuda":
        return "fp16", "this GPU multiplies float16 fast and has no bfloat16"
    return "fp32", f"the {device.type} does not multiply bfloat16 fast"


def _require_runtime(backend: str, device: torch.device):
    if not backend.startswith("torch") and device.type != "cpu":
        raise ArgumentError(
            f"backend {backend} was requested on {device}, and it runs only on the CPU here",
            fix="use --backend torch or --device cpu",
        )
    if backend == "torch-compile" and device.type == "cpu" and not _find_compiler():
        raise ArgumentError(
            f"backend {backend} was requested, and no C++ compiler is installed",
            fix="install g++ or clang++ (Debian: apt-get install g++), or use --backend openvino",
        )
    package = PACKAGES.get(backend)
    if package is not None and find_spec(package) is None:
        raise ArgumentError(
            f"backend {backend} needs {package}, which is not installed",
            fix=f"{_name_install(backend)}, or use --backend torch",
        )


def _name_install(backend: str) -> str:
    return f'pip install "terradelta[{backend}]"'


def _find_compiler() -> str | None:
    names = (os.environ.get("CXX"), "g++", "clang++")
    return next((name for name in names if name and shutil.which(name)), None)
