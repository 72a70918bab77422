"""The `predict` verb: two rasters or two folders in, a prediction folder out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import rasterio
from rasterio.errors import RasterioError

from terradelta.cautions import refuse_cautions
from terradelta.data.images import IMAGE_SUFFIXES
from terradelta.destination import Inputs, claim_folder
from terradelta.errors import ArgumentError
from terradelta.geo.bands import join_bands
from terradelta.geo.dates import read_flag
from terradelta.geo.grid import allow_no_place
from terradelta.geo.listing import RasterPaths, name_source, require_paths
from terradelta.geo.origin import list_origins
from terradelta.geo.pair_options import PairOptions
from terradelta.geo.polygons import split_layer
from terradelta.heap import return_freed_memory
from terradelta.inference.executors import find_executor
from terradelta.inference.job import PARTIAL_ENDING, Job, check_partial
from terradelta.inference.memory import plan_cache_bytes
from terradelta.inference.prediction_options import (
    Cluster,
    MapOptions,
    RasterOptions,
    Runtime,
    list_given,
    require_kinds,
)
from terradelta.inference.predictor import Predictor
from terradelta.inference.rasters import PairRequest, answer_rasters
from terradelta.mapping.assembly import assemble, finish
from terradelta.mapping.folder_run import map_folder_pair
from terradelta.mapping.handle import Prediction, Shard
from terradelta.models.bundle import hash_model, load_model
from terradelta.models.embedded import find_model_folders
from terradelta.outputs import stage_folder
from terradelta.prediction.records import ModelRecord
from terradelta.protocols import Executor
from terradelta.stopwatch import Stopwatch

FOLDER_FLAGS = (
    *("--value-range", "--after-value-range", "--before-date", "--after-date"),
    *("--layout", "--time-budget", "--memory", "--strict"),
)
"""Flags of rasters and maps that folders of images also accept."""


def predict(
    before: RasterPaths,
    after: RasterPaths,
    output: str | Path,
    *,
    model: str | Path | Sequence[str | Path] | None = None,
    rasters: RasterOptions = RasterOptions(),  # noqa: B008
    maps: MapOptions = MapOptions(),  # noqa: B008
    runtime: Runtime = Runtime(),  # noqa: B008
    cluster: Cluster | Executor = Cluster(),  # noqa: B008
    overwrite: bool = False,
    discard_reviews: bool = False,
) -> Prediction | Shard:
    """Map what changed between two rasters, or between two folders of images.

    A raster prediction is under way in `OUTPUT.partial` and resumes there when it is run again
    after an error, an interruption or a crash. Of folders, the reading options are the value ranges
    and the dates, and the map options `layout`, `time_budget` and `strict`.

    Args:
        before: The earlier raster (a path, URL, `/vsi...` path or anything else GDAL opens, or a
            file for each band, "red.tif + green.tif + blue.tif"); a mosaic (a list of rasters, a
            .txt file with one a line, or a STAC item collection with the name of the asset or of
            each band's, "items.json#visual", "items.json#red,green,blue"; the first listed lie on
            top); or a folder of images.
        after: The later raster or mosaic, or a folder of images with the same names.
        output: Folder to make; it appears whole or not at all.
        model: A model folder, or several that vote; the embedded model by default.
        rasters: How the pair is read.
        maps: Outputs and limits.
        runtime: How the networks are run.
        cluster: Where the blocks are answered: this process, the workers of a cluster, or another
            `terradelta.protocols.Executor`.
        overwrite: Replace an existing output; reviews of it that people made are kept beside it.
        discard_reviews: With `overwrite`, drop those reviews.

    Returns:
        The folder and its summary; for a shard, the progress of the map.

    Raises:
        TerradeltaError: If an input cannot be used or the output exists; the message names the fix.
    """
    require_kinds(rasters=rasters, maps=maps, runtime=runtime)
    watch = Stopwatch()
    watch.begin("planning")
    for flag, date in zip(("--before-date", "--after-date"), rasters.dates, strict=True):
        read_flag(flag, date)
    for name, source in (("before", before), ("after", after)):
        require_paths(source, name)
    is_folder = _is_folder_pair(before, after)
    if is_folder:
        _refuse_raster_options(before, rasters, maps, cluster)
    folders = [Path(folder) for folder in find_model_folders(model)]
    output = claim_prediction(
        output,
        [*_list_inputs(before, after, rasters.reading), *folders],
        overwrite=overwrite,
        discard_reviews=discard_reviews,
    )
    models = tuple(ModelRecord(str(folder), hash_model(folder)) for folder in folders)
    asked = PairRequest(before, after, models, rasters, maps)
    with find_executor(cluster, memory_bytes=maps.memory_bytes) as place:
        predictor = Predictor(
            [load_model(folder) for folder in folders],
            runtime,
            value_ranges=rasters.reading.seen_ranges,
            device=place.choose_device(runtime.device),
            choose=place.choose_backend,
        )
        if is_folder:
            with stage_folder(
                output, overwrite=overwrite, discard_reviews=discard_reviews
            ) as staged:
                return Prediction(output, map_folder_pair(predictor, asked, staged, watch))
        job = answer_rasters(
            predictor, asked, output, watch=watch, overwrite=overwrite, answer=place.answer
        )
    if maps.shard_of[1] > 1:
        blocks = len(job.plan)
        done = blocks - len(job.missing(range(blocks)))
        return Shard(job.folder, blocks, done)
    # Networks and their buffers would stay in memory beside the maps and the report.
    del predictor
    return_freed_memory()
    return _finish(job, watch, maps, discard_reviews)


def merge(
    output: str | Path,
    *,
    strict: bool = False,
    overwrite: bool = False,
    discard_reviews: bool = False,
) -> Prediction:
    """Make the prediction folder of a map whose shards are all answered.

    Args:
        output: The output given to the shards; their blocks lie in `OUTPUT.partial`.
        strict: Raise if the map would carry a caution; it then stays in `OUTPUT.partial`.
        overwrite: Replace an existing output; reviews of it that people made are kept beside it.
        discard_reviews: With `overwrite`, drop those reviews.

    Raises:
        CautionError: If the map would carry a caution and `strict` is True.
        OutputError: If no map is unfinished for this output or blocks are missing.
        OutputExistsError: If the output exists and may not be replaced.
    """
    watch = Stopwatch()
    output = claim_prediction(output, overwrite=overwrite, discard_reviews=discard_reviews)
    job = Job.load(output)
    origins = [file.path for file in (*job.record.origins.before, *job.record.origins.after)]
    claim_folder(output, origins, overwrite=overwrite)
    return _finish(job, watch, MapOptions(strict=strict), discard_reviews)


def claim_prediction(
    output: str | Path,
    inputs: Inputs = (),
    *,
    overwrite: bool = False,
    discard_reviews: bool = False,
) -> Path:
    """Return the path of a prediction to make; see `claim_folder`."""
    folder = claim_folder(
        output,
        inputs,
        overwrite=overwrite,
        beside=[PARTIAL_ENDING],
        discard_reviews=discard_reviews,
    )
    check_partial(folder, overwrite)
    return folder


def _finish(
    job: Job, watch: Stopwatch, maps: MapOptions, discard_reviews: bool = False
) -> Prediction:
    cache_bytes = plan_cache_bytes(maps.memory_bytes)
    with job.lock("assembly"), rasterio.Env(GDAL_CACHEMAX=cache_bytes):
        summary = assemble(job, watch)
        if maps.strict:
            refuse_cautions(
                summary.cautions, f"or leave --strict out: {job.folder} keeps the map until then"
            )
        kept = finish(job, discard_reviews)
    return Prediction(job.output, summary, kept)


def _list_inputs(before: RasterPaths, after: RasterPaths, reading: PairOptions) -> list[Path]:
    """Return the files and folders that a prediction reads, except models."""
    area = [] if reading.aoi is None else [Path(split_layer(reading.aoi)[0])]
    sources = [before, after, *filter(None, (reading.before.mask, reading.after.mask))]
    return [*(origin for source in sources for origin in list_origins(source)), *area]


def _is_folder_pair(before: RasterPaths, after: RasterPaths) -> bool:
    before_is_folder, after_is_folder = (
        isinstance(source, str | Path) and _is_image_folder(Path(source))
        for source in (before, after)
    )
    if before_is_folder != after_is_folder:
        raise ArgumentError(
            f"{name_source(before)} is a {_kind(before_is_folder)} and {name_source(after)} is a "
            f"{_kind(after_is_folder)}",
            fix="give two rasters or two folders",
        )
    if before_is_folder:
        _refuse_folders_of_bands(before, after)
    return before_is_folder


def _refuse_folders_of_bands(*folders: RasterPaths):
    """Raise if each folder holds the bands of one raster, whose files are not pairs."""
    joined = [join_bands(Path(str(folder)), ("red", "green", "blue")) for folder in folders]
    if all(joined):
        raise ArgumentError(
            f"{' and '.join(map(name_source, folders))} hold a file for each band of a raster",
            fix=" ".join(["join them:", *(f'"{files}"' for files in joined)]),
        )


def _is_image_folder(path: Path) -> bool:
    """Return whether a path is a folder, and not a raster stored as one, such as a Zarr."""
    if not path.is_dir():
        return False
    if any(file.suffix.lower() in IMAGE_SUFFIXES for file in path.iterdir()):
        return True
    try:
        with allow_no_place():
            rasterio.open(path).close()
    except RasterioError:
        return True
    return False


def _refuse_raster_options(
    before: RasterPaths, rasters: RasterOptions, maps: MapOptions, cluster: Cluster | Executor
):
    of_cluster = list_given(cluster) if isinstance(cluster, Cluster) else ["--engine"]
    given = [*list_given(rasters), *list_given(maps), *of_cluster]
    flags = [flag for flag in given if flag not in FOLDER_FLAGS]
    if flags:
        raise ArgumentError(
            f"{', '.join(flags)} was given and {name_source(before)} is a folder of images",
            fix="leave it out: it applies to rasters only",
        )


def _kind(is_folder: bool) -> str:
    return "folder" if is_folder else "raster"
