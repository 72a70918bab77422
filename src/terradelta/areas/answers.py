"""Reads the labels of the points and settles one answer for each by a stated rule.

An answer is a transition (0 = unchanged), or missing: unlabelled, unsure, change without both
land covers, or a tie between interpreters.

Legend of the array names: N points, I interpreters.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas

from terradelta.areas.survey import (
    POINTS,
    STATES,
    Survey,
    read_survey,
    read_table,
)
from terradelta.classes import ClassTable
from terradelta.errors import ArgumentError, DataError
from terradelta.prediction.estimates import Agreement, Alikeness
from terradelta.tables import Numbers, TableError, check_table

Unresolved = Literal["refuse", "exclude"]
NO_ANSWER = -1
MAX_NAMED = 12


@dataclass(frozen=True)
class Labels:
    """One answer for each point of a survey, and its source."""

    reference_N: np.ndarray
    """Transition of each point; -1 = no answer."""
    interpreters: tuple[str, ...]
    """Files of answers, one per interpreter."""
    unresolved: dict[str, int] = field(default_factory=dict)
    """Number of points without an answer, by reason."""
    agreement: tuple[Agreement, ...] = ()
    """Agreement of each two interpreters."""


def read_labels(paths: Sequence[str | Path]) -> tuple[Survey, Labels]:
    """Read one or more labelled copies of a file of points.

    With several copies, the answer is the most frequent one.

    Args:
        paths: A file for each interpreter.

    Raises:
        DataError: If a file is not one of points, two are not copies of one sample, or an answer
            contradicts itself.
    """
    if len(set(map(str, paths))) != len(paths):
        raise ArgumentError(
            f"a file is named twice: {', '.join(map(str, paths))}",
            fix="give each interpreter's own copy of the points once",
        )
    files = [Path(path) for path in paths]
    survey = read_survey(files[0])
    for path in files[1:]:
        _require_copy(files[0], survey, path)
    answers_IN, reasons = [], []
    for path in files:
        answers_N, reason_N = _read_answers(path, survey)
        answers_IN.append(answers_N)
        reasons.append(reason_N)
    names = tuple(path.stem for path in files)
    reference_N, reason_N = _vote(np.stack(answers_IN), reasons)
    unresolved = Counter(reason for reason in reason_N if reason)
    agreement = tuple(
        _compare((names[i], names[j]), answers_IN[i], answers_IN[j])
        for i, j in combinations(range(len(files)), 2)
    )
    return survey, Labels(reference_N, names, dict(unresolved), agreement)


def require_answers(labels: Labels, unresolved: Unresolved):
    """Raise if points have no answer and no rule handles them.

    Raises:
        DataError: Naming the first of these points.
    """
    missing = np.flatnonzero(labels.reference_N == NO_ANSWER) + 1
    if unresolved == "exclude" or len(missing) == 0:
        return
    reasons = ", ".join(f"{count} {reason}" for reason, count in labels.unresolved.items())
    raise DataError(
        f"{len(missing)} of {len(labels.reference_N)} points have no answer ({reasons}): point "
        f"{_list_numbers(missing)}",
        fix="label them, or leave them out with --unresolved exclude, which treats them as a "
        "random part of their strata; the report states this",
    )


def find_kappa(first_N: np.ndarray, second_N: np.ndarray) -> float:
    """Return Cohen's kappa of two interpreters' answers; nan if chance alone gives full agreement.

    Source: Cohen, "A Coefficient of Agreement for Nominal Scales", Educational and Psychological
    Measurement 20, 1960.
    """
    answers, index_N = np.unique(np.concatenate([first_N, second_N]), return_inverse=True)
    one, other = np.split(index_N, 2)
    alike = (one == other).mean()
    shares = [np.bincount(part, minlength=len(answers)) / len(one) for part in (one, other)]
    by_chance = float(shares[0] @ shares[1])
    return float((alike - by_chance) / (1 - by_chance)) if by_chance < 1 else float("nan")


def _require_copy(path: Path, survey: Survey, other: Path):
    theirs = read_survey(other)
    if len(theirs) != len(survey) or any(
        not np.array_equal(mine, others)
        for mine, others in zip(survey.pixels, theirs.pixels, strict=True)
    ):
        raise DataError(
            f"{path} with {len(survey)} points and {other} with {len(theirs)} are not copies of "
            "one sample",
            fix="let every interpreter label a copy of the same file",
        )


def _read_answers(path: Path, survey: Survey) -> tuple[np.ndarray, list[str]]:
    """Return a file's answers, and the reason for a missing one, or "", for each point."""
    table = read_table(path, POINTS)
    missing = {"point", "changed"} - set(table.columns)
    if missing:
        raise DataError(
            f"{path} lacks the fields {', '.join(sorted(missing))} in its layer {POINTS!r}",
            fix="give a copy of the file that `terradelta sample` made, all fields kept",
        )
    try:
        check_table(table, {"point": Numbers(1, is_whole=True)})
    except TableError as error:
        raise DataError(
            f"{path}: in the layer {POINTS!r}, {error}",
            fix="give a copy of the file that `terradelta sample` made, each point kept once",
        ) from error
    numbers = table["point"].tolist()
    if sorted(numbers) != list(range(1, len(survey) + 1)):
        raise DataError(
            f"{path} has {len(numbers)} points where 1 to {len(survey)} were drawn",
            fix="give a copy of the file that `terradelta sample` made, each point kept once",
        )
    rows = _list_rows(table)
    is_wrong = [number for number, row in enumerate(rows, start=1) if row.contradicts_itself]
    if is_wrong:
        raise DataError(
            f"{path} says that point {_list_numbers(is_wrong)} has not changed, and gives two "
            "land covers that differ",
            fix="correct it; the land covers may be left empty where nothing changed",
        )
    found = [_answer(path, survey.classes, *numbered) for numbered in enumerate(rows, start=1)]
    answers, reasons = zip(*found, strict=True)
    return np.array(answers), list(reasons)


class _Row(NamedTuple):
    """The fields of a point as filled in; None = left empty."""

    changed: str | None
    before: str | None
    after: str | None

    @property
    def contradicts_itself(self) -> bool:
        covers_differ = None not in (self.before, self.after) and self.before != self.after
        return self.changed == "no" and covers_differ


def _list_rows(table: pandas.DataFrame) -> list[_Row]:
    """Return the answers in order of the points' numbers."""
    table = table.sort_values("point").reindex(columns=["changed", "from", "to"])
    return [
        _Row(*(None if pandas.isna(cell) or cell == "" else str(cell) for cell in row))
        for row in table.itertuples(index=False)
    ]


def _answer(path: Path, classes: ClassTable, number: int, row: _Row) -> tuple[int, str]:
    if row.changed is None:
        return NO_ANSWER, "unlabelled"
    if row.changed not in STATES:
        raise DataError(
            f"{path} says {row.changed!r} of point {number}, not one of {', '.join(STATES)}",
            fix="use the value list of the field `changed`",
        )
    if row.changed == "unsure":
        return NO_ANSWER, "unsure"
    if row.changed == "no":
        return 0, ""
    if classes.num_classes == 1:
        return classes.encode_transition(1, 1), ""
    if row.before is None or row.after is None:
        return NO_ANSWER, "without both land covers"
    for cover in (row.before, row.after):
        if cover not in classes.names[1:]:
            raise DataError(
                f"{path} says {cover!r} of point {number}, which is not a class of the map",
                fix=f"use one of {', '.join(classes.names[1:])}",
            )
    before, after = (classes.names.index(cover, 1) for cover in (row.before, row.after))
    return classes.encode_transition(before, after), ""


def _vote(answers_IN: np.ndarray, reasons: list[list[str]]) -> tuple[np.ndarray, list[str]]:
    """Return the majority's answer to each point, and the reason for a missing one, or ""."""
    reference, why = [], []
    for point, answers in enumerate(answers_IN.T.tolist()):
        votes = Counter(answer for answer in answers if answer != NO_ANSWER).most_common(2)
        if not votes:
            reference.append(NO_ANSWER)
            why.append(reasons[0][point])
        elif len(votes) == 2 and votes[0][1] == votes[1][1]:
            reference.append(NO_ANSWER)
            why.append("tied")
        else:
            reference.append(votes[0][0])
            why.append("")
    return np.array(reference), why


def _compare(names: tuple[str, str], first_N: np.ndarray, second_N: np.ndarray) -> Agreement:
    both_N = (first_N != NO_ANSWER) & (second_N != NO_ANSWER)
    one, other = first_N[both_N], second_N[both_N]
    return Agreement(
        interpreters=names,
        points=int(both_N.sum()),
        transition=_measure_agreement(one, other),
        changed=_measure_agreement(one > 0, other > 0),
    )


def _measure_agreement(first_N: np.ndarray, second_N: np.ndarray) -> Alikeness:
    if len(first_N) == 0:
        return Alikeness(None)
    kappa = find_kappa(first_N, second_N)
    percent = 100 * float((first_N == second_N).mean())
    return Alikeness(percent, None if math.isnan(kappa) else kappa)


def _list_numbers(numbers: Sequence[Any] | np.ndarray) -> str:
    named = ", ".join(str(number) for number in numbers[:MAX_NAMED])
    left = len(numbers) - MAX_NAMED
    return named + (f" and {left} more" if left > 0 else "")
