"""Measures each pair of a data set, reading its files once.

Legend of the array names: C bands, H rows, W columns, K+1 class ids, N values; 2 dates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from terradelta.classes import ClassTable
from terradelta.data.doctor.evidence import digest, find_shift, rate_change, sign
from terradelta.data.doctor.masks import MaskForm, read_any_mask
from terradelta.data.images import IGNORE, read_change_mask, read_image
from terradelta.data.layouts import PairFiles
from terradelta.errors import DataError
from terradelta.geo.registration import UNKNOWN, Shift


@dataclass(frozen=True)
class ImageFacts:
    """The properties of one image."""

    bands: int
    height: int
    width: int
    dtype: str
    digest: bytes
    signature_N: np.ndarray
    is_constant: bool

    @classmethod
    def of(cls, image_CHW: np.ndarray) -> ImageFacts:
        """Measure an image."""
        bands, height, width = image_CHW.shape
        is_constant = bool((image_CHW == image_CHW[:, :1, :1]).all())
        kind = image_CHW.dtype.name
        return cls(bands, height, width, kind, digest(image_CHW), sign(image_CHW), is_constant)

    @property
    def kind(self) -> str:
        """Size, bands and data type in words."""
        return f"{self.height} x {self.width} px, {self.bands} bands of {self.dtype}"


@dataclass(frozen=True)
class LabelFacts:
    """Counts of the masks of a pair, without corrections."""

    counts_2K: np.ndarray
    """Pixels of each class id at both dates."""
    half_px: int
    """Pixels labelled at one date only."""
    same_px: int
    """Pixels with the same label at both dates."""
    changed_share: float
    """Share of all pixels; if the masks of two dates never differ, the share of labelled ones."""
    change_rating: float
    """See `rate_change`."""

    @property
    def labelled_px(self) -> int:
        """Pixels labelled at either date."""
        return int(self.counts_2K[:, 1:].sum() + self.half_px) // 2

    @property
    def pixels(self) -> int:
        """All pixels of the mask."""
        return int(self.counts_2K[0].sum())


@dataclass(frozen=True)
class PairRecord:
    """The measurements of a pair."""

    split: str
    files: PairFiles
    reference: str
    """Name of the pair in a report."""
    images: tuple[ImageFacts, ImageFacts] | None = None
    """None if an image could not be read."""
    labels: LabelFacts | None = None
    """None if there are no masks, or they are ambiguous or do not fit the images."""
    shift: Shift = UNKNOWN
    faults: Mapping[str, tuple[Path, str]] = field(default_factory=dict)
    """By code: the faulty file, and why the pair cannot be used."""

    @property
    def is_usable(self) -> bool:
        """Whether the pair could be read."""
        return not self.faults and self.images is not None


def measure_pair(
    split: str,
    files: PairFiles,
    reference: str,
    forms: Mapping[Path, MaskForm],
    classes: ClassTable,
) -> PairRecord:
    """Read a pair and its masks; errors become faults."""
    faults: dict[str, tuple[Path, str]] = {}
    images = []
    for path in (files.before, files.after):
        try:
            images.append(read_image(path))
        except DataError as error:
            faults["unreadable"] = path, error.problem
    if faults:
        return PairRecord(split, files, reference, faults=faults)
    before_CHW, after_CHW = images
    facts = ImageFacts.of(before_CHW), ImageFacts.of(after_CHW)
    if facts[0].kind != facts[1].kind:
        fault = files.before, f"{facts[0].kind} before, {facts[1].kind} after"
        return PairRecord(split, files, reference, facts, faults={"date-mismatch": fault})
    if any(date.is_constant for date in facts):
        which = files.before if facts[0].is_constant else files.after
        faults["constant-image"] = which, "all pixels of an image are equal"
    elif facts[0].digest == facts[1].digest:
        faults["identical-dates"] = files.before, "both dates are the same image"
    labels = None
    masks = _read_masks(files, forms, classes)
    for path, mask_HW in masks:
        if mask_HW.shape != before_CHW.shape[1:]:
            sizes = [" x ".join(map(str, a.shape[-2:])) for a in (mask_HW, before_CHW)]
            faults["mask-size"] = path, f"{path.name} is {sizes[0]} px, its image {sizes[1]}"
    change_HW = None
    if files.change_label is not None:
        try:
            change_HW = _read_change(files.change_label, before_CHW.shape[1:])
        except DataError as error:
            faults["change-mask"] = files.change_label, error.problem
    if masks and not faults:
        labels = _measure_labels(
            before_CHW, after_CHW, masks[0][1], masks[-1][1], change_HW, classes
        )
    shift = UNKNOWN if faults else find_shift(before_CHW, after_CHW)
    return PairRecord(split, files, reference, facts, labels, shift, faults)


def _read_masks(
    files: PairFiles, forms: Mapping[Path, MaskForm], classes: ClassTable
) -> list[tuple[Path, np.ndarray]]:
    """Return the masks of the dates, one of a change mask; none if one is ambiguous."""
    masks = []
    for path in dict.fromkeys((files.before_label, files.after_label)):
        form = forms.get(path) if path else None
        mask_HW = read_any_mask(form, classes, files.is_change_mask) if form else None
        if path is None or mask_HW is None:
            return []
        masks.append((path, mask_HW))
    return masks


def _read_change(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Return a change mask as bool; a DataError if it is not one of that size."""
    change_HW = read_change_mask(path) > 0
    if change_HW.shape != shape:
        sizes = [" x ".join(map(str, size)) for size in (change_HW.shape, shape)]
        raise DataError(f"{path.name} is {sizes[0]} px, its image {sizes[1]}", fix="cut them alike")
    return change_HW


def _measure_labels(
    before_CHW: np.ndarray,
    after_CHW: np.ndarray,
    before_HW: np.ndarray,
    after_HW: np.ndarray,
    change_HW: np.ndarray | None,
    classes: ClassTable,
) -> LabelFacts:
    """Compare masks with each other and with the images; a single change mask is passed as both.

    Beside a change mask, land cover may be labelled at one date, and the same where nothing
    changed.
    """
    is_change_mask = before_HW is after_HW
    ignored_HW = (before_HW == IGNORE) | (after_HW == IGNORE)
    before_HW, after_HW = (np.where(ignored_HW, 0, ids_HW) for ids_HW in (before_HW, after_HW))
    labelled_HW = (before_HW > 0) | (after_HW > 0)
    changed_HW = before_HW != after_HW
    if not changed_HW.any():
        changed_HW = labelled_HW
    ids = classes.num_classes + 1
    counts = [np.bincount(mask_HW.ravel(), minlength=ids) for mask_HW in (before_HW, after_HW)]
    same_HW = (before_HW == after_HW) & (before_HW > 0)
    half_HW = (before_HW > 0) != (after_HW > 0)
    if is_change_mask:
        same_HW = np.zeros_like(same_HW)
    elif change_HW is not None:
        changed_HW = change_HW
        same_HW, half_HW = same_HW & change_HW, np.zeros_like(half_HW)
    return LabelFacts(
        counts_2K=np.stack(counts),
        half_px=int(half_HW.sum()),
        same_px=int(same_HW.sum()),
        changed_share=float(changed_HW.mean()),
        change_rating=rate_change(before_CHW, after_CHW, changed_HW),
    )
