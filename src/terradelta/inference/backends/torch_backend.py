"""torch, on a CPU or a GPU, as it is or compiled."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch

from terradelta.inference.backends.interface import Request
from terradelta.models.bundle import Model
from terradelta.models.change_network import ChangeOutput, crop_scores
from terradelta.models.crop import Crop
from terradelta.models.deployment import Deployment, fold_norms

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MAX_SHAPES = 64
"""Sizes that a network is compiled for: tiles at a raster's edges have other sizes."""


class TorchBackend:
    """torch: channels last, batch norms folded, autocast.

    Args:
        model: The model; a copy of its network is run.
        device: Device.
        precision: "fp32", "bf16" or "fp16".
        pool_window_px: See `Deployment`.
        compiled: Whether to compile it, for each size of image. Compiled code is kept from
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
        self._compiled = _compile(deployment, device) if compiled else None
        self._deployment = deployment

    @torch.inference_mode()
    def __call__(self, request: Request, crop: Crop | None = None) -> ChangeOutput:
        """Return float32 logits of a part at the heads' own resolutions, on the device."""
        before_BCHW, after_BCHW, valid_BHW = (
            part.to(self._device, non_blocking=True) for part in request
        )
        with torch.autocast(
            self._device.type, self._dtype, enabled=self._dtype is not torch.float32
        ):
            if self._compiled is None:
                return self._deployment(before_BCHW, after_BCHW, valid_BHW, crop)
            # Code is compiled for each size; for each crop it would take too long.
            scores = ChangeOutput(*self._compiled(before_BCHW, after_BCHW, valid_BHW))
        height, width = valid_BHW.shape[-2:]
        return scores if crop is None else crop_scores(scores, crop, (height, width))


def _compile(deployment: Deployment, device: torch.device) -> Callable[..., ChangeOutput]:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    # The default folder is emptied when the machine restarts.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache / "terradelta" / "inductor"))
    torch._dynamo.config.recompile_limit = MAX_SHAPES
    # With its weights frozen, a CPU's network is laid out for its convolutions only once.
    return torch.compile(deployment, dynamic=False, options={"freezing": device.type == "cpu"})
