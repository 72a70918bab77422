"""95 % intervals of shares that a stratified sample estimates.

1.96 standard errors on either side, as in the papers, are too narrow if a share is based on a
few points: the share's distribution is skewed, and its standard error is itself an estimate that is
small whenever the share is small.

A symmetric interval on the scale of log odds corrects the first. Of the second, only the part
that does not follow the share matters, the design effect: the variance over the p(1 - p)
that it is proportional to in a simple random sample. Its uncertainty is expressed by
degrees of freedom, matched to the variance of a variance by Satterthwaite (1946), and t takes the
place of 1.96. The points' fourth moments give that variance; Cochran (1977, section 5.4) shows
that normal ones overstate it for rare classes. `tests/evaluate/area_estimation/test_intervals.py`
measures how often the intervals contain the truth.

Legend of the array names: N points, H strata, Q quantities.

Sources: Korn and Graubard, "Confidence intervals for proportions with small expected number of
positive counts estimated from survey data", Survey Methodology 24, 1998 (logits, and degrees of
freedom of the design); Satterthwaite, "An approximate distribution of estimates of variance
components", Biometrics Bulletin 2, 1946.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit, logit
from scipy.stats import t as student

Z_95 = 1.96
"""Standard errors on either side of an estimate that make its 95 % interval, if it is normal."""
PROBABILITY = 0.975
MIN_DEGREES, MAX_DEGREES = 1.0, 1e6
ROUNDING = 1e-9
"""Smallest standard error of a share; smaller ones are rounding errors of 0."""


class StratumMeans:
    """The uncertainty of weighted sums of stratum means.

    Args:
        deviations_NQ: Each point's deviation from its stratum's mean.
        stratum_N: Stratum of each point.
        points_H: Points of each stratum.
        weights_H: Its share of the whole.
        unseen_H: Share of its pixels that was not drawn.
    """

    def __init__(
        self,
        deviations_NQ: np.ndarray,
        stratum_N: np.ndarray,
        points_H: np.ndarray,
        weights_H: np.ndarray,
        unseen_H: np.ndarray,
    ):
        self._deviations_NQ, self._stratum_N = deviations_NQ, stratum_N
        self._points_H, self._weights_H, self._unseen_H = points_H, weights_H, unseen_H
        self._squares_HQ = self._sum(deviations_NQ**2) / np.maximum(points_H - 1, 1)[:, None]
        self._factor_H = weights_H**2 * unseen_H / np.maximum(points_H, 1)
        self.variance_Q = self._factor_H @ self._squares_HQ
        """Variance of the sum over strata of weight times mean."""

    def find_degrees(self, share_Q: np.ndarray) -> np.ndarray:
        """Return the degrees of freedom of the design effect, variance over p (1 - p)."""
        stratum_N, points_H = self._stratum_N, self._points_H
        with np.errstate(divide="ignore", invalid="ignore"):
            slope_Q = (1 - 2 * share_Q) / (share_Q * (1 - share_Q))
            # The influence of each point on the logarithm of the design effect.
            of_variance_NQ = (
                self._factor_H[stratum_N, None]
                * (self._deviations_NQ**2 - self._squares_HQ[stratum_N])
                / self.variance_Q
            )
            of_share_NQ = slope_Q * self._weights_H[stratum_N, None] * self._deviations_NQ
            squares_HQ = self._sum((of_variance_NQ - of_share_NQ) ** 2)
            relative_Q = (self._unseen_H / np.maximum(points_H, 1) ** 2) @ squares_HQ
            degrees_Q = 2 / relative_Q
        return np.clip(np.nan_to_num(degrees_Q, nan=MIN_DEGREES), MIN_DEGREES, MAX_DEGREES)

    def _sum(self, values_NQ: np.ndarray) -> np.ndarray:
        """Return sums over the points of each stratum, (H, Q)."""
        sums_HQ = np.zeros((len(self._points_H), values_NQ.shape[1]))
        np.add.at(sums_HQ, self._stratum_N, values_NQ)
        return sums_HQ


def find_logit_intervals(
    values_Q: np.ndarray, parts: StratumMeans, heaviest_Q: np.ndarray, least: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of intervals that are symmetric in log odds, within `least` and 1.

    If all points agree, the standard error is 0. The interval then reaches as far as
    it would in a simple random sample with all weights equal to the largest: about three points.

    Args:
        values_Q: Shares, from `least` to 1; nan stays nan.
        parts: The strata that they are computed from.
        heaviest_Q: The largest share that one point represents.
        least: Smallest possible share.
    """
    width = 1 - least
    share_Q = np.clip((values_Q - least) / width, 0, 1)
    error_Q = np.sqrt(parts.variance_Q) / width
    quantile_Q = student.ppf(PROBABILITY, parts.find_degrees(share_Q))
    with np.errstate(divide="ignore", invalid="ignore"):
        reach_Q = quantile_Q * error_Q / (share_Q * (1 - share_Q))
        low_Q, high_Q = (expit(logit(share_Q) + sign * reach_Q) for sign in (-1, 1))
    reach_Q = Z_95**2 * heaviest_Q / (1 + Z_95**2 * heaviest_Q)
    agree_Q = error_Q < ROUNDING
    low_Q = np.where(agree_Q, np.maximum(share_Q - reach_Q, 0), low_Q)
    high_Q = np.where(agree_Q, np.minimum(share_Q + reach_Q, 1), high_Q)
    return least + width * low_Q, least + width * high_Q


def find_wald_intervals(
    values_Q: np.ndarray, parts: StratumMeans, _heaviest_Q: np.ndarray, least: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Return 1.96 standard errors on either side, cut off at `least` and 1.

    Source: Olofsson et al. (2014), section 4.2.
    """
    half_Q = Z_95 * np.sqrt(parts.variance_Q)
    return np.maximum(values_Q - half_Q, least), np.minimum(values_Q + half_Q, 1)
