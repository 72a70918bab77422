"""Pixels of windows spread over a pair, and what their values say.

Legend of the array names: C bands, N pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from rasterio.windows import Window

from terradelta.geo.finding import Finding
from terradelta.geo.grid import cut_window
from terradelta.geo.pair import RasterPair

SAMPLES_PER_SIDE = 6
SAMPLE_SIZE_PX = 256
WARN_NODATA_SHARE = 0.2
WARN_SATURATED_SHARE = 0.02
WARN_DRIFT = 1.0
"""Difference of the dates' medians, in spreads of the before image."""
WARN_CONTRAST_RATIO = 2.0
MAD_TO_SIGMA = 1.4826


@dataclass(frozen=True)
class PixelSamples:
    """Valid pixels of windows spread over a pair."""

    before_CN: np.ndarray
    after_CN: np.ndarray
    valid_share: float
    """Of the pixels that are wanted."""
    is_whole: bool
    """Whether the windows cover all of the pair."""
    dtypes: tuple[np.dtype, np.dtype]
    band_names: tuple[str, ...]

    @classmethod
    def read(cls, pair: RasterPair) -> PixelSamples:
        """Read windows spread over a pair, all of a small one.

        Raises:
            RasterError: If pixels cannot be read.
        """
        windows = list(_spread_windows(pair))
        parts = [pair.read(window) for window in windows]
        before_CN, after_CN = (
            np.concatenate([part[date][:, part.valid_HW] for part in parts], axis=1)
            for date in (0, 1)
        )
        # What lies outside of an area of interest lacks nothing.
        wanted = sum(
            part.valid_HW.size if pair.aoi is None else int(pair.aoi.mask(window).sum())
            for part, window in zip(parts, windows, strict=True)
        )
        valid_share = before_CN.shape[1] / max(1, wanted)
        is_whole = sum(part.valid_HW.size for part in parts) == pair.area.width * pair.area.height
        dtypes = before_CN.dtype, after_CN.dtype
        return cls(before_CN, after_CN, valid_share, is_whole, dtypes, tuple(pair.band_names))

    @property
    def is_empty(self) -> bool:
        """Whether no sampled pixel is valid on both dates."""
        return self.before_CN.shape[1] == 0

    def check_nodata(self, aoi: str | Path | None = None) -> Finding:
        """Say how much of the common ground, or of an area of interest, holds no data."""
        share = 1 - self.valid_share
        message = f"{share:.1%} of the common ground lacks data on one of the dates"
        values = {"nodata_share": share}
        if self.is_empty:
            fix = "give images that hold data of the same ground; see the nodata values above"
            # Data may lie between the windows of a large pair.
            level, extent = ("FAIL", "") if self.is_whole else ("WARN", "of the pixels looked at, ")
            inside = "" if aoi is None else f" and has its centre inside of {aoi}"
            message = f"{extent}no pixel is valid on both dates{inside}"
            return Finding("nodata", level, message, fix, values)
        if share <= WARN_NODATA_SHARE:
            return Finding("nodata", "OK", message, values=values)
        fix = "nothing, if that is so on the ground; those pixels are nodata in the map"
        return Finding("nodata", "WARN", message, fix, values)

    def check_values(self, value_range: tuple[float, float]) -> Iterator[Finding]:
        """Compare stored values with those that a model takes for dark and bright."""
        low, high = value_range
        both = np.concatenate([self.before_CN, self.after_CN], axis=1)
        darkest, brightest = (float(number) for number in np.percentile(both, (2, 98)))
        top = float(both.max())
        kinds = [str(kind) for kind in self.dtypes]
        message = f"{' and '.join(dict.fromkeys(kinds))}, values {both.min():g} to {top:g}"
        values = {"min": float(both.min()), "max": top, "p2": darkest, "p98": brightest}
        is_fraction = "f" in (kind.kind for kind in self.dtypes) and top < 0.01 * (high - low)
        if top > low + 2 * (high - low) or is_fraction:
            fix = f"--value-range {darkest:.4g},{brightest:.4g}"
            expected = f"the model was trained on {low:g} to {high:g}"
            yield Finding("depth", "FAIL", f"{message}; {expected}", fix, values)
        else:
            yield Finding("depth", "OK", message, values=values)
        yield from self._check_flaws()

    def _check_flaws(self) -> Iterator[Finding]:
        for date, values_CN, kind in zip(
            ("before", "after"), (self.before_CN, self.after_CN), self.dtypes, strict=True
        ):
            for name, values_N in zip(self.band_names, values_CN, strict=True):
                if np.ptp(values_N) == 0:
                    yield Finding(
                        "constant",
                        "WARN",
                        f"{date}: band {name} is {values_N[0]:g} everywhere",
                        "choose other bands with --bands",
                    )
                elif kind.kind in "ui":
                    full = float((values_N == np.iinfo(kind).max).mean())
                    if full > WARN_SATURATED_SHARE:
                        yield Finding(
                            "saturated",
                            "WARN",
                            f"{date}: {full:.1%} of band {name} is at {np.iinfo(kind).max}",
                            "fetch the image in its full depth, if there is one",
                            {"share": full},
                        )

    def check_drift(self) -> Finding:
        """Compare medians and spreads: other light, haze, season, or another processing."""
        drifts, ratios = [], []
        for before_N, after_N in zip(self.before_CN, self.after_CN, strict=True):
            medians = np.median(before_N), np.median(after_N)
            spreads = [
                max(MAD_TO_SIGMA * float(np.median(np.abs(values - median))), 1e-9)
                for values, median in zip((before_N, after_N), medians, strict=True)
            ]
            drifts.append(float((medians[1] - medians[0]) / spreads[0]))
            ratios.append(spreads[1] / spreads[0])
        listing = ", ".join(
            f"{name} {drift:+.1f} (contrast x {ratio:.1f})"
            for name, drift, ratio in zip(self.band_names, drifts, ratios, strict=True)
        )
        message = f"after against before, in spreads: {listing}"
        values = {"drift": drifts, "contrast_ratio": ratios}
        worst_ratio = max(max(ratio, 1 / ratio) for ratio in ratios)
        if max(map(abs, drifts)) < WARN_DRIFT and worst_ratio < WARN_CONTRAST_RATIO:
            return Finding("light", "OK", message, values=values)
        fix = "match the histograms first, or use a model trained for such light and seasons"
        return Finding("light", "WARN", message, fix, values)


def _spread_windows(pair: RasterPair) -> Iterator[Window]:
    """Yield windows that do not overlap: all of a small pair, samples of a large one."""
    left, top = int(pair.area.col_off), int(pair.area.row_off)
    for row, height in _spread(int(pair.area.height)):
        for column, width in _spread(int(pair.area.width)):
            yield cut_window(left + column, top + row, width, height)


def _spread(length: int) -> list[tuple[int, int]]:
    """Return start and length of samples along an axis."""
    count = min(SAMPLES_PER_SIDE, math.ceil(length / SAMPLE_SIZE_PX))
    edges = [length * number // count for number in range(count + 1)]
    return [(start, min(SAMPLE_SIZE_PX, end - start)) for start, end in pairwise(edges)]
