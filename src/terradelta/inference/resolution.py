"""Images and tiles in the pixels that the networks see, where those of a map are finer or coarser.

Legend of the array names: B batch, C bands, H rows, W columns.
"""

from __future__ import annotations

import math
from dataclasses import astuple

import torch
import torch.nn.functional as F
from torch import Tensor

from terradelta.geo.scale import SeenPixels
from terradelta.inference.backends import Request
from terradelta.inference.tiling import Tiling


def fit_tiling(seen: Tiling, pixels: SeenPixels) -> Tiling:
    """Return the tiling of an image, from that of the pixels that the networks see."""
    if pixels.enlargement == 1:
        return Tiling(*(side_px * pixels.reduction for side_px in astuple(seen)))
    # Origins of tiles are multiples of the stride in the pixels that the networks see.
    stride_px = seen.stride_px // math.gcd(seen.stride_px, pixels.enlargement)
    margin_px = -(-seen.margin_px // (pixels.enlargement * stride_px)) * stride_px
    tile_size_px = max(seen.tile_size_px // pixels.enlargement, 2 * margin_px + stride_px)
    return Tiling(tile_size_px, margin_px, stride_px)


def average_squares(request: Request, side_px: int) -> Request:
    """Return the means of squares of pixels with data, float32; without data where none has.

    Row by row of squares, as float copies of all pixels would take many times their memory.
    """
    rows = []
    for top in range(0, request.valid_BHW.shape[-2], side_px):
        strip = slice(top, top + side_px)
        weight_B1HW = request.valid_BHW[:, None, strip].float()
        share_B1HW = F.avg_pool2d(weight_B1HW, side_px)
        means = (
            F.avg_pool2d(part[..., strip, :].float() * weight_B1HW, side_px)
            / share_B1HW.clamp_min(1e-6)
            for part in request[:2]
        )
        rows.append((*means, share_B1HW[:, 0] > 0))
    return Request(*(torch.cat(parts, dim=-2) for parts in zip(*rows, strict=True)))


def enlarge(request: Request, factor: int) -> Request:
    """Return images interpolated bilinearly between the pixels with data, float32."""
    weight_B1HW = request.valid_BHW[:, None].float()

    def interpolate(part_BCHW: Tensor) -> Tensor:
        return F.interpolate(part_BCHW, scale_factor=factor, mode="bilinear")

    share_B1HW = interpolate(weight_B1HW).clamp_min(1e-6)
    before_BCHW, after_BCHW = (
        interpolate(part.float() * weight_B1HW) / share_B1HW for part in request[:2]
    )
    valid_BHW = request.valid_BHW.repeat_interleave(factor, -1).repeat_interleave(factor, -2)
    return Request(before_BCHW, after_BCHW, valid_BHW)
