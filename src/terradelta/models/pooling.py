"""Context pooled over a window around each position, so that a tile's size is not part of a model.

Heads that average over the whole image give other answers on a tile than on the image it was cut
from, for any tile. Chu et al., "Improving image restoration by revisiting global
information aggregation" (2112.04491), average over a sliding window of the training size at test
time instead. Here each position gets the context that the square window centred on it, moved
inside the image if it would cross the border, would have as a separate image: the mean, or
for a pyramid of bins their bilinear upsampling at that position. So an image no larger
than the window gets the same answer as without one, and beyond half a window from a tile's border
the context does not depend on the tile.

Means are taken over the cells of a lattice that every tile shares, and their results
are interpolated bilinearly to the pixels; this is cheap, and exact to within half a cell.

Legend of the names: B batch, C channels, H rows, W columns; N cells along an axis, T taps per cell.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from terradelta.models.layers import resize

CELLS_PER_BIN = 4
"""Smallest number of cells along a bin's side, unless the features are coarser."""

WINDOW_MARGIN_PX = 32
"""Addition of a window to the margin of tiles, besides its half and the encoder's context, both of
which count once: false features at a tile's border hardly change a mean."""


@dataclass(frozen=True)
class PoolWindow:
    """The window of a network for images of one size."""

    side_px: int
    """Side of the window; rounded up to whole cells."""
    cell_px: int
    """Side of the largest cell; tiles begin at multiples of it."""
    height_px: int
    """Rows of the image, a multiple of every stride."""


def pool_context(
    x_BCHW: Tensor,
    answer: Callable[[Tensor], Tensor],
    window: PoolWindow | None,
    *,
    bins: int = 1,
) -> Tensor:
    """Return `answer` of the mean features around each position.

    Args:
        x_BCHW: Features whose stride divides the largest cell.
        answer: Maps means (B, C, h, w) to (B, C', h, w), each position separately.
        window: Window of the means; None means the whole image.
        bins: Parts along each side of the window with their own mean.

    Returns:
        (B, C', bins, bins) if the window covers the image, like adaptive pooling;
        otherwise (B, C', H, W) of the features' dtype.
    """
    if window is None:
        return answer(F.adaptive_avg_pool2d(x_BCHW, bins))
    height, width = x_BCHW.shape[-2:]
    # A traced graph keeps these as they are: it answers any image that is larger than its window.
    stride_px = int(window.height_px) // int(height)
    per_cell = max(1, window.cell_px // stride_px)
    while per_cell > 1 and per_cell * stride_px * CELLS_PER_BIN * bins > window.side_px:
        per_cell //= 2
    reach = math.ceil(window.side_px / (per_cell * stride_px))
    if reach * per_cell >= max(int(height), int(width)):
        return answer(F.adaptive_avg_pool2d(x_BCHW, bins))

    # The rounding of bfloat16 cells averages out in windows, which are summed in float32.
    cells_BCHW = F.avg_pool2d(x_BCHW, per_cell).float()
    reaches = [min(reach, int(cells)) for cells in cells_BCHW.shape[-2:]]
    boxes = [math.ceil(reach / bins) for reach in reaches]
    means_BCHW = F.avg_pool2d(F.avg_pool2d(cells_BCHW, (boxes[0], 1), 1), (1, boxes[1]), 1)
    context_BCHW = answer(means_BCHW)
    for axis, cells in zip((-2, -1), cells_BCHW.shape[-2:], strict=True):
        start_TN, weight_TN = locate_boxes(cells, reaches[axis], boxes[axis], bins)
        context_BCHW = _combine(context_BCHW, axis, start_TN, weight_TN)
    return resize(context_BCHW.to(x_BCHW.dtype), (height, width))


def locate_boxes(cells: int, reach: int, box: int, bins: int) -> tuple[Tensor, Tensor]:
    """Return the boxes of the context of each cell along one axis, and their shares.

    Args:
        cells: Cells of the image.
        reach: Cells of the window, at most those of the image.
        box: Cells of a bin's mean; the bins of a window overlap if it does not divide evenly.
        bins: Bins of a window.

    Returns:
        First cells of boxes (T, N) int64 and their weights (T, N) float32, which sum to 1.
    """
    position_N = torch.arange(cells, dtype=torch.float64) + 0.5
    window_N = (position_N - reach / 2).clamp(min=0).minimum(torch.as_tensor(cells - reach))
    # Bilinear upsampling, pixel corners not aligned, of the window's bins.
    bin_N = ((position_N - window_N) * bins / reach - 0.5).clamp(0, bins - 1)
    starts, weights = [], []
    for which in range(min(bins, 2)):
        index_N = (bin_N.floor() + which).clamp(max=bins - 1)
        share_N = (bin_N - bin_N.floor()) if which else 1 - (bin_N - bin_N.floor())
        inside_N = ((index_N + 0.5) * reach / bins - box / 2).clamp(0, reach - box)
        start_N = window_N + inside_N
        # A box that starts between two cells is a mixture of the two boxes that start at them.
        for side in range(2):
            starts.append((start_N.floor() + side).minimum(torch.as_tensor(cells - box)))
            mix_N = start_N - start_N.floor()
            weights.append(share_N * (mix_N if side else 1 - mix_N))
    return torch.stack(starts).long(), torch.stack(weights).float()


def _combine(x_BCHW: Tensor, axis: int, start_TN: Tensor, weight_TN: Tensor) -> Tensor:
    """Return the weighted sum of the positions `start_TN` along an axis, in float32.

    Not a matrix product: autocast would round its weights.
    """
    shape = (-1, 1) if axis == -2 else (-1,)
    start_TN, weight_TN = start_TN.to(x_BCHW.device), weight_TN.to(x_BCHW.device)
    parts = [
        x_BCHW.index_select(axis, start_N) * weight_N.reshape(shape)
        for start_N, weight_N in zip(start_TN, weight_TN, strict=True)
    ]
    return torch.stack(parts).sum(dim=0)
