"""torch, on a CPU or a GPU, as it is or compiled."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch

from terradelta.inference.backends.interface import Request
from terradelta.models.bundle import Model
from terradelta.models.change_network import ChangeOutput
from terradelta.models.deployment import Deployment, fold_norms

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MAX_SHAPES = 64
"""For which a network is compiled: tiles at a raster's edges have sizes of their own."""


class TorchBackend:
    """torch: channels last, normalisations folded, autocast.

    Args:
        model: The model; a copy of its network is run.
        device: Where to.
        precision: "fp32", "bf16" or "fp16".
        pool_window_px: See `Deployment`.
        compiled: Whether to compile it, for each size of image. What is compiled is kept from
            one process to the next.
    """

    def __init__(
        self,
        model: Model,
        device: torch.device,
        precision: str,
        pool_window_px: int | None,
        *,
        compiled: bool = False,
    ):
        self._device = device
        self._dtype = DTYPES[precision]
        deployment = Deployment(model, pool_window_px)
        deployment.network = fold_norms(deployment.network)
        deployment = deployment.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self._run = _compile(deployment, device) if compiled else deployment

    @torch.inference_mode()
    def __call__(self, request: Request) -> ChangeOutput:
        """Return float32 logits at the heads' own resolutions, on the device."""
        before_BCHW, after_BCHW, valid_BHW = (
            part.to(self._device, non_blocking=True) for part in request
        )
        with torch.autocast(
            self._device.type, self._dtype, enabled=self._dtype is not torch.float32
        ):
            return ChangeOutput(*self._run(before_BCHW, after_BCHW, valid_BHW))


def _compile(deployment: Deployment, device: torch.device) -> Callable[..., ChangeOutput]:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    # By default it would lie where a restart of the machine empties it.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache / "terradelta" / "inductor"))
    torch._dynamo.config.recompile_limit = MAX_SHAPES
    # With its weights frozen, a CPU's network is laid out for its convolutions once and for all.
    return torch.compile(deployment, dynamic=False, options={"freezing": device.type == "cpu"})
