"""Prediction of a georeferenced pair: from what is asked to answered blocks."""

from __future__ import annotations

import logging
import math
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from rasterio.windows import Window

from terradelta.errors import ArgumentError, RasterError
from terradelta.geo.grid import Grid
from terradelta.geo.listing import RasterPaths, name_source
from terradelta.geo.mosaic import describe_images
from terradelta.geo.origin import describe_origins
from terradelta.geo.pair import PairWindow, RasterPair
from terradelta.geo.registration import measure_shift
from terradelta.geo.scale import advise_scale
from terradelta.geo.source import Bands
from terradelta.geo.virtual import name_raster
from terradelta.predict.engine import Predictor
from terradelta.predict.job import Job, describe_grid, describe_plan, require_space
from terradelta.predict.memory import DEFAULT_MEMORY_BYTES, plan_memory
from terradelta.predict.pace import Pace
from terradelta.predict.stream import answer_blocks
from terradelta.predict.tiling import BlockPlan, Tiling

FORMAT = 2
BLOCK_BYTES = 64 * 1024**2
"""What the pixels of a block may take; blocks are as large as this allows."""
MAX_BLOCK_SIZE_PX = 3072
RESERVED_SHARE = 0.15
"""Of a time budget, for making maps and polygons of the answered blocks."""
TOO_BRIGHT = 2.0
TOO_DARK = 0.01

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RasterOptions:
    """What is asked of a raster prediction besides the pair and the models."""

    bands: Bands | None = None
    """Numbers or names of the bands that the models read."""
    grid: str | float = "before"
    """Whose pixels the map gets; see `RasterPair`."""
    aoi: str | Path | None = None
    """A vector file that limits the work."""
    register: bool = False
    """Whether to measure the shift between the images and undo it."""
    min_area_m2: float = 0.0
    """Smaller patches of change are taken for unchanged."""
    vector: str = "gpkg"
    """Format of the polygons, "gpkg" or "parquet"."""
    memory_bytes: int = DEFAULT_MEMORY_BYTES
    """What the process may take."""
    time_budget_seconds: float | None = None
    """When the prediction is to be done."""
    shard: tuple[int, int] = (1, 1)
    """Which of how many parts of the blocks to answer, counted from 1."""
    picture: bool = False
    """Whether to draw before, after and the map."""
    cog_size_px: int | None = None
    """Side of the pieces that the maps are cut into; None for each in one."""


@dataclass(frozen=True)
class Work:
    """What an engine is given to do."""

    predictor: Predictor
    """The models."""
    pair: RasterPair
    """The rasters, open."""
    job: Job
    """Where the answers go."""
    missing: list[int]
    """The blocks to answer."""
    total: int
    """How many blocks the progress bar counts, those done before included."""
    started: float
    """When the time budget began, in seconds of `time.monotonic`."""
    options: RasterOptions
    """What is asked for."""


def answer_rasters(
    predictor: Predictor,
    before: RasterPaths,
    after: RasterPaths,
    output: Path,
    models: list[dict[str, str]],
    options: RasterOptions,
    *,
    started: float,
    overwrite: bool = False,
    answer: Callable[[Work], None] | None = None,
) -> Job:
    """Answer the blocks of a raster pair, those that are not answered yet.

    Args:
        predictor: The models.
        before: The earlier raster or mosaic; see `list_rasters`.
        after: The later one.
        output: Where the prediction will be; the blocks go to a folder beside it.
        models: Where the models come from: folder and SHA-256 of each.
        options: What is asked for.
        started: When the time budget began, in seconds of `time.monotonic`.
        overwrite: Drop an unfinished run that asked for something else.
        answer: What answers the blocks; this process by default.

    Returns:
        The job, whose blocks (those of the shard) are all in its store.

    Raises:
        RasterError: If the rasters cannot be read or do not fit each other.
        OutputError: If a block cannot be written.
        OutputExistsError: If an unfinished run that asked for something else is in the way.
    """
    with open_pair(predictor, before, after, options) as (pair, shift_px):
        advice = advise_scale(pair.grid, predictor.resolution_m)
        if advice is not None:
            logger.warning("%s\n  fix: %s", *advice)
        # The whole grid's, so that shards and areas of interest are answered by the same runtime.
        predictor.choose(pair.grid.width * pair.grid.height)
        plan = plan_blocks(predictor.tiling, pair.grid, pair.area, pair.bytes_per_pixel)
        request = _describe_request(predictor, pair, plan, (before, after), options)
        job = Job(output, {**request, "models": models, "shift_px": shift_px})
        job.start(overwrite)
        with job.lock("shard-{}-of-{}".format(*options.shard)):
            indices = plan.shard(*options.shard)
            missing = job.missing(indices)
            if len(missing) < len(indices):
                done = len(indices) - len(missing)
                logger.info("going on after %d of %d blocks", done, len(indices))
            missing = _pass_over_empty(pair, job, missing)
            if missing:
                work = Work(predictor, pair, job, missing, len(indices), started, options)
                try:
                    require_space(job, missing, is_whole=options.shard[1] == 1)
                    (answer or answer_here)(work)
                except BaseException:
                    job.discard_if_empty()
                    raise
    return job


def _pass_over_empty(pair: RasterPair, job: Job, indices: list[int]) -> list[int]:
    """Return the blocks that hold something to answer; the others are written as nodata."""
    filled = []
    for index in indices:
        block = job.plan[index]
        if pair.touches(block.read):
            filled.append(index)
        else:
            job.store.write_empty(index, block.write)
    return filled


@contextmanager
def open_pair(
    predictor: Predictor, before: RasterPaths, after: RasterPaths, options: RasterOptions
) -> Iterator[tuple[RasterPair, tuple[float, float]]]:
    """Open the pair, its shift undone if that is asked for, and yield it with the shift."""

    def open_shifted(shift_px: tuple[float, float]) -> RasterPair:
        return RasterPair(
            before,
            after,
            predictor.bands,
            options.bands,
            grid=options.grid,
            aoi=options.aoi,
            shift_px=shift_px,
        )

    shift_px = (0.0, 0.0)
    if options.register:
        with open_shifted(shift_px) as pair:
            shift = measure_shift(pair)
        if not shift.reliable:
            raise RasterError(
                f"the shift between {name_source(before)} and {name_source(after)} cannot be told: "
                f"{shift.patches} of {shift.of_patches} patches agree",
                fix="leave --register out, or align the images with ground control points",
            )
        # Rounded, so that every shard finds the same.
        shift_px = round(shift.columns_px, 2), round(shift.rows_px, 2)
        logger.info("the after image lies %.2f columns and %.2f rows off: undone", *shift_px)
    with open_shifted(shift_px) as pair:
        if options.min_area_m2 and pair.grid.crs is None:
            raise ArgumentError(
                f"{name_source(before)} has no coordinate reference system, so patches have no "
                f"area to compare with {options.min_area_m2:g} m2",
                fix="georeference both rasters, or leave --min-area out",
            )
        if options.cog_size_px and pair.grid.crs is None:
            raise ArgumentError(
                f"{name_source(before)} has no coordinate reference system, so the pieces of the "
                "map would have no place",
                fix="georeference both rasters, or leave --cog-size out",
            )
        yield pair, shift_px


def plan_blocks(tiling: Tiling, grid: Grid, area: Window, bytes_per_pixel: int) -> BlockPlan:
    """Return blocks of as many tiles as memory allows, by what a pixel of the pair takes only.

    Args:
        tiling: The tiles.
        grid: The pixels of the pair.
        area: The window of it that is wanted.
        bytes_per_pixel: Of both dates.
    """
    side_px = min(MAX_BLOCK_SIZE_PX, math.isqrt(BLOCK_BYTES // bytes_per_pixel))
    tiles_per_side = max(1, (side_px - 2 * tiling.margin_px) // tiling.step_px)
    return BlockPlan(tiling, grid.height, grid.width, area, tiles_per_side)


def _describe_request(
    predictor: Predictor,
    pair: RasterPair,
    plan: BlockPlan,
    paths: tuple[RasterPaths, RasterPaths],
    options: RasterOptions,
) -> dict[str, Any]:
    """Return all that the outputs depend on, apart from the models' files."""
    before, after = describe_inputs(pair, paths)
    value_range = predictor.value_range
    return {
        "format": FORMAT,
        "versions": describe_versions(),
        "before": before,
        "after": after,
        "origins": dict(zip(("before", "after"), map(describe_origins, paths), strict=True)),
        "parameters": {
            "tta": predictor.tta,
            "bands": None if options.bands is None else [str(band) for band in options.bands],
            "grid": str(options.grid),
            "aoi": pair.aoi and {"path": str(options.aoi), "sha256": pair.aoi.sha256},
            "register": options.register,
            "value_range": value_range and list(value_range),
            "change_threshold": predictor.threshold,
            "device": predictor.device.type,
            "backend": predictor.choice.backend,
            "precision": predictor.choice.precision,
            "min_area_m2": options.min_area_m2,
            "vector": options.vector,
            "time_budget_seconds": options.time_budget_seconds,
            "picture": options.picture,
            "cog_size_px": options.cog_size_px,
        },
        "band_names": list(predictor.bands),
        "classes": predictor.classes.to_dict(),
        "grid": describe_grid(pair.grid),
        "plan": describe_plan(plan.tiling, plan.area, plan.tiles_per_side),
    }


def describe_inputs(
    pair: RasterPair, paths: tuple[RasterPaths, RasterPaths]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what identifies the two images."""
    before, after = map(describe_images, pair.datasets, paths)
    return before, after


def describe_versions() -> dict[str, str]:
    """Return the versions of what maps depend on."""
    return {
        "python": platform.python_version(),
        "gdal": rasterio.__gdal_version__,
        **{name: version(name) for name in ("terradelta", "torch", "rasterio")},
    }


def answer_here(work: Work):
    """Answer the blocks in this process."""
    predictor, pair, job, options = work.predictor, work.pair, work.job, work.options
    memory = plan_memory(
        options.memory_bytes, predictor, job.plan[work.missing[0]], pair.bytes_per_pixel
    )
    pace = _set_pace(predictor, work.started, options.time_budget_seconds)
    with rasterio.Env(GDAL_CACHEMAX=memory.cache_bytes):
        answer_blocks(
            predictor,
            guard_range(pair, predictor.value_range, predictor.largest_value),
            job.plan,
            work.missing,
            job.store,
            read_ahead=memory.read_ahead,
            pace=pace,
            total=work.total,
        )


def plan_pace(predictor: Predictor, started: float, budget_seconds: float | None) -> Pace:
    """Return the pace for a budget that runs since the start; how fast it goes it has to learn."""
    if budget_seconds is None:
        return Pace(predictor.num_views)
    return Pace(predictor.num_views, started + budget_seconds * (1 - RESERVED_SHARE))


def _set_pace(predictor: Predictor, started: float, budget_seconds: float | None) -> Pace:
    """Return the pace, its speed measured on a tile."""
    pace = plan_pace(predictor, started, budget_seconds)
    if pace.deadline is None:
        return pace
    size = predictor.tiling.tile_size_px
    image_BCHW = torch.zeros((1, len(predictor.bands), size, size))
    begun = time.monotonic()
    predictor.classify(image_BCHW, image_BCHW, num_views=1)
    pace.learn(predictor.tiling.step_px**2, 1, time.monotonic() - begun)
    return pace


def guard_range(
    pair: RasterPair, value_range: tuple[float, float] | None, largest_value: float
) -> Callable[[Window], PairWindow]:
    """Return the pair's `read`, refusing pixels far outside of what the models were trained on.

    A network answers anything to 16-bit values that it takes for 8-bit ones.
    """
    if value_range is not None:
        return pair.read

    def read(window: Window) -> PairWindow:
        pixels = pair.read(window)
        for dataset, image_CHW in zip(pair.datasets, pixels[:2], strict=True):
            if image_CHW.dtype != np.uint8 and pixels.valid_HW.any():
                _require_range(name_raster(dataset), image_CHW[:, pixels.valid_HW], largest_value)
        return pixels

    return read


def _require_range(name: str, values: np.ndarray, largest_value: float):
    largest = float(values.max())
    is_fraction = values.dtype.kind == "f" and 0 < largest < TOO_DARK * largest_value
    if largest > TOO_BRIGHT * largest_value or is_fraction:
        low, high = np.percentile(values, (2, 98))
        raise RasterError(
            f"{name} holds {values.dtype} values up to {largest:g}, and the model was trained on "
            f"values up to {largest_value:g}",
            fix=f"say which values are dark and bright, the same for both dates, for example "
            f"--value-range {low:.4g},{high:.4g}",
        )
