"""The page of a prediction folder: what changed, where, with which confidence and by which method.

It is made from the folder and, if they still exist, from the two rasters. From large rasters
it reads overviews and a few windows.

Legend of the array names: H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import rasterio
import shapely
from rasterio.enums import Resampling
from scipy.ndimage import binary_erosion

from terradelta.classes import ClassTable, Colour
from terradelta.errors import OutputError, TerradeltaError
from terradelta.geo.check import examine_pair
from terradelta.geo.cog import find_map
from terradelta.geo.finding import Finding
from terradelta.geo.grid import OPEN_ERRORS, Grid, allow_no_place, make_transformer
from terradelta.geo.listing import name_source
from terradelta.geo.pair_options import ModelNeeds
from terradelta.prediction.changes import find_changes, read_outlines, read_patch_table
from terradelta.prediction.estimates import ESTIMATES_FILE, read_estimates
from terradelta.prediction.folder import FIX, PredictionFolder
from terradelta.prediction.records import DatesRecord, Run, Summary
from terradelta.prediction.reopening import recall_options, reopen_pair
from terradelta.reports.document import REPORT_FILE, embed_overlay, embed_photograph, write_page
from terradelta.reports.estimated_areas import describe_areas, require_same_map
from terradelta.reports.flow import FlowChart, FlowTable
from terradelta.reports.headline import find_unit, list_largest, sum_compared, write_headline
from terradelta.reports.imagery import CHIP_SIZE_PX, Imagery, choose_shape, place_chip
from terradelta.reports.patch_list import (
    choose_patches,
    find_share_of_largest,
    sort_by_confidence,
    sort_by_size,
)
from terradelta.reports.provenance import ModelPassage, describe_models, describe_run
from terradelta.reports.wording import Unit, name_image, say_m2, say_place
from terradelta.reports.zones import ZONES_FILE, draw_zones, read_zones

CACHE_BYTES = 128 * 1024**2
"""GDAL's cache; each window is read once, and by default it is a twentieth of the memory."""
STRONGEST_SHADE = 30
"""Percent of the accent behind the largest amount of the matrix; text on it stays readable."""
WHY_SHOWN = {
    "largest": "The largest",
    "most certain": "The most certain",
    "least certain": "The least certain",
}


def write_prediction_page(folder: Path, areas: Path | None = None, zones: Path | None = None):
    """Write report.html into the folder of a prediction of two rasters.

    Args:
        folder: Prediction folder.
        areas: An area_estimates.json; by default the one in the folder, if there is one.
        zones: A zones.gpkg; by default the one in the folder's `zones`, if there is one.

    Raises:
        OutputError: If the folder lacks a part, or the page cannot be written.
        DataError: If areas or zones cannot be read, or belong to another map.
    """
    subject = _Subject.read(folder)
    areas, zones = (
        own if path is None and own.exists() else path
        for path, own in ((areas, folder / ESTIMATES_FILE), (zones, folder / ZONES_FILE))
    )
    estimates = None if areas is None else read_estimates(areas)
    if areas is not None and estimates is not None:
        require_same_map(areas, estimates, subject.summary)
    frame = None if zones is None else read_zones(zones, subject.grid)
    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES), ExitStack() as files:
        content = _gather(subject, files)
    content["areas"] = estimates and describe_areas(estimates)
    content["zones"] = None if frame is None else draw_zones(frame, subject.grid, subject.classes)
    write_page(folder / REPORT_FILE, "prediction.html.jinja", **content)


@dataclass(frozen=True)
class _Subject:
    """The data of a prediction folder for one page."""

    folder: Path
    summary: Summary
    run: Run
    classes: ClassTable
    grid: Grid
    shape: tuple[int, int]
    """Rows and columns of a picture of the map."""
    change_HW: np.ndarray
    """The from-to map, reduced to that shape."""

    @classmethod
    def read(cls, folder: Path) -> _Subject:
        files = PredictionFolder(folder)
        run = files.read_run()
        path = find_map(folder, "change")
        try:
            with allow_no_place(), rasterio.open(path) as dataset:
                grid = Grid.of(dataset)
                shape = choose_shape(grid)
                change_HW = dataset.read(1, out_shape=shape, resampling=Resampling.mode)
                change_HW[change_HW == dataset.nodata] = 0
        except OPEN_ERRORS as error:
            raise _complain(path, error) from error
        left, bottom, right, top = grid.bounds
        if not (left < right and bottom < top):
            raise OutputError(f"{path} has the bounds {grid.bounds}, which hold no ground", FIX)
        classes = files.read_classes()
        return cls(
            folder,
            files.read_summary(classes),
            run,
            classes,
            grid,
            shape,
            change_HW,
        )

    @property
    def unit(self) -> Unit:
        return find_unit(self.summary)


@dataclass(frozen=True)
class FlowMatrix:
    """The cells of the from-to matrix."""

    texts: list[list[str]]
    """Amounts, with the sums of rows and columns."""
    shades: list[list[int]]
    """Strength of the cells' backgrounds without the sums, in percent of the accent."""


@dataclass(frozen=True)
class ClassLayer:
    """An overlay of the ground that became one class."""

    name: str
    colour: Colour
    amount: str
    picture: str
    """Picture as a data URI."""


@dataclass(frozen=True)
class ShownPatch:
    """A patch with its surroundings."""

    start: tuple[str, Colour]
    """Class before, and its colour."""
    end: tuple[str, Colour]
    size: str
    confidence: float
    """Percent."""
    place: str
    pictures: list[str] | None
    """Before and after as data URIs; None if the images are gone."""
    outline: str
    """SVG path."""


def _complain(path: Path, error: Exception) -> OutputError:
    return OutputError(f"{path} cannot be read: {error}", FIX)


def _gather(subject: _Subject, files: ExitStack) -> dict[str, Any]:
    """Return the values of the template."""
    summary, unit = subject.summary, subject.unit
    flow = FlowTable.of(summary.transitions, subject.classes, unit)
    models = describe_models(subject.run.models)
    imagery, missing = _open_imagery(subject, files)
    table = read_patch_table(find_changes(subject.folder), subject.classes, has_area=unit.has_area)
    return {
        "names": _name_images(subject.run),
        "cautions": summary.cautions,
        # Summaries of earlier versions lack the number of patches.
        "patches": len(table),
        "unit": unit,
        "headline": write_headline(summary),
        "compared": unit.say(sum_compared(summary)),
        "told": list_largest(summary),
        "nodata_percent": _find_nodata(summary),
        "confidence": _weigh_confidence(table),
        "binary": subject.classes.num_classes == 1,
        "flow": flow,
        "chart": FlowChart.of(flow) if summary.transitions else None,
        "matrix": _tabulate(flow, unit),
        "pictures": imagery
        and {
            "before": embed_photograph(imagery.before),
            "after": embed_photograph(imagery.after),
            "height": subject.shape[0],
            "width": subject.shape[1],
            "scale": subject.grid.width / subject.shape[1],
        },
        "missing": missing,
        "layers": _draw_layers(subject, flow),
        "shown": _show_patches(subject, table, imagery),
        "why_shown": WHY_SHOWN,
        "chip_size": CHIP_SIZE_PX,
        "sizes": len(table) and sort_by_size(table, unit.has_area),
        "certainties": len(table) and sort_by_confidence(table, unit.has_area),
        "share_of_largest": len(table) and find_share_of_largest(table, unit.has_area),
        "findings": _list_findings(subject, models, missing),
        "models": models,
        "facts": describe_run(subject.run, subject.grid),
        "versions": subject.run.versions,
    }


def _name_images(run: Run) -> list[str]:
    before, after = (run.dates or DatesRecord()).build()
    return [name_image(run.before.path, before), name_image(run.after.path, after)]


def _find_nodata(summary: Summary) -> float:
    return 100 * summary.nodata_pixels / (summary.valid_pixels + summary.nodata_pixels)


def _weigh_confidence(table: pandas.DataFrame) -> float | None:
    """Return the mean confidence of the changed pixels in percent."""
    pixels = table.pixels.sum()
    return 100 * float((table.confidence * table.pixels).sum() / pixels) if pixels else None


def _open_imagery(subject: _Subject, files: ExitStack) -> tuple[Imagery | None, str | None]:
    """Return the pictures, or the reason for their absence."""
    try:
        pair = files.enter_context(reopen_pair(subject.run))
        cut = (pair.area.width, pair.area.height)
        if cut != (subject.grid.width, subject.grid.height):
            before = name_source(subject.run.before.path)
            return None, f"{before} has other pixels now than when it was mapped"
        return Imagery(pair, subject.shape), None
    except TerradeltaError as error:
        return None, error.problem


def _list_findings(
    subject: _Subject, models: list[ModelPassage], missing: str | None
) -> Sequence[Finding] | None:
    """Return the findings of the pair when it was mapped; None if unknown."""
    if subject.run.findings is not None:
        return subject.run.findings
    # Earlier versions did not store them.
    return None if missing else list(_check_pair(subject, models))


def _check_pair(subject: _Subject, models: list[ModelPassage]) -> Iterator[Finding]:
    """Check the pair again, and mark findings that a flag of the run fixed."""
    cards = [model.card for model in models if model.card]
    needs = ModelNeeds(
        subject.run.band_names,
        (0.0, max((card.scaling.divisor for card in cards), default=255.0)),
        cards[0].resolution_m if cards else None,
    )
    report = examine_pair(
        subject.run.before.path,
        subject.run.after.path,
        # The shift is measured again, so that the reader sees it.
        replace(recall_options(subject.run), shift_px=(0.0, 0.0)),
        needs,
    )
    for finding in report.findings:
        if finding.name == "shift" and subject.run.parameters.register:
            columns, rows = subject.run.shift_px
            undone = f"; {columns:+.2f} columns and {rows:+.2f} rows were undone before mapping"
            yield Finding("shift", "OK", finding.message + undone)
        else:
            yield finding


def _tabulate(flow: FlowTable, unit: Unit) -> FlowMatrix:
    """Return the matrix with its sums as texts with the same number of decimals, and its shades."""
    amounts_FT = flow.amounts_FT
    with_sums = np.block(
        [
            [amounts_FT, amounts_FT.sum(axis=1, keepdims=True)],
            [amounts_FT.sum(axis=0, keepdims=True), amounts_FT.sum(keepdims=True)],
        ]
    )
    texts = np.reshape(unit.say_column(with_sums.ravel().tolist()), with_sums.shape).tolist()
    shades = np.ceil(STRONGEST_SHADE * amounts_FT / max(amounts_FT.max(initial=0), 1e-12))
    return FlowMatrix(texts, shades.astype(int).tolist())


def _draw_layers(subject: _Subject, flow: FlowTable) -> list[ClassLayer]:
    """Return an overlay and its amount for each class after."""
    _, to_HW = subject.classes.decode_transition(subject.change_HW)
    group_HW = np.where(subject.change_HW == 0, -1, np.array(flow.groups)[to_HW])
    amounts = flow.amounts_FT.sum(axis=0)
    texts = subject.unit.say_column(amounts)
    layers = []
    for index in np.flatnonzero(amounts).tolist():
        fill_HW = np.equal(group_HW, index)
        edge_HW = fill_HW & np.logical_not(binary_erosion(fill_HW, border_value=1))
        layers.append(
            ClassLayer(
                name=flow.names[index],
                colour=flow.colours[index],
                amount=texts[index],
                picture=embed_overlay(fill_HW, edge_HW, flow.colours[index]),
            )
        )
    return layers


def _show_patches(
    subject: _Subject, table: pandas.DataFrame, imagery: Imagery | None
) -> dict[str, list[ShownPatch]]:
    """Return the patches to look at, by reason, with their surroundings."""
    chosen = choose_patches(table, subject.unit.has_area) if len(table) else {}
    ids = sorted({index for group in chosen.values() for index in group})
    outlines = read_outlines(find_changes(subject.folder), ids)
    shown = {
        index: _show_patch(subject, table.loc[index], outlines[index], imagery) for index in ids
    }
    return {why: [shown[index] for index in group] for why, group in chosen.items()}


def _show_patch(
    subject: _Subject, patch: pandas.Series, outline: shapely.Polygon, imagery: Imagery | None
) -> ShownPatch:
    from_id, to_id = subject.classes.decode_transition(int(patch.transition))
    chip = place_chip(outline, subject.grid)
    pictures = None if imagery is None else [embed_photograph(part) for part in imagery.cut(chip)]
    has_area = subject.unit.has_area
    return ShownPatch(
        start=(subject.classes.names[from_id], subject.classes.colours[from_id]),
        end=(subject.classes.names[to_id], subject.classes.colours[to_id]),
        size=say_m2(patch.area_m2) if has_area else subject.unit.say(patch.pixels),
        confidence=100 * patch.confidence,
        place=_locate(outline, subject.grid),
        pictures=pictures,
        outline=chip.outline,
    )


def _locate(outline: shapely.Polygon, grid: Grid) -> str:
    """Return the place of a patch: a point of it, in degrees or in pixels."""
    point = outline.representative_point()
    if grid.crs is None:
        column, row = ~grid.transform @ (point.x, point.y)
        return f"column {int(column):,}, row {int(row):,}"
    transformer = make_transformer(grid.crs.to_wkt(), "EPSG:4326")
    return say_place(*transformer.transform(point.x, point.y))
