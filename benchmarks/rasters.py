"""Seconds, peak memory and the network's share of whole raster jobs, by the raster's size.

Draws one pair of the largest size (kept), cuts the smaller ones out of it, and predicts each in a
separate process. Beside the wall time stands the time of the network alone for the same tiles in
the same process, without reading and writing. Run: `python benchmarks/rasters.py 1000 2000 5000`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import rasterio
import torch

from terradelta.data.synthetic import write_geotiff_pair
from terradelta.geo.grid import cut_window
from terradelta.inference.backends import Request
from terradelta.inference.prediction_options import Runtime
from terradelta.inference.predictor import Predictor
from terradelta.models.bundle import load_model
from trained import WORK, train_fcn

GIGABYTE = 1024**3
SEED = 20
SIZES = (1000, 2000, 5000, 10_000, 20_000)
STRIP_PX = 1920
TIMED_TILES = 8


def measure(sizes=SIZES, memory: str = "2GB", model: Path | None = None) -> dict[str, list[dict]]:
    """Return the table of this file."""
    model = model or train_fcn(WORK)
    whole = draw(max(sizes))
    rows = []
    for size in sizes:
        print(f"rasters: {size} x {size}", file=sys.stderr)
        rows.append(run_job(crop(whole, size), size, memory, model))
    return {f"Whole jobs: drawn pair of seed {SEED}, --memory {memory}, {model.name}": rows}


def draw(size: int) -> Path:
    """Return the folder of a drawn pair, made if necessary."""
    folder = WORK / f"pair_{size}"
    if not folder.exists():
        print(f"drawing a pair of {size} x {size} px", file=sys.stderr)
        write_geotiff_pair(folder, SEED, size)
    return folder


def crop(whole: Path, size: int) -> Path:
    """Return the upper left part of a pair."""
    folder = WORK / f"pair_{size}"
    if folder.exists():
        return folder
    part = folder.with_suffix(".part")
    part.mkdir(parents=True, exist_ok=True)
    for name in ("before.tif", "after.tif"):
        with rasterio.open(whole / name) as source:
            profile = source.profile
            profile.update(width=size, height=size)
            with rasterio.open(part / name, "w", **profile) as target:
                for row in range(0, size, STRIP_PX):
                    window = cut_window(0, row, size, min(STRIP_PX, size - row))
                    target.write(source.read(window=window), window=window)
    return part.rename(folder)


def run_job(pair: Path, size: int, memory: str, model: Path) -> dict:
    """Predict a pair in its own process and return its row."""
    output = WORK / "out"
    shutil.rmtree(output.with_name("out.partial"), ignore_errors=True)
    line = [sys.executable, "-m", "terradelta.cli", "predict"]
    line += [str(pair / "before.tif"), str(pair / "after.tif"), "-o", str(output)]
    line += ["--model", str(model), "--memory", memory, "--overwrite", "--backend", "openvino"]
    started = time.monotonic()
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    if status:
        raise SystemExit(f"{' '.join(line)} failed")
    run = json.loads((output / "run.json").read_text())
    summary = json.loads((output / "summary.json").read_text())
    network = time_tiles(model, size, run["parameters"]["precision"])
    return {
        "raster": f"{size:,} x {size:,}",
        "wall, s": f"{seconds:.1f}",
        "network alone, s": f"{network:.1f}",
        "network in the job, s": f"{run['seconds']['network']:.1f}",
        "assembly, s": f"{run['seconds']['assembly']:.1f}",
        "wall over network alone": f"{seconds / network:.3f}",
        "peak, GiB": f"{usage.ru_maxrss * 1024 / GIGABYTE:.2f}",
        "patches": f"{summary['patches']:,}",
        "s per Mpx": f"{seconds / size**2 * 1e6:.3f}",
    }


def time_tiles(model: Path, size: int, precision: str) -> float:
    """Return the seconds of the network alone for all tiles of a raster, from a few of them."""
    predictor = Predictor([load_model(model)], Runtime(backend="openvino", precision=precision))
    (backend,) = predictor.backends
    stride = predictor.tiling.stride_px
    total = 0.0
    shapes = Counter(
        (pad(tile.read.height, stride), pad(tile.read.width, stride))
        for tile in predictor.tiling.cut(size, size)
    )
    for (height, width), count in shapes.items():
        image = torch.randint(0, 255, (1, 3, height, width), dtype=torch.uint8)
        request = Request(image, image.flip(-1), torch.ones((1, height, width), dtype=torch.bool))
        backend(request)
        started = time.perf_counter()
        for _ in range(TIMED_TILES):
            backend(request)
        total += count * (time.perf_counter() - started) / TIMED_TILES
    return total


def pad(length: float, stride: int) -> int:
    """Return the next multiple of the stride."""
    return -(-int(length) // stride) * stride


def main():
    """Run the jobs and print their table."""
    from tables import print_tables

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="*", type=int, default=SIZES, help="sides in pixels")
    parser.add_argument("--memory", default="2GB")
    parser.add_argument("--model", type=Path, help="model folder; FCN-ResNet-18 by default")
    arguments = parser.parse_args()
    print_tables(measure(arguments.sizes, arguments.memory, arguments.model))


if __name__ == "__main__":
    main()
