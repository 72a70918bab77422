"""Shared by the losses: checks shapes, leaves invalid pixels out, takes the mean.

Shape suffixes: B batch, K classes, H height, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from terradelta.errors import ArgumentError, DataError


def check_shapes(logits: Tensor, **maps_BHW: Tensor | None) -> None:
    """Check that every named map has one value for each pixel of the logits.

    Args:
        logits: (B, K, H, W) or (B, H, W).
        **maps_BHW: Maps by the name to use in the message; None is skipped.

    Raises:
        ArgumentError: If a shape differs.
    """
    if logits.ndim not in (3, 4):
        raise ArgumentError(
            f"the logits have shape {tuple(logits.shape)}",
            fix="give (B, K, H, W) logits of the land cover, (B, H, W) logits of the change",
        )
    wanted = (logits.shape[0], *logits.shape[-2:])
    for name, map_BHW in maps_BHW.items():
        if map_BHW is not None and tuple(map_BHW.shape) != wanted:
            raise ArgumentError(
                f"{name} has shape {tuple(map_BHW.shape)}, the logits {tuple(logits.shape)}",
                fix=f"give {name} the shape {wanted}: one value per pixel, without a channel axis",
            )


def check_pair(before_logits_BKHW: Tensor, after_logits_BKHW: Tensor) -> None:
    """Check that the logits of the two dates can be compared.

    Raises:
        ArgumentError: If they are not (B, K, H, W) or differ in shape.
    """
    before, after = tuple(before_logits_BKHW.shape), tuple(after_logits_BKHW.shape)
    if before != after or len(before) != 4:
        raise ArgumentError(
            f"the logits of the two dates have the shapes {before} and {after}",
            fix="give both the same shape (B, K, H, W)",
        )


def prepare_logits(logits: Tensor, valid_BHW: Tensor | None) -> Tensor:
    """Return the logits in float32 (float64 stays) with invalid pixels set to zero.

    Zeroing before, not after, the formula keeps even NaN and infinity of invalid pixels out of
    the value and of the gradient.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if valid_BHW is None:
        return logits
    invalid_BHW = ~valid_BHW.bool()
    return logits.masked_fill(invalid_BHW.unsqueeze(1) if logits.ndim == 4 else invalid_BHW, 0.0)


def prepare_change(change_BHW: Tensor, valid_BHW: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Return the change map as floats, 1 = changed, with invalid pixels set to zero.

    Raises:
        DataError: If a valid pixel lies outside [0, 1], as those of a 0/255 mask do. A bool map
            needs no check, and so no synchronisation with the accelerator.
    """
    change = change_BHW.to(dtype)
    if valid_BHW is not None:
        change = change.masked_fill(~valid_BHW.bool(), 0.0)
    if change_BHW.dtype != torch.bool and not ((change >= 0) & (change <= 1)).all():
        raise DataError(
            f"change runs from {change.min().item():g} to {change.max().item():g}, not 0 to 1",
            fix="give 1 where the ground changed and 0 elsewhere (a 0/255 mask: divide by 255)",
        )
    return change


def mean_over_valid(values_BHW: Tensor, valid_BHW: Tensor | None) -> Tensor:
    """Return the mean over the valid pixels: a scalar, 0 with a gradient path without any."""
    if valid_BHW is None:
        return values_BHW.sum() / max(values_BHW.numel(), 1)
    valid_BHW = valid_BHW.bool()
    return values_BHW.masked_fill(~valid_BHW, 0.0).sum() / valid_BHW.sum().clamp_min(1)
