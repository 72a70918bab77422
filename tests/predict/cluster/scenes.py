"""A job of many small blocks, and what starts and watches it; for tests that take machines away."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import psutil

import terradelta as td
from terradelta.data.synthetic import write_geotiff_pair
from terradelta.predict import rasters

TILE_SIZE_PX = 320
SIDE_PX = 768
"""Of the scene: eight tiles to a side, each a block of its own."""
OUTPUTS = (
    *("change.tif", "before_class.tif", "after_class.tif", "confidence.tif"),
    *("changes.gpkg", "transitions.csv", "summary.json"),
)
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # By default workers wait for whatever else the machine does.
    "RAY_worker_niceness": "0",
    "OMP_NUM_THREADS": "1",
}
PROGRAM = f"""
import sys
from terradelta.predict import rasters
rasters.MAX_BLOCK_SIZE_PX = {TILE_SIZE_PX}
from terradelta.cli import main
main(sys.argv[1:])
"""


def make_scene(folder, model_folder, monkeypatch):
    """Draw the scene and map it in this process; returns both folders."""
    write_geotiff_pair(folder / "scene", 11, (SIDE_PX, SIDE_PX))
    monkeypatch.setattr(rasters, "MAX_BLOCK_SIZE_PX", TILE_SIZE_PX)
    whole = td.predict(
        folder / "scene" / "before.tif",
        folder / "scene" / "after.tif",
        folder / "whole",
        model=model_folder,
        tile_size=TILE_SIZE_PX,
        precision="fp32",
    )
    return folder / "scene", whole.folder


def start(scene, model_folder, output, address, prefix=()):
    """Start the job on a cluster, in a process of its own."""
    line = [*prefix, sys.executable, "-c", PROGRAM, "predict"]
    line += [str(scene / "before.tif"), str(scene / "after.tif"), "-o", str(output)]
    line += ["--model", str(model_folder), "--tile-size", str(TILE_SIZE_PX), "--memory", "2GB"]
    line += ["--precision", "fp32", "--engine", "ray", "--address", address, "--worker-cpus", "1"]
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


def assert_same_map(folder, whole):
    for name in OUTPUTS:
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name
