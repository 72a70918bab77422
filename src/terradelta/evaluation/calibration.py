"""Reliability of probabilities, and the temperatures that correct them.

Legend of the array names: N pixels, K classes, S bins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, log_softmax, logit

from terradelta.errors import ArgumentError, DataError

BINS = 15
LARGEST_TEMPERATURE = 20.0
LARGEST_SHIFT = 20.0
SMALLEST_PROBABILITY = 1e-38
LARGEST_PROBABILITY = 1 - 2.0**-25
"""Logits from -87 to 17, whose probabilities float32 distinguishes from 0 and from 1."""


@dataclass
class Reliability:
    """Stated probabilities and observed frequencies, in bins; adds up."""

    number_S: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))
    """Pixels by stated probability, in bins of equal width."""
    stated_S: np.ndarray = field(default_factory=lambda: np.zeros(BINS))
    """Sum of the stated probabilities."""
    true_S: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))
    """Number of true outcomes."""

    def update(self, stated_N: np.ndarray, true_N: np.ndarray):
        """Count pixels.

        Args:
            stated_N: Probabilities of any shape, from 0 to 1.
            true_N: bool of the same shape: the outcomes.

        Raises:
            DataError: If shapes disagree.
        """
        if stated_N.shape != true_N.shape:
            raise DataError(
                f"{stated_N.shape} probabilities and {true_N.shape} outcomes",
                fix="give one outcome for each",
            )
        stated_N = stated_N.ravel().astype(np.float64)
        bin_N = np.minimum((stated_N * BINS).astype(np.int64), BINS - 1)
        self.number_S += np.bincount(bin_N, minlength=BINS)
        self.stated_S += np.bincount(bin_N, stated_N, BINS)
        self.true_S += np.bincount(bin_N[true_N.ravel()], minlength=BINS)

    @property
    def calibration_error(self) -> float:
        """Expected calibration error: mean gap between stated and true, weighted by pixels.

        nan if nothing was counted.

        Source: Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning",
        AAAI 2015.
        """
        total = self.number_S.sum()
        if not total:
            return math.nan
        return float(np.abs(self.stated_S - self.true_S).sum() / total)

    def to_rows(self) -> list[dict[str, float]]:
        """Return one row for each bin that holds pixels: mean stated, share true, pixels."""
        return [
            {
                "stated": float(self.stated_S[i] / self.number_S[i]),
                "true": float(self.true_S[i] / self.number_S[i]),
                "pixels": int(self.number_S[i]),
            }
            for i in np.flatnonzero(self.number_S)
        ]


def fit_change_calibration(probability_N: np.ndarray, true_N: np.ndarray) -> tuple[float, float]:
    """Return the T and s for which sigmoid(logit(p) / T + s) has the least cross entropy.

    Args:
        probability_N: Probabilities of change.
        true_N: bool, whether it changed.

    Raises:
        ArgumentError: If only one outcome occurs.

    Source: Platt, "Probabilistic Outputs for Support Vector Machines", 1999, equation 1.
    """
    if true_N.all() or not true_N.any():
        raise ArgumentError(
            "all pixels have changed, or none has: nothing to calibrate change on",
            fix="calibrate on labelled pairs with changes",
        )
    logits_N = logit(_clip(probability_N))
    sign_N = np.where(true_N, 1.0, -1.0)

    def measure(slope_and_shift: np.ndarray) -> tuple[float, np.ndarray]:
        """Cross entropy and its gradient."""
        slope, shift = slope_and_shift
        margin_N = sign_N * (slope * logits_N + shift)
        pull_N = -sign_N * expit(-margin_N)
        gradient = np.array([(pull_N * logits_N).mean(), pull_N.mean()])
        return float(np.logaddexp(0, -margin_N).mean()), gradient

    slopes = 1 / LARGEST_TEMPERATURE, LARGEST_TEMPERATURE
    shifts = -LARGEST_SHIFT, LARGEST_SHIFT
    found = minimize(measure, np.array([1.0, 0.0]), jac=True, bounds=[slopes, shifts])
    slope, shift = found.x
    return float(1 / slope), float(shift)


def fit_class_temperature(probability_NK: np.ndarray, class_N: np.ndarray) -> float:
    """Return the T for which softmax(log p / T) has the least cross entropy.

    Args:
        probability_NK: Probabilities of the classes.
        class_N: Index of the true one, 0..K-1.

    Raises:
        ArgumentError: If there are no pixels.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2.
    """
    if not class_N.size:
        raise ArgumentError(
            "no pixel has a class: nothing to calibrate classes on",
            fix="calibrate on labelled pairs with changes",
        )
    if probability_NK.shape[1] == 1:
        return 1.0
    logs_NK = np.log(_clip(probability_NK))
    picked = np.arange(len(class_N)), class_N
    return _minimize(lambda temperature: -log_softmax(logs_NK / temperature, axis=1)[picked].mean())


def draw_reliability(curves: dict[str, Reliability], path: Path):
    """Draw reliability curves, one panel each, above histograms of the stated probabilities.

    Args:
        curves: Curves by title.
        path: PNG to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(curves), 4.6), layout="constrained")
    upper, lower = figure.subplots(2, len(curves), squeeze=False, sharex=True, height_ratios=(3, 1))
    for curve_axes, count_axes, (title, curve) in zip(upper, lower, curves.items(), strict=True):
        rows = curve.to_rows()
        curve_axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        curve_axes.plot([r["stated"] for r in rows], [r["true"] for r in rows], "o-", markersize=4)
        curve_axes.set(title=f"{title}\nECE {curve.calibration_error:.3f}", ylim=(0, 1))
        edges = np.linspace(0, 1, BINS + 1)
        share_S = curve.number_S / max(1, curve.number_S.sum())
        count_axes.bar(edges[:-1], share_S, width=1 / BINS, align="edge", edgecolor="white")
        count_axes.set(xlabel="stated probability", xlim=(0, 1), ylim=(0, 1))
    upper[0].set_ylabel("came true")
    lower[0].set_ylabel("share of pixels")
    figure.savefig(path, dpi=120)


def _clip(probability: np.ndarray) -> np.ndarray:
    return np.clip(probability.astype(np.float64), SMALLEST_PROBABILITY, LARGEST_PROBABILITY)


def _minimize(loss) -> float:
    reach = math.log(LARGEST_TEMPERATURE)
    result = minimize_scalar(lambda log_t: loss(math.exp(log_t)), bounds=(-reach, reach))
    return math.exp(result.x)
