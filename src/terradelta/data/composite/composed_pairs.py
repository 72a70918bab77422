"""Composed pairs on disk, from a folder of images and one of land-cover masks."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from terradelta.classes import SENSEEARTH, ClassTable
from terradelta.data.class_file import write_classes
from terradelta.data.composite.composition import LabelledScene, check_scene, compose_pair
from terradelta.data.composite.options import Composition
from terradelta.data.images import read_image, read_mask, write_mask
from terradelta.data.layouts import PairFiles, match_folders
from terradelta.destination import claim_folder
from terradelta.errors import ArgumentError, DataError
from terradelta.outputs import stage_folder

_SCENES_HELD = 16
_SMALLEST_PX = 32


def compose(
    images: str | Path,
    masks: str | Path,
    output: str | Path,
    *,
    pairs: int,
    seed: int,
    size_px: int = 256,
    classes: ClassTable = SENSEEARTH,
    options: Composition | None = None,
    overwrite: bool = False,
):
    """Compose a data set of pairs from labelled images of one date.

    The folder has the SenseEarth layout, im1/ im2/ label1/ label2/, the labels 0 where nothing
    changed; full1/ and full2/ hold the land cover of both dates everywhere, for analysis, and
    classes.json the class table. A split by place needs a call for each split with its own images.

    Args:
        images: Folder of RGB images of uint8.
        masks: Folder of land-cover masks with the images' names (endings may differ): class ids,
            or the class table's colours; id 0 or its colour means not labelled.
        output: Folder to make; it appears whole or not at all.
        pairs: Number of pairs.
        seed: Pair i of seed s is drawn from (s, i); the same seed writes the same bytes.
        size_px: Side of the pairs, 32 or more.
        classes: Classes of the ids and colours of the masks.
        options: Options of pastes and of the differences between dates; None for the defaults.
        overwrite: Replace an existing folder.

    Raises:
        ArgumentError: If a number is out of range.
        DataError: If a mask is missing or does not fit its image, or an image is too small.
        OutputExistsError: If the folder holds something and `overwrite` is False.
    """
    options = options or Composition()
    if pairs < 1 or seed < 0:
        raise ArgumentError(
            f"{pairs} pairs of seed {seed} were requested", fix="use 1 pair or more, seed 0 or more"
        )
    if size_px < _SMALLEST_PX:
        raise ArgumentError(
            f"pairs of {size_px} px are smaller than a house", fix=f"use {_SMALLEST_PX} or more"
        )
    output = claim_folder(output, [images, masks], overwrite=overwrite)
    sources = match_folders(Path(images), Path(masks))
    least_px = size_px + 2 * math.ceil(options.largest_shift_px / 2)
    read = lru_cache(_SCENES_HELD)(lambda number: _read_scene(sources[number], classes, least_px))
    with stage_folder(output, overwrite=overwrite) as staged:
        for name in ("im1", "im2"):
            (staged / name).mkdir()
        write_classes(staged, classes)
        for number in tqdm(range(pairs), desc="composing", unit="pair", disable=None):
            rng = np.random.default_rng(np.random.SeedSequence((seed, number)))
            scene, other = (read(int(source)) for source in rng.integers(len(sources), size=2))
            pair = compose_pair(rng, scene, other, size_px, options)
            file = f"{number:05d}.png"
            for name, image_CHW in (("im1", pair.before_CHW), ("im2", pair.after_CHW)):
                Image.fromarray(np.moveaxis(image_CHW, 0, -1)).save(staged / name / file)
            maps = (*pair.labels, pair.before_class_HW, pair.after_class_HW)
            for name, map_HW in zip(("label1", "label2", "full1", "full2"), maps, strict=True):
                write_mask(staged / name / file, map_HW, classes)


def _read_scene(source: PairFiles, classes: ClassTable, least_px: int) -> LabelledScene:
    scene = LabelledScene(read_image(source.before), read_mask(source.after, classes))
    check_scene(scene, least_px, str(source.before))
    if not scene.classes_HW.any():
        raise DataError(
            f"{source.after} labels no pixel of {source.before}",
            fix="leave both files out, or check the class table's colours",
        )
    return scene
