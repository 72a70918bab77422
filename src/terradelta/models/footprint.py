"""Memory that a network's features take, counted on a small image.

Legend of the tensor names: B batch, C bands, H rows, W columns.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from terradelta.models.bundle import Model
from terradelta.models.deployment import Deployment

SIDE_PX = 128
"""Side of that image. Features grow with the pixels of an image, to within a few percent."""


def count_live_bytes(model: Model) -> float:
    """Return the bytes per pixel of a pair that live together while a model answers in float32.

    The largest sum of all tensors that exist at a time when torch runs the network operation by
    operation. It is the same on every machine.

    Args:
        model: The model, which is not changed.
    """
    network = Deployment(model).to("cpu").network
    side_px = -(-SIDE_PX // network.output_stride) * network.output_stride
    image_BCHW = torch.zeros((1, len(model.card.bands), side_px, side_px))
    with torch.no_grad(), _LiveTensors() as live:
        network.score(image_BCHW, image_BCHW)
    return live.peak_bytes / side_px**2


class _LiveTensors(TorchFunctionMode):
    """Adds up the tensors that operations make, as long as these are referred to."""

    def __init__(self):
        super().__init__()
        self.peak_bytes = 0
        self._bytes = 0
        self._known: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for part in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(part, Tensor):
                self._add(part.untyped_storage())
        return made

    def _add(self, storage: Any):
        # Views share their tensor's storage.
        if storage in self._known:
            return
        self._known[storage] = storage.nbytes()
        self._bytes += storage.nbytes()
        self.peak_bytes = max(self.peak_bytes, self._bytes)
        weakref.finalize(storage, self._remove, storage.nbytes())

    def _remove(self, count: int):
        self._bytes -= count
