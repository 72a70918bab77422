"""Drawn truths, maps of them with known errors, prediction folders, and labellers who are right.

Legend of the array names: H rows, W columns.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import geopandas
import numpy as np
import pandas
import pyogrio
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.windows import Window
from scipy.ndimage import gaussian_filter, shift

from terradelta.areas.survey import POINTS, read_survey, read_table
from terradelta.classes import SENSEEARTH, ClassTable
from terradelta.geo.cog import write_cog
from terradelta.geo.grid import Grid
from terradelta.inference.maps import describe_maps

UTM = Grid(CRS.from_epsg(32632), Affine(10, 0, 500_000, 0, -10, 5_000_000), 240, 200)
DEGREES = Grid(CRS.from_epsg(4326), Affine(0.25, 0, -30, 0, -0.35, 70), 240, 200)
"""Pixels that are almost three times as large in the south as in the north."""
FREQUENT, SECOND, RARE = (SENSEEARTH.encode_transition(*ids) for ids in ((4, 5), (2, 3), (1, 2)))


def draw_truth(grid: Grid, seed: int = 0) -> np.ndarray:
    """Patches of two frequent transitions and a rare one on unchanged ground."""
    random = np.random.default_rng(seed)

    def draw_blobs(share):
        field_HW = gaussian_filter(random.standard_normal((grid.height, grid.width)), 4)
        return field_HW > np.quantile(field_HW, 1 - share)

    truth_HW = np.zeros((grid.height, grid.width), np.uint8)
    for transition, share in ((FREQUENT, 0.10), (SECOND, 0.06), (RARE, 0.01)):
        truth_HW[draw_blobs(share)] = transition
    return truth_HW


def draw_map(truth_HW: np.ndarray, seed: int = 1) -> np.ndarray:
    """The truth with errors: displaced, patches missed, false alarms, transitions mistaken."""
    random = np.random.default_rng(seed)
    map_HW = shift(truth_HW, (1, 2), order=0, mode="nearest")
    field_HW = gaussian_filter(random.standard_normal(truth_HW.shape), 5)
    map_HW[field_HW > np.quantile(field_HW, 0.85)] = 0
    is_false_HW = (field_HW < np.quantile(field_HW, 0.06)) & (map_HW == 0)
    map_HW[is_false_HW] = FREQUENT
    is_mistaken_HW = random.random(truth_HW.shape) < 0.1
    map_HW[is_mistaken_HW & (map_HW == SECOND)] = FREQUENT
    return map_HW


def write_prediction(
    folder: Path, change_HW: np.ndarray, grid: Grid, classes: ClassTable = SENSEEARTH
) -> Path:
    """A prediction folder with what `sample`, `assess` and `stats` read of it."""
    folder.mkdir(parents=True)
    before_HW = np.where(change_HW == 255, 255, classes.decode_transition(change_HW)[0])
    whole = Window(0, 0, grid.width, grid.height)
    with tempfile.TemporaryDirectory() as scratch:
        for name, values_HW in (("change", change_HW), ("before_class", before_HW)):
            part = Path(scratch) / "part.tif"
            write_raster(part, values_HW[None].astype(np.uint8), grid)
            map_format = describe_maps(classes)[name]
            write_cog(folder / f"{name}.tif", grid, [(part, whole)], 1, map_format, {})
    images = {}
    for index, date in enumerate(("before", "after")):
        shades_HW = np.where(
            change_HW == 255, 0, 40 + 4 * classes.decode_transition(change_HW)[index]
        )
        image_CHW = np.stack([shades_HW, shades_HW + 40, 255 - shades_HW]).astype(np.uint8)
        write_raster(folder / f"{date}.tif", image_CHW, grid)
        images[date] = {"path": str(folder / f"{date}.tif")}
    run = {
        **images,
        "band_names": ["red", "green", "blue"],
        "parameters": {"bands": ["1", "2", "3"], "grid": "before", "aoi": None},
        "shift_px": [0.0, 0.0],
    }
    (folder / "run.json").write_text(json.dumps(run))
    return folder


def write_raster(path: Path, image_CHW: np.ndarray, grid: Grid):
    count, height, width = image_CHW.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=count,
        height=height,
        width=width,
        dtype="uint8",
        crs=grid.crs,
        transform=grid.transform,
    ) as dataset:
        dataset.write(image_CHW)


def label(
    path: Path, truth_HW: np.ndarray, changes: dict[int, dict[str, str | None]] | None = None
):
    """Fill in the points from a truth; then `changes`: by point, fields to set otherwise."""
    survey = read_survey(path)
    names = np.array(survey.classes.names)
    truth = truth_HW[survey.pixels.row_N, survey.pixels.column_N]
    before, after = survey.classes.decode_transition(truth)
    table = read_table(path, POINTS).sort_values("point").reset_index(drop=True)
    answers = {
        "changed": np.where(truth > 0, "yes", "no"),
        "from": np.where(truth > 0, names[before], None),
        "to": np.where(truth > 0, names[after], None),
    }
    for column in answers.keys() & set(table.columns):
        table[column] = pandas.Series(answers[column], dtype="object")
    for number, fields in (changes or {}).items():
        for column, value in fields.items():
            table.loc[table["point"] == number, column] = value
    assert isinstance(table, geopandas.GeoDataFrame)
    pyogrio.write_dataframe(table, path, layer=POINTS, driver="GPKG")
