"""The options of reading two rasters: their bands, values, pixels and place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from terradelta.errors import ArgumentError

Value = TypeVar("Value")
Bands = Sequence[int | str]
Both = Value | tuple[Value | None, Value | None] | None
"""One value for both dates, or one for each; None if not given."""

Range = tuple[float, float]
"""The darkest and the brightest value."""
LightMatching = Literal["none", "linear", "histogram"]
"""How the light of one date is matched to the other's; see `fit_light`."""


@dataclass(frozen=True)
class DateOptions:
    """The options of the pixels of one date."""

    nodata: float | None = None
    """A stored value that means no data, besides those that the file declares."""
    value_range: tuple[float, float] | None = None
    """Values, scale and offset applied, that become the darkest and the brightest of the
    model."""
    mask: str | Path | None = None
    """A raster of pixels to leave out, in any CRS and on any grid."""


@dataclass(frozen=True)
class ModelNeeds:
    """The inputs that a model needs."""

    band_names: tuple[str, ...] = ("red", "green", "blue")
    """Names of its bands, in order."""
    value_range: tuple[float, float] = (0.0, 255.0)
    """The darkest and the brightest value of its training images."""
    resolution_m: tuple[float, float] | None = None
    """The least and the largest side of a pixel of its training images, in metres."""


@dataclass(frozen=True)
class PairOptions:
    """How a pair of rasters is read onto one grid."""

    bands: Bands | None = None
    """Numbers (from 1) or names of the bands that a model reads, in its order."""
    grid: str | float = "before"
    """Pixels of the map: "before", "after", the side of a pixel in units of the before
    raster's CRS, or a CRS and the side of a pixel in its units, "EPSG:3035@10". A mosaic's pixels
    are its first raster's. An exclamation mark at the end allows far finer pixels than the
    rasters' own."""
    aoi: str | Path | None = None
    """A vector file, or FILE#LAYER; pixels outside of its polygons are not valid."""
    shift_px: tuple[float, float] = (0.0, 0.0)
    """The after image is read this many (columns, rows) of the grid further right and down, to undo
    a shift that was measured."""
    before: DateOptions = field(default_factory=DateOptions)
    """Options of the earlier date."""
    after: DateOptions = field(default_factory=DateOptions)
    """Options of the later date."""
    mask_values: str | None = None
    """Mask values that leave a pixel out; any except 0 by default."""
    match_light: str = "none"
    """How the after image gets the light of the before image: "none", "linear" or "histogram"."""

    @property
    def seen_ranges(self) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
        """The darkest and the brightest value of each date.

        With matched light, the after image has the values of the before image.
        """
        before = self.before.value_range
        return before, before if self.match_light != "none" else self.after.value_range

    def to_dict(self) -> dict[str, Any]:
        """Return their record in a run.json, without the area of interest and the shift."""
        masks = [date.mask and str(date.mask) for date in (self.before, self.after)]
        nodata = [self.before.nodata, self.after.nodata]
        ranges = [date.value_range and list(date.value_range) for date in (self.before, self.after)]
        return {
            "bands": None if self.bands is None else [str(band) for band in self.bands],
            "grid": str(self.grid),
            "nodata": nodata if any(value is not None for value in nodata) else None,
            "mask": masks if any(masks) else None,
            "mask_values": self.mask_values,
            "value_range": ranges[0],
            "after_value_range": ranges[1] if ranges[1] != ranges[0] else None,
            "match_light": self.match_light,
        }


def split_both(values: Both[Value]) -> tuple[Value | None, Value | None]:
    """Return the values of the before and of the after image."""
    if isinstance(values, list | tuple):
        before, after = values
        return before, after
    return values, values  # pyright: ignore[reportReturnType]


def require_range(value_range: Range | None, flag: str) -> Range | None:
    """Return a valid range.

    Raises:
        ArgumentError: If it is not finite or runs backwards.
    """
    if value_range is None:
        return None
    low, high = value_range
    text = f"the value range runs from {low:g} to {high:g}"
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ArgumentError(text, fix=f"give two finite numbers: {flag} 0,3000")
    if not low < high:
        raise ArgumentError(text, fix=f"give the smaller number first: {flag} 0,3000")
    return low, high
