"""Chooses device and number format of a network."""

from __future__ import annotations

import re

import torch

from terradelta.errors import ArgumentError

PRECISIONS = ("auto", "fp32", "bf16")


def choose_device(device: str = "auto") -> torch.device:
    """Return the device of that name; "auto" uses a GPU if there is one.

    Raises:
        ArgumentError: If the device is not on this machine.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:[0-9]{1,3})?", device):
        raise ArgumentError(
            f"device {device!r} is not supported",
            fix="use auto, cpu, cuda or cuda:N",
        )
    chosen = torch.device(device)
    count = torch.cuda.device_count()
    if chosen.type == "cuda" and (chosen.index or 0) >= count:
        raise ArgumentError(
            f"device {device!r} was requested and this machine has {count} CUDA devices",
            fix="use --device auto or --device cpu",
        )
    return chosen


def choose_precision(device: torch.device, precision: str = "auto") -> torch.dtype:
    """Return float32 or bfloat16; "auto" uses bfloat16 if the hardware multiplies it fast.

    On a CPU that is AMX or AVX-512 BF16: without either bfloat16 is 4 to 6 times slower than
    float32 in torch.

    Raises:
        ArgumentError: If the name is unknown.
    """
    if precision not in PRECISIONS:
        raise ArgumentError(
            f"precision {precision!r} is not known", fix=f"use one of {', '.join(PRECISIONS)}"
        )
    if precision == "auto":
        return torch.bfloat16 if _has_fast_bfloat16(device) else torch.float32
    return torch.bfloat16 if precision == "bf16" else torch.float32


def _has_fast_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # torch before 2.10 does not report it; float32 is then the safe choice.
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
