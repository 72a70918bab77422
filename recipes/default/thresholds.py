"""Choose the thresholds of the default model on validation pairs whose real changes are known.

A pixel is changed where the probability of its most probable transition reaches the threshold.
Each sensitivity is the threshold with the best F-beta of change among those that flag no more than
a share of the ground that did not change, in these pairs and in others without any change: beta 1
weighs precision and recall alike (balanced), one half prefers precision (few-alarms), two prefers
recall (find-all).

Legend of the array names: H rows, W columns, T thresholds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from terradelta.data.dataset import ChangeDataset
from terradelta.data.labels import UNKNOWN
from terradelta.data.layouts import find_pairs
from terradelta.inference.folders import ImageProbabilities, find_probabilities
from terradelta.inference.predictor import Predictor
from terradelta.models.decision import DecisionRule, Sensitivity

THRESHOLDS = np.arange(1, 100) / 100
AIMS: dict[Sensitivity, tuple[float, float]] = {
    "balanced": (1.0, 0.006),
    "few-alarms": (0.5, 0.003),
    "find-all": (2.0, 0.02),
}
"""Beta, and the share of that ground that may be flagged, rims of changes among it: a false alarm
costs an analyst more trust than a missed shed."""


@dataclass(frozen=True)
class Counts:
    """Pixels that reach each threshold, (T,) each, and all that are known."""

    changed_T: np.ndarray
    unchanged_T: np.ndarray
    changed: int
    unchanged: int

    def score(self, beta: float) -> np.ndarray:
        """Return the F-beta of change at each threshold (van Rijsbergen, 1979)."""
        missed_T = self.changed - self.changed_T
        hits_T = (1 + beta**2) * self.changed_T
        return hits_T / np.maximum(hits_T + beta**2 * missed_T + self.unchanged_T, 1)


def choose_thresholds(predictor: Predictor, pairs: Path) -> tuple[dict[Sensitivity, float], str]:
    """Return the threshold of each sensitivity, and what was seen.

    Args:
        predictor: The calibrated model.
        pairs: The CSV of all pairs.
    """
    real = count(predictor, read_split(pairs, "changed-val-"))
    still = count(predictor, read_split(pairs, "real-val-"))
    flagged_T = (real.unchanged_T + still.unchanged_T) / (real.unchanged + still.unchanged)
    chosen = {
        sensitivity: float(THRESHOLDS[np.argmax(np.where(flagged_T <= most, real.score(beta), -1))])
        for sensitivity, (beta, most) in AIMS.items()
    }
    lines = []
    for sensitivity, threshold in chosen.items():
        at = int(np.searchsorted(THRESHOLDS, threshold - 1e-9))
        recall = real.changed_T[at] / real.changed
        precision = real.changed_T[at] / max(1, real.changed_T[at] + real.unchanged_T[at])
        lines.append(
            f"{sensitivity}: threshold {threshold:.2f}, precision {precision:.3f}, recall "
            f"{recall:.3f}, {100 * flagged_T[at]:.2f} % of unchanged ground"
        )
    return chosen, "\n".join(lines)


def read_split(pairs: Path, prefix: str) -> ChangeDataset:
    """Return the validation pairs whose names begin with a prefix."""
    found = find_pairs(pairs, split="val")
    kept = tuple(pair for pair in found.pairs if pair.name.startswith(prefix))
    return ChangeDataset(replace(found, pairs=kept))


def count(predictor: Predictor, dataset: ChangeDataset) -> Counts:
    """Return how many changed and unchanged pixels reach each threshold."""
    edges = np.array([*THRESHOLDS, np.inf])
    reached = np.zeros((2, len(THRESHOLDS)), np.int64)
    known = np.zeros(2, np.int64)
    for index in tqdm(range(len(dataset)), desc="thresholds", unit="pair", disable=None):
        sample = dataset[index]
        answer = find_probabilities(predictor, sample.before_CHW, sample.after_CHW)
        likely_HW = find_likely(answer)
        change_HW = sample.change_HW.numpy()
        for is_changed in (0, 1):
            chosen = likely_HW[change_HW == is_changed]
            known[is_changed] += chosen.size
            reached[is_changed] += np.histogram(chosen, edges)[0][::-1].cumsum()[::-1]
        assert (change_HW >= UNKNOWN).all()
    return Counts(reached[1], reached[0], int(known[1]), int(known[0]))


def find_likely(answer: ImageProbabilities) -> np.ndarray:
    """Return the probability of the most probable transition to another class, (H, W)."""
    # Any probability reaches a threshold of 0.
    before_HW, _, sure_HW = answer.decide(DecisionRule(0.0, "transition", same_class=False))
    return np.where(before_HW > 0, sure_HW, 0)
