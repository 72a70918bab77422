"""The look at a pair before it is mapped: what stops the run, and what its map will carry."""

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
    """Look a pair over as `check` does.

    Args:
        before: The earlier raster or mosaic; see `list_rasters`.
        after: The later one.
        reading: How the pair is read, a shift that was measured included.
        needs: What the models must be given.
        dates: When the images were taken, as the user says.

    Returns:
        Findings, none of which fails.

    Raises:
        RasterError: If one fails.
    """
    report = examine_pair(before, after, reading, needs, dates)
    # What it read would be taken for what the run needs.
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
    """Return what fixes it as an imperative; a check names the flag alone."""
    fix = fix or "give images that can be compared"
    return f"add {fix}" if fix.startswith("--") else fix


def _tell_undone(finding: Finding, reading: PairOptions) -> Finding:
    """Say of the shift that what is left is left after another was undone."""
    if finding.name != "shift":
        return finding
    columns, rows = reading.shift_px
    undone = f"{columns:+.2f} columns and {rows:+.2f} rows were undone; "
    return replace(finding, message=undone + finding.message)
