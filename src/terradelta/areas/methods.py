"""A paragraph for a methods section, from the design and the results."""

from __future__ import annotations

import math

from terradelta.areas.estimators import Z_95
from terradelta.prediction.estimates import AreaEstimate, AreaEstimates, ShareEstimate

INTERVAL_WORDS = {
    "logit": "95 % intervals are symmetric in log odds, with quantiles of Student's t at the "
    "degrees of freedom of the design effect (Korn and Graubard 1998; Satterthwaite 1946)",
    "wald": f"95 % intervals are {Z_95:g} standard errors on either side",
}


def write_methods(estimates: AreaEstimates) -> str:
    """Return the method and the results in sentences."""
    return " ".join((_tell_design(estimates), _tell_labels(estimates), _tell_results(estimates)))


def _tell_design(estimates: AreaEstimates) -> str:
    design, strata = estimates.design, estimates.strata
    assert estimates.area_ha is not None
    assert design.stratum_share is not None
    parts = "; ".join(
        f"{s.stratum}: {_hectares(s.area_ha)} ha, {s.points_used} points" for s in strata
    )
    rule = {
        "proportional": "in proportion to their areas",
        "neyman": "by Neyman allocation (area times expected standard deviation)",
    }[design.allocation]
    size = (
        "The sample size was given beforehand"
        if design.points is not None
        else "The sample size followed from a target standard error of the overall accuracy of "
        f"{design.standard_error:g} (Olofsson et al. 2014, equation 13; expected accuracies "
        f"{design.expect_changed:g} for change, {design.expect_unchanged:g} for unchanged"
        + (f", {design.expect_near:g} near change)" if design.buffer_px else ")")
    )
    buffer = (
        f" Unchanged pixels within {design.buffer_px} pixels of mapped change formed a stratum "
        "of their own."
        if design.buffer_px
        else ""
    )
    other = (
        ""
        if estimates.map == "sampled"
        else " The strata are those of another map than the one assessed."
    )
    return (
        f"Accuracy and areas were estimated from a stratified random sample of "
        f"{estimates.points_used} pixels out of {_hectares(estimates.area_ha)} ha with data on "
        f"both dates. The strata ({parts}) were made from the change map; transitions below "
        f"{100 * design.stratum_share:g} % of the mapped change were pooled.{buffer}{other} "
        f"{size}; points were allocated to the strata {rule}, with at least {design.floor} in "
        "each that has so many pixels. Within strata each pixel was equally likely to be drawn, "
        f"without replacement (seed {design.seed})."
    )


def _tell_labels(estimates: AreaEstimates) -> str:
    interpreters, reasons = estimates.interpreters, estimates.unresolved.points
    sentences = []
    if len(interpreters) == 1:
        sentences.append("One interpreter labelled the points without knowing the map's answer.")
    else:
        pairs = "; ".join(
            f"{' and '.join(pair.interpreters)}: {pair.transition.percent:.1f} %, kappa "
            f"{_number(pair.transition.kappa)}"
            for pair in estimates.agreement
            if pair.transition.percent is not None
        )
        sentences.append(
            f"{len(interpreters)} interpreters labelled the points independently and without "
            f"knowing the map's answer (agreement on the transition: {pairs}); the most frequent "
            "answer was taken, those who were unsure not counting."
        )
    if reasons:
        named = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
        sentences.append(
            f"{sum(reasons.values())} points without an answer ({named}) were left out, as if they "
            "were a random part of their strata."
        )
    return " ".join(sentences)


def _tell_results(estimates: AreaEstimates) -> str:
    overall, changed = estimates.change.overall_accuracy, estimates.change.classes[-1]
    area, user, producer = changed.area_ha, changed.users_accuracy, changed.producers_accuracy
    full = estimates.transitions.overall_accuracy
    return (
        "Areas are sums over strata of stratum area times the sample's share, weighted by the "
        "pixels' ground areas on the ellipsoid; standard errors are those of Stehman (2014), which "
        "for strata that are the map's classes are those of Olofsson et al. (2014), with the "
        f"finite population correction; {INTERVAL_WORDS[estimates.interval]}. "
        f"The overall accuracy of changed against unchanged was {_interval(overall, 3)}, that of "
        f"the transitions {_interval(full, 3)}. Mapped change covers "
        f"{_hectares(changed.mapped_ha)} ha; the error-adjusted estimate is "
        f"{_interval(area, _decimals(area.value))} ha, with a user's accuracy of "
        f"change of {_interval(user, 2)} and a producer's accuracy of {_interval(producer, 2)} "
        f"({Z_95:g} standard errors, and in brackets the 95 % intervals). The intervals cover "
        "chance in drawing the points, not errors of the labels."
    )


def _interval(estimate: AreaEstimate | ShareEstimate, digits: int) -> str:
    if estimate.value is None or estimate.standard_error is None:
        return "not known"
    half_width = Z_95 * estimate.standard_error
    low, high = estimate.interval_95_percent
    return (
        f"{estimate.value:,.{digits}f} ± {half_width:,.{digits}f} "
        f"({low:,.{digits}f} to {high:,.{digits}f})"
    )


def _decimals(hectares: float) -> int:
    """Return how many decimals show about four digits."""
    return max(0, 3 - math.floor(math.log10(hectares))) if hectares > 0 else 2


def _hectares(hectares: float) -> str:
    return f"{hectares:,.{_decimals(hectares)}f}"


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.2f}"
