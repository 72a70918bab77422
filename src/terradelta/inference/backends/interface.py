"""The request that a backend is given.

Legend of the tensor names: B batch, C bands, H rows, W columns.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Request(NamedTuple):
    """A batch of pairs to be answered."""

    before_BCHW: Tensor
    """uint8 or float32 in the model's stored scale; sides are multiples of the output stride."""
    after_BCHW: Tensor
    """The second date, of the same shape and dtype."""
    valid_BHW: Tensor
    """bool: where both dates hold data."""
