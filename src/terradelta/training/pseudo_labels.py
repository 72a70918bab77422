"""Land cover for unchanged ground that nobody labelled, by a vote of trained models.

Data sets like SECOND label land cover only where something changed. The rest of an image
teaches nothing but "unchanged". Models trained on the labelled part can label the rest. Only labels
on which both dates agree are kept, as both show the same ground.

Legend of the array names: K classes, H rows, W columns.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from tqdm import tqdm

from terradelta.classes import ClassTable
from terradelta.data.class_file import write_classes
from terradelta.data.dataset import ChangeDataset, PairSample
from terradelta.data.images import IGNORE, read_mask, write_change_mask, write_mask
from terradelta.data.labels import UNKNOWN
from terradelta.data.layouts import find_pairs, list_inputs, list_named_splits
from terradelta.data.pairs import PairFiles, PairFolder
from terradelta.destination import claim_folder
from terradelta.errors import ArgumentError
from terradelta.inference.folders import count_pixels_per_size, find_probabilities
from terradelta.inference.prediction_options import Runtime
from terradelta.inference.predictor import Predictor
from terradelta.models.bundle import load_model
from terradelta.outputs import null_undefined, stage_folder, write_json
from terradelta.training.config import Views

Agreement = Literal["dates", "models"]

DATA_FILE = "data.csv"
COUNTS_FILE = "pseudo_labels.json"


@dataclass(frozen=True)
class VotingRule:
    """The rule by which answers become labels.

    Raises:
        ArgumentError: If a value is unknown or out of its range.
    """

    confidence: float = 0.9
    """Least mean probability of the class, at each date."""
    agreement: Agreement = "dates"
    """What must agree on the class: the vote at both dates, or every single model at both dates."""
    views: Views = "seed6"
    """Test-time views whose answers each model averages."""

    def __post_init__(self):
        if not 0 <= self.confidence < 1:
            raise ArgumentError(
                f"the confidence floor is {self.confidence}",
                fix="give 0 or more and less than 1, such as 0.9",
            )
        for value, known in ((self.agreement, Agreement), (self.views, Views)):
            if value not in get_args(known):
                raise ArgumentError(
                    f"{value!r} is not known", fix=f"use one of {', '.join(get_args(known))}"
                )


class Ballot(NamedTuple):
    """The result of a vote on a pair, (H, W) each."""

    ids_HW: np.ndarray
    """uint8 class ids that passed the rule, 0 where none did."""
    disagrees_HW: np.ndarray
    """bool: the dates or the models name different classes."""
    doubts_HW: np.ndarray
    """bool: they agree, but are not sure enough."""


@dataclass
class LabelReport:
    """Labels added to a data set, and their accuracy; adds up over pairs."""

    classes: ClassTable
    pairs: int = 0
    unlabelled_px: int = 0
    """Unchanged pixels without land cover in the training pairs, all of which were voted on."""
    added_px: int = 0
    disagreed_px: int = 0
    doubted_px: int = 0
    added_by_class: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    known_px: int = 0
    """Added pixels whose true land cover lies in full1/ beside the images."""
    known_right_px: int = 0
    held_out_px: int = 0
    """Labelled (changed) pixels of the validation pairs, either date, answered with enough
    confidence."""
    held_out_right_px: int = 0

    def __post_init__(self):
        self.added_by_class = np.zeros(self.classes.num_classes, np.int64)

    @property
    def added_share(self) -> float:
        """Share of the unlabelled unchanged pixels that got a label."""
        return _divide(self.added_px, self.unlabelled_px)

    @property
    def accuracy(self) -> float:
        """Share of the added pixels that are right; nan if the truth is unknown."""
        return _divide(self.known_right_px, self.known_px)

    @property
    def held_out_accuracy(self) -> float:
        """The same for confident answers where validation pairs are labelled: where they changed.

        An estimate for sets without truth: it covers other ground than the new labels, and no
        second date has to agree.
        """
        return _divide(self.held_out_right_px, self.held_out_px)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form; undefined numbers become None."""
        names = self.classes.names[1:]
        return null_undefined(
            {
                "pairs": self.pairs,
                "unlabelled_px": self.unlabelled_px,
                "added_px": self.added_px,
                "added_share": self.added_share,
                "disagreed_px": self.disagreed_px,
                "doubted_px": self.doubted_px,
                "added_by_class_px": dict(zip(names, self.added_by_class.tolist(), strict=True)),
                "known_px": self.known_px,
                "accuracy": self.accuracy,
                "held_out_px": self.held_out_px,
                "held_out_accuracy": self.held_out_accuracy,
            }
        )


def label_unchanged(
    models: Sequence[str | Path],
    data: str | Path,
    output: str | Path,
    rule: VotingRule | None = None,
    *,
    device: str = "auto",
    overwrite: bool = False,
) -> LabelReport:
    """Write a data set whose training pairs have land cover on unchanged ground, too.

    OUTPUT/data.csv lists all pairs: images, and the labels of `val` and `test`, stay where they
    are; label1/, label2/ and change_mask/ hold the new labels of the training pairs. Existing
    labels are kept. pseudo_labels.json counts the added labels.

    Args:
        models: Model folders that vote. Models trained on these pairs are more confident on them.
        data: A data set folder in a known layout, or a CSV.
        output: Folder to make; it appears whole or not at all.
        rule: Which answers become labels; None for the defaults.
        device: "auto", "cpu", "cuda" or "cuda:N".
        overwrite: Replace an output that exists.

    Raises:
        ArgumentError: If the data set has one class, or other classes than a model.
        DataError: If a pair cannot be read.
        OutputExistsError: If the output exists and `overwrite` is False.
    """
    rule = rule or VotingRule()
    output = claim_folder(output, [*models, *list_inputs(data)], overwrite=overwrite)
    parts = {split: find_pairs(data, split) for split in ("train", "val")}
    if "test" in list_named_splits(data):
        parts["test"] = find_pairs(data, "test")
    training = parts["train"]
    runtime = Runtime(tta=rule.views, device=device)
    predictors = [Predictor([load_model(folder)], runtime) for folder in models]
    _require_classes(predictors, training)
    for predictor in predictors:
        predictor.start(count_pixels_per_size(training.pairs))
    report = LabelReport(training.classes)
    with stage_folder(output, overwrite=overwrite) as staged:
        write_classes(staged, training.classes)
        labelled = [
            _label_pair(predictors, sample, pair, rule, staged, report)
            for sample, pair in _read_all(training, "labelling")
        ]
        for sample, _ in _read_all(parts["val"], "judging"):
            _judge(predictors, sample, rule, report)
        lines = {"train": labelled, **{s: p.pairs for s, p in parts.items() if s != "train"}}
        _write_csv(staged, Path(output), lines)
        voters = {"models": [str(model) for model in models], "rule": asdict(rule)}
        write_json(staged / COUNTS_FILE, {**voters, **report.to_dict()})
    return report


def vote(answers: Sequence[tuple[np.ndarray, np.ndarray]], rule: VotingRule) -> Ballot:
    """Return the joint answer of several models for unchanged ground.

    Args:
        answers: For each model the probabilities of the classes before and after, (K, H, W) each.
        rule: The rule by which answers count.
    """
    before_KHW, after_KHW = (np.mean(date, axis=0) for date in zip(*answers, strict=True))
    top_HW = before_KHW.argmax(axis=0)
    agrees_HW = top_HW == after_KHW.argmax(axis=0)
    if rule.agreement == "models":
        for answer in answers:
            for date_KHW in answer:
                agrees_HW &= date_KHW.argmax(axis=0) == top_HW
    confidence_HW = np.minimum(before_KHW.max(axis=0), after_KHW.max(axis=0))
    sure_HW = confidence_HW >= rule.confidence
    ids_HW = np.where(agrees_HW & sure_HW, top_HW + 1, 0).astype(np.uint8)
    return Ballot(ids_HW, ~agrees_HW, agrees_HW & ~sure_HW)


def _label_pair(
    predictors: Sequence[Predictor],
    sample: PairSample,
    pair: PairFiles,
    rule: VotingRule,
    folder: Path,
    report: LabelReport,
) -> PairFiles:
    """Write the labels of a training pair, and return its files with them."""
    before_HW, after_HW, change_HW = (
        part.numpy() for part in (sample.before_labels_HW, sample.after_labels_HW, sample.change_HW)
    )
    report.pairs += 1
    known_HW = change_HW != UNKNOWN
    if not known_HW.any():
        # No change is labelled, so no ground is known on which the dates must agree.
        return pair
    ballot = vote([_answer(predictor, sample) for predictor in predictors], rule)
    open_HW = (change_HW == 0) & (before_HW == 0) & (after_HW == 0)
    ids_HW = np.where(open_HW, ballot.ids_HW, 0)
    _count(report, ballot, open_HW, ids_HW, pair)
    paths = [folder / name / f"{pair.name}.png" for name in ("label1", "label2", "change_mask")]
    for path, labels_HW in zip(paths[:2], (before_HW, after_HW), strict=True):
        ids_of_date_HW = np.where(known_HW, labels_HW + ids_HW, IGNORE)
        write_mask(path, ids_of_date_HW.astype(np.uint8), report.classes, may_ignore=True)
    write_change_mask(paths[2], change_HW == 1)
    return PairFiles(pair.name, pair.before, pair.after, *paths)


def _count(
    report: LabelReport, ballot: Ballot, open_HW: np.ndarray, ids_HW: np.ndarray, pair: PairFiles
):
    added_HW = ids_HW > 0
    report.unlabelled_px += int(open_HW.sum())
    report.added_px += int(added_HW.sum())
    report.disagreed_px += int((open_HW & ballot.disagrees_HW).sum())
    report.doubted_px += int((open_HW & ballot.doubts_HW).sum())
    report.added_by_class += np.bincount(ids_HW.ravel(), minlength=report.classes.num_classes + 1)[
        1:
    ]
    full = pair.before.parent.parent / "full1" / f"{pair.before.stem}.png"
    if full.exists():
        true_HW = read_mask(full, report.classes)
        known_HW = added_HW & (true_HW > 0)
        report.known_px += int(known_HW.sum())
        report.known_right_px += int((known_HW & (true_HW == ids_HW)).sum())


def _judge(
    predictors: Sequence[Predictor], sample: PairSample, rule: VotingRule, report: LabelReport
):
    """Count confident answers and right ones where a validation pair is labelled."""
    answers = [_answer(predictor, sample) for predictor in predictors]
    labels = (sample.before_labels_HW, sample.after_labels_HW)
    for date, labels_HW in zip(zip(*answers, strict=True), labels, strict=True):
        mean_KHW = np.mean(date, axis=0)
        counted_HW = (labels_HW.numpy() > 0) & (mean_KHW.max(axis=0) >= rule.confidence)
        right_HW = mean_KHW.argmax(axis=0) + 1 == labels_HW.numpy()
        report.held_out_px += int(counted_HW.sum())
        report.held_out_right_px += int((counted_HW & right_HW).sum())


def _answer(predictor: Predictor, sample: PairSample) -> tuple[np.ndarray, np.ndarray]:
    answer = find_probabilities(predictor, sample.before_CHW, sample.after_CHW)
    return answer.before_KHW, answer.after_KHW


def _read_all(pairs: PairFolder, doing: str):
    dataset = ChangeDataset(pairs, allow_partial=True)
    for index in tqdm(range(len(dataset)), doing, unit="pair", disable=None):
        yield dataset[index], pairs.pairs[index]


def _write_csv(staged: Path, output: Path, parts: dict[str, Sequence[PairFiles]]):
    """Write data.csv with paths relative to the final folder."""
    here, there = staged.resolve(), output.resolve()

    def locate(path: Path | None) -> str:
        if path is None:
            return ""
        path = path.resolve()
        inside = path.is_relative_to(here)
        return path.relative_to(here).as_posix() if inside else _walk(path, there)

    with (staged / DATA_FILE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["before", "after", "before_label", "after_label", "label", "split", "name"]
        )
        for split, pairs in parts.items():
            for pair in pairs:
                paths = (pair.before, pair.after, pair.before_label, pair.after_label)
                writer.writerow([*map(locate, (*paths, pair.change_label)), split, pair.name])


def _walk(path: Path, start: Path) -> str:
    return Path(os.path.relpath(path, start)).as_posix()


def _require_classes(predictors: Sequence[Predictor], pairs: PairFolder):
    if pairs.classes.num_classes == 1:
        raise ArgumentError(
            f"{pairs.root} has one class: unchanged ground has no land cover to label",
            fix="use a data set of land-cover masks",
        )
    for predictor in predictors:
        if predictor.classes != pairs.classes:
            raise ArgumentError(
                f"a model knows the classes {', '.join(predictor.classes.names[1:])} and "
                f"{pairs.root} has {', '.join(pairs.classes.names[1:])}",
                fix="use models that were trained on these classes",
            )


def _divide(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
