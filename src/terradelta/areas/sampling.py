"""The `sample` verb: points drawn from a map, to label blind.

Legend of the array names: N points.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import numpy as np
from tqdm import tqdm

from terradelta.areas.allocation import (
    MIN_POINTS,
    allocate_points,
    find_sample_size,
)
from terradelta.areas.chips import write_chips
from terradelta.areas.design import SampleDesign
from terradelta.areas.map_census import (
    ChangeMap,
    draw_pixels,
    identify,
    take_census,
)
from terradelta.areas.stratification import Stratification, stratify
from terradelta.areas.survey import Survey, SurveyFacts, holds_survey, write_survey
from terradelta.destination import claim_file, claim_folder
from terradelta.errors import ArgumentError, RasterError
from terradelta.fields import Within, checks_ranges
from terradelta.geo.cog import find_map
from terradelta.geo.origin import list_origins
from terradelta.geo.pair import RasterPair
from terradelta.outputs import stage_file, stage_folder
from terradelta.prediction.estimates import DesignRecord
from terradelta.prediction.folder import PredictionFolder
from terradelta.prediction.reopening import reopen_pair

MAX_CHIP_SIZE_PX = 4096


@checks_ranges
def sample(
    folder: str | Path,
    output: str | Path,
    design: SampleDesign | None = None,
    *,
    chip_size_px: Annotated[int, Within(least=0, most=MAX_CHIP_SIZE_PX)] = 48,
    before: str | Path | None = None,
    after: str | Path | None = None,
    overwrite: bool = False,
) -> Survey:
    """Draw points from a prediction's map, as a stratified random sample, for people to label.

    Args:
        folder: Prediction folder of two rasters.
        output: GeoPackage to make, `X.gpkg`; pictures go to `X_chips/` beside it.
        design: How to draw.
        chip_size_px: Width and height of a picture in pixels of the map; 0 = no pictures.
        before: New path of the earlier raster, if it was moved.
        after: New path of the later raster.
        overwrite: Replace an existing output, and the labels in it.

    Returns:
        The sample.

    Raises:
        ArgumentError: If the points do not suffice for the strata, or the output is not a `.gpkg`.
        RasterError: If the map or the two rasters cannot be read.
        OutputError: If run.json cannot be read.
        OutputExistsError: If the output exists and `overwrite` is False.
    """
    folder, output = Path(folder), Path(output)
    design = design or SampleDesign()
    if output.suffix != ".gpkg":
        raise ArgumentError(f"{output} is not a GeoPackage", fix="write the points to a .gpkg")
    chips_folder = output.with_name(f"{output.stem}_chips")
    inputs = [
        folder,
        *(source for date in (before, after) if date for source in list_origins(date)),
    ]
    output = claim_file(output, inputs, overwrite=overwrite, is_own=holds_survey)
    if chip_size_px:
        claim_folder(chips_folder, inputs, overwrite=overwrite)
    survey = _draw_survey(folder, design, output.parent)
    with ExitStack() as exits:
        chips = None
        if chip_size_px:
            staged_chips = exits.enter_context(
                stage_folder(chips_folder, inputs, overwrite=overwrite)
            )
            with _open_pair(folder, before, after) as pair:
                chips = _draw_chips(pair, survey, staged_chips, chips_folder.name, chip_size_px)
        staged = exits.enter_context(stage_file(output))
        write_survey(staged, survey, chips)
    return survey


def _draw_survey(folder: Path, design: SampleDesign, seen_from: Path) -> Survey:
    """Draw the points; the path of the prediction is relative to their file."""
    with ChangeMap(folder, design.buffer_px) as change_map:
        census = take_census(change_map)
        stratification = stratify(census, change_map.classes, design)
        points_H = allocate(stratification, design)
        pixels = draw_pixels(change_map, census, stratification.stratum_C, points_H, design.seed)
        grid, classes, near_code = change_map.grid, change_map.classes, change_map.near_code

    def fold(values: np.ndarray) -> np.ndarray:
        """Count pixels near change as unchanged, as on the map."""
        return np.concatenate([[values[0] + values[near_code]], values[1:near_code]])

    return Survey(
        classes,
        grid,
        stratification.strata,
        pixels._replace(code_N=np.where(pixels.code_N == near_code, 0, pixels.code_N)),
        fold(census.pixels_C),
        fold(census.area_m2_C),
        SurveyFacts(
            folder=os.path.relpath(folder, seen_from),
            map_sha256=identify(find_map(folder, "change")),
            design=DesignRecord(**design.to_dict()),
            version=version("terradelta"),
        ),
    )


def allocate(stratification: Stratification, design: SampleDesign) -> np.ndarray:
    """Return the number of points of each stratum.

    If their number follows from the standard error, strata below the floor get additional ones,
    so that the others keep the number that the standard error needs.
    """
    strata, accuracy_H = stratification.strata, stratification.accuracy_H
    share_out = partial(allocate_points, strata, accuracy_H=accuracy_H, rule=design.allocation)
    if design.points is not None:
        return share_out(design.points, floor=design.floor)
    points = find_sample_size(strata, accuracy_H, design.standard_error)
    fewest_H = np.minimum(MIN_POINTS, strata.pixels_H)
    needed_H = share_out(max(points, int(fewest_H.sum())), floor=MIN_POINTS)
    return np.maximum(needed_H, np.minimum(design.floor, strata.pixels_H))


def _open_pair(folder: Path, before: str | Path | None, after: str | Path | None) -> RasterPair:
    try:
        return reopen_pair(PredictionFolder(folder).read_pair(), before, after)
    except RasterError as error:
        raise RasterError(
            error.problem,
            fix="give the paths of the images with --before and --after, or draw no pictures of "
            "the points with --chip-size 0",
        ) from error


def _draw_chips(
    pair: RasterPair, survey: Survey, staged: Path, folder_name: str, size_px: int
) -> list[tuple[str, str]]:
    """Draw the pictures and return their paths relative to the file of points."""
    if (pair.area.height, pair.area.width) != (survey.grid.height, survey.grid.width):
        raise RasterError(
            f"the images now share {pair.area.width} x {pair.area.height} px, and their map has "
            f"{survey.grid.width} x {survey.grid.height} px: they were replaced",
            fix="give the paths of the map's images with --before and --after, or draw no "
            "pictures of the points with --chip-size 0",
        )
    pixels, digits = survey.pixels, len(str(len(survey)))
    places = (
        (f"{number:0{digits}}", int(row), int(column))
        for number, (row, column) in enumerate(
            zip(pixels.row_N, pixels.column_N, strict=True), start=1
        )
    )
    drawn = write_chips(pair, places, staged, size_px)
    return [
        (f"{folder_name}/{chip.before.name}", f"{folder_name}/{chip.after.name}")
        for chip in tqdm(drawn, total=len(survey), desc="pictures", unit="point", disable=None)
    ]
