"""The `assess` verb: from labelled points to accuracies and areas, each with its interval.

Legend of the array names: N points, T transitions, K classes.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from terradelta.areas.answers import (
    NO_ANSWER,
    Labels,
    Unresolved,
    read_labels,
    require_answers,
)
from terradelta.areas.design import IntervalKind
from terradelta.areas.estimators import (
    AccuracyReport,
    Estimate,
    StratifiedSample,
    report_accuracy,
)
from terradelta.areas.figure import draw_areas
from terradelta.areas.map_census import (
    NODATA_CODE,
    ChangeMap,
    identify,
    take_census,
)
from terradelta.areas.methods import write_methods
from terradelta.areas.survey import Survey
from terradelta.classes import ClassTable
from terradelta.destination import claim_file
from terradelta.errors import DataError
from terradelta.geo.cog import find_map
from terradelta.inference.transitions import M2_PER_HECTARE
from terradelta.outputs import stage_file, write_json
from terradelta.prediction.estimates import (
    ESTIMATES_FILE,
    FORMAT,
    AreaEstimate,
    AreaEstimates,
    NetChange,
    NetEstimate,
    ShareEstimate,
    StratumRow,
    UnresolvedPoints,
)

FEW_POINTS = 10
MAX_AREA_DIFFERENCE = 1e-3
FILES = (
    ESTIMATES_FILE,
    "area_estimates.csv",
    "area_estimates.png",
    "area_methods.txt",
    "error_matrix_points.csv",
    "error_matrix_areas.csv",
)


@dataclass(frozen=True)
class Assessment:
    """The assessment of a map by labelled points."""

    folder: Path
    """Where the files were written."""
    reports: dict[str, AccuracyReport]
    """By legend: "change" (changed or not), "transitions" (from, to), "from" and "to" (the class
    that was lost, or gained)."""
    net_m2: dict[str, Estimate]
    """The gain of each class minus its loss."""
    estimates: AreaEstimates
    """The content of area_estimates.json."""


def assess(
    points: str | Path | Sequence[str | Path],
    output: str | Path | None = None,
    *,
    other_map: str | Path | None = None,
    unresolved: Unresolved = "refuse",
    interval: IntervalKind = "logit",
    overwrite: bool = False,
) -> Assessment:
    """Estimate the accuracy of a map and the areas of change from labelled points.

    Args:
        points: A labelled file of points, or copies of it that several interpreters labelled.
        output: Folder to put the files into; the prediction that the points were drawn from by
            default.
        other_map: Another prediction of the same ground, assessed with the same points. Their
            strata are then not the classes of the map, for which the estimators are valid.
        unresolved: What to do with points without an answer: "refuse" them, or "exclude" them,
            which treats them as a random part of their strata.
        interval: Method of the 95 % intervals: "logit", which also holds for classes with few
            points, or "wald", 1.96 standard errors on either side, as in the papers.
        overwrite: Replace the results of an earlier assessment there.

    Raises:
        DataError: If the files are not labelled points, or points lack an answer.
        RasterError: If the other map cannot be read.
        OutputExistsError: If the output exists and `overwrite` is False.
    """
    paths = [points] if isinstance(points, str | Path) else list(points)
    survey, labels = read_labels(paths)
    folder = _find_folder(Path(paths[0]), survey, other_map if output is None else output)
    for name in FILES:
        claim_file(folder / name, paths, overwrite=overwrite, is_own=_is_own)
    require_answers(labels, unresolved)
    kept_N = labels.reference_N != NO_ANSWER
    mapped_N, mapped_m2_T = survey.pixels.code_N, survey.mapped_area_m2_T
    if other_map is not None:
        mapped_N, mapped_m2_T = _read_other(Path(other_map), survey, kept_N)
    sample = StratifiedSample(
        survey.strata, survey.pixels.stratum_N[kept_N], survey.pixels.area_m2_N[kept_N], interval
    )
    reference_N, mapped_N = labels.reference_N[kept_N], mapped_N[kept_N]
    reports = {
        name: _report(sample, legend_T, names, mapped_N, reference_N, mapped_m2_T)
        for name, legend_T, names in _list_legends(survey.classes)
    }
    net_m2 = _estimate_net(sample, survey.classes, reference_N)
    estimates = replace(
        _describe(survey, labels, sample, reports, net_m2),
        map="sampled" if other_map is None else str(other_map),
        unresolved=UnresolvedPoints(rule=unresolved, points=labels.unresolved),
        notes=_list_notes(sample, reference_N, reports),
    )
    estimates = replace(estimates, methods=write_methods(estimates))
    assessment = Assessment(folder, reports, net_m2, estimates)
    _write(assessment)
    return assessment


def _find_folder(path: Path, survey: Survey, asked: str | Path | None) -> Path:
    folder = path.parent / survey.facts.folder if asked is None else Path(asked)
    if asked is None:
        change_path = find_map(folder, "change")
        if not change_path.exists() or identify(change_path) != survey.facts.map_sha256:
            raise DataError(
                f"{path} was drawn from {change_path}, which is gone or has changed",
                fix="choose a folder for the results: -o FOLDER",
            )
    return folder


def _is_own(path: Path) -> bool:
    """Return whether an assessment wrote a file: area_estimates.json lies beside it."""
    try:
        content = json.loads((path.parent / FILES[0]).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and {"format", "methods"} <= content.keys()


def _read_other(folder: Path, survey: Survey, kept_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return another map's transition at each point, and the areas on it."""
    with ChangeMap(folder) as change_map:
        if change_map.classes.names != survey.classes.names:
            raise DataError(
                f"{folder} has the classes {', '.join(change_map.classes.names)}, the points were "
                f"drawn from a map with {', '.join(survey.classes.names)}",
                fix="assess a map with the same classes",
            )
        mapped_N = change_map.look_up(survey.grid, survey.pixels.row_N, survey.pixels.column_N)
        area_m2_T = take_census(change_map).area_m2_C[: survey.classes.num_transitions]
    outside = np.flatnonzero(kept_N & (mapped_N == NODATA_CODE)) + 1
    mine, theirs = survey.mapped_area_m2_T.sum(), area_m2_T.sum()
    if len(outside) or abs(theirs / mine - 1) > MAX_AREA_DIFFERENCE:
        raise DataError(
            f"{folder} covers {theirs / M2_PER_HECTARE:,.2f} ha and {len(outside)} of the points "
            f"lie outside, the points were drawn from {mine / M2_PER_HECTARE:,.2f} ha",
            fix="assess a map of the same ground",
        )
    return mapped_N, area_m2_T


def _list_legends(classes: ClassTable) -> Iterator[tuple[str, np.ndarray, list[str]]]:
    """Yield legends of transitions: name, class of each transition, names of the classes."""
    transitions = np.arange(classes.num_transitions)
    before, after = classes.decode_transition(transitions)
    yield "change", (transitions > 0).astype(int), ["unchanged", "changed"]
    yield "transitions", transitions, [classes.name_transition(int(t)) for t in transitions]
    if classes.num_classes > 1:
        yield "from", before, list(classes.names)
        yield "to", after, list(classes.names)


def _report(
    sample: StratifiedSample,
    legend_T: np.ndarray,
    names: list[str],
    mapped_N: np.ndarray,
    reference_N: np.ndarray,
    mapped_m2_T: np.ndarray,
) -> AccuracyReport:
    """Return the report of a legend, of its classes that occur, the largest on the map first.

    Unchanged comes before them.
    """
    mapped_m2_K = np.bincount(legend_T, mapped_m2_T, len(names))
    occurring = set(legend_T[mapped_N]) | set(legend_T[reference_N])
    occurring |= set(np.flatnonzero(mapped_m2_K))
    order = sorted(occurring, key=lambda k: (k != 0, -mapped_m2_K[k], k))
    index_K = np.zeros(len(names), int)
    index_K[order] = np.arange(len(order))
    return report_accuracy(
        sample,
        index_K[legend_T[mapped_N]],
        index_K[legend_T[reference_N]],
        [names[k] for k in order],
        mapped_m2_K[order],
    )


def _estimate_net(
    sample: StratifiedSample, classes: ClassTable, reference_N: np.ndarray
) -> dict[str, Estimate]:
    """Return the gain of each class minus its loss."""
    if classes.num_classes == 1:
        return {}
    before_N, after_N = classes.decode_transition(reference_N)
    ids = np.arange(1, classes.num_classes + 1)
    net_NK = (after_N[:, None] == ids).astype(float) - (before_N[:, None] == ids)
    return dict(zip(classes.names[1:], sample.estimate_areas(net_NK, least=-1), strict=True))


def _describe(
    survey: Survey,
    labels: Labels,
    sample: StratifiedSample,
    reports: dict[str, AccuracyReport],
    net_m2: dict[str, Estimate],
) -> AreaEstimates:
    """Return the estimates of the map that was sampled, without notes and methods."""
    drawn_H = np.bincount(survey.pixels.stratum_N, minlength=len(survey.strata))
    strata = zip(
        survey.strata.names,
        survey.strata.pixels_H.tolist(),
        survey.strata.area_m2_H.tolist(),
        drawn_H.tolist(),
        sample.points_H.tolist(),
        strict=True,
    )
    legends = {name: report.to_legend() for name, report in reports.items()}
    return AreaEstimates(
        format=FORMAT,
        version=version("terradelta"),
        map="sampled",
        area_ha=float(survey.strata.area_m2_H.sum()) / M2_PER_HECTARE,
        design=survey.facts.design,
        interval=sample.interval,
        strata=tuple(
            StratumRow(
                stratum=name,
                pixels=pixels,
                area_ha=area_m2 / M2_PER_HECTARE,
                points_drawn=drawn,
                points_used=used,
            )
            for name, pixels, area_m2, drawn, used in strata
        ),
        points_drawn=int(drawn_H.sum()),
        points_used=int(sample.points_H.sum()),
        unresolved=UnresolvedPoints(points=labels.unresolved),
        interpreters=labels.interpreters,
        agreement=labels.agreement,
        change=legends["change"],
        transitions=legends["transitions"],
        lost=legends.get("from"),
        gained=legends.get("to"),
        net=tuple(
            NetChange(name, area_ha=net.to_hectares(NetEstimate)) for name, net in net_m2.items()
        ),
        notes=(),
        methods="",
    )


def _list_notes(
    sample: StratifiedSample, reference_N: np.ndarray, reports: dict[str, AccuracyReport]
) -> tuple[str, ...]:
    """Return notes on the limits of the intervals."""
    notes = []
    of_one_answer = [
        f"{name!r} ({points} points: {3 / points * area_m2 / M2_PER_HECTARE:,.4g} ha)"
        for index, (name, points, pixels, area_m2) in enumerate(
            zip(
                sample.strata.names,
                sample.points_H,
                sample.strata.pixels_H,
                sample.strata.area_m2_H,
                strict=True,
            )
        )
        if points < pixels and len(set(reference_N[sample.stratum_N == index].tolist())) == 1
    ]
    if of_one_answer:
        notes.append(
            f"All points got the same answer in: {', '.join(of_one_answer)}. Such a stratum adds "
            "nothing to the standard errors, but up to 3/n of it, the given hectares, could be "
            "something else (rule of three)."
        )
    report = reports["transitions"]
    points_K = dict(zip(report.classes, report.counts_KK.sum(axis=0).tolist(), strict=True))
    few = [f"{name} ({points})" for name, points in points_K.items() if 0 < points < FEW_POINTS]
    if few:
        notes.append(
            f"Fewer than {FEW_POINTS} points were labelled as: {', '.join(few)}. "
            + (
                "Their intervals are wide, and based on few points."
                if sample.interval == "logit"
                else "Their intervals are rough, and contain the truth less often than 95 % of the "
                "time."
            )
        )
    none = sum(points == 0 for points in points_K.values())
    if none:
        notes.append(
            f"No point was labelled as any of {none} transitions on the map. Their "
            "estimate of 0 means that they cover little, not that they do not occur."
        )
    return tuple(notes)


def _write(assessment: Assessment):
    """Write all files, each completely or not at all."""
    estimates, reports, folder = assessment.estimates, assessment.reports, assessment.folder
    with ExitStack() as exits:
        json_path, table_path, figure_path, methods_path, *matrix_paths = (
            exits.enter_context(stage_file(folder / name)) for name in FILES
        )
        write_json(json_path, estimates.to_json())
        _write_table(table_path, estimates)
        draw_areas(reports["transitions"], figure_path)
        methods_path.write_text(estimates.methods + "\n", encoding="utf-8")
        report = reports["transitions"]
        for path, cells_KK in zip(matrix_paths, (report.counts_KK, report.shares_KK), strict=True):
            _write_matrix(path, report.classes, cells_KK)


def _write_table(path: Path, estimates: AreaEstimates):
    """Write a line for each class of each legend."""
    measures = ("area_ha", "users_accuracy", "producers_accuracy")
    legends = {
        "change": estimates.change,
        "transitions": estimates.transitions,
        "from": estimates.lost,
        "to": estimates.gained,
    }
    numbers = ("value", "standard_error", "low", "high")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        columns = [f"{measure}_{number}" for measure in measures for number in numbers]
        writer.writerow(["legend", "class", "points", "mapped_ha", *columns])
        for name, legend in legends.items():
            for row in () if legend is None else legend.classes:
                shares = *_flatten(row.users_accuracy), *_flatten(row.producers_accuracy)
                cells = (row.name, row.points, row.mapped_ha, *_flatten(row.area_ha), *shares)
                writer.writerow([name, *cells])
        for net in estimates.net:
            writer.writerow(["net", net.name, None, None, *_flatten(net.area_ha)])


def _flatten(estimate: AreaEstimate | NetEstimate | ShareEstimate) -> list[float | None]:
    return [estimate.value, estimate.standard_error, *estimate.interval_95_percent]


def _write_matrix(path: Path, classes: Sequence[str], cells_KK: np.ndarray):
    """Write an error matrix with its sums: rows mapped, columns reference."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["map \\ reference", *classes, "sum"])
        for name, row in zip(classes, cells_KK, strict=True):
            writer.writerow([name, *row.tolist(), row.sum()])
        writer.writerow(["sum", *cells_KK.sum(axis=0).tolist(), cells_KK.sum()])
