"""Prediction of a folder of image pairs: indexed PNGs under the inputs' names.

Legend of the array names: C bands, H rows, W columns.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
import torch
from rasterio.errors import NotGeoreferencedWarning, RasterioIOError
from torch import Tensor
from tqdm import tqdm

from terradelta.classes import ClassTable
from terradelta.data.images import read_image, write_indexed, write_mask
from terradelta.data.layouts import PairFiles
from terradelta.errors import ArgumentError, DataError
from terradelta.geo.dates import Dates, check_dates
from terradelta.geo.finding import Finding
from terradelta.geo.grid import Grid, allow_no_place, cut_window
from terradelta.geo.pair import PairWindow
from terradelta.geo.pair_options import ModelNeeds
from terradelta.geo.samples import PixelSamples
from terradelta.geo.scale import (
    SeenPixels,
    advise_scale,
    advise_unknown_scale,
    find_seen_pixels,
    measure_pixel_size,
)
from terradelta.inference.confidence import UnsureChange
from terradelta.inference.pace import Pace, describe_runs
from terradelta.inference.predictor import Predictor
from terradelta.inference.transitions import TransitionSums
from terradelta.inference.votes import ClassMaps, choose_classes
from terradelta.models.decision import DecisionRule
from terradelta.prediction.records import Summary, ViewsRecord

SAMPLED_PAIRS = 36
"""Images of a folder whose values are checked before any is mapped."""
SAMPLED_SIDE_PX = 256
FOLDER_NAMES = {
    "terradelta": ("before", "after", "change"),
    "senseearth": ("im1", "im2", None),
}


@dataclass(frozen=True)
class ImagePair:
    """A pair of pictures in memory."""

    before_CHW: np.ndarray
    """Bands of the before image."""
    after_CHW: np.ndarray
    """Bands of the after image, of the same shape."""

    @classmethod
    def load(cls, files: PairFiles, bands: tuple[str, ...]) -> ImagePair:
        """Read both pictures.

        Raises:
            DataError: If they differ in size or lack the bands that the model needs.
        """
        images = {path: read_image(path) for path in (files.before, files.after)}
        for path, image_CHW in images.items():
            if len(image_CHW) != len(bands):
                raise DataError(
                    f"{path} has {len(image_CHW)} bands and the model needs "
                    f"{len(bands)} ({', '.join(bands)})",
                    fix="use images of those bands, or a model trained on these",
                )
        before_CHW, after_CHW = (images[path] for path in (files.before, files.after))
        if before_CHW.shape != after_CHW.shape:
            raise DataError(
                f"{files.before} is {_size(before_CHW)} px and {files.after} is "
                f"{_size(after_CHW)} px",
                fix="cut both to the same pixels",
            )
        return cls(before_CHW, after_CHW)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.before_CHW.shape[1], self.before_CHW.shape[2]


def map_folder(
    predictor: Predictor,
    pairs: tuple[PairFiles, ...],
    folder: Path,
    layout: str = "terradelta",
    pace: Pace | None = None,
) -> tuple[Summary, tuple[ViewsRecord, ...]]:
    """Write class maps of every pair as indexed PNGs.

    Args:
        predictor: The models.
        pairs: The image pairs; outputs take their names.
        folder: Folder of the folders of maps.
        layout: "terradelta" writes before/, after/ and change/ (from*(K+1)+to); "senseearth"
            writes im1/ and im2/ as the contest asks.
        pace: How many test-time views each pair may have.

    Returns:
        The summary of all pairs, and the number of views of each.

    Raises:
        DataError: If a picture cannot be read or does not fit its partner or the model.
        ArgumentError: If the layout is unknown.
    """
    if layout not in FOLDER_NAMES:
        raise ArgumentError(
            f"output layout {layout!r} is not known", fix=f"use one of {', '.join(FOLDER_NAMES)}"
        )
    before_name, after_name, change_name = FOLDER_NAMES[layout]
    classes = predictor.classes
    predictor.start(count_pixels_per_size(pairs))
    sums, unsure = TransitionSums(classes, has_area=False), UnsureChange(has_area=False)
    pace = pace or Pace(predictor.num_views)
    views: list[int] = []
    for number, files in enumerate(tqdm(pairs, desc="predicting", unit="pair", disable=None)):
        started = time.monotonic()
        # The sizes of the next pictures are unknown, so each counts the same.
        views.append(pace.choose(len(pairs) - number))
        pair = ImagePair.load(files, predictor.bands)
        before_HW, after_HW, confidence_HW, _ = _map_images(predictor, pair, views[-1])
        change_HW = classes.encode_transition(before_HW.astype(np.uint16), after_HW)
        sums.add(change_HW, np.ones(change_HW.shape, dtype=bool), None)
        unsure.add(change_HW != 0, confidence_HW, None)
        write_mask(folder / before_name / f"{files.name}.png", before_HW, classes)
        write_mask(folder / after_name / f"{files.name}.png", after_HW, classes)
        if change_name is not None:
            _write_change(folder / change_name / f"{files.name}.png", change_HW, classes)
        pace.learn(1, views[-1], time.monotonic() - started)
    sums.write_csv(folder / "transitions.csv")
    return replace(sums.summarize(unsure), pairs=len(pairs)), describe_runs(views)


def examine_folders(
    pairs: Sequence[PairFiles], needs: ModelNeeds, dates: Dates
) -> Iterator[Finding]:
    """Check the dates and the pixel size in the metadata of two folders of images.

    Args:
        pairs: The image pairs, of which only the first is checked.
        needs: The inputs that the models need.
        dates: Dates of the images.
    """
    yield from check_dates(*dates)
    if needs.resolution_m is None or not pairs:
        return
    try:
        with allow_no_place(), rasterio.open(pairs[0].before) as dataset:
            grid = Grid.of(dataset)
            advice = advise_scale(grid, needs.resolution_m)
            if find_seen_pixels(grid, needs.resolution_m) != SeenPixels():
                advice = (
                    f"pixels of {measure_pixel_size(grid):.3g} m, and the model learned from "
                    "{:g} to {:g} m".format(*needs.resolution_m),
                    "predict two rasters, which are resampled for it, or resample the images",
                )
    except RasterioIOError:
        # Formats that only Pillow reads have no pixel size.
        advice = advise_unknown_scale(needs.resolution_m)
    if advice is not None:
        yield Finding("scale", "WARN", *advice, {"resolution_m": list(needs.resolution_m)})


def require_values(predictor: Predictor, pairs: Sequence[PairFiles]):
    """Compare the values of some pictures with the range of the models.

    Raises:
        DataError: If a picture cannot be read or does not fit its partner or the model.
        RasterError: If the values are of another depth, or none lies in the given range.
    """
    count = min(len(pairs), SAMPLED_PAIRS)
    chosen = [pairs[number * len(pairs) // count] for number in range(count)]
    samples = []
    for files in chosen:
        pair = ImagePair.load(files, predictor.bands)
        step = -(-max(pair.shape) // SAMPLED_SIDE_PX)
        samples.append(
            [
                image_CHW[:, ::step, ::step].reshape(len(image_CHW), -1)
                for image_CHW in (pair.before_CHW, pair.after_CHW)
            ]
        )
    before_CN, after_CN = (np.concatenate(date, axis=1) for date in zip(*samples, strict=True))
    names = str(chosen[0].before.parent), str(chosen[0].after.parent)
    PixelSamples(before_CN, after_CN, 1.0, names, predictor.bands).require_values(
        predictor.value_ranges, (0.0, predictor.largest_value)
    )


def count_pixels_per_size(pairs: Sequence[PairFiles]) -> int:
    """Return the mean number of pixels per image size; a network is compiled for each size.

    Raises:
        DataError: If an image cannot be read.
    """
    sizes = [_measure_size(files.before) for files in pairs]
    return sum(height * width for height, width in sizes) // max(1, len(set(sizes)))


def predict_images(
    predictor: Predictor, pair: ImagePair, num_views: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return class ids before and after of one picture pair, (H, W) uint8, 0 = unchanged."""
    maps = _map_images(predictor, pair, num_views)
    return maps.before_HW, maps.after_HW


def _map_images(predictor: Predictor, pair: ImagePair, num_views: int | None = None) -> ClassMaps:
    height, width = pair.shape
    whole = cut_window(0, 0, width, height)
    everywhere_HW = np.ones(pair.shape, dtype=bool)
    images = PairWindow(pair.before_CHW, pair.after_CHW, everywhere_HW, everywhere_HW)
    tiles = list(predictor.tiling.cut(height, width))
    return predictor.map_window(images, whole, tiles, whole, num_views)


class ImageProbabilities(NamedTuple):
    """Probabilities of one picture pair, float32."""

    before_KHW: np.ndarray
    """Probability of each class at the before date."""
    after_KHW: np.ndarray
    change_HW: np.ndarray

    def decide(self, rule: DecisionRule) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return class ids before and after, and the confidence, (H, W) each, as a map has them.

        See `terradelta.inference.votes.decide`.
        """
        change_N, before_NK, after_NK = (
            torch.from_numpy(part.reshape(-1, self.change_HW.size)).T
            for part in (self.change_HW, self.before_KHW, self.after_KHW)
        )
        change_N = change_N[:, 0]
        before_N, after_N, sure_N, _ = choose_classes(change_N, before_NK, after_NK, rule)
        flagged_N = change_N >= rule.threshold
        before_HW, after_HW, sure_HW = (
            part_N.numpy().reshape(self.change_HW.shape)
            for part_N in (
                before_N * flagged_N,
                after_N * flagged_N,
                sure_N.where(flagged_N, 1 - change_N),
            )
        )
        return before_HW, after_HW, sure_HW


def find_probabilities(
    predictor: Predictor, before_CHW: Tensor, after_CHW: Tensor
) -> ImageProbabilities:
    """Return the probabilities of one picture pair, tile by tile like `predict_images`.

    All stay in memory: 4 * (2 * K + 1) bytes a pixel.

    Args:
        predictor: The models.
        before_CHW: Bands of the before image, in the models' scale.
        after_CHW: Bands of the after image, of the same shape.
    """
    height, width = before_CHW.shape[1:]
    num_classes = predictor.classes.num_classes
    whole = ImageProbabilities(
        np.empty((num_classes, height, width), np.float32),
        np.empty((num_classes, height, width), np.float32),
        np.empty((height, width), np.float32),
    )
    for tile in predictor.tiling.cut(height, width):
        top, left = int(tile.read.row_off), int(tile.read.col_off)
        read = slice(top, top + int(tile.read.height)), slice(left, left + int(tile.read.width))
        answer = predictor(before_CHW[None, :, *read], after_CHW[None, :, *read])
        rows, columns = tile.kept
        written = (
            slice(top + rows.start, top + rows.stop),
            slice(left + columns.start, left + columns.stop),
        )
        for part, answer_B in zip(whole, answer, strict=True):
            part[..., *written] = answer_B[0][..., rows, columns].float().cpu().numpy()
    return whole


def _write_change(path: Path, change_HW: np.ndarray, classes: ClassTable):
    if classes.num_transitions > 256:
        raise DataError(
            f"{classes.num_transitions} transitions do not fit the 256 values of {path}",
            fix="predict with --layout senseearth, which writes the two dates only",
        )
    colours = [classes.colour_transition(i) for i in range(classes.num_transitions)]
    write_indexed(path, change_HW.astype(np.uint8), colours)


def _measure_size(path: Path) -> tuple[int, int]:
    """Return rows and columns of an image from its header."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            with rasterio.open(path) as dataset:
                return dataset.shape
        except RasterioIOError:
            # Pillow knows other formats, and its errors are clearer.
            height, width = read_image(path).shape[1:]
            return height, width


def _size(image_CHW: np.ndarray) -> str:
    return f"{image_CHW.shape[2]} x {image_CHW.shape[1]}"
