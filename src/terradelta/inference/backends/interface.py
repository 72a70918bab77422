"""What the engine asks of a backend.

Legend of the tensor names: B batch, C bands, H rows, W columns.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor

from terradelta.models.change_network import ChangeOutput


class Request(NamedTuple):
    """A batch of pairs to be answered."""

    before_BCHW: Tensor
    """uint8 or float32 in the model's stored scale; sides are multiples of the output stride."""
    after_BCHW: Tensor
    """The second date, of the same shape and dtype."""
    valid_BHW: Tensor
    """bool: where both dates hold data."""


class Backend(Protocol):
    """A model made ready for one runtime, device and number format."""

    def __call__(self, request: Request) -> ChangeOutput:
        """Return float32 logits at the heads' own resolutions."""
        ...
