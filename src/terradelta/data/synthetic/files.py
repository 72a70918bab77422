"""Drawn scenes on disk: folders of PNG pairs to train on, or one GeoTIFF pair of any size.

Legend of the array names: C bands, H rows, W columns.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import rasterio
from affine import Affine
from PIL import Image
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.io import DatasetWriter
from tqdm import tqdm

from terradelta.classes import SENSEEARTH
from terradelta.data.images import write_mask
from terradelta.data.synthetic.scene import ScenePair, Scenery, check_size, draw_pair
from terradelta.errors import ArgumentError
from terradelta.fields import COUNT, SHARE, Within, checks_ranges
from terradelta.geo.grid import cut_window
from terradelta.outputs import stage_folder

CELL_SIZE_PX = 384
MAX_SIZE_PX = 16_384
"""Largest side of a scene in memory; GeoTIFF pairs of any size are drawn cell by cell."""


def synth(
    output: str | Path,
    *,
    pairs: int = 100,
    seed: int = 0,
    size_px: int = 256,
    gsd_m: float = 0.5,
    geotiff: bool = False,
    crs: str = "EPSG:32632",
    overwrite: bool = False,
):
    """Draw scenes with known truth: PNG folders to train on, or one GeoTIFF pair of any size.

    Args:
        output: Folder to make; it appears whole or not at all.
        pairs: Number of pairs of PNGs.
        seed: The same seed draws the same scenes.
        size_px: Side of a scene.
        gsd_m: Ground size of a pixel in metres.
        geotiff: Draw one georeferenced pair with its true maps instead of PNGs.
        crs: Coordinate reference system of the GeoTIFF pair.
        overwrite: Replace an existing output.

    Raises:
        ArgumentError: If a size is out of range or the CRS unknown.
        OutputExistsError: If the output exists and `overwrite` is False.
    """
    if geotiff:
        write_geotiff_pair(output, seed, size_px, gsd_m=gsd_m, crs=crs, overwrite=overwrite)
    else:
        write_folders(output, pairs, seed, size_px=size_px, gsd_m=gsd_m, overwrite=overwrite)


@checks_ranges
def write_folders(
    root: str | Path,
    pairs: int,
    seed: int,
    *,
    size_px: Annotated[int, Within(most=MAX_SIZE_PX)] = 256,
    gsd_m: float = 0.5,
    overwrite: bool = False,
):
    """Write drawn pairs in the SenseEarth layout: im1/ im2/ label1/ label2/, indexed labels.

    Args:
        root: Folder to make; it appears whole or not at all.
        pairs: Number of pairs.
        seed: Pair i of seed s is `draw_pair((s, i))`; other seeds give other scenes.
        size_px: Side of the images.
        gsd_m: Ground size of a pixel in metres.
        overwrite: Replace an existing folder.

    Raises:
        ArgumentError: If a size is out of range.
        OutputExistsError: If the folder holds something and `overwrite` is False.
    """
    check_size(size_px, gsd_m)
    if pairs < 1 or seed < 0:
        raise ArgumentError(
            f"{pairs} pairs of seed {seed} were requested", fix="use 1 pair or more, seed 0 or more"
        )
    with stage_folder(root, overwrite=overwrite) as staged:
        for name in ("im1", "im2"):
            (staged / name).mkdir()
        for number in tqdm(range(pairs), desc="drawing", unit="pair", disable=None):
            scene = draw_pair((seed, number), size_px, gsd_m=gsd_m)
            file = f"{number:05d}.png"
            for name, image_CHW in (("im1", scene.before_CHW), ("im2", scene.after_CHW)):
                Image.fromarray(np.moveaxis(image_CHW, 0, -1)).save(staged / name / file)
            for name, labels_HW in zip(("label1", "label2"), scene.labels, strict=True):
                write_mask(staged / name / file, labels_HW, SENSEEARTH)


@checks_ranges
def write_geotiff_pair(
    folder: str | Path,
    seed: Annotated[int, COUNT],
    size_px: int | tuple[int, int],
    *,
    gsd_m: float = 0.5,
    crs: str = "EPSG:32632",
    origin: tuple[float, float] = (691_000.0, 5_335_000.0),
    change_rate: Annotated[float, SHARE] | None = None,
    overwrite: bool = False,
):
    """Write one drawn place of any size as `before.tif` and `after.tif`, with its true maps.

    `before_class.tif` and `after_class.tif` hold the land cover everywhere, `change.tif` is
    from * (K+1) + to, 0 = unchanged. The place is drawn cell by cell, streets along the cells'
    edges, so that memory does not grow with it.

    Args:
        folder: Folder to make; it appears whole or not at all.
        seed: The same seed draws the same bytes.
        size_px: Side, or (rows, columns).
        gsd_m: Ground size of a pixel in metres.
        crs: A projected coordinate reference system in metres.
        origin: Its coordinates of the upper left corner.
        change_rate: Probability that an object or plot changes; drawn if None.
        overwrite: Replace an existing folder.

    Raises:
        ArgumentError: If a size is out of range or the CRS unknown.
        OutputExistsError: If the folder holds something and `overwrite` is False.
    """
    height, width = (size_px, size_px) if isinstance(size_px, int) else size_px
    check_size(min(height, width), gsd_m)
    try:
        known_crs = CRS.from_user_input(crs)
    except (CRSError, ValueError) as error:
        raise ArgumentError(
            f"{crs!r} is not a coordinate reference system: {error}", fix="use one like EPSG:32632"
        ) from error
    profile = {
        "driver": "GTiff",
        "height": height,
        "width": width,
        "dtype": "uint8",
        "crs": known_crs,
        "transform": Affine(gsd_m, 0, origin[0], 0, -gsd_m, origin[1]),
        "tiled": True,
        "blockxsize": CELL_SIZE_PX,
        "blockysize": CELL_SIZE_PX,
        "compress": "deflate",
        "bigtiff": "if_safer",
    }
    scenery = Scenery((seed,), change_rate)
    cells = [
        (row, column)
        for row in range(-(-height // CELL_SIZE_PX))
        for column in range(-(-width // CELL_SIZE_PX))
    ]
    with stage_folder(folder, overwrite=overwrite) as staged, ExitStack() as exits:
        files = _open_files(staged, profile, exits)
        for row, column in tqdm(cells, desc="drawing", unit="cell", disable=None):
            place = (seed, row, column)
            scene = scenery.draw(place, (CELL_SIZE_PX, CELL_SIZE_PX), gsd_m, fenced=True)
            top, left = row * CELL_SIZE_PX, column * CELL_SIZE_PX
            window = cut_window(
                left, top, min(CELL_SIZE_PX, width - left), min(CELL_SIZE_PX, height - top)
            )
            inside = slice(0, int(window.height)), slice(0, int(window.width))
            for file, layer in zip(files, _layers(scene), strict=True):
                file.write(layer[:, *inside], window=window)


def _open_files(folder: Path, profile: dict[str, Any], exits: ExitStack) -> list[DatasetWriter]:
    """Return the two pictures and the three maps, empty; the stack closes them."""

    def create(name: str, **options: Any) -> DatasetWriter:
        return exits.enter_context(rasterio.open(folder / f"{name}.tif", "w", **options, **profile))

    pictures = [create(name, count=3, photometric="rgb") for name in ("before", "after")]
    maps = [create(name, count=1) for name in ("before_class", "after_class", "change")]
    for classes in maps[:2]:
        classes.write_colormap(1, dict(enumerate(SENSEEARTH.colours)))
    ids = range(SENSEEARTH.num_transitions)
    maps[2].write_colormap(1, {i: SENSEEARTH.colour_transition(i) for i in ids})
    return [*pictures, *maps]


def _layers(scene: ScenePair) -> list[np.ndarray]:
    """Return the two pictures and the three maps, each (C, H, W)."""
    transitions_HW = SENSEEARTH.encode_transition(*scene.labels)
    maps = (scene.before_class_HW, scene.after_class_HW, transitions_HW)
    return [scene.before_CHW, scene.after_CHW, *(map_HW[None] for map_HW in maps)]
