"""The int8 graph of a model, made with NNCF from images like those to predict.

Legend of the tensor names: B batch, C bands, H rows, W columns.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm import tqdm

from terradelta.data.images import read_image
from terradelta.data.layouts import PairFolder, Split, find_pairs, list_inputs
from terradelta.destination import claim_file
from terradelta.errors import ArgumentError, DataError
from terradelta.inference.backends.interface import Request
from terradelta.inference.prediction_options import Runtime
from terradelta.inference.predictor import Predictor, choose_pool_window
from terradelta.models.bundle import INT8_FILE, hash_model, load_model
from terradelta.models.crop import Crop
from terradelta.models.deployment import Deployment

if TYPE_CHECKING:
    import openvino

MAX_SIDE_PX = 512


@dataclass(frozen=True)
class Quantization:
    """An int8 graph and how well it agrees with the model it was made from."""

    path: Path
    """The graph, in the folder of the model."""
    calibration_pairs: int
    """Number of pairs that gave the ranges of the activations."""
    checked_pairs: int
    """Number of other pairs on which labels were compared."""
    agreement: float | None
    """Share of their pixels that have the labels of fp32 at both dates; None without any."""


def quantize(
    model: str | Path,
    data: str | Path,
    *,
    split: Split = "all",
    pairs: int = 24,
    overwrite: bool = False,
) -> Quantization:
    """Make the int8 graph of a model and store it in its folder, for `--precision int8`.

    Weights and activations of convolutions become 8-bit integers (post-training quantization with
    asymmetric activations, NNCF); the classifiers stay unchanged.

    Args:
        model: The model's folder.
        data: A data set like the images to come; labels are not needed. Half as many pairs again,
            if available, measure how far the labels agree with those of fp32.
        split: Split of the data set.
        pairs: Number of pairs that give the ranges of the activations, spread over the data set.
        overwrite: Replace a graph that exists.

    Raises:
        ArgumentError: If NNCF or OpenVINO is not installed, or `pairs` is less than 1.
        DataError: If the images do not fit the model.
        OutputExistsError: If a graph exists and `overwrite` is False.
    """
    if pairs < 1:
        raise ArgumentError(
            f"{pairs} pairs were requested", fix="calibrate on 1 or more, such as 24"
        )
    _require_packages()
    from terradelta.inference.backends.openvino_backend import WEIGHTS_KEY, convert, set_shapes

    path = Path(model) / INT8_FILE
    for file in (path, path.with_suffix(".bin")):
        claim_file(file, list_inputs(data), overwrite=overwrite)
    found = load_model(model)
    window_px = choose_pool_window(found)
    deployment = Deployment(found, window_px)
    stride_px = found.network.output_stride
    chosen = _spread(find_pairs(data, split=split), pairs + pairs // 2)
    requests = list(_read_requests(chosen, found.card.bands, stride_px, window_px))
    # Every third pair is kept for the comparison.
    checked = requests[2::3]
    calibration = [request for number, request in enumerate(requests) if number % 3 != 2]
    graph = convert(deployment, calibration[0])
    bands = len(found.card.bands)
    set_shapes(graph, (1, bands, -1, -1))
    quantized = _quantize_graph(graph, calibration)
    quantized.set_rt_info(hash_model(model), ["terradelta", WEIGHTS_KEY])
    _save(quantized, path)
    return Quantization(path, len(calibration), len(checked), _compare(model, checked))


def _require_packages():
    for package in ("nncf", "openvino"):
        if find_spec(package) is None:
            raise ArgumentError(
                f"quantizing networks needs {package}, which is not installed",
                fix='pip install "terradelta[int8]"',
            )


def _spread(pairs: PairFolder, count: int) -> PairFolder:
    """Return `count` pairs at even distances."""
    step = max(1.0, len(pairs.pairs) / count)
    indices = sorted({int(number * step) for number in range(min(count, len(pairs.pairs)))})
    chosen = tuple(pairs.pairs[index] for index in indices)
    return PairFolder(pairs.root, pairs.layout, chosen, pairs.classes)


def _read_requests(
    pairs: PairFolder, bands: Sequence[str], stride_px: int, window_px: int | None
) -> Iterator[Request]:
    """Yield the middle of each pair, of a size that fits the graph."""
    for pair in tqdm(pairs.pairs, "reading", unit="pair", disable=None, leave=False):
        before_CHW, after_CHW = read_image(pair.before), read_image(pair.after)
        if before_CHW.shape != after_CHW.shape:
            raise DataError(
                f"{pair.before} is {before_CHW.shape} and {pair.after} is {after_CHW.shape}",
                fix="the dates of a pair need one size and number of bands",
            )
        if len(before_CHW) != len(bands):
            raise DataError(
                f"{pair.before} has {len(before_CHW)} bands and the model "
                f"reads {len(bands)} ({', '.join(bands)})",
                fix="quantize with images of those bands",
            )
        height, width = before_CHW.shape[-2:]
        least_px = max(stride_px, window_px or 0)
        if min(height, width) < least_px:
            raise DataError(
                f"{pair.before} is {width} x {height} px and the model needs "
                f"{least_px} px to be quantized",
                fix="quantize with larger images",
            )
        side_px = max(MAX_SIDE_PX, least_px)
        rows, columns = (
            _cut_middle(length, min(length, side_px) // stride_px * stride_px)
            for length in (height, width)
        )
        before, after = (
            torch.from_numpy(image_CHW[None, :, rows, columns].astype(np.float32))
            for image_CHW in (before_CHW, after_CHW)
        )
        yield Request(before, after, torch.ones((1, *before.shape[-2:])))


def _cut_middle(length: int, size: int) -> slice:
    start = (length - size) // 2
    return slice(start, start + size)


def _quantize_graph(graph: openvino.Model, requests: Sequence[Request]) -> openvino.Model:
    # NNCF sends telemetry unless it believes that this is a test run.
    os.environ.setdefault("NNCF_CI", "1")
    import nncf

    from terradelta.inference.backends.openvino_backend import list_arrays

    logging.getLogger("nncf").setLevel(logging.WARNING)

    def to_arrays(request: Request) -> list[np.ndarray]:
        height, width = request.valid_BHW.shape[-2:]
        return list_arrays(request, Crop(0, height, 0, width))

    return nncf.quantize(
        graph,
        nncf.Dataset(requests, to_arrays),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(requests),
    )


def _save(graph: openvino.Model, path: Path):
    """Write the graph beside its place first; the .xml comes last and makes it complete."""
    import openvino

    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".terradelta-") as folder:
        written = Path(folder) / path.name
        openvino.save_model(graph, written, compress_to_fp16=False)
        path.unlink(missing_ok=True)
        for suffix in (".bin", ".xml"):
            shutil.move(written.with_suffix(suffix), path.with_suffix(suffix))


def _compare(model: str | Path, requests: Sequence[Request]) -> float | None:
    """Return the share of pixels whose labels at both dates are those of fp32."""
    found = load_model(model)
    exact, rounded = (
        Predictor([found], Runtime(backend="openvino", precision=precision))
        for precision in ("fp32", "int8")
    )
    alike = total = 0
    for request in tqdm(requests, "comparing", unit="pair", disable=None, leave=False):
        mine, theirs = (predictor.classify(*request[:2])[0] for predictor in (rounded, exact))
        same_HW = (mine.before_HW == theirs.before_HW) & (mine.after_HW == theirs.after_HW)
        alike += int(same_HW.sum())
        total += same_HW.size
    return alike / total if total else None
