"""Prints the results of the verbs in the terminal."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from terradelta.areas.assessment import Assessment
    from terradelta.areas.survey import Survey
    from terradelta.areas.zonal import ZoneAreas
    from terradelta.evaluation.bootstrap import Difference, Interval
    from terradelta.evaluation.scoring import Comparison, Scores
    from terradelta.mapping.handle import Prediction
    from terradelta.prediction.estimates import AreaEstimate, ShareEstimate
    from terradelta.prediction.records import Summary
    from terradelta.training.comparison import RunComparison
    from terradelta.training.loop import TrainResult

MAX_ROWS = 12


def print_prediction(prediction: Prediction):
    """Print what changed and where the maps are."""
    print_summary(prediction.summary)
    print(f"\nwritten to {prediction.folder}")
    print_kept_reviews(prediction)


def print_kept_reviews(prediction: Prediction):
    """Print where reviews of a replaced prediction are kept, if there were any."""
    if prediction.kept_reviews is not None:
        print(f"earlier reviews are kept in {prediction.kept_reviews}")


def print_summary(summary: Summary):
    """Print the cautions of a map, its largest transitions and their total."""
    for caution in summary.cautions:
        print(caution.to_text())
    if summary.cautions:
        print()
    rows = summary.transitions
    for row in rows[:MAX_ROWS]:
        amount = f"{row.pixels:>12,} px" if row.area_ha is None else f"{row.area_ha:>12,.3f} ha"
        print(f"{row.from_class:>15} → {row.to_class:<15}{amount}{row.share_percent:>8.2f} %")
    if len(rows) > MAX_ROWS:
        print(f"{'and':>15} {len(rows) - MAX_ROWS} smaller ones, in transitions.csv")
    total = (
        f"{summary.changed_pixels:,} of {summary.valid_pixels:,} px"
        if summary.changed_ha is None
        else f"{summary.changed_ha:,.3f} of {summary.valid_ha:,.3f} ha"
    )
    if rows:
        print(f"changed: {total} ({summary.changed_percent:.2f} %)")
    else:
        print(f"no change found: {total} ({summary.changed_percent:.2f} %)")


def print_numbers(numbers: dict[str, float]):
    """Print named numbers in a column."""
    width = max(map(len, numbers))
    for name, value in numbers.items():
        print(f"{name:<{width}}  {value:.4f}")


def print_scores(scores: Scores, as_json: bool):
    """Print scores as text or as one JSON object."""
    if as_json:
        print(json.dumps(scores.to_dict()))
        return
    print(f"protocol {scores.protocol}, {scores.pairs} pairs")
    if not scores.intervals:
        print_numbers(scores.numbers)
        return
    print("95 % intervals by drawing images again")
    width = max(map(len, scores.numbers))
    for name, value in scores.numbers.items():
        print(f"{name:<{width}}  {value:.4f}  {_format_span(scores.intervals[name])}")


def print_comparison(comparison: Comparison, as_json: bool):
    """Print the numbers of two maps, their differences and the effect of chance."""
    if as_json:
        print(json.dumps(comparison.to_dict()))
        return
    first, second = comparison.first, comparison.second
    print(f"protocol {first.protocol}, {first.pairs} pairs; differences are first minus second,")
    print("95 % intervals by drawing images again, p by exchanging maps image by image")
    _print_differences(first.numbers, second.numbers, comparison.differences)


def print_run_comparison(comparison: RunComparison, as_json: bool):
    """Print the numbers of two recipes over seeds and their paired differences."""
    if as_json:
        print(json.dumps(comparison.to_dict()))
        return
    seeds = ", ".join(map(str, comparison.seeds))
    print(f"protocol {comparison.protocol}, test split, means over the seeds {seeds};")
    print("differences are first minus second, 95 % intervals and p of the paired t test")
    for name, (mine, theirs) in comparison.changed_options.items():
        print(f"{name}: {mine} against {theirs}")
    _print_differences(
        {name: summary.mean for name, summary in comparison.first.items()},
        {name: summary.mean for name, summary in comparison.second.items()},
        comparison.differences,
    )


def _print_differences(
    first: dict[str, float], second: dict[str, float], differences: dict[str, Difference]
):
    width = max(map(len, first))
    print(f"{'':<{width}}   first  second  difference  95 % interval       p")
    for name, difference in differences.items():
        print(
            f"{name:<{width}}  {first[name]:.4f}  {second[name]:.4f}  {difference.value:+.4f}"
            f"     {_format_span(difference.interval, '+')}  {difference.p_value:.3f}"
        )


def _format_span(span: Interval, sign: str = "") -> str:
    return f"[{span.low:{sign}.4f}, {span.high:{sign}.4f}]"


def print_run(result: TrainResult):
    """Print the numbers of a training run and the path of its model."""
    print(f"best epoch {result.best_epoch}, validation, protocol second")
    print_numbers(result.scores)
    for protocol, numbers in (result.test_scores or {}).items():
        print(f"\ntest, protocol {protocol}")
        print_numbers(numbers)
    print(f"\nmodel in {result.folder / 'best'}")


def print_pseudo_labels(report: dict[str, Any]):
    """Print how many pixels of unchanged ground got a label, and how right they are."""
    unlabelled = max(1, report["unlabelled_px"])
    print(f"{report['pairs']} training pairs, {report['unlabelled_px']:,} unchanged px unlabelled")
    for name, what in (
        ("added_px", "got a label"),
        ("disagreed_px", "dates or models disagree"),
        ("doubted_px", "below the confidence floor"),
    ):
        print(f"{report[name]:>12,} px {100 * report[name] / unlabelled:6.2f} %  {what}")
    for name, pixels in report["added_by_class_px"].items():
        print(f"{pixels:>12,} px {100 * pixels / unlabelled:6.2f} %  {name}")
    if report["accuracy"] is not None:
        print(f"right: {100 * report['accuracy']:.2f} % of {report['known_px']:,} px in full1/")
    if report["held_out_accuracy"] is not None:
        print(
            f"right where validation pairs changed: {100 * report['held_out_accuracy']:.2f} % of"
            f" {report['held_out_px']:,} sure answers"
        )


def print_survey(survey: Survey):
    """Print the number of points of each stratum."""
    points_H = [0] * len(survey.strata)
    for stratum in survey.pixels.stratum_N.tolist():
        points_H[stratum] += 1
    print(f"{'stratum':<36}{'ha':>14}{'points':>8}")
    areas_ha = (survey.strata.area_m2_H / 10_000).tolist()
    for name, area_ha, points in zip(survey.strata.names, areas_ha, points_H, strict=True):
        print(f"{name:<36}{area_ha:>14,.3f}{points:>8,}")
    print(f"{len(survey)} points, seed {survey.facts.design.seed}")


def print_assessment(assessment: Assessment):
    """Print areas on the map and as estimated, accuracies, and notes."""
    estimates = assessment.estimates
    head = f"{'ha':<36}{'mapped':>14}{'estimated':>14}{'95 % interval':>24}"
    print(f"{head}   user's  producer's  points")
    total, rows = estimates.change.classes[-1], estimates.transitions.classes
    shown = [row for row in rows if row.points] or rows[:1]
    for row in (total, *shown):
        print(
            f"{row.name:<36}{row.mapped_ha:>14,.3f}{row.area_ha.value:>14,.3f}"
            f"{_format_ends(row.area_ha, ',.3f'):>24}   {_format_share(row.users_accuracy)}"
            f"      {_format_share(row.producers_accuracy)}{row.points:>8,}"
        )
    left = [row.mapped_ha for row in rows if row not in shown]
    if left:
        print(f"{f'{len(left)} that no point was labelled as':<36}{sum(left):>14,.3f}")
    reports = assessment.reports
    for legend, what in (("change", "changed or not"), ("transitions", "transitions")):
        overall = reports[legend].overall
        print(
            f"overall accuracy, {what}: {overall.value:.3f} ± {overall.half_width:.3f}, "
            f"95 % interval {overall.low:.3f} to {overall.high:.3f}"
        )
    for pair in estimates.agreement:
        if pair.transition.percent is not None:
            percent = pair.transition.percent
            print(f"{' and '.join(pair.interpreters)} agree on {percent:.1f} %")
    print("± is 1.96 standard errors, for the chance in drawing the points only")
    for note in estimates.notes:
        print(f"note: {note}")
    print(f"\nwritten to {assessment.folder}")


def _format_ends(estimate: AreaEstimate, form: str) -> str:
    low, high = estimate.interval_95_percent
    return f"{low:{form}} to {high:{form}}"


def _format_share(estimate: ShareEstimate) -> str:
    return "     -" if estimate.value is None else f"{estimate.value:6.3f}"


def print_zones(areas: ZoneAreas):
    """Print how much of each zone changed."""
    width = max(len("zone"), *map(len, areas.names))
    print(f"{'zone':<{width}}{'valid ha':>16}{'changed ha':>14}")
    for name, row_m2 in zip(areas.names, areas.area_m2_ZT, strict=True):
        print(f"{name:<{width}}{row_m2.sum() / 1e4:>16,.3f}{row_m2[1:].sum() / 1e4:>14,.3f}")
    print(f"\nwritten to {areas.folder}")
