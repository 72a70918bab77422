"""The time of GDAL alone for the files of a whole job: a lower bound besides the network.

Reads both images of a pair, copies the four maps of a finished prediction into new COGs and traces
the polygons of its change map in one piece, without terradelta. Processor seconds,
so that other work on the machine does not count. Run: `python benchmarks/files.py PAIR OUT`, a
folder with before.tif and after.tif, and its prediction.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import rasterio
import rasterio.shutil
from rasterio.features import shapes

MAPS = ("before_class.tif", "after_class.tif", "change.tif", "confidence.tif")


def measure(pair: Path, output: Path) -> dict[str, list[dict]]:
    """Return the table of this file."""
    with rasterio.open(output / "change.tif") as change:
        size = f"{change.width:,} x {change.height:,}"
        megapixels = change.width * change.height / 1e6
    with tempfile.TemporaryDirectory() as scratch:
        parts: dict[str, Callable[[], object]] = {
            "reading both images": lambda: read_images(pair),
            "writing four COGs": lambda: copy_maps(output, Path(scratch)),
            "tracing the polygons": lambda: trace_polygons(output / "change.tif"),
        }
        rows = []
        for name, work in parts.items():
            print(f"files: {name}", file=sys.stderr)
            started = time.process_time()
            work()
            seconds = time.process_time() - started
            rows.append(
                {
                    "GDAL alone": name,
                    "processor, s": f"{seconds:.1f}",
                    "processor, s per Mpx": f"{seconds / megapixels:.3f}",
                }
            )
    return {f"Floors of the files: {size}": rows}


def read_images(pair: Path):
    """Read every block of both images."""
    for name in ("before.tif", "after.tif"):
        with rasterio.open(pair / name) as image:
            for _, window in image.block_windows(1):
                image.read(window=window)


def copy_maps(output: Path, scratch: Path):
    """Copy the maps as COGs with overviews, as `predict` writes them."""
    for name in MAPS:
        resampling = "AVERAGE" if name == "confidence.tif" else "MODE"
        rasterio.shutil.copy(
            output / name,
            scratch / name,
            driver="COG",
            COMPRESS="DEFLATE",
            BLOCKSIZE="512",
            OVERVIEWS="IGNORE_EXISTING",
            OVERVIEW_RESAMPLING=resampling,
        )


def trace_polygons(change: Path):
    """Trace the outlines of the whole map."""
    with rasterio.open(change) as source:
        change_HW = source.read(1)
        for _ in shapes(change_HW, mask=change_HW > 0, transform=source.transform):
            pass


def main():
    """Measure an existing prediction."""
    from tables import print_tables

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pair", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    print_tables(measure(arguments.pair, arguments.output))


if __name__ == "__main__":
    main()
