"""Matches the light of one image to another: relative radiometric normalization.

Each band of the after image is fitted to that of the before image over pixels that did not change.
These pixels are found during the fit (as in Elvidge et al. 1995, "Relative radiometric
normalization of Landsat MSS images using an automatic scattergram-controlled regression", and Canty
& Nielsen 2008): pixels far off the fit lose weight by Tukey's biweight of the residuals' median
absolute deviation (Holland & Welsch 1977, "Robust regression using iteratively reweighted
least-squares"), and a pixel's weight is the product over its bands. The line is that of the reduced
major axis, as both dates have noise: least squares would flatten the contrast.

Legend of the array names: C bands, H rows, W columns, N pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from terradelta.errors import RasterError

KINDS = ("linear", "histogram")
MAX_PIXELS = 250_000
"""Samples needed for the fit."""
MIN_PIXELS = 100
ROUNDS = 50
TOLERANCE = 1e-4
"""Mean change of the weights below which the fit is done."""
TUNING = 4.685
"""Residuals in standard deviations from which a weight is 0: 95 % efficient for normal ones."""
MAD_TO_SIGMA = 1.4826
MIN_SIGMA = 1e-3
"""Smallest residuals, in standard deviations of the band: those of rounding."""
KNOTS = (0.1, 0.5, *range(1, 100), 99.5, 99.9)
"""Percentiles of the unchanged pixels that are the entries of a table."""
TABLE_WEIGHT = 0.1
"""Pixels with a lower weight are not counted for a table."""
DIGITS = 6
"""Digits of the stored numbers, so that every machine applies the same."""


@dataclass(frozen=True)
class BandMatch:
    """The mapping of the after image's values in one band."""

    after: tuple[float, ...]
    """Values of the after image, increasing; the mapping is linear between them, and outside has
    the slope `gain`."""
    before: tuple[float, ...]
    """The values they are mapped to."""
    gain: float
    """Gain of the whole mapping."""

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Return values of the after image as those of the before image, float64."""
        values = values.astype(np.float64)
        inside = np.clip(values, self.after[0], self.after[-1])
        return np.interp(inside, self.after, self.before) + self.gain * (values - inside)

    def to_text(self) -> str:
        """Return it as a formula; for a table, the line through its first entry."""
        offset = self.before[0] - self.gain * self.after[0]
        about = "" if len(self.after) == 1 else "about "
        return f"{about}x {self.gain:.4g} {'-' if offset < 0 else '+'} {abs(offset):.4g}"


@dataclass(frozen=True)
class LightMatch:
    """Matches the light of an after image to the before image."""

    kind: str
    """"linear" or "histogram"."""
    unchanged_share: float
    """Share of the sampled pixels that counted."""
    bands: tuple[BandMatch, ...]
    """The mapping of each band."""

    @property
    def is_identity(self) -> bool:
        """Whether it changes nothing."""
        return all(band.after == band.before and band.gain == 1 for band in self.bands)

    def apply(self, after_CHW: np.ndarray, before_dtype: np.dtype) -> np.ndarray:
        """Return the after image in the light of the before image.

        Args:
            after_CHW: Values of the after image.
            before_dtype: Data type of the before image. If both images have 8 bits, so has the
                result, rounded; otherwise it is float32.
        """
        if self.is_identity:
            return after_CHW
        is_picture = after_CHW.dtype == np.uint8 and before_dtype == np.uint8
        matched_CHW = np.empty(after_CHW.shape, np.uint8 if is_picture else np.float32)
        for matched_HW, after_HW, band in zip(matched_CHW, after_CHW, self.bands, strict=True):
            if is_picture:
                table = band.apply(np.arange(256)).round().clip(0, 255).astype(np.uint8)
                matched_HW[:] = table[after_HW]
            else:
                matched_HW[:] = band.apply(after_HW)
        return matched_CHW

    def to_text(self, band_names: Sequence[str]) -> str:
        """Return the mapped values of the after image."""
        bands = zip(band_names, self.bands, strict=True)
        return f"{self.kind}, after " + ", ".join(f"{name} {b.to_text()}" for name, b in bands)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form."""
        return {
            "kind": self.kind,
            "unchanged_share": self.unchanged_share,
            "bands": [
                {"after": list(band.after), "before": list(band.before), "gain": band.gain}
                for band in self.bands
            ],
        }


def fit_light(before_CN: np.ndarray, after_CN: np.ndarray, kind: str) -> LightMatch:
    """Return the fit of the after image's light to the before image.

    Args:
        before_CN: Values of pixels spread over the pair.
        after_CN: Values of the same pixels.
        kind: "linear", a gain and an offset per band; or "histogram", a table per band that makes
            the distribution of the unchanged pixels equal to that of the before image.

    Raises:
        RasterError: If there are too few pixels to fit anything.
    """
    if before_CN.shape[1] < MIN_PIXELS:
        raise RasterError(
            f"the light cannot be matched: {before_CN.shape[1]} of the sampled pixels hold data on "
            f"both dates, and {MIN_PIXELS} are needed",
            fix="leave --match-light out",
        )
    step = -(-before_CN.shape[1] // MAX_PIXELS)
    before_CN, after_CN = (
        values_CN[:, ::step].astype(np.float64) for values_CN in (before_CN, after_CN)
    )
    if np.array_equal(before_CN, after_CN):
        return LightMatch(kind, 1.0, (BandMatch((0.0,), (0.0,), 1.0),) * len(before_CN))
    weights_N = np.ones(before_CN.shape[1])
    bands = _fit_bands(before_CN, after_CN, weights_N, _fit_middle)
    fits = [_fit_line] if kind == "linear" else [_fit_line, _fit_table]
    for fit in fits:
        for _ in range(ROUNDS):
            last_N, weights_N = weights_N, _weigh(before_CN, after_CN, bands)
            bands = _fit_bands(before_CN, after_CN, weights_N, fit)
            if np.abs(weights_N - last_N).mean() < TOLERANCE:
                break
    return LightMatch(kind, _round(float((weights_N > 0).mean())), tuple(bands))


Fit = Callable[[np.ndarray, np.ndarray, np.ndarray], BandMatch]
"""Fits a band from values before, after and weights of the pixels, (N,)."""


def _fit_bands(
    before_CN: np.ndarray, after_CN: np.ndarray, weights_N: np.ndarray, fit: Fit
) -> list[BandMatch]:
    return [fit(*pair, weights_N) for pair in zip(before_CN, after_CN, strict=True)]


def _weigh(before_CN: np.ndarray, after_CN: np.ndarray, bands: Sequence[BandMatch]) -> np.ndarray:
    """Return the weight of each pixel as unchanged, 0 to 1."""
    weights_N = np.ones(before_CN.shape[1])
    for before_N, after_N, band in zip(before_CN, after_CN, bands, strict=True):
        residuals_N = before_N - band.apply(after_N)
        sigma = MAD_TO_SIGMA * np.median(np.abs(residuals_N))
        sigma = max(sigma, MIN_SIGMA * before_N.std(), np.finfo(np.float32).tiny)
        weights_N *= (1 - (residuals_N / (TUNING * sigma)).clip(-1, 1) ** 2) ** 2
    return weights_N


def _fit_middle(before_N: np.ndarray, after_N: np.ndarray, weights_N: np.ndarray) -> BandMatch:
    """Fit the middle half of all values: the start of the weights."""
    before, after = (np.percentile(part_N, (25, 50, 75)) for part_N in (before_N, after_N))
    return _draw_line(before[1], after[1], before[2] - before[0], after[2] - after[0])


def _fit_line(before_N: np.ndarray, after_N: np.ndarray, weights_N: np.ndarray) -> BandMatch:
    """Fit the reduced major axis."""
    means, spreads = [], []
    for part_N in (before_N, after_N):
        means.append(np.average(part_N, weights=weights_N))
        spreads.append(np.sqrt(np.average((part_N - means[-1]) ** 2, weights=weights_N)))
    return _draw_line(*means, *spreads)


def _fit_table(before_N: np.ndarray, after_N: np.ndarray, weights_N: np.ndarray) -> BandMatch:
    """Fit the distributions of the unchanged pixels."""
    is_kept_N = weights_N > TABLE_WEIGHT
    before, after = (np.percentile(part_N[is_kept_N], KNOTS) for part_N in (before_N, after_N))
    # For equal values of the after image, the middle of their mapped values.
    after, places = np.unique(after, return_inverse=True)
    before = np.bincount(places, before) / np.bincount(places)
    line = _fit_line(before_N, after_N, weights_N)
    return BandMatch(
        tuple(map(_round, after.tolist())), tuple(map(_round, before.tolist())), line.gain
    )


def _draw_line(before: float, after: float, before_spread: float, after_spread: float) -> BandMatch:
    """Return the line through a point with the gain that maps one spread to the other."""
    is_flat = min(before_spread, after_spread) <= MIN_SIGMA * abs(max(before, after, key=abs))
    gain = 1.0 if is_flat else _round(float(before_spread / after_spread))
    return BandMatch((_round(float(after)),), (_round(float(before)),), gain)


def _round(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")
