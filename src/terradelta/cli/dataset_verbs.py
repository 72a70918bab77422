"""Verbs that make and check labelled data sets."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from terradelta.cli.application import Json, Output, Overwrite, app


@app.command
def doctor(
    data: Path,
    /,
    *,
    fix: Path | None = None,
    classes: Path | None = None,
    as_json: Json = False,
    overwrite: Overwrite = False,
):
    """Find problems of a data set: masks, splits, duplicates, shifts; write a clean copy.

    Exit code 0 when nothing fails, 2 otherwise; with --fix, 0 once the copy is written.

    Args:
        data: Data set: a folder in a known layout, or a CSV.
        fix: Folder to make: a copy with safe corrections, and without pairs that cannot be
            corrected.
        classes: Class table (a classes.json), if the data set has none.
        as_json: Print one JSON object.
        overwrite: Replace an existing copy.
    """
    from terradelta.data.class_file import read_class_file
    from terradelta.data.doctor import doctor as run_doctor
    from terradelta.destination import claim_folder

    if fix is not None and classes is not None:
        claim_folder(fix, [classes], overwrite=overwrite)
    table = None if classes is None else read_class_file(classes)
    report = run_doctor(data, fix=fix, classes=table, overwrite=overwrite)
    print(json.dumps(report.to_dict(), ensure_ascii=False) if as_json else report.to_text())
    if fix is not None:
        print(f"written to {fix}", file=sys.stderr)
    elif report.level == "FAIL":
        sys.exit(2)


@app.command
def synth(
    *,
    output: Output,
    pairs: int = 100,
    seed: int = 0,
    size: int = 256,
    gsd: float = 0.5,
    geotiff: Annotated[bool, Parameter(negative=())] = False,
    crs: str = "EPSG:32632",
    overwrite: Overwrite = False,
):
    """Draw scenes with known truth: PNG folders to train on, or one GeoTIFF pair of any size.

    Args:
        output: Folder to make.
        pairs: How many pairs of PNGs.
        seed: The same seed draws the same scenes.
        size: Side of a scene in pixels.
        gsd: Ground size of a pixel in metres.
        geotiff: Draw one georeferenced pair with its true maps instead of PNGs.
        crs: Coordinate reference system of the GeoTIFF pair.
        overwrite: Replace an existing output.
    """
    from terradelta.data.synthetic import synth as run_synth

    run_synth(
        output,
        pairs=pairs,
        seed=seed,
        size_px=size,
        gsd_m=gsd,
        geotiff=geotiff,
        crs=crs,
        overwrite=overwrite,
    )
    print(f"written to {output}")


@app.command
def compose(
    images: Path,
    masks: Path,
    /,
    *,
    output: Output,
    pairs: int = 400,
    seed: int = 0,
    size: int = 256,
    classes: Path | None = None,
    overwrite: Overwrite = False,
):
    """Compose pairs with exact change masks from labelled images of one date.

    Args:
        images: Folder of RGB images.
        masks: Folder of land-cover masks with the images' names: class ids, or the class colours.
        output: Folder to make.
        pairs: How many.
        seed: The same seed composes the same pairs.
        size: Side of a pair in pixels.
        classes: Class table of the masks (a classes.json), if they are not SenseEarth's.
        overwrite: Replace an existing output.
    """
    from terradelta.classes import SENSEEARTH
    from terradelta.data.class_file import read_class_file
    from terradelta.data.composite import compose as run_compose
    from terradelta.destination import claim_folder

    if classes is not None:
        claim_folder(output, [classes], overwrite=overwrite)
    table = SENSEEARTH if classes is None else read_class_file(classes)
    run_compose(
        images,
        masks,
        output,
        pairs=pairs,
        seed=seed,
        size_px=size,
        classes=table,
        overwrite=overwrite,
    )
    print(f"written to {output}")
