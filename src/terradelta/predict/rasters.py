"""Prediction of a georeferenced pair: maps, polygons, sums and provenance in one folder."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.windows import Window
from tqdm import tqdm

from terradelta.classes import ClassTable
from terradelta.geo.area import measure_pixels
from terradelta.geo.cog import MapWriter
from terradelta.geo.grid import Grid
from terradelta.geo.pair import Bands, RasterPair
from terradelta.geo.vector import trace_changes, write_changes
from terradelta.predict.engine import CONFIDENCE_NODATA, ClassMaps, Predictor
from terradelta.predict.transitions import TransitionSums

CLASS_NODATA = 255


def map_rasters(
    predictor: Predictor,
    before: str | Path,
    after: str | Path,
    folder: Path,
    bands: Bands | None = None,
) -> dict[str, Any]:
    """Write the prediction of a raster pair into a folder and return its summary.

    Raises:
        RasterError: If the rasters cannot be read or do not fit each other.
    """
    with RasterPair(before, after, predictor.bands, bands) as pair:
        grid = pair.grid
        sums = TransitionSums(predictor.classes, has_area=grid.crs is not None)
        with MapFolder(folder, grid, predictor.classes) as maps:
            progress = tqdm(
                predictor.map_tiles(pair, grid.height, grid.width),
                total=predictor.tiling.count(grid.height, grid.width),
                desc="predicting",
                unit="tile",
                disable=None,
            )
            for window, class_maps, valid_HW in progress:
                change_HW = maps.write(window, class_maps, valid_HW)
                areas = measure_pixels(grid, window) if sums.has_area else None
                sums.add(change_HW, valid_HW, areas)
    frame = trace_changes(folder / "change.tif", folder / "confidence.tif", predictor.classes)
    write_changes(frame, folder / "changes.gpkg")
    sums.write_csv(folder / "transitions.csv")
    return {**sums.summarize(), "patches": len(frame)}


class MapFolder:
    """The four rasters of a prediction folder; a context manager.

    Args:
        folder: Where they go.
        grid: Their pixels.
        classes: What their values mean.
    """

    def __init__(self, folder: Path, grid: Grid, classes: ClassTable):
        self.classes = classes
        self._dtype, self._nodata = transition_format(classes)
        self._exits = ExitStack()
        class_names = dict(enumerate(classes.names))
        class_palette = dict(enumerate(classes.colours))
        ids = range(classes.num_transitions)
        self._before, self._after = (
            MapWriter(
                folder / f"{date}_class.tif",
                grid,
                dtype="uint8",
                nodata=CLASS_NODATA,
                palette=class_palette,
                names=class_names,
                description=f"land cover {date}, where changed",
            )
            for date in ("before", "after")
        )
        self._change = MapWriter(
            folder / "change.tif",
            grid,
            dtype=self._dtype,
            nodata=self._nodata,
            palette={i: classes.colour_transition(i) for i in ids},
            names={i: classes.name_transition(i) for i in ids},
            description=f"change, from * {classes.num_classes + 1} + to",
        )
        self._confidence = MapWriter(
            folder / "confidence.tif",
            grid,
            dtype="uint8",
            nodata=CONFIDENCE_NODATA,
            description="confidence in percent",
            resampling="AVERAGE",
        )

    def __enter__(self) -> MapFolder:
        for writer in (self._before, self._after, self._change, self._confidence):
            self._exits.enter_context(writer)
        return self

    def __exit__(self, *exception: Any):
        self._exits.__exit__(*exception)

    def write(self, window: Window, maps: ClassMaps, valid_HW: np.ndarray) -> np.ndarray:
        """Write one window of all maps and return its from-to map."""
        change_HW = self.classes.encode_transition(
            maps.before_HW.astype(self._dtype), maps.after_HW.astype(self._dtype)
        )
        for writer, map_HW, nodata in (
            (self._before, maps.before_HW, CLASS_NODATA),
            (self._after, maps.after_HW, CLASS_NODATA),
            (self._change, change_HW, self._nodata),
            (self._confidence, maps.confidence_HW, CONFIDENCE_NODATA),
        ):
            writer.write(np.where(valid_HW, map_HW, nodata).astype(map_HW.dtype), window)
        return change_HW


def transition_format(classes: ClassTable) -> tuple[str, int]:
    """Return the data type and nodata value that hold every transition of a class table."""
    return ("uint8", 255) if classes.num_transitions <= 255 else ("uint16", 65535)
