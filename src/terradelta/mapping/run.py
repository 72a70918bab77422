"""The `predict` verb: two rasters or two folders in, a prediction folder out."""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import rasterio
from rasterio.errors import RasterioError

from terradelta.cautions import refuse_cautions
from terradelta.data.images import IMAGE_SUFFIXES
from terradelta.data.layouts import match_folders
from terradelta.destination import Inputs, claim_folder
from terradelta.errors import ArgumentError
from terradelta.fields import POSITIVE_COUNT, Within, checks_ranges
from terradelta.geo.area import parse_area
from terradelta.geo.bands import join_bands
from terradelta.geo.dates import find_folder_dates, read_flag
from terradelta.geo.finding import list_cautions
from terradelta.geo.grid import allow_no_place
from terradelta.geo.listing import RasterPaths, name_source, require_paths
from terradelta.geo.origin import list_origins
from terradelta.geo.pair_options import Bands, Both, PairOptions
from terradelta.geo.polygons import split_layer
from terradelta.heap import return_freed_memory
from terradelta.inference.confidence import doubt_confidence
from terradelta.inference.executors import make_engine
from terradelta.inference.folders import examine_folders, map_folder, require_values
from terradelta.inference.job import PARTIAL_ENDING, Job, check_partial
from terradelta.inference.memory import (
    DEFAULT_MEMORY_BYTES,
    parse_memory,
    plan_cache_bytes,
)
from terradelta.inference.pace import Pace
from terradelta.inference.predictor import TILE_SIZE, Predictor
from terradelta.inference.rasters import RasterOptions, answer_rasters
from terradelta.mapping.assembly import assemble, finish
from terradelta.mapping.handle import Prediction, Shard
from terradelta.mapping.pieces import check_piece_size
from terradelta.models.bundle import hash_model, load_model
from terradelta.models.embedded import find_model_folders
from terradelta.outputs import null_undefined, stage_folder
from terradelta.prediction.folder import PredictionFolder
from terradelta.prediction.records import DatesRecord, FolderParameters, FolderRun, ModelRecord
from terradelta.stopwatch import Stopwatch


@checks_ranges
def predict(
    before: RasterPaths,
    after: RasterPaths,
    output: str | Path,
    *,
    model: str | Path | Sequence[str | Path] | None = None,
    tta: str = "none",
    time_budget: Annotated[float, Within(above=0)] | None = None,
    bands: Bands | None = None,
    value_range: tuple[float, float] | None = None,
    after_value_range: tuple[float, float] | None = None,
    match_light: str = "none",
    nodata: Both[float] = None,
    mask: Both[str | Path] = None,
    mask_values: str | None = None,
    before_date: str | None = None,
    after_date: str | None = None,
    grid: str | float = "before",
    aoi: str | Path | None = None,
    register: bool = False,
    min_area: str | float = 0.0,
    vector: str = "gpkg",
    cog_size: int | None = None,
    layout: str = "terradelta",
    memory: str | int = DEFAULT_MEMORY_BYTES,
    tile_size: Annotated[int, TILE_SIZE] | None = None,
    device: str = "auto",
    backend: str = "auto",
    precision: str = "auto",
    shard: str = "1/1",
    engine: str = "local",
    address: str | None = None,
    workers: Annotated[int, POSITIVE_COUNT] | None = None,
    worker_cpus: Annotated[float, Within(above=0)] | None = None,
    picture: bool = False,
    strict: bool = False,
    overwrite: bool = False,
    discard_reviews: bool = False,
) -> Prediction | Shard:
    """Map what changed between two rasters, or between two folders of images.

    A raster prediction is under way in `OUTPUT.partial` and resumes there when it is run again
    after an error, an interruption or a crash. The options from `grid` to `cog_size`, `memory`,
    `shard`, `engine` and `picture` are for rasters only.

    Args:
        before: The earlier raster (a path, URL, `/vsi...` path or anything else GDAL opens, or a
            file for each band, "red.tif + green.tif + blue.tif"); a mosaic (a list of rasters, a
            .txt file with one a line, or a STAC item collection with the name of the asset or of
            each band's, "items.json#visual", "items.json#red,green,blue"; the first listed lie on
            top); or a folder of images.
        after: The later raster or mosaic, or a folder of images with the same names.
        output: Folder to make; it appears whole or not at all.
        model: A model folder, or several that vote; the embedded model by default.
        tta: Test-time views to average: "none", "flips", "d4" or "seed6".
        time_budget: Seconds after which the prediction must be done; views are dropped when late.
        bands: Numbers (from 1) or names of the bands that the model reads, in its order.
        value_range: Values, scale and offset applied, that become the darkest and the brightest the
            model knows; needed for images of another depth than those it was trained on.
        after_value_range: The same of the after image, where it differs.
        match_light: Give the after image the light of the before image, fitted over pixels that
            look unchanged: "none", "linear", or "histogram" where the contrast differs between dark
            and bright. The after image then has the values of the before image, so it takes no
            `after_value_range`.
        nodata: A stored value that is no data, besides those that the rasters declare; one for both
            dates, or a pair.
        mask: A raster of pixels to leave out, such as clouds, in any CRS and on any grid; one for
            both dates, or a pair.
        mask_values: Which values of the masks leave a pixel out, any but 0 by default: "3,8-11",
            "bits:3,4" of a bit field, or those of "scl", "qa_pixel" or "omnicloudmask".
        before_date: When the before image was taken, in ISO 8601; by default what the raster says.
        after_date: When the after image was taken.
        grid: Whose pixels the map gets: "before", "after", the side of a pixel in units of the
            before raster's CRS, or a CRS and the side of a pixel in its units, "EPSG:3035@10". A
            mosaic's pixels are its first raster's.
        aoi: A vector file with polygons; the rest is nodata.
        register: Measure the shift between the images and undo it.
        min_area: Smaller patches of change are taken for unchanged: "100m2", "0.5ha" or m2.
        vector: Format of the polygons, "gpkg" or "parquet".
        cog_size: Cut the maps into COGs of so many pixels a side, a power of two from 512 on, with
            a VRT over each map's and STAC items; for maps too large for one file.
        layout: For folders: "terradelta" (before/ after/ change/) or "senseearth" (im1/ im2/).
        memory: What the process may take: "4GB" or bytes.
        tile_size: Side of the squares that the network sees, in pixels; 1024 by default,
            more for networks that look very far.
        device: "auto", "cpu", "cuda" or "cuda:N".
        backend: What runs the network: "auto", "torch", "torch-compile",
            "openvino" or "onnx".
        precision: "auto", "fp32", "bf16", "fp16" or "int8".
        shard: "2/4" answers the second quarter of the map only; `merge` joins the quarters.
        engine: "local", or "ray" to share the blocks among the workers of a Ray cluster.
        address: Of a running cluster, such as "host:6379"; by default RAY_ADDRESS, else one is
            started on this machine.
        workers: How many; by default as many as the cluster has room for. Each may take `memory`.
        worker_cpus: Cores of a worker; by default up to 4.
        picture: Also draw before, after and the map into `picture.png`.
        strict: Raise where the map would carry a caution.
        overwrite: Replace an existing output; reviews of it that people made are kept beside it.
        discard_reviews: With `overwrite`, drop those reviews.

    Returns:
        The folder and its summary; of a shard, how far the map is.

    Raises:
        TerradeltaError: If an input cannot be used or the output exists; the message has the fix.
    """
    watch = Stopwatch()
    watch.begin("planning")
    given_dates = read_flag("--before-date", before_date), read_flag("--after-date", after_date)
    for name, source in (("before", before), ("after", after)):
        require_paths(source, name)
    is_folder = _is_folder_pair(before, after)
    options = RasterOptions(
        reading=PairOptions.from_flags(
            bands=bands,
            grid=grid,
            aoi=aoi,
            value_range=value_range,
            after_value_range=after_value_range,
            match_light=match_light,
            nodata=nodata,
            mask=mask,
            mask_values=mask_values,
        ),
        dates=(before_date, after_date),
        strict=strict,
        register=register,
        min_area_m2=parse_area(min_area),
        vector=_require_choice("vector format", vector, ("gpkg", "parquet")),
        memory_bytes=parse_memory(memory),
        time_budget_seconds=time_budget,
        shard=_parse_shard(shard),
        picture=picture,
        cog_size_px=check_piece_size(cog_size),
    )
    if is_folder:
        _refuse_raster_options(before, options, engine)
    folders = [Path(folder) for folder in find_model_folders(model)]
    output = claim_prediction(
        output,
        [*_list_inputs(before, after, options.reading), *folders],
        overwrite=overwrite,
        discard_reviews=discard_reviews,
    )
    models = [{"folder": str(folder), "sha256": hash_model(folder)} for folder in folders]
    with make_engine(
        engine, address, workers, worker_cpus, memory_bytes=options.memory_bytes
    ) as place:
        predictor = Predictor(
            [load_model(folder) for folder in folders],
            tta=tta,
            device=place.choose_device(device),
            backend=backend,
            precision=precision,
            value_range=options.reading.seen_ranges[0],
            after_value_range=options.reading.seen_ranges[1],
            tile_size_px=tile_size,
            choose=place.choose_backend,
        )
        job = None
        if not is_folder:
            job = answer_rasters(
                predictor,
                before,
                after,
                output,
                models,
                options,
                watch=watch,
                overwrite=overwrite,
                answer=place.answer,
            )
    if job is not None:
        if options.shard[1] > 1:
            blocks = len(job.plan)
            done = blocks - len(job.missing(range(blocks)))
            return Shard(job.folder, blocks, done)
        # Networks and their buffers would stand in memory beside the maps and the report.
        del predictor
        return_freed_memory()
        return _finish(job, watch, options.memory_bytes, strict, discard_reviews)
    assert isinstance(before, str | Path)
    assert isinstance(after, str | Path)
    with stage_folder(output, overwrite=overwrite, discard_reviews=discard_reviews) as staged:
        pairs = match_folders(Path(before), Path(after))
        folder_dates = find_folder_dates((before, after), given_dates)
        findings = list(examine_folders(pairs, predictor.needs, folder_dates))
        known = list_cautions(findings)
        if strict:
            refuse_cautions(known, "or leave --strict out")
        watch.begin("predicting")
        deadline = None if time_budget is None else watch.started + time_budget
        pace = Pace(predictor.num_views, deadline)
        require_values(predictor, pairs)
        summary, views = map_folder(predictor, pairs, staged, layout, pace)
        cautions = (*known, *doubt_confidence(summary))
        if strict:
            refuse_cautions(cautions, "or leave --strict out")
        dates = DatesRecord.of(folder_dates)
        summary = replace(summary, cautions=cautions, dates=dates)
        parts = watch.read()
        ranges = options.reading.before.value_range, options.reading.after.value_range
        run = FolderRun(
            cautions=cautions,
            findings=tuple(
                replace(finding, values=null_undefined(finding.values)) for finding in findings
            ),
            dates=dates,
            before=str(before),
            after=str(after),
            models=tuple(ModelRecord(**model) for model in models),
            parameters=FolderParameters(
                tta=tta,
                value_range=ranges[0],
                after_value_range=ranges[1] if ranges[1] != ranges[0] else None,
                time_budget_seconds=time_budget,
                device=predictor.device.type,
                backend=predictor.choice.backend,
                precision=predictor.choice.precision,
                change_threshold=predictor.threshold,
            ),
            versions={
                "python": platform.python_version(),
                **{name: version(name) for name in ("terradelta", "torch", "rasterio")},
            },
            views_of_pairs=views,
            seconds={
                "total": round(sum(parts.values()), 3),
                **{name: round(part, 3) for name, part in parts.items()},
            },
        )
        files = PredictionFolder(staged)
        files.write(summary)
        files.write(run)
    return Prediction(output, summary)


def merge(
    output: str | Path,
    *,
    strict: bool = False,
    overwrite: bool = False,
    discard_reviews: bool = False,
) -> Prediction:
    """Make the prediction folder of a map whose shards are all answered.

    Args:
        output: The output that the shards were given; their blocks lie in `OUTPUT.partial`.
        strict: Raise where the map would carry a caution; it stays in `OUTPUT.partial` then.
        overwrite: Replace an existing output; reviews of it that people made are kept beside it.
        discard_reviews: With `overwrite`, drop those reviews.

    Raises:
        CautionError: If the map would carry a caution and `strict` is True.
        OutputError: If nothing is under way for this output or blocks are missing.
        OutputExistsError: If the output exists and may not be replaced.
    """
    watch = Stopwatch()
    output = claim_prediction(output, overwrite=overwrite, discard_reviews=discard_reviews)
    job = Job.load(output)
    origins = [file.path for file in (*job.record.origins.before, *job.record.origins.after)]
    claim_folder(output, origins, overwrite=overwrite)
    return _finish(job, watch, strict=strict, discard_reviews=discard_reviews)


def claim_prediction(
    output: str | Path,
    inputs: Inputs = (),
    *,
    overwrite: bool = False,
    discard_reviews: bool = False,
) -> Path:
    """Return where a prediction will be made; see `claim_folder`."""
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
    job: Job,
    watch: Stopwatch,
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
    strict: bool = False,
    discard_reviews: bool = False,
) -> Prediction:
    cache_bytes = plan_cache_bytes(memory_bytes)
    with job.lock("assembly"), rasterio.Env(GDAL_CACHEMAX=cache_bytes):
        summary = assemble(job, watch)
        if strict:
            refuse_cautions(
                summary.cautions, f"or leave --strict out: {job.folder} keeps the map until then"
            )
        kept = finish(job, discard_reviews)
    return Prediction(job.output, summary, kept)


def _list_inputs(before: RasterPaths, after: RasterPaths, reading: PairOptions) -> list[Path]:
    """Return the files and folders that a prediction reads, models aside."""
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
    """Raise if each folder holds the bands of one raster: images of one name are no pairs there."""
    joined = [join_bands(Path(str(folder)), ("red", "green", "blue")) for folder in folders]
    if all(joined):
        raise ArgumentError(
            f"{' and '.join(map(name_source, folders))} hold a file for each band of a raster",
            fix=" ".join(["join them:", *(f'"{files}"' for files in joined)]),
        )


def _is_image_folder(path: Path) -> bool:
    """Return whether a path is a folder, and no raster that is stored as one, such as a Zarr."""
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


def _refuse_raster_options(before: RasterPaths, options: RasterOptions, engine: str):
    default, reading = RasterOptions(), options.reading
    given = {
        "--bands": reading.bands,
        "--grid": reading.grid if reading.grid != default.reading.grid else None,
        "--aoi": reading.aoi,
        "--match-light": reading.match_light if reading.match_light != "none" else None,
        "--register": options.register,
        "--min-area": options.min_area_m2,
        "--vector": options.vector if options.vector != default.vector else None,
        "--cog-size": options.cog_size_px,
        "--shard": options.shard if options.shard != default.shard else None,
        "--engine": engine if engine != "local" else None,
        "--picture": options.picture,
        "--nodata": any(date.nodata is not None for date in (reading.before, reading.after)),
        "--mask": reading.before.mask or reading.after.mask,
        "--mask-values": reading.mask_values,
    }
    flags = [flag for flag, value in given.items() if value]
    if flags:
        raise ArgumentError(
            f"{', '.join(flags)} was asked for and {name_source(before)} is a folder of images",
            fix="leave it out: it is for rasters",
        )


def _parse_shard(shard: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", shard)
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= count:
        raise ArgumentError(
            f"{shard!r} is not a valid shard",
            fix="write the number of the shard and how many: --shard 2/4",
        )
    return number, count


def _require_choice(what: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ArgumentError(
            f"{what} {value!r} is not known", fix=f"use one of {', '.join(choices)}"
        )
    return value


def _kind(is_folder: bool) -> str:
    return "folder" if is_folder else "raster"
