"""torch, on a CPU or a GPU."""

from __future__ import annotations

import torch

from terradelta.models.bundle import Model
from terradelta.models.deployment import Deployment, fold_norms
from terradelta.models.siamese import ChangeOutput
from terradelta.predict.backends.interface import Request

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class TorchBackend:
    """Eager torch: channels last, normalisations folded, autocast.

    Args:
        model: The model; a copy of its network is run.
        device: Where to.
        precision: "fp32" or "bf16".
        pool_window_px: See `Deployment`.
    """

    def __init__(
        self, model: Model, device: torch.device, precision: str, pool_window_px: int | None
    ):
        self._device = device
        self._dtype = DTYPES[precision]
        deployment = Deployment(model, pool_window_px)
        deployment.network = fold_norms(deployment.network)
        self._deployment = deployment.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    @torch.inference_mode()
    def __call__(self, request: Request) -> ChangeOutput:
        """Return float32 logits at the heads' own resolutions, on the device."""
        before_BCHW, after_BCHW, valid_BHW = (
            part.to(self._device, non_blocking=True) for part in request
        )
        with torch.autocast(
            self._device.type, self._dtype, enabled=self._dtype is not torch.float32
        ):
            return self._deployment(before_BCHW, after_BCHW, valid_BHW)
