"""Seconds, peak memory and the network's share of a whole raster job.

Draws a pair of the given size (once; it is kept) and predicts it in a process of its own. Run:
`python benchmarks/large_raster.py --size 20000 --memory 2GB`.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil

from terradelta.data.synthetic import write_geotiff_pair
from terradelta.models.bundle import Model, ModelCard, save_model

GIGABYTE = 1024**3


def main():
    """Run one job and print a row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=20_000, help="side of the raster in pixels")
    parser.add_argument("--memory", default="2GB")
    parser.add_argument("--model", help="model folder; FCN-ResNet-18 of seed 0 by default")
    parser.add_argument("--folder", type=Path, default=Path("benchmarks/large"))
    arguments = parser.parse_args()

    pair = arguments.folder / f"pair_{arguments.size}"
    if not pair.exists():
        write_geotiff_pair(pair, 20, arguments.size)
    model = arguments.model or save_untrained(arguments.folder / "fcn_resnet18")
    output = arguments.folder / "out"
    shutil.rmtree(output.with_name("out.partial"), ignore_errors=True)
    line = [sys.executable, "-m", "terradelta.cli", "predict"]
    line += [str(pair / "before.tif"), str(pair / "after.tif"), "-o", str(output)]
    line += ["--model", str(model), "--memory", arguments.memory, "--overwrite"]
    started = time.monotonic()
    process = psutil.Popen(line, stdout=subprocess.DEVNULL)
    code = process.wait()
    seconds = time.monotonic() - started
    if code:
        raise SystemExit(code)
    # Of the one child there was; in KiB on Linux.
    peak_bytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    run = json.loads((output / "run.json").read_text())
    summary = json.loads((output / "summary.json").read_text())
    print(f"{arguments.size} x {arguments.size} px, --memory {arguments.memory}, model {model}")
    print(f"wall {seconds:.0f} s, of it {run['seconds']}")
    print(f"network's share of the wall time {run['seconds']['network'] / seconds:.1%}")
    print(f"peak resident size {peak_bytes / GIGABYTE:.2f} GiB")
    print(
        f"{run['blocks']} blocks, {summary['patches']} patches, {run['km2_per_minute']:.1f} km2/min"
    )


def save_untrained(folder: Path) -> Path:
    """Write an FCN-ResNet-18 whose batch statistics fit drawn scenes, unless it is there."""
    if not folder.exists():
        from inference import build_model

        model = build_model()
        save_model(Model(model.network, ModelCard(architecture=model.network.config)), folder)
    return folder


if __name__ == "__main__":
    main()
