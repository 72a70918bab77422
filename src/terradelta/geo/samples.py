"""Samples the pixels of windows spread over a pair, and checks their values.

Legend of the array names: C bands, N pixels.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from rasterio.windows import Window

from terradelta.errors import RasterError
from terradelta.geo.finding import Finding, find_worst
from terradelta.geo.grid import cut_window
from terradelta.geo.normalization import fit_light
from terradelta.geo.pair import RasterPair
from terradelta.geo.ranges import (
    PERCENT,
    Misfit,
    Range,
    compare_dates,
    find_percentiles,
    judge_depth,
    judge_range,
    suggest_ranges,
)
from terradelta.geo.scaling import BandScaling
from terradelta.geo.virtual import name_raster

Ranges = tuple[Range | None, Range | None]
"""The darkest and the brightest value of each date, None if not given."""

SAMPLES_PER_SIDE = 6
SAMPLE_SIZE_PX = 256
WARN_NODATA_SHARE = 0.2
WARN_SATURATED_SHARE = 0.02
WARN_DRIFT = 1.0
"""Difference of the dates' medians, in spreads of the before image."""
WARN_CONTRAST_RATIO = 2.0
MAD_TO_SIGMA = 1.4826

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PixelSamples:
    """Valid pixels of windows spread over a pair."""

    before_CN: np.ndarray
    """Values, scale and offset applied."""
    after_CN: np.ndarray
    valid_share: float
    """Share of valid pixels among the wanted ones."""
    names: tuple[str, str]
    """Names of the rasters."""
    band_names: tuple[str, ...]
    scalings: tuple[str, str] = ("", "")
    """Scalings of the stored numbers of each date, if they are not the values."""
    is_whole: bool = True
    """Whether the windows cover the whole pair."""

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
        # Pixels outside of an area of interest do not count as missing.
        wanted = sum(
            part.valid_HW.size if pair.aoi is None else int(pair.aoi.mask(window).sum())
            for part, window in zip(parts, windows, strict=True)
        )
        valid_share = before_CN.shape[1] / max(1, wanted)
        is_whole = sum(part.valid_HW.size for part in parts) == pair.area.width * pair.area.height
        names = name_raster(pair.datasets[0]), name_raster(pair.datasets[1])
        scalings = _describe_scalings(pair.scalings[0]), _describe_scalings(pair.scalings[1])
        bands = tuple(pair.band_names)
        return cls(before_CN, after_CN, valid_share, names, bands, scalings, is_whole)

    @property
    def dates(self) -> tuple[np.ndarray, np.ndarray]:
        """The values of both dates."""
        return self.before_CN, self.after_CN

    def match_light(self, kind: str) -> PixelSamples:
        """Return them with the light of the before image at both dates; see `fit_light`."""
        light = fit_light(*self.dates, kind)
        return replace(self, after_CN=light.apply(self.after_CN, self.before_CN.dtype))

    @property
    def is_empty(self) -> bool:
        """Whether no sampled pixel is valid on both dates."""
        return self.before_CN.shape[1] == 0

    def check_nodata(self, aoi: str | Path | None = None) -> Finding:
        """Report the share of the common ground, or of an area of interest, without data."""
        share = 1 - self.valid_share
        message = f"{share:.1%} of the common ground lacks data on one of the dates"
        values = {"nodata_share": share}
        if self.is_empty:
            fix = "give images that hold data of the same ground; see the nodata values above"
            # Data may lie between the windows of a large pair.
            level, extent = ("FAIL", "") if self.is_whole else ("WARN", "of the sampled pixels, ")
            inside = "" if aoi is None else f" and has its centre inside of {aoi}"
            message = f"{extent}no pixel is valid on both dates{inside}"
            return Finding("nodata", level, message, fix, values)
        if share <= WARN_NODATA_SHARE:
            return Finding("nodata", "OK", message, values=values)
        fix = "nothing, if the images lack these pixels; they are nodata in the map"
        return Finding("nodata", "WARN", message, fix, values)

    def suggest_ranges(self) -> str:
        """Return the flags of `predict` that set the darkest and the brightest value."""
        return suggest_ranges(*self.dates, apart=self._compare(*self.dates) is not None)

    def judge_values(self, ranges: Ranges, model_range: Range) -> tuple[Misfit | None, ...]:
        """Return for each date why its values do not fit.

        Args:
            ranges: The user's darkest and brightest value of each date.
            model_range: The model's range, used if the user gives none.
        """
        return tuple(
            judge_depth(values_CN, model_range)
            if value_range is None
            else judge_range(values_CN, value_range)
            for values_CN, value_range in zip(self.dates, ranges, strict=True)
        )

    def require_values(self, ranges: Ranges, model_range: Range):
        """Raise if the values of a date do not fit; warn if hardly any fit.

        Args:
            ranges: Same as in `judge_values`.
            model_range: Same as in `judge_values`.

        Raises:
            RasterError: With the flags that fit.
        """
        if self.is_empty:
            return
        misfits = self.judge_values(ranges, model_range)
        for name, values_CN, misfit in zip(self.names, self.dates, misfits, strict=True):
            if misfit is None:
                continue
            low, high = find_percentiles(values_CN)
            problem = (
                f"{name} holds {values_CN.dtype} values up to {values_CN.max():g}, and "
                f"{misfit.problem}; from the {PERCENT[0]}nd to the {PERCENT[1]}th percentile they "
                f"run from {low:.4g} to {high:.4g}"
            )
            fix = f"say which values are dark and bright, for example {self.suggest_ranges()}"
            if not any(judge_depth(values_CN, model_range) for values_CN in self.dates):
                fix += "; or leave the range out, as the values fit the model"
            if misfit.level == "FAIL":
                raise RasterError(problem, fix=fix)
            logger.warning("%s\n  fix: %s", problem, fix)

    def check_values(self, ranges: Ranges, model_range: Range) -> Iterator[Finding]:
        """Compare values with the range from dark to bright, and the dates with each other.

        Args:
            ranges: Same as in `judge_values`.
            model_range: Same as in `judge_values`.
        """
        yield self._check_depth(ranges, model_range)
        yield self._check_dates(ranges, model_range)
        yield from self._check_flaws()

    def _check_depth(self, ranges: Ranges, model_range: Range) -> Finding:
        both_CN = np.concatenate(self.dates, axis=1)
        low, high = find_percentiles(both_CN)
        least, most = float(both_CN.min()), float(both_CN.max())
        kinds = dict.fromkeys(str(values_CN.dtype) for values_CN in self.dates)
        message = f"{' and '.join(kinds)}, values {least:g} to {most:g}"
        values = {"min": least, "max": most, "p2": low, "p98": high}
        misfits = dict(
            zip(("before", "after"), self.judge_values(ranges, model_range), strict=True)
        )
        found = {date: misfit for date, misfit in misfits.items() if misfit is not None}
        if not found:
            return Finding("depth", "OK", message, values=values)
        level = find_worst(misfit.level for misfit in found.values())
        problems = {misfit.problem for misfit in found.values()}
        if len(found) == 2 and len(problems) == 1:
            message += f"; {problems.pop()}"
        else:
            message += "".join(f"; {date}: {misfit.problem}" for date, misfit in found.items())
        return Finding("depth", level, message, self.suggest_ranges(), values)

    def _check_dates(self, ranges: Ranges, model_range: Range) -> Finding:
        """Compare the values of the dates, as they are or scaled by the given ranges."""
        percentiles = [find_percentiles(values_CN) for values_CN in self.dates]
        message = ", ".join(
            f"{date} {low:.4g} to {high:.4g}" + (f" ({scaling})" if scaling else "")
            for date, (low, high), scaling in zip(
                ("before", "after"), percentiles, self.scalings, strict=True
            )
        )
        values = {"before": list(percentiles[0]), "after": list(percentiles[1])}
        difference = self._compare(*self._lay_out(ranges, model_range))
        if difference is None:
            return Finding("values", "OK", message, values=values)
        fix = f"{self.suggest_ranges()}, or --match-light linear"
        return Finding("values", "WARN", f"{message}: {difference}", fix, values)

    def _compare(self, before_CN: np.ndarray, after_CN: np.ndarray) -> str | None:
        if all(values_CN.dtype == np.uint8 for values_CN in self.dates):
            # 8-bit pictures differ in light, not in unit.
            return None
        return compare_dates(before_CN, after_CN)

    def _lay_out(self, ranges: Ranges, model_range: Range) -> tuple[np.ndarray, np.ndarray]:
        """Return the values as shares of the range; unchanged without a range."""
        if ranges == (None, None):
            return self.dates
        before_CN, after_CN = (
            (values_CN.astype(np.float32) - low) / (high - low)
            for values_CN, (low, high) in zip(
                self.dates, (given or model_range for given in ranges), strict=True
            )
        )
        return before_CN, after_CN

    def _check_flaws(self) -> Iterator[Finding]:
        for date, values_CN in zip(("before", "after"), self.dates, strict=True):
            kind = values_CN.dtype
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
                            "fetch the image in its full depth, if available",
                            {"share": full},
                        )

    def check_drift(self, ranges: Ranges, model_range: Range) -> Finding:
        """Compare medians and spreads: to find other light, haze, season or processing.

        Args:
            ranges: Same as in `judge_values`.
            model_range: Same as in `judge_values`.
        """
        laid_out = self._lay_out(ranges, model_range)
        if self._compare(*laid_out) is not None:
            # The differences that remain with a range for each date.
            own = find_percentiles(self.before_CN), find_percentiles(self.after_CN)
            laid_out = self._lay_out(own, model_range)
        drifts, ratios = [], []
        for before_N, after_N in zip(*laid_out, strict=True):
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
        fix = "--match-light linear, or a model trained for such light and seasons"
        return Finding("light", "WARN", message, fix, values)


def _describe_scalings(scalings: Sequence[BandScaling]) -> str:
    if all(scaling.is_identity for scaling in scalings):
        return ""
    return scalings[0].to_text() if len(scalings) == 1 else f"{len(scalings)} scalings"


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
