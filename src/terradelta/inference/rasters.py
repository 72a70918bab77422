"""Prediction of a georeferenced pair: from a request to answered blocks."""

from __future__ import annotations

import logging
import math
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import rasterio
import torch
from rasterio.windows import Window

from terradelta.cautions import refuse_cautions
from terradelta.errors import ArgumentError, RasterError
from terradelta.fields import read_fields, write_fields
from terradelta.geo.dates import find_dates
from terradelta.geo.finding import Report
from terradelta.geo.grid import Grid
from terradelta.geo.listing import RasterPaths, name_source
from terradelta.geo.mosaic import describe_images
from terradelta.geo.normalization import LightMatch, fit_light
from terradelta.geo.origin import describe_origins
from terradelta.geo.pair import Images, PairWindow, RasterPair
from terradelta.geo.pair_options import LightMatching
from terradelta.geo.ranges import TOO_BRIGHT, TOO_DARK
from terradelta.geo.raster_record import RasterRecord
from terradelta.geo.registration import measure_shift
from terradelta.geo.samples import PixelSamples
from terradelta.geo.virtual import name_raster
from terradelta.heap import return_freed_memory
from terradelta.inference.admission import look_over
from terradelta.inference.job import Job, require_space
from terradelta.inference.memory import plan_cache_bytes, plan_memory
from terradelta.inference.pace import Pace
from terradelta.inference.prediction_options import MapOptions, RasterOptions
from terradelta.inference.predictor import Predictor
from terradelta.inference.stream import answer_blocks
from terradelta.inference.tiling import Block, BlockPlan, Tiling
from terradelta.outputs import null_undefined
from terradelta.prediction.records import (
    AreaRecord,
    DatesRecord,
    GridRecord,
    JobRecord,
    ModelRecord,
    OriginsRecord,
    Parameters,
    TilingRecord,
)
from terradelta.stopwatch import Stopwatch

FORMAT = 2
BLOCK_BYTES = 64 * 1024**2
"""Memory for the pixels of a block; blocks are as large as this allows."""
MAX_BLOCK_SIZE_PX = 3072
RESERVED_SHARE = 0.15
"""Share of a time budget for making maps and polygons from the answered blocks. They took 18 % of a
job whose map was noise, with 1.8 million patches (benchmarks/README.md, "A large pair")."""
UINT8_MAX = 255.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PairRequest:
    """The request of a raster prediction."""

    before: RasterPaths
    """The earlier raster or mosaic; see `list_rasters`."""
    after: RasterPaths
    """The later one."""
    models: tuple[ModelRecord, ...]
    """Origin of the models."""
    rasters: RasterOptions
    """How the pair is read, without a shift that is still to be measured."""
    maps: MapOptions
    """Outputs and limits."""

    @property
    def paths(self) -> tuple[RasterPaths, RasterPaths]:
        """The rasters of both dates."""
        return self.before, self.after


@dataclass(frozen=True)
class Work:
    """The work of an engine."""

    predictor: Predictor
    """The models."""
    pair: RasterPair
    """The rasters, open."""
    job: Job
    """Store of the answers."""
    missing: list[int]
    """The blocks to answer."""
    total: int
    """Blocks that the progress bar counts, including those done before."""
    watch: Stopwatch
    """Stopwatch of the run, from whose start the time budget counts."""
    maps: MapOptions
    """Outputs and limits."""
    light: LightMatch | None = None
    """Matches the light of the after image to the before image."""


def answer_rasters(
    predictor: Predictor,
    asked: PairRequest,
    output: Path,
    *,
    watch: Stopwatch,
    overwrite: bool = False,
    answer: Callable[[Work], None] | None = None,
) -> Job:
    """Answer the blocks of a raster pair that are not answered yet.

    Args:
        predictor: The models.
        asked: The request.
        output: Path of the prediction; the blocks go to a folder beside it.
        watch: Stopwatch of the run, from whose start the time budget counts.
        overwrite: Drop an unfinished run with other options.
        answer: Executor of the blocks; this process by default.

    Returns:
        The job, whose blocks (those of the shard) are all in its store.

    Raises:
        RasterError: If the rasters cannot be read or do not fit each other.
        CautionError: If the map would carry a caution and `strict` is on.
        OutputError: If a block cannot be written.
        OutputExistsError: If an unfinished run with other options exists.
    """
    with open_pair(predictor, asked) as (pair, shift_px):
        if pair.notice:
            logger.info(pair.notice)
        report = _look_over(predictor, asked, shift_px)
        light = _fit_light(pair, asked.rasters.match_light)
        predictor.see_grid(pair.grid)
        predictor.fit_memory(asked.maps.memory_bytes)
        # Of the whole grid, so that shards and areas of interest get the same runtime.
        predictor.choose(pair.grid.width * pair.grid.height)
        plan = plan_blocks(predictor.tiling, pair.grid, pair.area, pair.bytes_per_pixel)
        record = replace(
            _describe_job(predictor, pair, plan, asked),
            findings=report.findings,
            shift_px=shift_px,
            light=light,
        )
        # In the form of its file, so that what was asked for compares with what is read there.
        job = Job(output, read_fields(JobRecord, null_undefined(write_fields(record))))
        job.start(overwrite)
        shard = asked.maps.shard_of
        with job.lock("shard-{}-of-{}".format(*shard)):
            indices = plan.shard(*shard)
            missing = job.missing(indices)
            if len(missing) < len(indices):
                done = len(indices) - len(missing)
                logger.info("resuming after %d of %d blocks", done, len(indices))
            missing = _pass_over_empty(pair, job, missing)
            if missing:
                work = Work(predictor, pair, job, missing, len(indices), watch, asked.maps, light)
                try:
                    require_space(job, missing, is_whole=shard[1] == 1)
                    watch.begin("answering")
                    (answer or answer_here)(work)
                    job.answered_now = frozenset(missing)
                except BaseException:
                    job.discard_if_empty()
                    raise
    return job


def _look_over(predictor: Predictor, asked: PairRequest, shift_px: tuple[float, float]) -> Report:
    """Check the pair and report the cautions of its map."""
    reading = replace(asked.rasters.reading, shift_px=shift_px)
    with rasterio.Env(GDAL_CACHEMAX=plan_cache_bytes(asked.maps.memory_bytes)):
        report = look_over(*asked.paths, reading, predictor.needs, asked.rasters.dates)
    if asked.maps.strict:
        refuse_cautions(report.cautions, "or leave --strict out")
    for caution in report.cautions:
        logger.warning(caution.to_text())
    return report


def _pass_over_empty(pair: RasterPair, job: Job, indices: list[int]) -> list[int]:
    """Return the blocks with data; the others are written as nodata."""
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
    predictor: Predictor, asked: PairRequest
) -> Iterator[tuple[RasterPair, tuple[float, float]]]:
    """Open the pair, undo its shift if requested, and yield it with the shift."""
    before, after = asked.paths
    maps = asked.maps

    def open_shifted(shift_px: tuple[float, float]) -> RasterPair:
        reading = replace(asked.rasters.reading, shift_px=shift_px)
        return RasterPair(before, after, predictor.bands, reading)

    shift_px = (0.0, 0.0)
    if maps.register:
        with open_shifted(shift_px) as pair:
            shift = measure_shift(pair)
        if not shift.reliable:
            raise RasterError(
                f"the shift between {name_source(before)} and {name_source(after)} cannot be "
                f"measured: {shift.patches} of {shift.of_patches} patches with detail agree",
                fix="leave --register out, or align the images with ground control points",
            )
        # Rounded, so that every shard finds the same.
        shift_px = round(shift.columns_px, 2), round(shift.rows_px, 2)
        logger.info("the after image lies %.2f columns and %.2f rows off: undone", *shift_px)
    with open_shifted(shift_px) as pair:
        if maps.min_area_m2 and pair.grid.crs is None:
            raise ArgumentError(
                f"{name_source(before)} has no coordinate reference system, so patches have no "
                f"area to compare with {maps.min_area_m2:g} m2",
                fix="georeference both rasters, or leave --min-area out",
            )
        if maps.cog_size and pair.grid.crs is None:
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


def _describe_job(
    predictor: Predictor, pair: RasterPair, plan: BlockPlan, asked: PairRequest
) -> JobRecord:
    """Return all values that the outputs depend on, except those measured on the pair."""
    before, after = describe_inputs(pair, asked.paths)
    first_mask, second_mask = (mask and mask.describe() for mask in pair.masks)
    return JobRecord(
        format=FORMAT,
        versions=describe_versions(),
        before=before,
        after=after,
        masks=(first_mask, second_mask),
        origins=OriginsRecord(*map(describe_origins, asked.paths)),
        parameters=_describe_parameters(predictor, pair, asked),
        band_names=tuple(predictor.bands),
        classes=predictor.classes,
        dates=DatesRecord.of(find_dates(*asked.paths, asked.rasters.dates)),
        grid=GridRecord.of(pair.grid),
        plan=_describe_plan(plan),
        models=asked.models,
    )


def _describe_parameters(predictor: Predictor, pair: RasterPair, asked: PairRequest) -> Parameters:
    reading, maps = asked.rasters.reading, asked.maps
    return Parameters(
        **reading.to_dict(),
        tta=predictor.tta,
        aoi=pair.aoi and AreaRecord(str(reading.aoi), pair.aoi.sha256),
        register=maps.register,
        change_threshold=predictor.rule.threshold,
        reduction=predictor.seen_pixels.reduction,
        enlargement=predictor.seen_pixels.enlargement,
        decided_by=predictor.rule.decided_by,
        sensitivity=predictor.sensitivity,
        device=predictor.device.type,
        backend=predictor.choice.backend,
        precision=predictor.choice.precision,
        min_area_m2=maps.min_area_m2,
        vector=maps.vector,
        time_budget_seconds=maps.time_budget,
        picture=maps.picture,
        cog_size_px=maps.cog_size,
    )


def _describe_plan(plan: BlockPlan) -> TilingRecord:
    tiling, area = plan.tiling, plan.area
    column, row, width, height = (
        round(edge) for edge in (area.col_off, area.row_off, area.width, area.height)
    )
    return TilingRecord(
        tiling.tile_size_px,
        tiling.margin_px,
        tiling.stride_px,
        (column, row, width, height),
        plan.tiles_per_side,
    )


def describe_inputs(
    pair: RasterPair, paths: tuple[RasterPaths, RasterPaths]
) -> tuple[RasterRecord, RasterRecord]:
    """Return the values that identify the two images."""
    before, after = map(describe_images, pair.datasets, paths)
    return before, after


def describe_versions() -> dict[str, str]:
    """Return the versions of the packages that maps depend on."""
    return {
        "python": platform.python_version(),
        "gdal": rasterio.__gdal_version__,
        **{name: version(name) for name in ("terradelta", "torch", "rasterio")},
    }


def answer_here(work: Work):
    """Answer the blocks in this process."""
    predictor, pair, job, maps = work.predictor, work.pair, work.job, work.maps
    work.watch.begin("compiling")
    predictor.start()
    block = job.plan[work.missing[0]]
    memory = plan_memory(maps.memory_bytes, predictor, block, pair.bytes_per_pixel)
    pace = _set_pace(predictor, work.watch.started, maps.time_budget, block)
    work.watch.begin("answering")
    with rasterio.Env(GDAL_CACHEMAX=memory.cache_bytes):
        answer_blocks(
            predictor,
            prepare_reading(pair, predictor, work.light),
            job.plan,
            work.missing,
            job.store,
            read_ahead=memory.read_ahead,
            pace=pace,
            total=work.total,
        )


def plan_pace(predictor: Predictor, started: float, budget_seconds: float | None) -> Pace:
    """Return the pace for a budget that counts from the start; its speed is not known yet."""
    if budget_seconds is None:
        return Pace(predictor.num_views)
    return Pace(predictor.num_views, started + budget_seconds * (1 - RESERVED_SHARE))


def _set_pace(
    predictor: Predictor, started: float, budget_seconds: float | None, block: Block
) -> Pace:
    """Return the pace, its speed measured on a tile of the size of a block's first one."""
    pace = plan_pace(predictor, started, budget_seconds)
    if pace.deadline is None:
        return pace
    tile = block.tiles[0]
    size = int(tile.read.height), int(tile.read.width)
    image_BCHW = torch.zeros((1, len(predictor.bands), *size))
    begun = time.monotonic()
    predictor.classify(image_BCHW, image_BCHW, num_views=1)
    pace.learn(int(tile.write.height * tile.write.width), 1, time.monotonic() - begun)
    return pace


def _fit_light(pair: RasterPair, matching: LightMatching) -> LightMatch | None:
    """Return the match of the after image's light to the before image, if requested."""
    if matching == "none":
        return None
    samples = PixelSamples.read(pair)
    if samples.is_empty:
        return None
    light = fit_light(*samples.dates, matching)
    logger.info("light: %s", light.to_text(pair.band_names))
    del samples
    # Otherwise the samples would stay in memory beside the networks.
    return_freed_memory()
    return light


def prepare_reading(
    pair: RasterPair, predictor: Predictor, light: LightMatch | None
) -> Callable[[Window], PairWindow]:
    """Return a function that reads a window of a pair for the models.

    It rejects pixels far outside of the training values, also those that were not checked
    before: 16-bit values taken for 8-bit ones give meaningless answers.

    Args:
        pair: The rasters.
        predictor: The models.
        light: Matches the light of the after image to the before image.
    """

    def read(window: Window) -> PairWindow:
        pixels = pair.read(window)
        if light is not None:
            after_CHW = light.apply(pixels.after_CHW, pixels.before_CHW.dtype)
            pixels = pixels._replace(after_CHW=after_CHW)
        for dataset, image_CHW, value_range in zip(
            pair.datasets, pixels[:2], predictor.value_ranges, strict=True
        ):
            if value_range is None and image_CHW.dtype != np.uint8 and pixels.valid_HW.any():
                values = image_CHW[:, pixels.valid_HW]
                _require_depth(pair, dataset, values, predictor.largest_value)
        return pixels

    return read


def has_other_scale(values: np.ndarray, largest_value: float) -> bool:
    """Return whether values are clearly not in the scale of models with this largest value."""
    largest = float(values.max())
    is_fraction = values.dtype.kind == "f" and 0 < largest < TOO_DARK * largest_value
    return largest > TOO_BRIGHT * largest_value or is_fraction


def _require_depth(pair: RasterPair, dataset: Images, values: np.ndarray, largest_value: float):
    if has_other_scale(values, largest_value):
        raise RasterError(
            f"{name_raster(dataset)} holds {values.dtype} values up to {float(values.max()):g}, "
            f"and the model was trained on values up to {largest_value:g}",
            fix="say which values are dark and bright, for example "
            + PixelSamples.read(pair).suggest_ranges(),
        )
