"""Time and memory of plans of about 10, 1,000 and 100,000 blocks, each in its own process.

The pace of the network is left out: it is the same four tiles for every plan.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time

SIDES = (3, 32, 317)
"""Blocks along each side of a square map."""


def measure(side: int) -> dict[str, float]:
    """Return time and memory of planning a number of blocks in this process."""
    import numpy as np
    import shapely
    from affine import Affine
    from rasterio.crs import CRS
    from rasterio.windows import Window

    from terradelta.geo.grid import Grid
    from terradelta.inference.tiling import BlockPlan, Tiling
    from terradelta.mapping.planning import measure_extent

    tiling = Tiling(1024, 64, 8)
    pixels = side * 3 * tiling.step_px + 2 * tiling.margin_px
    grid = Grid(CRS.from_epsg(6933), Affine(10, 0, -17_000_000, 0, -10, 6_900_000), pixels, pixels)
    blocks = BlockPlan(tiling, pixels, pixels, Window(0, 0, pixels, pixels), 3)
    # Squares of 10,980 px, as Sentinel-2's are, on three quarters of the map.
    corners = np.arange(0, pixels, 10_980)
    left, top = (part.ravel() for part in np.meshgrid(corners, corners))
    squares = shapely.box(left, top, left + 10_980, top + 10_980)
    footprints = squares[np.arange(len(squares)) % 4 != 3]
    memory_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    extent = measure_extent(blocks, grid, [footprints, footprints], 6)
    return {
        "blocks": len(blocks),
        "with_work": extent.blocks,
        "footprints": len(footprints),
        "seconds": time.monotonic() - started,
        "grown_mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory_before) / 1024,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main():
    """Print the table."""
    if len(sys.argv) > 1:
        print(json.dumps(measure(int(sys.argv[1]))))
        return
    print("| blocks | with work | rasters a date | seconds | memory grew by | process peak |")
    print("| --- | --- | --- | --- | --- | --- |")
    for side in SIDES:
        line = [sys.executable, __file__, str(side)]
        found = json.loads(subprocess.run(line, capture_output=True, check=True).stdout)
        print(
            f"| {found['blocks']:,} | {found['with_work']:,} | {found['footprints']:,} | "
            f"{found['seconds']:.2f} | {found['grown_mb']:.0f} MB | {found['peak_mb']:.0f} MB |"
        )


if __name__ == "__main__":
    main()
