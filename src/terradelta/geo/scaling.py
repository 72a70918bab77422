"""Scale and offset of stored numbers, band by band: value = stored * scale + offset.

GDAL keeps both numbers as tags of a band, STAC as fields of an asset's bands. They are applied
after the valid pixels are found, which depends on stored numbers.

Legend of the array names: C bands, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from terradelta.errors import RasterError

DTYPE = "float32"
"""Data type of values that are not the stored numbers."""
SAME = 1e-6
"""Relative difference below which two scales or offsets count as the same."""


class Tagged(Protocol):
    """An object with scales and offsets of bands, such as an open raster."""

    @property
    def scales(self) -> Sequence[float]: ...  # noqa: D102
    @property
    def offsets(self) -> Sequence[float]: ...  # noqa: D102


@dataclass(frozen=True)
class BandScaling:
    """Scale and offset of some bands."""

    scales: tuple[float, ...]
    offsets: tuple[float, ...]

    @classmethod
    def of(cls, dataset: Tagged) -> BandScaling:
        """Return the scaling of all bands of a raster."""
        return cls(tuple(dataset.scales), tuple(dataset.offsets))

    @property
    def is_identity(self) -> bool:
        """Whether values are the stored numbers."""
        return set(self.scales) <= {1.0} and set(self.offsets) <= {0.0}

    def choose(self, bands: Sequence[int], name: str) -> BandScaling:
        """Return the scaling of some bands.

        Args:
            bands: By number from 1.
            name: Name of the raster.

        Raises:
            RasterError: If a scale or an offset cannot be used.
        """
        chosen = BandScaling(
            tuple(self.scales[band - 1] for band in bands),
            tuple(self.offsets[band - 1] for band in bands),
        )
        for band, scale, offset in zip(bands, chosen.scales, chosen.offsets, strict=True):
            # In float32, like the values: 1e-300 is 0 in it.
            with np.errstate(over="ignore", under="ignore"):
                numbers = np.array([scale, offset]).astype(DTYPE)
            if numbers[0] == 0 or not np.isfinite(numbers).all():
                raise RasterError(
                    f"{name}: band {band} has the scale {scale:g} and the offset {offset:g}, "
                    "which give no valid values",
                    fix=f"correct them, for example: gdal_edit.py -scale 0.0001 -offset 0 {name}; "
                    "-scale 1 -offset 0 keeps the stored numbers",
                )
        return chosen

    def find_dtype(self, stored: str) -> str:
        """Return the data type of values, given that of the stored numbers."""
        return stored if self.is_identity else DTYPE

    def apply(self, image_CHW: np.ndarray, valid_HW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the values of stored numbers, and where they are valid.

        Args:
            image_CHW: Stored numbers of these bands.
            valid_HW: bool, where they are data.

        Returns:
            The values, float32 and 0 without data, and the mask without values that are not finite;
            both unchanged if the values are the stored numbers.
        """
        if self.is_identity:
            return image_CHW, valid_HW
        values_CHW = np.empty(image_CHW.shape, DTYPE)
        with np.errstate(over="ignore", invalid="ignore"):
            for value_HW, stored_HW, scale, offset in zip(
                values_CHW, image_CHW, self.scales, self.offsets, strict=True
            ):
                # In double precision, so that different stored numbers of one value give the same
                # value.
                value_HW[:] = stored_HW.astype(np.float64) * scale + offset
        valid_HW = valid_HW & np.isfinite(values_CHW).all(axis=0)
        values_CHW[:, ~valid_HW] = 0
        return values_CHW, valid_HW

    def to_text(self) -> str:
        """Return it as a formula for each kind of band."""
        kinds = dict.fromkeys(zip(self.scales, self.offsets, strict=True))
        return " or ".join(
            f"stored x {scale:g}" + (f" {'-' if offset < 0 else '+'} {abs(offset):g}")
            if offset
            else f"stored x {scale:g}"
            for scale, offset in kinds
        )


def merge_scaling(
    found: BandScaling,
    said: Sequence[Sequence[tuple[float, float]]],
    counts: Sequence[int],
    name: str,
) -> BandScaling:
    """Return the scaling of a raster's bands from its tags and from a catalogue.

    Args:
        found: Scaling from its tags.
        said: Scale and offset of each band of each of its files, one for all bands of a file, or
            none if the catalogue has none.
        counts: Number of bands of each file.
        name: Name of the raster.

    Raises:
        RasterError: If both describe a band and differ, or the catalogue describes fewer bands
            than exist.
    """
    scales, offsets = list(found.scales), list(found.offsets)
    first = 0
    for numbers, count in zip(said, counts, strict=True):
        if len(numbers) == 1:
            numbers = list(numbers) * count
        if numbers and len(numbers) < count:
            raise RasterError(
                f"{name} has {count} bands and its STAC item describes {len(numbers)}",
                fix="describe each band in the item's raster:bands, or none",
            )
        for band, (scale, offset) in enumerate(numbers[:count], start=first):
            own, other = (scales[band], offsets[band]), (scale, offset)
            if own != (1.0, 0.0) and not np.allclose(own, other, rtol=SAME, atol=0):
                raise RasterError(
                    f"{name}: band {band + 1} has the scale {own[0]:g} and the offset {own[1]:g}, "
                    f"and its STAC item says {scale:g} and {offset:g}",
                    fix="correct the one that is wrong: the file's with gdal_edit.py -scale "
                    "-offset, or the item's raster:bands",
                )
            scales[band], offsets[band] = scale, offset
        first += count
    return BandScaling(tuple(scales), tuple(offsets))
