"""Shows the errors of a model's maps and the reliability of its probabilities.

Legend of the array names: C bands, H rows, W columns, K classes, N pixels, I ids.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from terradelta.classes import ClassTable
from terradelta.data.dataset import ChangeDataset, PairSample
from terradelta.data.labels import UNKNOWN
from terradelta.errors import ArgumentError
from terradelta.evaluation.bootstrap import ImageCounts
from terradelta.evaluation.boundaries import BoundaryCounts
from terradelta.evaluation.calibration import (
    Reliability,
    draw_reliability,
    fit_change_calibration,
    fit_class_temperature,
)
from terradelta.evaluation.confusion import MAX_TRANSITION_CLASSES
from terradelta.evaluation.scoring_protocols import (
    PROTOCOLS,
    ProtocolMetric,
    create_protocol,
    measure_class_ious,
)
from terradelta.inference.folders import find_probabilities
from terradelta.inference.predictor import Predictor
from terradelta.models.card import Temperatures
from terradelta.outputs import null_undefined, write_json

SAMPLED_PIXELS_PER_PAIR = 4096
"""Number of pixels for the temperature of change, and for that of the classes."""


@dataclass
class Diagnosis:
    """All counts of a model on a data set."""

    classes: ClassTable
    protocols: dict[str, ProtocolMetric]
    """The counts of each protocol that can score so many classes."""
    pairs: int = 0
    boundaries: BoundaryCounts = field(default_factory=BoundaryCounts)
    """Outlines of the change masks."""
    change: Reliability = field(default_factory=Reliability)
    """Probability of change, of every pixel."""
    land_cover: Reliability = field(default_factory=Reliability)
    """Probability of the most probable class, where something changed, at both dates."""
    answer: Reliability = field(default_factory=Reliability)
    """Confidence that a whole answer is right, as in confidence.tif."""
    wrong_shares: list[float] = field(default_factory=list)
    """Share of wrong pixels of each pair, in the data set's order."""
    _change_samples: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list, repr=False)
    _class_samples: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list, repr=False)

    def list_class_ious(self) -> list[dict[str, Any]]:
        """Return one row for each class id: IoU and pixels of both dates added."""
        counts_II = self.protocols["second"].counts
        ious = measure_class_ious(counts_II)
        return [
            {
                "id": index,
                "class": name,
                "iou": float(ious[index]),
                "true_px": int(counts_II[:, index].sum()),
                "predicted_px": int(counts_II[index].sum()),
                "right_px": int(counts_II[index, index]),
            }
            for index, name in enumerate(self.classes.names)
        ]

    def list_transitions(self) -> list[dict[str, Any]]:
        """Return one row for each transition that occurs: true, predicted and right pixels."""
        if "from-to" not in self.protocols:
            return []
        counts_II = self.protocols["from-to"].counts
        names = self.classes.names
        rows = []
        for index in range(1, len(counts_II)):
            before, after = divmod(index - 1, self.classes.num_classes)
            true_px, predicted_px = counts_II[:, index].sum(), counts_II[index].sum()
            right_px = counts_II[index, index]
            if true_px or predicted_px:
                rows.append(
                    {
                        "from": names[before + 1],
                        "to": names[after + 1],
                        "true_px": int(true_px),
                        "predicted_px": int(predicted_px),
                        "right_px": int(right_px),
                        "iou": float(right_px / (true_px + predicted_px - right_px)),
                    }
                )
        return sorted(rows, key=lambda row: -row["true_px"])

    def fit_temperatures(self) -> Temperatures:
        """Return how to correct this model's logits, in addition to its present correction.

        Raises:
            ArgumentError: If nothing has changed, or everything.
        """
        change = [np.concatenate(part) for part in zip(*self._change_samples, strict=True)]
        land_cover = [np.concatenate(part) for part in zip(*self._class_samples, strict=True)]
        temperature, shift = fit_change_calibration(*change)
        return Temperatures(temperature, fit_class_temperature(*land_cover), shift)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form; undefined numbers become None."""
        curves = self.curves
        return null_undefined(
            {
                "pairs": self.pairs,
                "protocols": {name: metric.compute() for name, metric in self.protocols.items()},
                "classes": self.list_class_ious(),
                "transitions": self.list_transitions(),
                "boundary": {
                    "tolerance_px": self.boundaries.tolerance_px,
                    **self.boundaries.score(),
                },
                "calibration": {
                    name: {"ece": curve.calibration_error, "bins": curve.to_rows()}
                    for name, curve in curves.items()
                },
            }
        )

    @property
    def curves(self) -> dict[str, Reliability]:
        """The reliability curves by name."""
        return {"change": self.change, "land cover": self.land_cover, "answer": self.answer}

    def write(self, folder: Path):
        """Write diagnosis.json, class_iou.csv, transitions.csv and reliability.png."""
        write_json(folder / "diagnosis.json", self.to_dict())
        _write_csv(folder / "class_iou.csv", self.list_class_ious())
        _write_csv(folder / "transitions.csv", self.list_transitions())
        draw_reliability(self.curves, folder / "reliability.png")


def diagnose(
    predictor: Predictor,
    dataset: ChangeDataset,
    tolerance_px: float = 2.0,
    seed: int = 0,
    counts: ImageCounts | None = None,
) -> Diagnosis:
    """Diagnose the answers of a predictor on a labelled data set.

    Args:
        predictor: The models.
        dataset: Fully labelled pairs of the models' classes.
        tolerance_px: Largest distance of outlines of change that agree.
        seed: Seed of the pixels that temperatures are fitted on.
        counts: Also receives each pair's maps.

    Raises:
        ArgumentError: If the pairs have other classes than the models, or only change masks.
        DataError: If a pair cannot be read.
    """
    classes = predictor.classes
    if dataset.pairs.classes != classes:
        raise ArgumentError(
            f"{dataset.pairs.root} names {dataset.pairs.classes.num_classes} classes, and the model"
            f" {classes.num_classes}",
            fix="use pairs that label the model's classes; `evaluate` without --output"
            " also scores change masks",
        )
    small = classes.num_classes <= MAX_TRANSITION_CLASSES
    names = [name for name in PROTOCOLS if small or name != "from-to"]
    diagnosis = Diagnosis(
        classes,
        {name: create_protocol(name, classes.num_classes) for name in names},
        boundaries=BoundaryCounts(tolerance_px),
    )
    random = np.random.default_rng(seed)
    for index in tqdm(range(len(dataset)), "diagnosing", unit="pair", disable=None, leave=False):
        maps, known_HW = _examine_pair(predictor, dataset[index], diagnosis, random)
        if counts is not None:
            counts.add(*maps, valid=known_HW)
    return diagnosis


def _examine_pair(
    predictor: Predictor, sample: PairSample, diagnosis: Diagnosis, random: np.random.Generator
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Add a pair to a diagnosis.

    Returns:
        Its maps, before and after as predicted, then as true, and the pixels whose change is known.
    """
    known_HW = sample.change_HW.numpy() != UNKNOWN
    change_HW = sample.change_HW.numpy() == 1
    # Labelled land cover of unchanged ground is not part of the answer.
    true = tuple(
        np.where(change_HW, labels_HW.numpy(), 0)
        for labels_HW in (sample.before_labels_HW, sample.after_labels_HW)
    )
    answer = find_probabilities(predictor, sample.before_CHW, sample.after_CHW)
    *predicted, confidence_HW = answer.decide(predictor.rule)
    changed_HW = (predicted[0] > 0) & known_HW
    right_HW = (predicted[0] == true[0]) & (predicted[1] == true[1]) & (changed_HW == change_HW)
    right_N = right_HW[known_HW]
    for true_HW, probability_KHW in zip(true, (answer.before_KHW, answer.after_KHW), strict=True):
        top_HW, best_HW = probability_KHW.argmax(axis=0) + 1, probability_KHW.max(axis=0)
        has_class_HW = true_HW > 0
        is_right_N = top_HW[has_class_HW] == true_HW[has_class_HW]
        diagnosis.land_cover.update(best_HW[has_class_HW], is_right_N)
        picked = _pick(has_class_HW, random)
        diagnosis._class_samples.append((probability_KHW[:, *picked].T, true_HW[picked] - 1))
    diagnosis.change.update(answer.change_HW[known_HW], change_HW[known_HW])
    diagnosis.answer.update(confidence_HW[known_HW], right_N)
    diagnosis.wrong_shares.append(1 - float(right_N.mean()) if len(right_N) else 0.0)
    picked = _pick(known_HW, random)
    diagnosis._change_samples.append((answer.change_HW[picked], change_HW[picked]))
    diagnosis.boundaries.update(changed_HW, change_HW)
    for metric in diagnosis.protocols.values():
        metric.update(*predicted, *true, valid=known_HW)
    diagnosis.pairs += 1
    return (*predicted, *true), known_HW


def _pick(allowed_HW: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Return rows and columns of some allowed pixels, drawn without replacement."""
    places = np.flatnonzero(allowed_HW)
    if len(places) > SAMPLED_PIXELS_PER_PAIR:
        places = random.choice(places, SAMPLED_PIXELS_PER_PAIR, replace=False)
    return np.unravel_index(places, allowed_HW.shape)


def _write_csv(path: Path, rows: list[dict[str, Any]]):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)
