"""Checks the masks of a data set: their form, their classes, their agreement with the images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from terradelta.classes import ClassTable
from terradelta.data.doctor.findings import COPY, FETCH_AGAIN, Action, DatasetFinding, Level, count
from terradelta.data.doctor.masks import MaskForm
from terradelta.data.doctor.measurement import LabelFacts, PairRecord
from terradelta.data.doctor.references import name_file
from terradelta.data.layouts import UNLISTED

MAX_CHANGED_SHARE = 0.5
MAX_RATING_OF_PAIR = 0.4
MAX_RATING_OF_SET = 0.45
"""`rate_change` is below this if changed and unchanged are swapped; right masks had
0.63 to 0.83 on average, and single pairs of 128 px 0.4 or more."""

_FORMS: dict[str, tuple[Level, Action, str, str]] = {
    "colours": ("OK", "fixed", "are RGB in the class table's colours", "class ids"),
    "change-255": ("OK", "fixed", "are change masks of 0 and 255", "0 and 1"),
    "change-stray": (
        "WARN",
        "fixed",
        "are change masks of 0 and 255 with a few pixels of other values, which are read as"
        " the nearer of the two",
        "0 and 1",
    ),
    "mask-bgr": (
        "FAIL",
        "fixed",
        "are in the class table's colours with red and blue swapped",
        "the channels corrected",
    ),
    "palette-bgr": (
        "FAIL",
        "fixed",
        "hold class ids with a palette whose red and blue are swapped, and would be read by it",
        "the ids kept and the palette corrected",
    ),
    "palette-order": (
        "WARN",
        "fixed",
        "have the class table's colours in another order: their indices are not class ids, and"
        " tools that use the index read other classes",
        "the indices put in the table's order by their colours",
    ),
    "mask-channels": ("WARN", "fixed", "are a grey mask in three equal channels", "one channel"),
    "mask-0-255": ("FAIL", "left out", "hold 0 and 255 where class ids belong", ""),
    "mask-no-class": (
        "WARN",
        "kept",
        "hold 0 and 255 among masks with classes: 255 is ignored",
        "",
    ),
    "mask-stray": (
        "FAIL",
        "fixed",
        "hold class ids, and other values in at most 0.1 % of their pixels",
        "these pixels set to not labelled, 0",
    ),
    "mask-ignore": (
        "FAIL",
        "fixed",
        "hold 255, which is ignored, and no 0, so nothing in them is unchanged",
        "255 set to unchanged or not labelled, 0",
    ),
    "mask-lossy": (
        "FAIL",
        "left out",
        "hold blurred values, as after JPEG compression",
        "",
    ),
    "mask-values": ("FAIL", "left out", "hold values or colours of no class", ""),
}
_FORM_CODES = {"colours": "mask-colours", "change-255": "mask-change-255"}


def judge_forms(
    data: Path, forms: Mapping[Path, MaskForm], classes: ClassTable, is_binary: bool
) -> Iterator[DatasetFinding]:
    """Check how the masks are stored."""
    by_form: dict[str, list[MaskForm]] = defaultdict(list)
    for form in forms.values():
        by_form[form.form].append(form)
    if group := by_form.get("unreadable"):
        yield DatasetFinding(
            "FAIL",
            "mask-unreadable",
            f"{count(len(group), 'mask')} cannot be read; the first: {group[0].problem}",
            tuple(name_file(data, form.path) for form in group),
            FETCH_AGAIN,
            "left out",
        )
    for code, (level, action, what, fixed) in _FORMS.items():
        if not (group := by_form.get(code)):
            continue
        if code == "mask-0-255" and classes.num_classes == 1:
            action, fixed = "fixed", "255 set to class 1"
        if code == "mask-lossy" and is_binary:
            action, fixed = "fixed", "values cut at 128"
        if code == "mask-channels" and not is_binary:
            level = "FAIL"
        fix = f"{COPY} {fixed}" if action == "fixed" else _advise(code)
        files = tuple(name_file(data, form.path) for form in group)
        message = f"{count(len(group), 'mask')} of {len(forms)}: {what}"
        yield DatasetFinding(level, _FORM_CODES.get(code, code), message, files, fix, action)


def _advise(code: str) -> str:
    if code == "mask-no-class":
        return "label them again if 255 means changed; ids are 1 to K"
    if code == "mask-0-255":
        return "put change masks into a folder named label beside the images; ids are 1 to K"
    if code == "mask-lossy":
        return "make the masks again as PNG or GeoTIFF"
    return "give the class table of this data set, or make the masks again"


def judge_labels(records: Sequence[PairRecord], is_binary: bool) -> Iterator[DatasetFinding]:
    """Check whether masks agree with the images and with each other."""
    labelled = [(record, record.labels) for record in records if record.labels]
    if not labelled:
        return
    turned, is_whole_set = _find_turned(labelled)
    if turned:
        share = np.mean([facts.changed_share for _, facts in turned])
        rating = np.nanmean([facts.change_rating for _, facts in turned])
        fixed = is_binary and is_whole_set
        yield DatasetFinding(
            "FAIL" if is_whole_set else "WARN",
            "polarity" if is_whole_set else "polarity-pair",
            f"{count(len(turned), 'pair')} of {len(labelled)} say {share:.0%} changed, and there"
            f" the images differ less than elsewhere (rating {rating:.2f}, 0.5 is chance):"
            f" changed and unchanged {'are' if is_whole_set else 'may be'} swapped",
            tuple(record.reference for record, _ in turned),
            f"{COPY} the masks inverted" if fixed else "look at them; label what has changed",
            "fixed" if fixed else "left out" if is_whole_set else "kept",
            {"changed_share": float(share), "rating": float(rating)},
        )
    if not is_whole_set:
        turned = []
    is_turned = {record.reference for record, _ in turned}
    yield from _judge_agreement([r for r in labelled if r[0].reference not in is_turned])
    empty = tuple(
        record.reference
        for record, facts in labelled
        if facts.changed_share == (1 if record.reference in is_turned else 0)
    )
    if empty:
        yield DatasetFinding(
            "WARN" if len(empty) > len(labelled) / 2 else "OK",
            "no-change",
            f"{count(len(empty), 'pair')} of {len(labelled)} hold no change",
            empty,
        )


def _find_turned(
    labelled: Sequence[tuple[PairRecord, LabelFacts]],
) -> tuple[list[tuple[PairRecord, LabelFacts]], bool]:
    """Return the pairs whose changed and unchanged seem swapped, and whether these are all pairs.

    Most data sets have one polarity, and many pairs are more reliable than one: of single pairs of
    128 px with much change, 9 of 560 right ones seemed swapped (NAIP years).
    """
    rated = [facts for _, facts in labelled if not np.isnan(facts.change_rating)]
    if not rated:
        return [], False
    share = np.mean([facts.changed_share for _, facts in labelled])
    rating = np.mean([facts.change_rating for facts in rated])
    if share > MAX_CHANGED_SHARE and rating < MAX_RATING_OF_SET:
        return list(labelled), True
    single = [
        (record, facts)
        for record, facts in labelled
        if facts.changed_share > MAX_CHANGED_SHARE and facts.change_rating < MAX_RATING_OF_PAIR
    ]
    return single, False


def _judge_agreement(labelled: Sequence[tuple[PairRecord, LabelFacts]]) -> Iterator[DatasetFinding]:
    """Compare the masks of the two dates."""
    labelled_px = sum(facts.labelled_px for _, facts in labelled)
    half = [(record, facts) for record, facts in labelled if facts.half_px]
    if half:
        share = sum(facts.half_px for _, facts in half) / labelled_px
        yield DatasetFinding(
            "FAIL",
            "half-labelled",
            f"{count(len(half), 'pair')} of {len(labelled)} have pixels labelled at one date only,"
            f" {share:.2%} of the labelled pixels of the set",
            tuple(record.reference for record, _ in half),
            f"{COPY} these pixels set to 0",
            "fixed",
            {"share": share},
        )
    same = [(record, facts) for record, facts in labelled if facts.same_px]
    if same:
        share = sum(facts.same_px for _, facts in same) / labelled_px
        yield DatasetFinding(
            "WARN",
            "same-class",
            f"{count(len(same), 'pair')} of {len(labelled)} have pixels of the same class at both"
            f" dates, {share:.2%} of the labelled pixels of the set",
            tuple(record.reference for record, _ in same),
            "nothing, if they are unchanged ground with a known class; set them to 0 if only change"
            " is to be labelled",
            values={"share": share},
        )


def judge_classes(
    records: Sequence[PairRecord], classes: ClassTable, is_binary: bool
) -> Iterator[DatasetFinding]:
    """Check for classes that occur nowhere, or not in each split."""
    counts: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(classes.num_classes + 1, np.int64))
    for record in records:
        if record.labels and not is_binary:
            counts[record.split] += record.labels.counts_2K.sum(axis=0)
    if not counts:
        return
    never = [
        classes.names[i]
        for i in range(1, classes.num_classes + 1)
        if not any(count[i] for count in counts.values())
    ]
    if never:
        yield DatasetFinding(
            "WARN",
            "class-never",
            f"no pixels of {', '.join(never)}",
            fix="give the class table of this data set, or add pairs that show them",
            values={"classes": never},
        )
    lacking = {
        split: [classes.names[i] for i in range(1, len(count)) if not count[i]]
        for split, count in counts.items()
        if split != UNLISTED
    }
    lacking = {split: [c for c in names if c not in never] for split, names in lacking.items()}
    if any(lacking.values()):
        told = "; ".join(
            f"{split}: {', '.join(names)}" for split, names in lacking.items() if names
        )
        yield DatasetFinding(
            "WARN",
            "class-split",
            f"classes that other splits have are not in {told}",
            fix="distribute the pairs again: classes not in train are not learned, those not in"
            " val or test are not scored",
            values={"lacking": lacking},
        )
