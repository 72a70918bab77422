"""Writes a clean copy of a data set: safe corrections, without the other faulty pairs.

Legend of the array names: H rows, W columns.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
from tqdm import tqdm

from terradelta.classes import BINARY, SENSEEARTH, ClassTable
from terradelta.data.class_file import write_classes
from terradelta.data.doctor.examination import examine
from terradelta.data.doctor.findings import DoctorReport
from terradelta.data.doctor.masks import MaskForm, inspect_mask, read_any_mask
from terradelta.data.doctor.references import name_file, name_pairs
from terradelta.data.images import write_mask
from terradelta.data.layouts import UNLISTED, PairFiles, list_inputs, list_parts
from terradelta.destination import claim_folder
from terradelta.errors import ArgumentError, DataError, OutputError
from terradelta.outputs import stage_folder

CHANGES_FILE = "CHANGES.txt"


def doctor(
    data: str | Path,
    *,
    fix: str | Path | None = None,
    classes: ClassTable | None = None,
    overwrite: bool = False,
) -> DoctorReport:
    """Find problems of a data set, and write a clean copy of it.

    Args:
        data: Data set: a folder in a known layout, or a CSV.
        fix: Folder to make, a copy with safe corrections and without pairs that cannot be
            corrected; None makes no copy.
        classes: Classes of the ids; see `examine`.
        overwrite: Replace an existing copy.

    Raises:
        ArgumentError: Same as in `examine` and `repair`.
        DataError: If no pair would be left.
        OutputExistsError: If the copy exists and `overwrite` is False.
    """
    if fix is not None:
        claim_folder(fix, list_inputs(data), overwrite=overwrite)
    report = examine(data, classes=classes)
    if fix is not None:
        repair(data, fix, report, overwrite)
    return report


def repair(
    data: str | Path,
    output: str | Path,
    report: DoctorReport | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a copy of a data set without its problems, and CHANGES.txt, which lists all changes.

    The copy has im1 im2 label1 label2, or A B label for change masks, in train, val and test if
    the data set names them (pairs without a split go to `unlisted`). Images are copied byte for
    byte, and so are masks that are not corrected. The data set itself is not touched.

    Args:
        data: The data set.
        output: Folder to make; it appears whole or not at all.
        report: Report of `examine` on this data set; by default it is examined first.
        overwrite: Replace an existing folder.

    Returns:
        The folder.

    Raises:
        ArgumentError: If the report is of another data set, or the output is inside the data set.
        DataError: If no pair would be left.
        OutputError: If a file cannot be copied.
        OutputExistsError: If the folder holds something and `overwrite` is False.
    """
    data, output = Path(data), Path(output)
    root = (data if data.is_dir() else data.parent).resolve()
    if root == output.resolve() or root in output.resolve().parents:
        raise ArgumentError(
            f"the copy {output} would lie in the data set {data}", fix="write it somewhere else"
        )
    output = claim_folder(output, list_inputs(data), overwrite=overwrite)
    report = report or examine(data)
    if report.root != data:
        raise ArgumentError(
            f"the report is of {report.root}, the data set {data}", fix="examine this data set"
        )
    copy = _Copy(data, report)
    if not copy.pairs:
        raise DataError(f"no pair of {data} can be used", fix="see what terradelta doctor found")
    with stage_folder(output, overwrite=overwrite) as staged:
        for reference, (split, files) in tqdm(
            copy.pairs.items(), desc="copying", unit="pair", disable=None
        ):
            copy.write(staged / split if copy.has_splits else staged, reference, files)
        if report.classes not in (SENSEEARTH, BINARY):
            write_classes(staged, report.classes)
        (staged / CHANGES_FILE).write_text(copy.describe(), encoding="utf-8")
    return output


class _Copy:
    """The pairs to copy, their names, and how to copy them."""

    def __init__(self, data: Path, report: DoctorReport):
        self.data = data
        self.report = report
        self.codes: dict[str, set[str]] = defaultdict(set)
        removed = set()
        for finding in report.findings:
            for file in finding.files:
                if finding.action == "fixed":
                    self.codes[file].add(finding.code)
                elif finding.action != "kept":
                    removed.add(file)
        found = name_pairs(data, list_parts(data, []))
        self.number_found = len(found)
        self.pairs = {
            reference: (split, files)
            for reference, (split, files) in found.items()
            if removed.isdisjoint((reference, *self._masks(files)))
        }
        self.has_splits = any(split != UNLISTED for split, _ in found.values())
        self.names = self._choose_names()

    def write(self, folder: Path, reference: str, files: PairFiles):
        """Write one pair into the folder of its split."""
        name = self.names[reference]
        images = ("A", "B") if self.report.is_binary else ("im1", "im2")
        for date, source in zip(images, (files.before, files.after), strict=True):
            _copy_file(source, folder / date / f"{name}{source.suffix}")
        if files.change_label is not None:
            _copy_file(
                files.change_label, folder / "change_mask" / f"{name}{files.change_label.suffix}"
            )
        masks = self._masks(files)
        labels = ("label",) if self.report.is_binary else ("label1", "label2")
        fixes = self.codes[reference].union(*(self.codes[mask] for mask in masks))
        is_fixed = bool(fixes - {"same-name"})
        if masks and is_fixed:
            classes = BINARY if self.report.is_binary else self.report.classes
            for label, ids_HW in zip(labels, self._fix(files, fixes), strict=True):
                write_mask(folder / label / f"{name}.png", ids_HW, classes, may_ignore=True)
        else:
            for label, source in zip(labels, masks.values(), strict=False):
                _copy_file(source, folder / label / f"{name}{source.suffix}")

    def describe(self) -> str:
        """Return the action on each file."""
        lines = [
            f"{len(self.pairs)} of {self.number_found} pairs of {self.data.name}, copied by"
            " terradelta doctor --fix.",
            "Images are as they were. Masks that were corrected are indexed PNGs of class ids.",
        ]
        for finding in self.report.findings:
            if finding.level == "OK" and finding.action == "kept":
                continue
            done = "left as it is" if finding.action == "kept" else finding.action
            lines += ["", f"{finding.code}: {done}", finding.message]
            lines += [f"  {file}{self._tell_name(file)}" for file in finding.files]
        return "\n".join(lines) + "\n"

    def _tell_name(self, file: str) -> str:
        name = self.names.get(file)
        return f" -> {name}" if name and name != self.pairs[file][1].name else ""

    def _masks(self, files: PairFiles) -> dict[str, Path]:
        """Return the masks of a pair, one of a change mask, by their names in a report."""
        paths = files.before_label, files.after_label
        return {name_file(self.data, path): path for path in paths if path is not None}

    def _choose_names(self) -> dict[str, str]:
        """Return a unique name for each pair."""
        names: dict[str, str] = {}
        for reference, (split, files) in self.pairs.items():
            wanted = name = files.name
            number = 1
            while name in names.values():
                name = f"{split}_{wanted}" if number == 1 else f"{split}_{wanted}_{number}"
                number += 1
            names[reference] = name
        return names

    def _fix(self, files: PairFiles, fixes: set[str]) -> list[np.ndarray]:
        """Return the class ids of each mask after correction."""
        masks = []
        for mask, path in self._masks(files).items():
            form = inspect_mask(path, self.report.classes, files.is_change_mask)
            if form.form == "ambiguous":
                turned = "mask-bgr" in self.codes[mask]
                form = MaskForm(path, "mask-bgr" if turned else "colours")
            ids_HW = read_any_mask(form, self.report.classes, files.is_change_mask)
            if ids_HW is None:
                raise DataError(
                    f"{path} has become unreadable since it was examined", fix="examine it again"
                )
            masks.append(1 - ids_HW if "polarity" in fixes else ids_HW)
        if "half-labelled" in fixes:
            labelled_HW = np.logical_and.reduce([mask_HW > 0 for mask_HW in masks])
            masks = [np.where(labelled_HW, mask_HW, 0).astype(np.uint8) for mask_HW in masks]
        return masks


def _copy_file(source: Path, target: Path):
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    except OSError as error:
        raise OutputError(
            f"{source} cannot be copied to {target}: {error.strerror}",
            fix="make room or allow writing there, and do not change the data set meanwhile",
        ) from error
