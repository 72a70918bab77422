"""Checks a pair before it is mapped: errors stop the run, warnings become cautions of the map."""

from __future__ import annotations

from dataclasses import replace

from terradelta.errors import RasterError
from terradelta.geo.check import examine_pair
from terradelta.geo.finding import Finding, Report
from terradelta.geo.listing import RasterPaths, name_source
from terradelta.geo.pair_options import ModelNeeds, PairOptions
from terradelta.heap import return_freed_memory


def look_over(
    before: RasterPaths,
    after: RasterPaths,
    reading: PairOptions,
    needs: ModelNeeds,
    dates: tuple[str | None, str | None] = (None, None),
) -> Report:
    """Check a pair like `check`.

    Args:
        before: The earlier raster or mosaic; see `list_rasters`.
        after: The later one.
        reading: How the pair is read, with the measured shift.
        needs: The inputs that the models need.
        dates: Dates of the images, as given by the user.

    Returns:
        Findings without failures.

    Raises:
        RasterError: If a check fails.
    """
    report = examine_pair(before, after, reading, needs, dates)
    # Otherwise the memory it used would count as the run's.
    return_freed_memory()
    for finding in report.findings:
        if finding.level == "FAIL":
            names = [name_source(path) for path in (before, after)]
            is_named = any(name in finding.message for name in names)
            subject = "" if is_named else f"{' and '.join(names)}: "
            raise RasterError(f"{subject}{finding.message}", _phrase(finding.fix))
    if reading.shift_px == (0.0, 0.0):
        return report
    return Report(tuple(_tell_undone(finding, reading) for finding in report.findings))


def _phrase(fix: str | None) -> str:
    """Return the fix as an imperative; a check names only the flag."""
    fix = fix or "give images that can be compared"
    return f"add {fix}" if fix.startswith("--") else fix


def _tell_undone(finding: Finding, reading: PairOptions) -> Finding:
    """Say that the shift remains after another one was undone."""
    if finding.name != "shift":
        return finding
    columns, rows = reading.shift_px
    undone = f"{columns:+.2f} columns and {rows:+.2f} rows were undone; "
    return replace(finding, message=undone + finding.message)
