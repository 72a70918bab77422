"""Compares values with the range from dark to bright of the model or of the user.

Legend of the array names: C bands, N pixels.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from terradelta.geo.finding import PairLevel
from terradelta.geo.pair_options import Range

PERCENT = (2, 98)
"""Percentiles of a date's values that are suggested as darkest and brightest."""
FEW_SHARE = 0.01
"""Share of all values; fewer in the range count as almost none."""
TOO_BRIGHT = 2.0
"""Multiple of a model's range, above which values have another depth."""
TOO_DARK = 0.01
"""Share of a model's range that values of another depth, such as fractions, fill: from 0 to 1 that
is 1/255 = 0.4 % of the range of an 8-bit model."""
TOO_FLAT = 0.001
"""Share of a range; values within less of it are one colour."""
OTHER_FACTOR = 4.0
"""Ratio of the dates' spreads from which their units differ."""
OTHER_OFFSET = 0.25
"""Distance of the dates, in spreads, of dark and of bright values, from which one date has an
offset."""
SUGGESTED_DIGITS = 4
"""Significant digits of the span of a suggested range."""


class Misfit(NamedTuple):
    """Why values do not fit a range."""

    level: PairLevel
    """"WARN" or "FAIL", same as in `Finding`."""
    problem: str
    """The problem, with the range."""


def find_percentiles(values_CN: np.ndarray) -> Range:
    """Return the darkest and the brightest of most values."""
    low, high = np.percentile(values_CN, PERCENT)
    return float(low), float(high)


def judge_range(values_CN: np.ndarray, value_range: Range) -> Misfit | None:
    """Return why the values of a date do not fit a range that a user gave."""
    low, high = value_range
    text = f"the range {low:g} to {high:g}"
    share = _measure_inside(values_CN, value_range)
    if share == 0:
        return Misfit("FAIL", f"no value lies in {text}")
    if 0 < np.ptp(values_CN) < TOO_FLAT * (high - low):
        return Misfit("FAIL", f"all values lie within less than {TOO_FLAT:.1%} of {text}")
    if share < FEW_SHARE:
        return Misfit("WARN", f"only {share:.2%} of the values lie in {text}")
    return None


def judge_depth(values_CN: np.ndarray, model_range: Range) -> Misfit | None:
    """Return why the values of a date have another depth than those of a model."""
    low, high = model_range
    text = f"the model was trained on values up to {high:g}"
    is_fraction = values_CN.dtype.kind == "f" and (
        values_CN.max() < low + TOO_DARK * (high - low)
        or 0 < np.ptp(values_CN) < TOO_DARK * (high - low)
    )
    if values_CN.max() > low + TOO_BRIGHT * (high - low) or is_fraction:
        return Misfit("FAIL", text)
    share = _measure_inside(values_CN, model_range)
    if share == 0:
        return Misfit("FAIL", f"{text}, and no value lies there")
    if share < FEW_SHARE:
        return Misfit("WARN", f"{text}, where only {share:.2%} of the values lie")
    return None


def compare_dates(before_CN: np.ndarray, after_CN: np.ndarray) -> str | None:
    """Return how the values of the dates differ by a factor or an offset, or None.

    Light, haze and seasons change values too, but less, or not at both ends.
    """
    before, after = find_percentiles(before_CN), find_percentiles(after_CN)
    spreads = before[1] - before[0], after[1] - after[0]
    if min(spreads) <= 0:
        return None
    factor = spreads[1] / spreads[0]
    if not 1 / OTHER_FACTOR < factor < OTHER_FACTOR:
        return f"the values of after spread {factor:.3g} times as far as those of before"
    shifts = after[0] - before[0], after[1] - before[1]
    is_offset = shifts[0] * shifts[1] > 0
    if is_offset and min(map(abs, shifts)) > OTHER_OFFSET * min(spreads):
        return (
            f"dark values of after lie {shifts[0]:+.4g} and bright ones {shifts[1]:+.4g} from "
            "those of before"
        )
    return None


def suggest_ranges(before_CN: np.ndarray, after_CN: np.ndarray, *, apart: bool) -> str:
    """Return the flags of `predict` that set the darkest and the brightest value.

    Args:
        before_CN: Values of the before image.
        after_CN: Values of the after image.
        apart: Whether each date has a range of its own.
    """
    if apart:
        before, after = _round_range(before_CN), _round_range(after_CN)
        return f"--value-range {before} --after-value-range {after}"
    return f"--value-range {_round_range(np.concatenate([before_CN, after_CN], axis=1))}"


def _measure_inside(values_CN: np.ndarray, value_range: Range) -> float:
    low, high = value_range
    return float(((values_CN >= low) & (values_CN <= high)).mean())


def _round_range(values_CN: np.ndarray) -> str:
    low, high = find_percentiles(values_CN)
    if low == high:
        low, high = float(values_CN.min()), float(values_CN.max())
    if low == high:
        high = low + 1
    decimals = SUGGESTED_DIGITS - 1 - math.floor(math.log10(high - low))
    return ",".join(f"{round(number, max(decimals, 0)):.15g}" for number in (low, high))
