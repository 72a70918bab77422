"""How fast the map viewer answers on a large prediction.

The prediction is a real one of a drawn scene of 1,500 px, repeated to the size that is asked for:
its images and its blocks are repeated and go through terradelta's own assembly, so that the maps,
polygons and sums are what `predict` would have written. Then a server is started and timed as the
page uses it; with Chromium and playwright the page itself as well.
Run: `python benchmarks/viewer.py 20000`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.windows import Window

from terradelta.data.synthetic import write_geotiff_pair
from terradelta.geo.source import describe_source
from terradelta.predict.assembly import assemble, finish
from terradelta.predict.job import Job
from terradelta.predict.run import predict
from terradelta.predict.store import BlockFacts, BlockLayers

WORK = Path(__file__).parent / "work" / "viewer"
SCENE_SIZE_PX = 1500
SEED = 20
DATES = ("before", "after")


def build(size_px: int) -> Path:
    """Return the folder of a prediction of this many pixels a side, made unless it is there."""
    output = WORK / f"out_{size_px}"
    if output.exists():
        return output
    scene, small = WORK / "scene", WORK / "small"
    if not scene.exists():
        write_geotiff_pair(scene, SEED, SCENE_SIZE_PX)
    if not small.exists():
        predict(scene / "before.tif", scene / "after.tif", small)
    pair = {date: repeat_image(scene / f"{date}.tif", size_px) for date in DATES}
    job = Job(output, describe_large(small, pair, size_px))
    job.start(overwrite=True)
    layers = [read(small / f"{date}_class.tif") for date in DATES]
    layers += [read(small / "change.tif"), *[read(small / "confidence.tif")] * 2]
    for block in job.plan:
        cut = BlockLayers(*(repeat(layer_HW, block.write) for layer_HW in layers))
        job.store.write(block.index, block.write, cut, BlockFacts(1, 0.0, 0.0))
    assemble(job)
    finish(job)
    return output


def describe_large(small: Path, pair: dict[str, Path], size_px: int) -> dict:
    """Return the small prediction's request, for the large images."""
    request = json.loads((small / "run.json").read_text())
    with rasterio.open(small / "before_class.tif") as dataset:
        names = [dataset.tags(1)[f"class_{value}"] for value in range(7)]
        colours = [dataset.colormap(1)[value][:3] for value in range(7)]
    for date, path in pair.items():
        with rasterio.open(path) as dataset:
            request[date] = describe_source(dataset, path)
    request["classes"] = {"names": names, "colours": colours}
    request["grid"].update(width=size_px, height=size_px)
    request["plan"]["area"] = [0, 0, size_px, size_px]
    return request


def repeat_image(path: Path, size_px: int) -> Path:
    """Return a COG of an image repeated to a larger one."""
    target = WORK / f"{path.stem}_{size_px}.tif"
    if target.exists():
        return target
    print(f"repeating {path.name} to {size_px} px", file=sys.stderr)
    plain = target.with_suffix(".plain.tif")
    with rasterio.open(path) as source:
        image_CHW = source.read()
        profile = {**source.profile, "width": size_px, "height": size_px, "compress": None}
    profile.update(tiled=True, blockxsize=512, blockysize=512, bigtiff="IF_SAFER")
    with rasterio.open(plain, "w", **profile) as dataset:
        for _, window in dataset.block_windows(1):
            dataset.write(repeat(image_CHW, window), window=window)
    rasterio.shutil.copy(plain, target, driver="COG", COMPRESS="DEFLATE", BIGTIFF="IF_SAFER")
    plain.unlink()
    return target


def read(path: Path) -> np.ndarray:
    """Return the first band of a raster."""
    with rasterio.open(path) as dataset:
        return dataset.read(1)


def repeat(array: np.ndarray, window: Window) -> np.ndarray:
    """Return the window of an array (..., H, W) that repeats without end."""
    rows = np.arange(window.row_off, window.row_off + window.height) % array.shape[-2]
    columns = np.arange(window.col_off, window.col_off + window.width) % array.shape[-1]
    return array[..., rows[:, None], columns]


def main():
    """Build the prediction and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("size_px", type=int, nargs="?", default=20_000)
    arguments = parser.parse_args()
    print(build(arguments.size_px))


if __name__ == "__main__":
    main()
