"""Examines all splits of a data set of image pairs and lists its faults."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from terradelta.classes import BINARY, SENSEEARTH, ClassTable
from terradelta.data.class_file import CLASSES_FILE, read_classes
from terradelta.data.doctor.findings import COPY, FETCH_AGAIN, DatasetFinding, DoctorReport, count
from terradelta.data.doctor.label_checks import judge_classes, judge_forms, judge_labels
from terradelta.data.doctor.leaks import find_leaks
from terradelta.data.doctor.masks import MaskForm, inspect_mask, settle_forms
from terradelta.data.doctor.measurement import PairRecord, measure_pair
from terradelta.data.doctor.references import name_file, name_pairs
from terradelta.data.layouts import (
    UNLISTED,
    PairFiles,
    Problems,
    add_validation,
    list_class_folders,
    list_parts,
)
from terradelta.errors import ArgumentError, DataError

WARN_SHIFT_PX = 2.0
"""Drawn pairs are shifted by up to 1.4 px, years of NAIP by up to 1."""
MIN_AGREEING_PATCHES = 3

_FAULTS = {
    "unreadable": ("cannot be read", FETCH_AGAIN),
    "date-mismatch": (
        "have dates of different size, bands or type",
        "cut both dates to the same ground and pixels",
    ),
    "constant-image": ("have an image of one value only", FETCH_AGAIN),
    "identical-dates": ("show the same image at both dates", "replace it by the right after image"),
    "mask-size": (
        "have masks of another size than the images",
        "cut masks and images to the same pixels (resample masks by nearest neighbour)",
    ),
    "change-mask": (
        "have a change mask beside the masks of the dates that cannot be used",
        "save it as 0 and 255, as large as the images",
    ),
}


def examine(
    data: str | Path, *, classes: ClassTable | None = None, val_every: int = 10
) -> DoctorReport:
    """Examine a data set: its files, masks, splits, and whether masks and images fit.

    Every image and mask is read once; a file that cannot be read is a finding like any other.

    Args:
        data: Folder or CSV file, as for `find_pairs`.
        classes: Classes of the ids; by default those of the data set's classes.json, or
            without one SENSEEARTH, and BINARY for change masks.
        val_every: Step of the rule that makes a missing validation split.

    Returns:
        Findings, each with all of its files.

    Raises:
        ArgumentError: If `val_every` is less than 2, or `classes` does not fit change masks.
    """
    if val_every < 2:
        raise ArgumentError(f"val_every is {val_every}, and it must be 2 or more", fix="use 10")
    data = Path(data)
    problems: Problems = []
    try:
        parts = list_parts(data, problems)
        classes = classes or read_classes(list_class_folders(data))
    except DataError as error:
        failure = DatasetFinding("FAIL", "layout", error.problem, fix=error.fix, action="left out")
        return DoctorReport(data, (failure,), classes or SENSEEARTH)
    pairs = name_pairs(data, parts)
    kinds = _count_kinds(parts)
    is_binary = kinds[True] > kinds[False]
    table = classes or (BINARY if is_binary else SENSEEARTH)
    if is_binary and table.num_classes != 1:
        raise ArgumentError(
            f"{data} has change masks, one class, but the class table has {table.num_classes}",
            fix=f"leave the class table or {CLASSES_FILE} out",
        )
    forms = _inspect_masks(parts, table, is_binary)
    bar = tqdm(pairs.items(), "examining", unit="pair", disable=None)
    records = [
        measure_pair(split, files, reference, forms, table) for reference, (split, files) in bar
    ]
    findings = [
        _describe(records, is_binary),
        *_judge_layout(data, problems, records, is_binary),
        *_judge_faults(data, records),
        *_judge_sizes(records),
        *judge_forms(data, forms, table, is_binary),
        *judge_labels(records, is_binary),
        *judge_classes(records, table, is_binary),
        *find_leaks(records, _name_splits(parts, pairs, val_every)),
        *_judge_shifts(records),
    ]
    return DoctorReport(data, tuple(findings), table, is_binary)


def _count_kinds(parts: Mapping[str, Sequence[PairFiles]]) -> Counter[bool]:
    """Count pairs with a change mask (True) and with masks of the dates (False)."""
    return Counter(
        files.is_change_mask
        for pairs in parts.values()
        for files in pairs
        if files.before_label is not None
    )


def _inspect_masks(
    parts: Mapping[str, Sequence[PairFiles]], classes: ClassTable, is_binary: bool
) -> dict[Path, MaskForm]:
    """Return the form of each mask of the data set's kind."""
    masks = {
        path: files.is_change_mask
        for pairs in parts.values()
        for files in pairs
        for path in (files.before_label, files.after_label)
        if path is not None and files.is_change_mask == is_binary
    }
    bar = tqdm(masks.items(), "reading masks", unit="mask", disable=None)
    forms = settle_forms(inspect_mask(path, classes, is_change) for path, is_change in bar)
    return {form.path: form for form in forms}


def _name_splits(
    parts: dict[str, list[PairFiles]], pairs: dict[str, tuple[str, PairFiles]], val_every: int
) -> dict[str, str]:
    """Return the split of each pair as used by training; pairs without a split are left out."""
    parts = {split: pairs for split, pairs in parts.items() if pairs}
    validation = set(add_validation(parts, val_every).get("val", ()))
    splits = {}
    for reference, (split, files) in pairs.items():
        if split == UNLISTED and set(parts) != {UNLISTED}:
            continue
        made = "val" not in parts and split in ("train", UNLISTED)
        if made:
            splits[reference] = "val" if files in validation else "train"
        else:
            splits[reference] = split
    return splits


def _describe(records: Sequence[PairRecord], is_binary: bool) -> DatasetFinding:
    splits = Counter(record.split for record in records)
    parts = ", ".join(f"{split} {number}" for split, number in splits.items())
    if set(splits) == {UNLISTED}:
        parts = "no splits"
    kinds = Counter(record.images[0].kind for record in records if record.images)
    kind = kinds.most_common(1)[0][0] if kinds else "no readable image"
    masks = "change masks" if is_binary else "land-cover masks"
    labelled = sum(record.files.is_labelled for record in records)
    return DatasetFinding(
        "OK",
        "pairs",
        f"{count(len(records), 'pair')} ({parts}); {kind}; {masks} for {labelled}",
        values={"splits": dict(splits), "labelled": labelled},
    )


def _judge_layout(
    data: Path, problems: Problems, records: Sequence[PairRecord], is_binary: bool
) -> Iterator[DatasetFinding]:
    by_fix: dict[str, list[tuple[Path, DataError]]] = defaultdict(list)
    for path, error in problems:
        by_fix[error.fix].append((path, error))
    for fix, group in by_fix.items():
        files = tuple(dict.fromkeys(name_file(data, path) for path, _ in group))
        more = f", and {len(group) - 1} more like it" if len(group) > 1 else ""
        yield DatasetFinding("FAIL", "layout", group[0][1].problem + more, files, fix, "left out")
    labelled = [record for record in records if record.files.is_labelled]
    bare = tuple(record.reference for record in records if not record.files.is_labelled)
    if bare and labelled:
        yield DatasetFinding(
            "WARN",
            "unlabelled",
            f"{count(len(bare), 'pair')} of {len(records)} without labels",
            bare,
            "add their masks, or move them to a folder for predict",
            "left out",
        )
    partly = tuple(record.reference for record in labelled if record.files.is_partly_labelled)
    if partly:
        yield DatasetFinding(
            "WARN",
            "partly-labelled",
            f"{count(len(partly), 'pair')} with a change mask or the mask of one date only:"
            " use them to train, not to score",
            partly,
            "keep them in the train split; a copy in folders leaves them out",
            "left out",
        )
    other = tuple(
        record.reference
        for record in labelled
        if record.files.before_label and record.files.is_change_mask != is_binary
    )
    if other:
        kinds = "change masks", "land-cover masks"
        yield DatasetFinding(
            "FAIL",
            "mixed-labels",
            f"{count(len(other), 'pair')} with {kinds[is_binary]}, the others with"
            f" {kinds[not is_binary]}",
            other,
            "keep the two kinds in two data sets",
            "left out",
        )
    names = Counter(record.files.name for record in records)
    twice = tuple(r.reference for r in records if names[r.files.name] > 1)
    if twice:
        yield DatasetFinding(
            "WARN",
            "same-name",
            f"{count(len(twice), 'pair')} with the name of another pair",
            twice,
            f"{COPY} names that occur once",
            "fixed",
        )


def _judge_faults(data: Path, records: Sequence[PairRecord]) -> Iterator[DatasetFinding]:
    for code, (what, fix) in _FAULTS.items():
        found = [(r.reference, *r.faults[code]) for r in records if code in r.faults]
        if found:
            message = f"{count(len(found), 'pair')}: {what}; the first: {found[0][2]}"
            references = tuple(reference for reference, _, _ in found)
            paths = [name_file(data, path) for _, path, _ in found]
            yield DatasetFinding(
                "FAIL", code, message, references, fix, "left out", {"files_at_fault": paths}
            )


def _judge_sizes(records: Sequence[PairRecord]) -> Iterator[DatasetFinding]:
    usable = [(r.reference, r.images[0]) for r in records if r.is_usable and r.images]
    looks = (
        (
            "image-sizes",
            "sizes",
            lambda image: f"{image.height} x {image.width} px",
            "train with --crop-size-px no larger than the smallest",
        ),
        (
            "image-bands",
            "bands or types",
            lambda image: f"{image.bands} bands of {image.dtype}",
            "save all images with the same bands and data type",
        ),
    )
    for code, noun, tell, fix in looks:
        kinds = Counter(tell(image) for _, image in usable)
        if len(kinds) > 1:
            usual = kinds.most_common(1)[0][0]
            counts = ", ".join(f"{number} of {kind}" for kind, number in kinds.most_common(4))
            files = tuple(reference for reference, image in usable if tell(image) != usual)
            message = f"{len(kinds)} {noun} of images: {counts}" + ", ..." * (len(kinds) > 4)
            yield DatasetFinding("WARN", code, message, files, fix, values={"counts": dict(kinds)})


def _judge_shifts(records: Sequence[PairRecord]) -> Iterator[DatasetFinding]:
    shifted = [
        record
        for record in records
        if record.shift.reliable
        and record.shift.patches >= MIN_AGREEING_PATCHES
        and record.shift.length_px > WARN_SHIFT_PX
    ]
    if shifted:
        worst = max(shifted, key=lambda record: record.shift.length_px)
        yield DatasetFinding(
            "WARN",
            "shift",
            f"{count(len(shifted), 'pair')} of {len(records)} lie more than {WARN_SHIFT_PX:g} px"
            f" off; the largest shift is {worst.shift.length_px:.1f} px: {worst.reference}",
            tuple(record.reference for record in shifted),
            "resample their after images by these shifts, or leave them out of training",
            values={
                record.reference: [record.shift.columns_px, record.shift.rows_px]
                for record in shifted
            },
        )
