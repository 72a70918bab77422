"""The `predict` verb: two rasters or two folders in, a prediction folder out."""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Sequence
from importlib.metadata import version
from importlib.resources import files as package_files
from pathlib import Path
from typing import Annotated

import rasterio
from rasterio.errors import RasterioError

from terradelta.data.images import IMAGE_SUFFIXES
from terradelta.data.layouts import match_folders
from terradelta.errors import ArgumentError
from terradelta.fields import POSITIVE_COUNT, Within, checks_ranges
from terradelta.geo.area import parse_area
from terradelta.geo.grid import allow_no_place
from terradelta.geo.listing import RasterPaths, name_source, require_paths
from terradelta.geo.source import Bands
from terradelta.heap import return_freed_memory
from terradelta.models.bundle import hash_model, load_card, load_model
from terradelta.models.card import ModelCard
from terradelta.outputs import refuse_existing, stage_folder, write_json
from terradelta.predict.assembly import assemble, finish
from terradelta.predict.engine import TILE_SIZE, Predictor
from terradelta.predict.engines import make_engine
from terradelta.predict.folders import map_folder
from terradelta.predict.job import Job
from terradelta.predict.memory import (
    DEFAULT_MEMORY_BYTES,
    parse_memory,
    plan_cache_bytes,
)
from terradelta.predict.pace import Pace
from terradelta.predict.pieces import check_piece_size
from terradelta.predict.prediction import Prediction
from terradelta.predict.rasters import RasterOptions, answer_rasters

DEFAULT_MODEL = Path(str(package_files("terradelta") / "weights" / "default"))


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
    overwrite: bool = False,
) -> Prediction:
    """Map what changed between two rasters, or between two folders of images.

    A raster prediction is under way in `OUTPUT.partial` and goes on there when it is run again
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
        value_range: Stored values that become the darkest and the brightest the model knows; needed
            for images of another depth than those it was trained on.
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
        overwrite: Replace an existing output.

    Returns:
        The folder and its summary.

    Raises:
        TerradeltaError: If an input cannot be used or the output exists; the message has the fix.
    """
    started = time.monotonic()
    for name, source in (("before", before), ("after", after)):
        require_paths(source, name)
    is_folder = _is_folder_pair(before, after)
    output = Path(output)
    options = RasterOptions(
        bands=bands,
        grid=grid,
        aoi=aoi,
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
    refuse_existing(output, overwrite)
    folders = [Path(folder) for folder in find_model_folders(model)]
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
            value_range=value_range,
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
                started=started,
                overwrite=overwrite,
                answer=place.answer,
            )
    if job is not None:
        if options.shard[1] > 1:
            blocks = len(job.plan)
            done = blocks - len(job.missing(range(blocks)))
            return Prediction(job.folder, {"blocks": blocks, "blocks_done": done})
        # Networks and their buffers would stand in memory beside the maps and the report.
        del predictor
        return_freed_memory()
        return _finish(job, options.memory_bytes)
    assert isinstance(before, str | Path)
    assert isinstance(after, str | Path)
    with stage_folder(output, overwrite=overwrite) as staged:
        pairs = match_folders(Path(before), Path(after))
        deadline = None if time_budget is None else started + time_budget
        pace = Pace(predictor.num_views, deadline)
        summary, views = map_folder(predictor, pairs, staged, layout, pace)
        write_json(staged / "summary.json", summary)
        provenance = {
            "before": str(before),
            "after": str(after),
            "models": models,
            "parameters": {
                "tta": tta,
                "value_range": value_range and list(value_range),
                "time_budget_seconds": time_budget,
                "device": predictor.device.type,
                "backend": predictor.choice.backend,
                "precision": predictor.choice.precision,
                "change_threshold": predictor.threshold,
            },
            "versions": {
                "python": platform.python_version(),
                **{name: version(name) for name in ("terradelta", "torch", "rasterio")},
            },
            "views_of_pairs": views,
            "seconds": round(time.monotonic() - started, 3),
        }
        write_json(staged / "run.json", provenance)
    return Prediction(output, summary)


def merge(output: str | Path, *, overwrite: bool = False) -> Prediction:
    """Make the prediction folder of a map whose shards are all answered.

    Args:
        output: The output that the shards were given; their blocks lie in `OUTPUT.partial`.
        overwrite: Replace an existing output.

    Raises:
        OutputError: If nothing is under way for this output or blocks are missing.
        OutputExistsError: If the output exists and `overwrite` is False.
    """
    output = Path(output)
    refuse_existing(output, overwrite)
    return _finish(Job.load(output))


def load_cards(model: str | Path | Sequence[str | Path] | None) -> list[ModelCard]:
    """Return what the models of a `model` argument say of themselves.

    Raises:
        ModelError: If one is no model.
    """
    return [load_card(folder) for folder in find_model_folders(model)]


def _finish(job: Job, memory_bytes: int = DEFAULT_MEMORY_BYTES) -> Prediction:
    cache_bytes = plan_cache_bytes(memory_bytes)
    with job.lock("assembly"), rasterio.Env(GDAL_CACHEMAX=cache_bytes):
        summary = assemble(job)
        finish(job)
    return Prediction(job.output, summary)


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
    return before_is_folder


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
    default = RasterOptions()
    given = {
        "--bands": options.bands,
        "--grid": options.grid if options.grid != default.grid else None,
        "--aoi": options.aoi,
        "--register": options.register,
        "--min-area": options.min_area_m2,
        "--vector": options.vector if options.vector != default.vector else None,
        "--cog-size": options.cog_size_px,
        "--shard": options.shard if options.shard != default.shard else None,
        "--engine": engine if engine != "local" else None,
        "--picture": options.picture,
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
            f"{shard!r} is no shard", fix="write the number of the shard and how many: --shard 2/4"
        )
    return number, count


def _require_choice(what: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ArgumentError(
            f"{what} {value!r} is not known", fix=f"use one of {', '.join(choices)}"
        )
    return value


def find_model_folders(model: str | Path | Sequence[str | Path] | None) -> list[str | Path]:
    """Return the folders of a `model` argument, the embedded model's by default."""
    if model is None:
        return [DEFAULT_MODEL]
    return [model] if isinstance(model, str | Path) else list(model)


def _kind(is_folder: bool) -> str:
    return "folder" if is_folder else "raster"
