"""Verbs that turn a map into publishable area estimates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from terradelta.areas.design import IntervalKind, SampleDesign
from terradelta.cli.application import Json, Output, Overwrite, app
from terradelta.cli.results import print_assessment, print_survey, print_zones
from terradelta.flags import read_list

_design = Group("Design", sort_key=1)


@app.command
def sample(
    prediction: Path,
    /,
    *,
    output: Output,
    design: Annotated[SampleDesign, Parameter(name="*", group=_design)] = SampleDesign(),  # noqa: B008
    chip_size: int = 48,
    before: str | None = None,
    after: str | None = None,
    overwrite: Overwrite = False,
):
    """Draw a stratified random sample of points from a map, to label in QGIS.

    Strata are unchanged ground, each frequent transition, and the rare ones together.

    Args:
        prediction: Folder that `predict` made from two rasters.
        output: GeoPackage to make, X.gpkg; pictures go to X_chips/ beside it.
        design: How to draw.
        chip_size: How many pixels of the map a picture is wide and high; 0 = no pictures.
        before: New path of the earlier raster, if it was moved.
        after: New path of the later raster.
        overwrite: Replace an existing output, and the labels in it.
    """
    from terradelta.areas.sampling import sample as run_sample

    survey = run_sample(
        prediction,
        output,
        design,
        chip_size_px=chip_size,
        before=before,
        after=after,
        overwrite=overwrite,
    )
    print_survey(survey)
    print(f"\nto be labelled: {output}, layer points; then: terradelta assess {output}")


@app.command
def assess(
    points: str,
    /,
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    other_map: Annotated[Path | None, Parameter(name="--map")] = None,
    unresolved: Literal["refuse", "exclude"] = "refuse",
    interval: IntervalKind = "logit",
    overwrite: Overwrite = False,
    as_json: Json = False,
):
    """Estimate accuracies and areas, with 95 % intervals, from labelled points.

    Args:
        points: The labelled file, or one copy for each interpreter: A.gpkg,B.gpkg,C.gpkg; the most
            frequent answer counts.
        output: Folder for the results; by default the prediction that the points were drawn from.
        other_map: Another prediction of the same ground, to assess with these points.
        unresolved: What to do about points that are unlabelled, unsure or tied.
        interval: Method for the 95 % intervals: logit also holds for classes with few points; wald
            is 1.96 standard errors on either side, as in the papers.
        overwrite: Replace the results of an earlier assessment.
        as_json: Print area_estimates.json.
    """
    from terradelta.areas.assessment import assess as run_assess

    assessment = run_assess(
        read_list(points),
        output,
        other_map=other_map,
        unresolved=unresolved,
        interval=interval,
        overwrite=overwrite,
    )
    if as_json:
        print(json.dumps(assessment.estimates.to_json(), ensure_ascii=False))
        return
    print_assessment(assessment)


@app.command
def stats(
    prediction: Path,
    /,
    *,
    zones: Path,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    name: str | None = None,
    overwrite: Overwrite = False,
):
    """Sum a map's transitions in hectares within polygons.

    Args:
        prediction: Folder that `predict` made from two rasters.
        zones: Vector file with polygons, in any CRS.
        output: Folder to make, with zones.csv and zones.gpkg; PREDICTION/zones by default.
        name: Column with the names of the polygons.
        overwrite: Replace an existing output.
    """
    from terradelta.areas.zonal import stats as run_stats

    print_zones(run_stats(prediction, zones, output, name=name, overwrite=overwrite))
