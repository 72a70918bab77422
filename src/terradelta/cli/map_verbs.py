"""Verbs that map what changed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from terradelta.cautions import refuse_cautions
from terradelta.cli.application import (
    Json,
    Models,
    Output,
    Overwrite,
    Precision,
    Runtime,
    app,
    split_dates,
    split_list,
)
from terradelta.cli.results import print_kept_reviews, print_prediction, print_summary
from terradelta.errors import ArgumentError
from terradelta.training.config import Views

if TYPE_CHECKING:
    from terradelta.mapping.planning import WorkPlan

Bands = Annotated[str | None, Parameter(name="--bands")]
DiscardReviews = Annotated[bool, Parameter(negative=())]
ValueRange = Annotated[str | None, Parameter(name="--value-range", allow_leading_hyphen=True)]
AfterValueRange = Annotated[
    str | None, Parameter(name="--after-value-range", allow_leading_hyphen=True)
]


@app.command
def demo(
    *,
    output: Output = Path("demo"),
    overwrite: Overwrite = False,
    discard_reviews: DiscardReviews = False,
):
    """Draw a scene, run the embedded model on it and show what changed.

    Args:
        output: Folder to make.
        overwrite: Replace an existing output; reviews of it are kept in a file beside it.
        discard_reviews: With --overwrite, drop those reviews.
    """
    from terradelta.cli.terminal import print_map
    from terradelta.mapping.demo import demo as run_demo

    result = run_demo(output, overwrite=overwrite, discard_reviews=discard_reviews)
    print_summary(result.summary)
    if sys.stdout.isatty():
        print_map(result.folder / "change.tif")
    print(
        f"\nmaps and polygons  {result.folder}\npicture            {result.folder / 'picture.png'}"
        f"\nreport             {result.folder / 'report.html'}"
    )
    print_kept_reviews(result)


@app.command
def check(
    before: str,
    after: str,
    /,
    *,
    model: Models = None,
    bands: Bands = None,
    value_range: ValueRange = None,
    after_value_range: AfterValueRange = None,
    match_light: Literal["none", "linear", "histogram"] = "none",
    nodata: str | None = None,
    mask: str | None = None,
    mask_values: str | None = None,
    grid: str = "before",
    aoi: Path | None = None,
    before_date: str | None = None,
    after_date: str | None = None,
    as_json: Json = False,
):
    """Say what is wrong with a pair of rasters, and which flag of `predict` fixes it.

    Exit code 0 when nothing fails, 2 otherwise.

    Args:
        before: The earlier raster: a path, a URL, or anything else GDAL opens, or a file for each
            band: "red.tif + green.tif + blue.tif"; or a mosaic: a .txt file with one raster a line,
            or STAC items and the asset or assets, items.json#visual, items.json#red,green,blue.
        after: The later raster or mosaic.
        model: Model folder whose bands and values the pair is held against; the embedded model by
            default.
        bands: Which bands the model reads, by number from 1 or by name: 1,2,3.
        value_range: Values that are dark and bright, scale and offset applied: 0,3000.
        after_value_range: The same of the after image, where it differs: 1000,4000.
        match_light: Give the after image the light of the before image first.
        nodata: A stored value that is no data: 0, or before=0,after=255.
        mask: Raster of pixels to leave out: clouds.tif, or before=a.tif,after=b.tif.
        mask_values: Which values of the masks leave a pixel out; any but 0 by default.
        grid: Whose pixels the map gets: before, after, the side of a pixel in CRS units, or
            CRS@SIDE: EPSG:3035@10.
        aoi: Vector file with polygons, or FILE#LAYER; the rest is not looked at.
        before_date: When the before image was taken, 2019-06-01; by default what the raster says.
        after_date: When the after image was taken.
        as_json: Print one JSON object.
    """
    from terradelta.mapping.preflight import check as run_check

    report = run_check(
        before,
        after,
        model=split_list(model),
        bands=split_list(bands),
        value_range=_parse_range(value_range),
        after_value_range=_parse_range(after_value_range, "--after-value-range"),
        match_light=match_light,
        nodata=split_dates(nodata, float),
        mask=split_dates(mask, str),
        mask_values=mask_values,
        grid=grid,
        aoi=aoi,
        before_date=before_date,
        after_date=after_date,
    )
    print(json.dumps(report.to_dict(), ensure_ascii=False) if as_json else report.to_text())
    if report.level == "FAIL":
        sys.exit(2)


@app.command
def predict(
    before: str,
    after: str,
    /,
    *,
    output: Output | None = None,
    model: Models = None,
    tta: Views = "none",
    time_budget: float | None = None,
    bands: Bands = None,
    value_range: ValueRange = None,
    after_value_range: AfterValueRange = None,
    match_light: Literal["none", "linear", "histogram"] = "none",
    nodata: str | None = None,
    mask: str | None = None,
    mask_values: str | None = None,
    before_date: str | None = None,
    after_date: str | None = None,
    grid: str = "before",
    aoi: Path | None = None,
    register: Annotated[bool, Parameter(negative=())] = False,
    min_area: str = "0",
    vector: Literal["gpkg", "parquet"] = "gpkg",
    cog_size: int | None = None,
    layout: Literal["terradelta", "senseearth"] = "terradelta",
    memory: str = "4GB",
    tile_size: int | None = None,
    device: str = "auto",
    backend: Runtime = "auto",
    precision: Precision = "auto",
    shard: str = "1/1",
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
    workers: int | None = None,
    worker_cpus: float | None = None,
    picture: Annotated[bool, Parameter(negative=())] = False,
    strict: Annotated[bool, Parameter(negative=())] = False,
    plan: Annotated[bool, Parameter(negative=())] = False,
    price_per_hour: str | None = None,
    as_json: Json = False,
    overwrite: Overwrite = False,
    discard_reviews: DiscardReviews = False,
):
    """Map what changed between two rasters, or between two folders of images.

    A run on rasters that was stopped resumes where it stopped when the same command is run again.

    Args:
        before: The earlier raster (a path, a URL, or anything else GDAL opens, or a file for each
            band: "red.tif + green.tif + blue.tif"); a mosaic (a .txt file with one raster a line,
            the upper ones first, or STAC items and the asset, items.json#visual, or the asset of
            each band, items.json#red,green,blue); or a folder of images.
        after: The later raster or mosaic, or a folder of images with the same names.
        output: Folder to make; it appears whole or not at all.
        model: Model folder, or several that vote: M1,M2; the embedded model by default.
        tta: Flips and turns whose answers are averaged; slower, a little better.
        time_budget: Seconds after which the map must be done; flips and turns are dropped when
            late.
        bands: Which bands the model reads, by number from 1 or by name: 1,2,3.
        value_range: Values that are dark and bright, for images of another depth than the model's:
            0,3000. Of rasters with a scale or an offset, values after both are applied.
        after_value_range: The same of the after image, where it differs: 1000,4000.
        match_light: Give the after image the light of the before image, fitted over pixels that
            look unchanged; histogram where the contrast differs between dark and bright.
        nodata: A stored value that is no data, besides those that the rasters declare: 0, or
            before=0,after=255.
        mask: Raster of pixels to leave out, such as clouds, in any CRS and on any grid: clouds.tif,
            or before=a.tif,after=b.tif.
        mask_values: Which values of the masks leave a pixel out, any but 0 by default: 3,8-11,
            bits:3,4 of a bit field, or those of scl, qa_pixel or omnicloudmask.
        before_date: When the before image was taken, 2019-06-01; by default what the raster says.
        after_date: When the after image was taken.
        grid: Whose pixels the map gets: before, after, the side of a pixel in units of the before
            raster's CRS, or CRS@SIDE: EPSG:3035@10. A ! at its end insists on far finer pixels
            than the rasters have, or on more than 1e11 of them.
        aoi: Vector file with polygons, in any CRS, or FILE#LAYER; the rest is nodata.
        register: Measure the shift between the two images and undo it.
        min_area: Smaller patches of change are taken for unchanged: 100m2, 0.5ha.
        vector: Format of the polygons.
        cog_size: For maps too large for one file: cut them into COGs of so many pixels a side, a
            power of two such as 16384, with a VRT over each map's and STAC items.
        layout: For folders: before/ after/ change/, or im1/ im2/ as the contest asks.
        memory: What the process may take.
        tile_size: Side of the squares that the network sees, in pixels; 1024 by default,
            more for networks that look very far.
        device: auto, cpu, cuda or cuda:N.
        backend: What runs the network.
        precision: bf16 is faster where the processor has it, int8 faster still for a model that
            has been quantized, fp32 exact.
        shard: 2/4 answers the second quarter of the map only; `merge` joins the quarters.
        engine: ray shares the blocks among the workers of a Ray cluster.
        address: Of a running cluster, such as host:6379; by default RAY_ADDRESS, else one is
            started on this machine.
        workers: How many; by default as many as the cluster has room for. Each may take --memory.
        worker_cpus: Cores of a worker; by default up to 4.
        picture: Also draw before, after and the map into OUTPUT/picture.png.
        strict: Fail with exit code 2 where the map would carry a caution; what is known before the
            work is refused before it.
        plan: Make no map, but say what it will take: blocks, tiles, bytes, hours and cost, its pace
            measured on a few tiles.
        price_per_hour: With --plan, the price of an hour of this machine, 0.40, or of several kinds
            and how many times as fast they are: cpu:0.40,gpu@25:1.20.
        as_json: With --plan, print one JSON object.
        overwrite: Replace an existing output; reviews of it are kept in a file beside it.
        discard_reviews: With --overwrite, drop those reviews.
    """
    if plan:
        from terradelta.mapping.planning import plan_pair

        made = plan_pair(
            before,
            after,
            model=split_list(model),
            tta=tta,
            bands=split_list(bands),
            value_range=_parse_range(value_range),
            after_value_range=_parse_range(after_value_range, "--after-value-range"),
            match_light=match_light,
            nodata=split_dates(nodata, float),
            mask=split_dates(mask, str),
            mask_values=mask_values,
            grid=grid,
            aoi=aoi,
            before_date=before_date,
            after_date=after_date,
            tile_size=tile_size,
            device=device,
            backend=backend,
            precision=precision,
            prices=price_per_hour,
        )
        if strict:
            refuse_cautions(made.cautions, "or leave --strict out")
        _print_plan(made, as_json)
        return
    if output is None:
        raise ArgumentError("no --output was given", fix="name the folder to make: -o OUT")
    if price_per_hour is not None or as_json:
        raise ArgumentError(
            "--price-per-hour and --json are for --plan", fix="add --plan, or leave them out"
        )
    from terradelta.mapping.handle import Shard
    from terradelta.mapping.run import predict as run_predict

    result = run_predict(
        before,
        after,
        output,
        model=split_list(model),
        tta=tta,
        time_budget=time_budget,
        bands=split_list(bands),
        value_range=_parse_range(value_range),
        after_value_range=_parse_range(after_value_range, "--after-value-range"),
        match_light=match_light,
        nodata=split_dates(nodata, float),
        mask=split_dates(mask, str),
        mask_values=mask_values,
        before_date=before_date,
        after_date=after_date,
        grid=grid,
        aoi=aoi,
        register=register,
        min_area=min_area,
        vector=vector,
        cog_size=cog_size,
        layout=layout,
        memory=memory,
        tile_size=tile_size,
        device=device,
        backend=backend,
        precision=precision,
        shard=shard,
        engine=engine,
        address=address,
        workers=workers,
        worker_cpus=worker_cpus,
        picture=picture,
        strict=strict,
        overwrite=overwrite,
        discard_reviews=discard_reviews,
    )
    if isinstance(result, Shard):
        done = f"{result.blocks_done} of {result.blocks} blocks are done"
        print(f"{done}; when all are: terradelta merge {output}")
        return
    print_prediction(result)


@app.command
def plan(
    area: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    grid: str,
    model: Models = None,
    tta: Views = "none",
    bytes_per_pixel: int | None = None,
    tile_size: int | None = None,
    device: str = "auto",
    backend: Runtime = "auto",
    precision: Precision = "auto",
    price_per_hour: str | None = None,
    as_json: Json = False,
):
    """Say what mapping an area will take, before there are any rasters of it.

    For two rasters or mosaics that are there: `terradelta predict BEFORE AFTER --plan`.

    Args:
        area: Vector file with polygons, or WEST,SOUTH,EAST,NORTH in degrees.
        grid: CRS and side of the map's pixels: EPSG:6933@10.
        model: Model folder, or several that vote: M1,M2; the embedded model by default.
        tta: Flips and turns whose answers are averaged.
        bytes_per_pixel: Of both dates together; by default a byte a band.
        tile_size: Side of the squares that the network sees, in pixels.
        device: auto, cpu, cuda or cuda:N.
        backend: What runs the network.
        precision: As of predict.
        price_per_hour: Price of an hour of this machine, 0.40, or of several kinds and how many
            times as fast they are: cpu:0.40,gpu@25:1.20.
        as_json: Print one JSON object.
    """
    from terradelta.mapping.planning import plan as run_plan

    made = run_plan(
        area,
        grid=grid,
        model=split_list(model),
        bytes_per_pixel=bytes_per_pixel,
        tta=tta,
        tile_size=tile_size,
        device=device,
        backend=backend,
        precision=precision,
        prices=price_per_hour,
    )
    _print_plan(made, as_json)


@app.command
def merge(
    output: Path,
    /,
    *,
    strict: Annotated[bool, Parameter(negative=())] = False,
    overwrite: Overwrite = False,
    discard_reviews: DiscardReviews = False,
):
    """Join the shards of a map into one prediction.

    Args:
        output: The output that the shards were given; their blocks lie in OUTPUT.partial.
        strict: Fail with exit code 2 where the map would carry a caution.
        overwrite: Replace an existing output; reviews of it are kept in a file beside it.
        discard_reviews: With --overwrite, drop those reviews.
    """
    from terradelta.mapping.run import merge as run_merge

    print_prediction(
        run_merge(output, strict=strict, overwrite=overwrite, discard_reviews=discard_reviews)
    )


@app.command
def report(
    folder: Path,
    /,
    *,
    areas: Path | None = None,
    zones: Path | None = None,
    overwrite: Overwrite = False,
):
    """Write report.html, one offline page, into the folder of a prediction or a training run.

    Every prediction of two rasters has one already; made again, it shows what `assess` and `stats`
    have found since.

    Args:
        folder: What `predict` left behind, or what `train` did.
        areas: area_estimates.json of `assess`; by default the one in the folder, if there is one.
        zones: zones.gpkg of `stats`; by default the one in the folder's zones/, if there is one.
        overwrite: Replace a report that is there.
    """
    from terradelta.reports.page import report as run_report

    print(f"written to {run_report(folder, areas=areas, zones=zones, overwrite=overwrite)}")


def _print_plan(plan: WorkPlan, as_json: bool):
    print(json.dumps(plan.to_dict()) if as_json else plan.to_text())


def _parse_range(text: str | None, flag: str = "--value-range") -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        low, high = map(float, text.split(","))
    except ValueError as error:
        raise ArgumentError(
            f"{text!r} is not a range of values", fix=f"give two numbers: {flag} 0,3000"
        ) from error
    return low, high
