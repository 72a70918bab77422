"""Maps without folders: from arrays in memory, and from raster pairs block by block into a sink.

Legend of the array names: C bands, H rows, W columns.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from affine import Affine
from rasterio.windows import Window

from terradelta.errors import ArgumentError
from terradelta.geo.grid import Grid, cut_window
from terradelta.geo.pair import PairWindow, RasterPair
from terradelta.geo.ranges import Range
from terradelta.inference.predictor import Predictor
from terradelta.inference.rasters import has_other_scale, plan_blocks, prepare_reading
from terradelta.inference.store import FinishedBlock
from terradelta.inference.stream import answer_blocks
from terradelta.inference.tiling import offset_slices
from terradelta.models.bundle import load_model
from terradelta.models.embedded import find_model_folders
from terradelta.protocols import Sink

Array = TypeVar("Array")


@dataclass(frozen=True)
class ArrayPrediction(Generic[Array]):
    """What changed between two arrays: numpy arrays, or DataArrays if the inputs were such."""

    change: Array
    """(H, W) uint8: 1 where changed, 0 elsewhere."""
    before_class: Array
    """(H, W) uint8: class id before where changed, 0 elsewhere; ids are those of the model card."""
    after_class: Array
    """(H, W) uint8: class id after where changed, 0 elsewhere."""
    confidence: Array
    """(H, W) float32 in 0 to 1, in steps of 0.01: the probability that the answer is right; NaN
    where a date has no data."""
    valid: Array
    """(H, W) bool: where both dates hold data."""


def predict_arrays(
    before: Any,
    after: Any,
    valid: Any = None,
    *,
    model: str | Path | Sequence[str | Path] | None = None,
    value_range: Range | None = None,
    predictor: Predictor | None = None,
) -> ArrayPrediction[Any]:
    """Map the changes between two images in memory, with the labels that `predict` gives rasters.

    Args:
        before: The first date, (C, H, W) of any size: a numpy array, a torch tensor or an
            xarray.DataArray; uint8, or other numbers in the model's own scale or with a
            `value_range`. Bands are the model's, in its order. NaN means no data.
        after: The second date, of the same shape, on the same pixels.
        valid: Where both dates hold data, (H, W) bool; by default everywhere.
        model: Model folder, or several that vote; the embedded model by default.
        value_range: Values that become the darkest and brightest of the model.
        predictor: A `Predictor` with further options, in place of `model` and `value_range`; with
            it, the model is loaded once for many calls. It is not thread-safe.

    Returns:
        Numpy arrays; of DataArrays, DataArrays with the coordinates of `before`.

    Raises:
        ArgumentError: If shapes, data types, bands or coordinates do not fit, or values lie far
            outside of what the model was trained on.
        ModelError: If a model cannot be used.
    """
    if predictor is None:
        models = [load_model(folder) for folder in find_model_folders(model)]
        predictor = Predictor(models, value_ranges=(value_range, value_range))
    elif model is not None or value_range is not None:
        raise ArgumentError(
            "a predictor was given, and a model or a value_range besides",
            fix="give these to the Predictor",
        )
    _require_same_coordinates(before, after, valid)
    pair = _take_pair(before, after, valid, predictor)
    height, width = pair.data_HW.shape
    grid = Grid(None, Affine.identity(), width, height)
    pixel_bytes = sum(image.itemsize * len(image) for image in (pair.before_CHW, pair.after_CHW))
    collected = _Collected.empty(pair.valid_HW)
    area = cut_window(0, 0, width, height)
    _answer(predictor, _cut_from(pair), grid, area, pixel_bytes, collected)
    return _label_like(before, collected.finish())


def predict_blocks(pair: RasterPair, sink: Sink, predictor: Predictor):
    """Map a raster pair block by block into a sink: your own database, array store or service.

    Nothing is written to disk and nothing is resumed: a run that fails starts again. Each block of
    the pair's area comes once, including blocks without data.

    Args:
        pair: The rasters, open with the predictor's bands: `RasterPair(..., predictor.bands)`.
        sink: Receives the blocks; see `terradelta.protocols.Sink`.
        predictor: The models.

    Raises:
        RasterError: If pixels cannot be read, or lie far outside of what the models know.
        ModelError: If a model answers NaN or infinity.
    """
    if pair.band_names != tuple(predictor.bands):
        raise ArgumentError(
            f"the pair was opened with the bands {', '.join(pair.band_names)} and the model reads "
            f"{', '.join(predictor.bands)}",
            fix="open it with RasterPair(before, after, predictor.bands)",
        )
    if not callable(getattr(sink, "put", None)):
        raise ArgumentError(
            f"the sink is a {type(sink).__name__}, which has no method put",
            fix="give it `put(block)`; see terradelta.protocols.Sink",
        )
    read = prepare_reading(pair, predictor, None)
    _answer(predictor, read, pair.grid, pair.area, pair.bytes_per_pixel, sink)


def _answer(
    predictor: Predictor,
    read: Callable[[Window], PairWindow],
    grid: Grid,
    area: Window,
    bytes_per_pixel: int,
    sink: Sink,
):
    predictor.see_grid(grid)
    predictor.start(grid.width * grid.height)
    plan = plan_blocks(predictor.tiling, grid, area, bytes_per_pixel)
    answer_blocks(predictor, read, plan, range(len(plan)), sink)


@dataclass(frozen=True)
class _Collected:
    """A sink that keeps the whole map."""

    maps: ArrayPrediction[np.ndarray]

    @classmethod
    def empty(cls, valid_HW: np.ndarray) -> _Collected:
        change_HW, before_HW, after_HW = (np.zeros(valid_HW.shape, np.uint8) for _ in range(3))
        confidence_HW = np.full(valid_HW.shape, np.nan, np.float32)
        maps: ArrayPrediction[np.ndarray] = ArrayPrediction(
            change_HW, before_HW, after_HW, confidence_HW, valid_HW
        )
        return cls(maps)

    def put(self, block: FinishedBlock):
        whole = cut_window(0, 0, *self.maps.valid.shape[::-1])
        part = offset_slices(block.window, whole)
        valid_HW, maps = block.valid_HW, block.maps
        self.maps.before_class[part] = np.where(valid_HW, maps.before_HW, 0)
        self.maps.after_class[part] = np.where(valid_HW, maps.after_HW, 0)
        confidence_HW = maps.confidence_HW.astype(np.float32) / 100
        self.maps.confidence[part] = np.where(valid_HW, confidence_HW, np.nan)

    def finish(self) -> ArrayPrediction[np.ndarray]:
        self.maps.change[:] = self.maps.before_class > 0
        return self.maps


def _take_pair(before: Any, after: Any, valid: Any, predictor: Predictor) -> PairWindow:
    images = [_take_array(image, name) for image, name in ((before, "before"), (after, "after"))]
    before_CHW, after_CHW = images
    if before_CHW.ndim != 3 or before_CHW.shape != after_CHW.shape or not before_CHW.size:
        raise ArgumentError(
            f"before has the shape {before_CHW.shape} and after {after_CHW.shape}",
            fix="give two arrays of one shape: bands, rows, columns",
        )
    if len(before_CHW) != len(predictor.bands):
        raise ArgumentError(
            f"the arrays have {len(before_CHW)} bands and the model reads "
            f"{', '.join(predictor.bands)}",
            fix="give these bands in this order",
        )
    valid_HW = np.ones(before_CHW.shape[1:], bool)
    if valid is not None:
        valid_HW = _take_array(valid, "valid").copy()
    if valid_HW.shape != before_CHW.shape[1:] or valid_HW.dtype != bool:
        raise ArgumentError(
            f"valid is {valid_HW.dtype} of the shape {valid_HW.shape}, and the images have "
            f"{before_CHW.shape[1:]} pixels",
            fix="give a bool for each pixel",
        )
    for image_CHW in images:
        if image_CHW.dtype.kind == "f":
            valid_HW &= np.isfinite(image_CHW).all(axis=0)
    for name, image_CHW, value_range in zip(
        ("before", "after"), images, predictor.value_ranges, strict=True
    ):
        if value_range is None and image_CHW.dtype != np.uint8 and valid_HW.any():
            values = image_CHW[:, valid_HW]
            if has_other_scale(values, predictor.largest_value):
                raise ArgumentError(
                    f"{name} holds {values.dtype} values up to {values.max():g}, and the model was "
                    f"trained on values up to {predictor.largest_value:g}",
                    fix="say which values are dark and bright: value_range=(0, 3000)",
                )
    before_CHW, after_CHW = (
        np.where(valid_HW, image, 0) if image.dtype.kind == "f" else image for image in images
    )
    return PairWindow(before_CHW, after_CHW, valid_HW, valid_HW)


def _take_array(image: Any, name: str) -> np.ndarray:
    if isinstance(image, torch.Tensor):
        image = image.detach().cpu()
        image = (image.float() if image.dtype is torch.bfloat16 else image).numpy()
    elif _is_labelled(image):
        image = image.values
    if not isinstance(image, np.ndarray) or image.dtype.kind not in "uifb":
        kind = getattr(image, "dtype", type(image).__name__)
        raise ArgumentError(
            f"{name} is {kind}; it must be an array of real numbers",
            fix="give a numpy array, a torch tensor or an xarray.DataArray; paths go to td.predict",
        )
    return image


def _cut_from(pair: PairWindow) -> Callable[[Window], PairWindow]:
    whole = cut_window(0, 0, *pair.data_HW.shape[::-1])

    def read(window: Window) -> PairWindow:
        rows, columns = offset_slices(window, whole)
        return PairWindow(*(part[..., rows, columns] for part in pair))

    return read


def _is_labelled(image: Any) -> bool:
    """Return whether an array is a DataArray, without importing xarray."""
    xarray = sys.modules.get("xarray")
    return xarray is not None and isinstance(image, xarray.DataArray)


def _find_coordinates(image: Any) -> Mapping[Any, Any]:
    """Return the coordinates of rows and columns."""
    plane = set(image.dims[-2:])
    return {name: one for name, one in image.coords.items() if set(one.dims) <= plane}


def _require_same_coordinates(before: Any, *others: Any):
    for other in others:
        if not (_is_labelled(before) and _is_labelled(other)):
            continue
        mine, theirs = _find_coordinates(before), _find_coordinates(other)
        for name in before.dims[-2:]:
            if name in mine and name in theirs and not mine[name].equals(theirs[name]):
                raise ArgumentError(
                    f"the arrays differ in their coordinate {name!r}",
                    fix="lay them on one grid, for example with after.interp_like(before)",
                )


def _label_like(before: Any, maps: ArrayPrediction[np.ndarray]) -> ArrayPrediction[Any]:
    if not _is_labelled(before):
        return maps
    coordinates, dimensions = _find_coordinates(before), before.dims[-2:]
    return ArrayPrediction(
        *(
            type(before)(getattr(maps, field.name), coordinates, dimensions, name=field.name)
            for field in fields(maps)
        )
    )
