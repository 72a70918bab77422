"""Verbs that map what changed."""

from __future__ import annotations

import json
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter
from cyclopts.argument import ArgumentCollection
from cyclopts.config import Dict

from terradelta.cautions import refuse_cautions
from terradelta.cli.application import (
    DiscardReviews,
    Json,
    Maps,
    Models,
    Networks,
    Output,
    Overwrite,
    Rasters,
    Workers,
    app,
)
from terradelta.cli.results import print_kept_reviews, print_prediction, print_summary
from terradelta.errors import ArgumentError
from terradelta.flags import write_flag
from terradelta.inference.prediction_options import Cluster, MapOptions, RasterOptions, Runtime
from terradelta.option_files import read_option_file

if TYPE_CHECKING:
    from terradelta.mapping.planning import WorkPlan


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
    rasters: Rasters = RasterOptions(),  # noqa: B008
    as_json: Json = False,
):
    """Find problems of a pair of rasters, and the flag of `predict` that fixes each.

    Exit code 0 when nothing fails, 2 otherwise.

    Args:
        before: The earlier raster: a path, a URL, or anything else GDAL opens, or a file for each
            band: "red.tif + green.tif + blue.tif"; or a mosaic: a .txt file with one raster a line,
            or STAC items and the asset or assets, items.json#visual, items.json#red,green,blue.
        after: The later raster or mosaic.
        model: Model folder whose bands and values the pair is checked against, or several: M1,M2;
            the embedded model by default.
        rasters: How the pair is read.
        as_json: Print one JSON object.
    """
    from terradelta.mapping.preflight import check as run_check

    report = run_check(before, after, model=model, rasters=rasters)
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
    rasters: Rasters = RasterOptions(),  # noqa: B008
    maps: Maps = MapOptions(),  # noqa: B008
    runtime: Networks = Runtime(),  # noqa: B008
    cluster: Workers = Cluster(),  # noqa: B008
    options: Path | None = None,
    plan: Annotated[bool, Parameter(negative=())] = False,
    price_per_hour: str | None = None,
    as_json: Json = False,
    overwrite: Overwrite = False,
    discard_reviews: DiscardReviews = False,
):
    """Map what changed between two rasters, or between two folders of images.

    Run the same command again to resume a run on rasters that was stopped.

    Args:
        before: The earlier raster (a path, a URL, or anything else GDAL opens, or a file for each
            band: "red.tif + green.tif + blue.tif"); a mosaic (a .txt file with one raster a line,
            the upper ones first, or STAC items and the asset, items.json#visual, or the asset of
            each band, items.json#red,green,blue); or a folder of images.
        after: The later raster or mosaic, or a folder of images with the same names.
        output: Folder to make; it appears whole or not at all.
        model: Model folder, or several that vote: M1,M2; the embedded model by default.
        rasters: How the pair is read.
        maps: Outputs and limits.
        runtime: How the networks are run.
        cluster: Where the blocks are computed.
        options: YAML file of options, one `option: value` a line, with the names and values of the
            flags, without the dashes; options given here override it.
        plan: Make no map, but estimate what it will take: blocks, tiles, bytes, hours and cost, its
            pace measured on a few tiles.
        price_per_hour: With --plan, the price of an hour of this machine, 0.40, or of several kinds
            and how many times as fast they are: cpu:0.40,gpu@25:1.20.
        as_json: With --plan, print one JSON object.
        overwrite: Replace an existing output; reviews of it are kept in a file beside it.
        discard_reviews: With --overwrite, drop those reviews.
    """
    del options  # Its options are in the other arguments already.
    if plan:
        from terradelta.mapping.planning import plan_pair

        made = plan_pair(
            before, after, model=model, rasters=rasters, runtime=runtime, prices=price_per_hour
        )
        if maps.strict:
            refuse_cautions(made.cautions, "or leave --strict out")
        _print_plan(made, as_json)
        return
    if output is None:
        raise ArgumentError("--output is missing", fix="name the folder to make: -o OUT")
    if price_per_hour is not None or as_json:
        raise ArgumentError(
            "--price-per-hour and --json need --plan", fix="add --plan, or leave them out"
        )
    from terradelta.mapping.handle import Shard
    from terradelta.mapping.run import predict as run_predict

    result = run_predict(
        before,
        after,
        output,
        model=model,
        rasters=rasters,
        maps=maps,
        runtime=runtime,
        cluster=cluster,
        overwrite=overwrite,
        discard_reviews=discard_reviews,
    )
    if isinstance(result, Shard):
        done = f"{result.blocks_done} of {result.blocks} blocks are done"
        print(f"{done}; when all are: terradelta merge {output}")
        return
    print_prediction(result)


def _read_options(app: App, commands: tuple[str, ...], arguments: ArgumentCollection):
    """Read the options that a line leaves out from the file that it names."""
    given = [one for one in arguments if one.name == "--options" and one.tokens]
    if not given:
        return
    path = given[0].tokens[-1].value
    values = (RasterOptions, MapOptions, Runtime, Cluster)
    content = read_option_file(path, [field.name for kind in values for field in fields(kind)])
    texts = {key: write_flag(key, value) for key, value in content.items() if value is not None}
    Dict(texts, source=path, use_commands_as_keys=False)(app, commands, arguments)


app["predict"].config = (_read_options,)


@app.command
def plan(
    area: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    grid: str,
    model: Models = None,
    bytes_per_pixel: int | None = None,
    runtime: Networks = Runtime(),  # noqa: B008
    price_per_hour: str | None = None,
    as_json: Json = False,
):
    """Estimate what mapping an area will take, before there are rasters of it.

    For two rasters or mosaics that exist: `terradelta predict BEFORE AFTER --plan`.

    Args:
        area: Vector file with polygons, or WEST,SOUTH,EAST,NORTH in degrees.
        grid: CRS and side of the map's pixels: EPSG:6933@10.
        model: Model folder, or several that vote: M1,M2; the embedded model by default.
        bytes_per_pixel: Bytes per pixel of both dates together; by default a byte per band.
        runtime: How the networks are run.
        price_per_hour: Price of an hour of this machine, 0.40, or of several kinds and how many
            times as fast they are: cpu:0.40,gpu@25:1.20.
        as_json: Print one JSON object.
    """
    from terradelta.mapping.planning import plan as run_plan

    made = run_plan(
        area,
        grid=grid,
        model=model,
        bytes_per_pixel=bytes_per_pixel,
        runtime=runtime,
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
        output: The output given to the shards; their blocks lie in OUTPUT.partial.
        strict: Fail with exit code 2 if the map would carry a caution.
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

    Every prediction of two rasters has one already; write it again to include the results of
    `assess` and `stats`.

    Args:
        folder: Output of `predict` or of `train`.
        areas: area_estimates.json of `assess`; by default the one in the folder, if there is one.
        zones: zones.gpkg of `stats`; by default the one in the folder's zones/, if there is one.
        overwrite: Replace a report that exists.
    """
    from terradelta.reports.page import report as run_report

    print(f"written to {run_report(folder, areas=areas, zones=zones, overwrite=overwrite)}")


def _print_plan(plan: WorkPlan, as_json: bool):
    print(json.dumps(plan.to_dict()) if as_json else plan.to_text())
