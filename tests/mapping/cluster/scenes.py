"""A job of many small blocks over a mosaic, and what starts and watches it.

For tests that take machines away.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

import numpy as np
import psutil
import rasterio
from affine import Affine
from rasterio.warp import calculate_default_transform, reproject
from rasterio.windows import Window

from terradelta.data.synthetic import write_geotiff_pair

from ..small_blocks import PROGRAM, TILE_SIZE_PX

SIDE_PX = 768
"""Of the scene: eight tiles to a side, each a block of its own."""
PIECE_SIZE_PX = 96
"""Of the mosaic: 64 rasters a date."""
OTHER_CRS = "EPSG:3035"
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # By default workers wait for whatever else the machine does.
    "RAY_worker_niceness": "0",
}
"""Of every process of a cluster."""
SETTINGS = {**QUIET, "OMP_NUM_THREADS": "1"}


def make_scene(folder, model_folder):
    """Draw the scene as two mosaics and map it by one process; returns both folders."""
    scene = folder / "scene"
    write_geotiff_pair(scene, 11, (SIDE_PX, SIDE_PX))
    for date in ("before", "after"):
        _cut(scene / f"{date}.tif")
    process = start(scene, model_folder, folder / "whole")
    _, log = process.communicate()
    assert process.returncode == 0, log
    return scene, folder / "whole"


def _cut(path):
    """Cut an image into pieces, every other one in another CRS, and list them."""
    pieces = []
    with rasterio.open(path) as dataset:
        for number in range((SIDE_PX // PIECE_SIZE_PX) ** 2):
            row, column = divmod(number, SIDE_PX // PIECE_SIZE_PX)
            window = Window(
                column * PIECE_SIZE_PX, row * PIECE_SIZE_PX, PIECE_SIZE_PX, PIECE_SIZE_PX
            )
            image_CHW = np.maximum(dataset.read(window=window), 1)
            crs, transform = dataset.crs, dataset.window_transform(window)
            if (row + column) % 2:
                image_CHW, crs, transform = _warp(image_CHW, crs, transform)
            pieces.append(path.with_name(f"{path.stem}-{number:02d}.tif"))
            _, height, width = image_CHW.shape
            with rasterio.open(
                pieces[-1],
                "w",
                driver="GTiff",
                width=width,
                height=height,
                count=len(image_CHW),
                dtype=image_CHW.dtype,
                crs=crs,
                transform=transform,
                nodata=0,
            ) as piece:
                piece.write(image_CHW)
                piece.colorinterp = dataset.colorinterp
                piece.descriptions = dataset.descriptions
    path.with_suffix(".txt").write_text("".join(f"{piece.name}\n" for piece in pieces))


def _warp(image_CHW, crs, transform):
    height, width = image_CHW.shape[-2:]
    left, top = transform @ (0, 0)
    right, bottom = transform @ (width, height)
    other, columns, rows = calculate_default_transform(
        crs, OTHER_CRS, width, height, left, bottom, right, top
    )
    assert isinstance(other, Affine)
    warped_CHW = np.zeros((len(image_CHW), rows, columns), image_CHW.dtype)
    reproject(
        image_CHW,
        warped_CHW,
        src_crs=crs,
        src_transform=transform,
        src_nodata=0,
        dst_crs=OTHER_CRS,
        dst_transform=other,
        dst_nodata=0,
    )
    return warped_CHW, OTHER_CRS, other


def start(scene, model_folder, output, address=None, prefix=()):
    """Start the job in a process of its own, on a cluster where one is named."""
    line = [*prefix, sys.executable, "-c", PROGRAM, "predict"]
    line += [str(scene / "before.txt"), str(scene / "after.txt"), "-o", str(output)]
    line += ["--model", str(model_folder), "--tile-size", str(TILE_SIZE_PX), "--memory", "2GB"]
    line += ["--precision", "fp32"]
    if address is not None:
        line += ["--engine", "ray", "--address", address, "--worker-cpus", "1"]
    return subprocess.Popen(
        line,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **SETTINGS},
    )


def count_blocks(output):
    return len(list(output.with_name(f"{output.name}.partial").rglob("*.tif")))


def wait_for_blocks(process, output, number):
    """Wait until so many blocks are answered; returns how many are."""
    while (done := count_blocks(output)) < number:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    return done


def find_processes(name):
    """Return the processes below this one whose command has this word."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if name in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found
