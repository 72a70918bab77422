"""The file of points: the layer for labellers, and separately the map's answers.

Layer `points` is for labellers. The tables `design`, `strata` and `mapped` hold values that they
must not see: each point's stratum and answer on the map, the strata's sizes and the map's areas.
`survey` records how the points were drawn.

Legend of the array names: N points, H strata, T transitions.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import geopandas
import numpy as np
import pandas
import pyogrio
from pyogrio.errors import DataSourceError
from shapely.errors import ShapelyError

from terradelta.areas.design import SampleDesign
from terradelta.areas.estimators import Strata
from terradelta.areas.form import FormField, write_form
from terradelta.areas.map_census import DrawnPixels
from terradelta.classes import ClassTable
from terradelta.errors import ArgumentError, DataError
from terradelta.fields import read_fields, write_fields
from terradelta.geo.grid import Grid
from terradelta.geo.style import store_layer_style
from terradelta.geo.vector import write_tables
from terradelta.inputs import parse_json
from terradelta.prediction.estimates import DesignRecord
from terradelta.prediction.records import GridRecord, Side
from terradelta.tables import TEXTS, Numbers, TableError, check_table

POINTS = "points"
LARGEST_AREA_M2 = 1e16
Transform = tuple[float, float, float, float, float, float]
STATES = ("yes", "no", "unsure")
TABLES = ("design", "strata", "mapped", "survey")


@dataclass(frozen=True)
class Survey:
    """A sample of a map, without its labels."""

    classes: ClassTable
    """Classes of the map."""
    grid: Grid
    """Pixels of the map."""
    strata: Strata
    """The population of the points."""
    pixels: DrawnPixels
    """The points, in the order of their numbers 1..N; their codes are transitions here."""
    mapped_pixels_T: np.ndarray
    """Pixels of each transition on the map, int64."""
    mapped_area_m2_T: np.ndarray
    """Their ground area."""
    facts: SurveyFacts
    """How it was drawn."""

    def __len__(self) -> int:
        return len(self.pixels.stratum_N)


@dataclass(frozen=True)
class SurveyFacts:
    """How points were drawn, and from what."""

    folder: str
    """Path of the prediction, relative to the folder of the points."""
    map_sha256: str
    """Hash of its change map."""
    design: DesignRecord
    version: str
    """Of terradelta."""


@dataclass(frozen=True)
class SurveyTable:
    """The table `survey`: the map, then the fields of `SurveyFacts`."""

    classes: ClassTable
    grid: tuple[str, Transform, Side, Side]
    """CRS, transform, width and height of the map."""
    folder: str
    map_sha256: str
    design: DesignRecord
    version: str

    @property
    def facts(self) -> SurveyFacts:
        """How the points were drawn."""
        return SurveyFacts(self.folder, self.map_sha256, self.design, self.version)


def write_survey(path: Path, survey: Survey, chips: list[tuple[str, str]] | None) -> None:
    """Write the file of points, unlabelled, with the form that QGIS shows.

    Args:
        path: A GeoPackage that does not exist yet.
        survey: The sample.
        chips: Pictures of each point at both dates, as paths relative to the file's folder.

    Raises:
        OutputError: If it cannot be written.
    """
    pixels, strata, classes, grid = survey.pixels, survey.strata, survey.classes, survey.grid
    assert grid.crs is not None
    facts = {
        "classes": classes.to_dict(),
        "grid": [grid.crs.to_wkt(), list(grid.transform)[:6], grid.width, grid.height],
        **write_fields(survey.facts),
    }
    fields = _list_fields(classes, chips is not None)
    points = _lay_out_points(survey, fields, chips)
    occurring = np.flatnonzero(survey.mapped_pixels_T)
    before, after = classes.decode_transition(occurring)
    tables = {
        POINTS: points,
        "design": pandas.DataFrame(
            {
                "point": points["point"],
                "stratum": pixels.stratum_N,
                "transition": pixels.code_N,
                "row": pixels.row_N,
                "column": pixels.column_N,
                "area_m2": pixels.area_m2_N,
            }
        ),
        "strata": pandas.DataFrame(
            {
                "stratum": np.arange(len(strata)),
                "name": strata.names,
                "pixels": strata.pixels_H,
                "area_m2": strata.area_m2_H,
                "points": np.bincount(pixels.stratum_N, minlength=len(strata)),
            }
        ),
        "mapped": pandas.DataFrame(
            {
                "transition": occurring,
                "from": [classes.names[value] for value in before],
                "to": [classes.names[value] for value in after],
                "pixels": survey.mapped_pixels_T[occurring],
                "area_m2": survey.mapped_area_m2_T[occurring],
            }
        ),
        "survey": pandas.DataFrame(
            {"key": list(facts), "value": [json.dumps(fact) for fact in facts.values()]}
        ),
    }
    write_tables(path, tables)
    form = write_form(fields, "changed", grid.pixel_size[0])
    store_layer_style(path, POINTS, "a form to label points with", form)


def _lay_out_points(
    survey: Survey, fields: list[FormField], chips: list[tuple[str, str]] | None
) -> geopandas.GeoDataFrame:
    """Return the points, without answers."""
    grid, pixels = survey.grid, survey.pixels
    assert grid.crs is not None
    empty = pandas.Series([None] * len(survey), dtype="str")
    columns = {field.name: empty for field in fields if not (field.is_fixed or field.is_picture)}
    if chips is not None:
        columns["before_chip"] = pandas.Series([before for before, _ in chips])
        columns["after_chip"] = pandas.Series([after for _, after in chips])
    x_N, y_N = grid.transform @ (pixels.column_N + 0.5, pixels.row_N + 0.5)  # pyright: ignore[reportOperatorIssue]
    return geopandas.GeoDataFrame(
        {"point": np.arange(1, len(survey) + 1), **columns},
        geometry=geopandas.points_from_xy(x_N, y_N),
        crs=grid.crs.to_wkt(),
    )


def read_survey(path: Path) -> Survey:
    """Read a file of points, labelled or not, without the labels.

    Raises:
        DataError: If it is not such a file, or one of its tables is damaged.
    """
    tables = {name: read_table(path, name) for name in TABLES}
    try:
        cells = tables["survey"][["key", "value"]].itertuples(index=False)
        stored = {str(key): parse_json(str(value)) for key, value in cells}
        table = read_fields(SurveyTable, stored)
        read_fields(SampleDesign, stored["design"], "design")
        crs, transform, width, height = table.grid
        grid = GridRecord(crs=crs, transform=transform, width=width, height=height).build()
        _check_tables(tables, table.classes, grid)
    except (ValueError, KeyError, ArgumentError) as error:
        raise DataError(
            f"{path} is not a file of points to label, or it is damaged: {error}",
            fix="give a GeoPackage that `terradelta sample` made, with all of its tables",
        ) from error
    design, strata, mapped = tables["design"], tables["strata"], tables["mapped"]
    classes = table.classes
    mapped_pixels_T = np.zeros(classes.num_transitions, np.int64)
    mapped_area_m2_T = np.zeros(classes.num_transitions)
    mapped_pixels_T[mapped["transition"]] = mapped["pixels"]
    mapped_area_m2_T[mapped["transition"]] = mapped["area_m2"]
    columns = ("stratum", "transition", "row", "column", "area_m2")
    return Survey(
        classes,
        grid,
        Strata(tuple(strata["name"]), strata["pixels"].to_numpy(), strata["area_m2"].to_numpy()),
        DrawnPixels(*(design[name].to_numpy() for name in columns)),
        mapped_pixels_T,
        mapped_area_m2_T,
        table.facts,
    )


def holds_survey(path: Path) -> bool:
    """Return whether a file is one of points, labelled or not."""
    try:
        layers = {name for name, _ in pyogrio.list_layers(path)}
    except DataSourceError:
        return False
    return set(TABLES) <= layers


def _check_tables(tables: dict[str, pandas.DataFrame], classes: ClassTable, grid: Grid):
    """Raise if a table beside the points is invalid; sort the points.

    Raises:
        ValueError: Naming the table, column, row and value.
    """
    design = tables["design"]
    transition = Numbers(0, classes.num_transitions - 1, is_whole=True)
    area_m2 = Numbers(0, LARGEST_AREA_M2)
    columns: dict[str, dict[str, Numbers | str]] = {
        "strata": {
            "stratum": Numbers(0, len(tables["strata"]) - 1, is_whole=True),
            "name": TEXTS,
            "pixels": Numbers(1, is_whole=True),
            "area_m2": area_m2,
        },
        "design": {
            "point": Numbers(1, len(design), is_whole=True),
            "stratum": Numbers(0, len(tables["strata"]) - 1, is_whole=True),
            "transition": transition,
            "row": Numbers(0, grid.height - 1, is_whole=True),
            "column": Numbers(0, grid.width - 1, is_whole=True),
            "area_m2": area_m2,
        },
        "mapped": {
            "transition": transition,
            "pixels": Numbers(0, is_whole=True),
            "area_m2": area_m2,
        },
    }
    for name, known in columns.items():
        try:
            check_table(tables[name], known)
        except TableError as error:
            raise ValueError(f"in the table {name!r}, {error}") from error
    tables["design"] = design = design.sort_values("point")
    for name, key in (("design", "point"), ("strata", "stratum"), ("mapped", "transition")):
        if len(np.unique(np.asarray(tables[name][key]))) < len(tables[name]):
            raise ValueError(f"in the table {name!r}, a {key} is there twice")
    ground_m2 = float(np.asarray(tables["strata"]["area_m2"], dtype=np.float64).sum())
    if len(design) == 0 or ground_m2 <= 0:
        raise ValueError("its tables 'design' and 'strata' hold no point or no ground")
    tables["strata"] = tables["strata"].sort_values("stratum")


def read_table(path: Path, layer: str) -> pandas.DataFrame:
    """Return a layer of a file of points; a geometry, if any, as `geometry`.

    Raises:
        DataError: If the file or the layer cannot be read.
    """
    try:
        return pyogrio.read_dataframe(path, layer=layer)
    except (OSError, ValueError, RuntimeError, ShapelyError) as error:
        raise DataError(
            f"{path} is not a file of points to label: its table {layer!r} cannot be read: {error}",
            fix="give a GeoPackage that `terradelta sample` made, with all of its tables",
        ) from error


def _list_fields(classes: ClassTable, has_chips: bool) -> list[FormField]:
    """Return the fields of the layer that labellers fill in."""
    fields = [
        FormField("point", "point", is_fixed=True),
        FormField("changed", "has the middle pixel changed?", choices=STATES),
    ]
    if classes.num_classes > 1:
        # Where nothing has changed, the land cover is optional.
        for name, alias in (("from", "land cover before"), ("to", "land cover after")):
            fields.append(
                FormField(
                    name,
                    alias,
                    choices=classes.names[1:],
                    constraint=f'"changed" IS NOT \'yes\' OR "{name}" IS NOT NULL',
                    hint="the land cover before and after, if it has changed",
                )
            )
    fields.append(FormField("note", "note"))
    if has_chips:
        fields.append(FormField("before_chip", "before", is_picture=True, is_fixed=True))
        fields.append(FormField("after_chip", "after", is_picture=True, is_fixed=True))
    return fields
