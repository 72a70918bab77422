"""Scores a folder of masks against its labels, or compares it with another.

Legend of the array names: H rows, W columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from tqdm import tqdm

from terradelta.classes import SENSEEARTH, ClassTable
from terradelta.data.class_file import read_classes
from terradelta.data.images import IGNORE, read_mask
from terradelta.data.layouts import find_masks
from terradelta.errors import DataError
from terradelta.evaluation.bootstrap import (
    DEFAULT_REPLICATES,
    Difference,
    ImageCounts,
    Interval,
)
from terradelta.evaluation.bootstrap import bootstrap as find_intervals
from terradelta.evaluation.bootstrap import compare as compare_images
from terradelta.evaluation.scoring_protocols import create_protocol
from terradelta.fields import COUNT, POSITIVE_COUNT, checks_ranges


@dataclass(frozen=True)
class Scores:
    """The numbers of one protocol."""

    protocol: str
    """Name of the protocol; numbers of different protocols are not comparable."""
    numbers: dict[str, float]
    """Every number of the protocol."""
    pairs: int
    """Number of counted image pairs."""
    intervals: dict[str, Interval] = field(default_factory=dict)
    """95 % intervals by image, if requested."""

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form; numbers that are undefined (nan) become None."""
        numbers = {name: _or_none(value) for name, value in self.numbers.items()}
        fields = {"protocol": self.protocol, "pairs": self.pairs, **numbers}
        if self.intervals:
            fields["intervals_95_percent"] = {
                name: [_or_none(span.low), _or_none(span.high)]
                for name, span in self.intervals.items()
            }
        return fields


@dataclass(frozen=True)
class Comparison:
    """The numbers of two maps of the same images."""

    first: Scores
    second: Scores
    differences: dict[str, Difference]
    """First minus second."""

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form; numbers that are undefined (nan) become None."""
        return {
            "first": self.first.to_dict(),
            "second": self.second.to_dict(),
            "differences": {
                name: {
                    "difference": _or_none(difference.value),
                    "interval_95_percent": [
                        _or_none(difference.interval.low),
                        _or_none(difference.interval.high),
                    ],
                    "p_value": _or_none(difference.p_value),
                }
                for name, difference in self.differences.items()
            },
        }


@checks_ranges
def score(
    predictions: str | Path,
    labels: str | Path,
    *,
    protocol: str = "second",
    classes: ClassTable | None = None,
    bootstrap: Annotated[int, POSITIVE_COUNT] | None = None,
    seed: Annotated[int, COUNT] = 0,
) -> Scores:
    """Score predicted masks against labels of the same names.

    Both folders may hold `before/ after/`, `im1/ im2/` or `label1/ label2/`, indexed or in the
    colours of the class table.

    Args:
        predictions: Folder of the predicted masks.
        labels: Folder of the true masks.
        protocol: "second", "from-to" or "ual".
        classes: Classes of the masks' values; by default those of a classes.json beside the labels,
            or else SENSEEARTH.
        bootstrap: Number of sets of images to draw for 95 % intervals, or None.
        seed: Seed of the drawing.

    Raises:
        DataError: If a mask is missing or cannot be read, or two masks differ in size.
        ArgumentError: If the protocol is unknown.
    """
    counts = count_folders(predictions, labels, protocol, classes, apart=bootstrap is not None)
    return summarize(counts, bootstrap, seed)


@checks_ranges
def compare_masks(
    predictions: str | Path,
    other: str | Path,
    labels: str | Path,
    *,
    protocol: str = "second",
    classes: ClassTable | None = None,
    bootstrap: Annotated[int, POSITIVE_COUNT] = DEFAULT_REPLICATES,
    seed: Annotated[int, COUNT] = 0,
) -> Comparison:
    """Compare two folders of predicted masks on the same labels, image by image.

    Args:
        predictions: Folder of the predicted masks.
        other: Folder of masks that another model predicted.
        labels: Folder of the true masks.
        protocol: Same as in `score`.
        classes: Same as in `score`.
        bootstrap: Number of sets of images to draw, and of random exchanges.
        seed: Seed of both.

    Raises:
        DataError: Same as in `score`.
        ArgumentError: Same as in `score`.
    """
    return compare_counts(
        count_folders(predictions, labels, protocol, classes),
        count_folders(other, labels, protocol, classes),
        bootstrap,
        seed,
    )


@checks_ranges
def compare_counts(
    first: ImageCounts,
    second: ImageCounts,
    bootstrap: Annotated[int, POSITIVE_COUNT],
    seed: Annotated[int, COUNT] = 0,
) -> Comparison:
    """Return both scores with their intervals, and their differences."""
    return Comparison(
        summarize(first, bootstrap, seed),
        summarize(second, bootstrap, seed),
        compare_images(first, second, bootstrap, seed),
    )


def count_folders(
    predictions: str | Path,
    labels: str | Path,
    protocol: str,
    classes: ClassTable | None,
    apart: bool = True,
) -> ImageCounts:
    """Return the counts of predicted masks against labels, same as in `score`."""
    predicted = find_masks(Path(predictions))
    true = find_masks(Path(labels))
    classes = classes or read_classes([Path(labels)]) or SENSEEARTH
    counts = ImageCounts(create_protocol(protocol, classes.num_classes), apart)
    if predicted.keys() != true.keys():
        missing, extra = (
            sorted(true.keys() - predicted.keys()),
            sorted(predicted.keys() - true.keys()),
        )
        raise DataError(
            f"{predictions} lacks {len(missing)} masks that {labels} has "
            f"({', '.join(missing[:5])}) and has {len(extra)} more ({', '.join(extra[:5])})",
            fix="predict every labelled pair, and nothing else",
        )
    for name in tqdm(sorted(true), desc="scoring", unit="pair", disable=None):
        masks = [read_mask(path, classes) for path in predicted[name]]
        masks += [read_mask(path, classes, may_ignore=True) for path in true[name]]
        _require_same_size([*predicted[name], *true[name]], masks)
        known_HW = (masks[2] != IGNORE) & (masks[3] != IGNORE)
        counts.add(
            *masks[:2], *(np.where(known_HW, ids_HW, 0) for ids_HW in masks[2:]), valid=known_HW
        )
    return counts


def summarize(counts: ImageCounts, bootstrap: int | None = None, seed: int = 0) -> Scores:
    """Return the numbers of counted maps, with intervals if sets of images are drawn."""
    metric = counts.metric
    intervals = {} if bootstrap is None else find_intervals(counts, bootstrap, seed)
    return Scores(metric.name, metric.compute(), len(counts), intervals)


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _require_same_size(paths: Sequence[Path], masks: Sequence[np.ndarray]):
    for path, mask_HW in zip(paths, masks, strict=True):
        if mask_HW.shape != masks[0].shape:
            raise DataError(
                f"{path} is {mask_HW.shape[1]} x {mask_HW.shape[0]} px and {paths[0]} is "
                f"{masks[0].shape[1]} x {masks[0].shape[0]} px",
                fix="score masks of the same size",
            )
