"""OpenVINO, on a CPU.

Legend of the tensor names: B batch, C bands, H rows, W columns.
"""

from __future__ import annotations

import warnings
from functools import cache

import numpy as np
import openvino
import torch
from openvino.frontend import FrontEndManager
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
from openvino.preprocess import PrePostProcessor

from terradelta.errors import ModelError
from terradelta.inference.backends.interface import Request
from terradelta.models.bundle import Model, hash_model
from terradelta.models.change_network import ChangeOutput
from terradelta.models.crop import Crop
from terradelta.models.deployment import Deployment

PRECISION_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "bf16"}
"""int8 applies to the convolutions, this to all other operations."""
WEIGHTS_KEY = "weights_sha256"
"""Under "terradelta" in an int8 graph: which weights it was made from."""
ELEMENT_TYPES = {
    torch.uint8: openvino.Type.u8,
    torch.float32: openvino.Type.f32,
    torch.bool: openvino.Type.boolean,
}
NUM_INPUTS = 4
"""Both images, the mask, and the part to answer for."""

Shape = tuple[int, int, int, int]
"""Batch, bands, height and width of images; -1 is any."""


@cache
def load_core() -> openvino.Core:
    """Return OpenVINO's core, one for the process.

    It takes over the thread's signal stack and frees it with the last core. If that
    happens in another thread, the next signal, such as Ctrl-C, ends the process.
    """
    return openvino.Core()


class OpenVINOBackend:
    """A graph that takes images of any size, and answers for any part of them.

    Networks with global pooling have another graph for each size that is smaller than their window.

    Args:
        model: The model.
        precision: "fp32", "bf16" or "int8".
        pool_window_px: See `Deployment`.

    Raises:
        ModelError: If int8 is requested and the model has no int8 graph, or one made from other
            weights.
    """

    def __init__(self, model: Model, precision: str, pool_window_px: int | None):
        self._deployment = Deployment(model, pool_window_px)
        self._precision = precision
        self._least_px = pool_window_px or 0
        self._core = load_core()
        self._int8 = self._read_int8(model) if precision == "int8" else None
        self._compiled: dict[tuple[Shape, torch.dtype], openvino.CompiledModel] = {}

    def __call__(self, request: Request, crop: Crop | None = None) -> ChangeOutput:
        """Return float32 logits of a part at the heads' own resolutions."""
        key = find_shape(self._deployment, request), request.before_BCHW.dtype
        if key not in self._compiled:
            self._compiled[key] = self._compile(request)
        height, width = request.valid_BHW.shape[-2:]
        arrays = list_arrays(request, crop or Crop(0, height, 0, width))
        # Copied: the next call overwrites them.
        answers = self._compiled[key](arrays, share_inputs=True, share_outputs=True).to_tuple()
        return ChangeOutput(*(torch.from_numpy(answer.copy()) for answer in answers))

    def _compile(self, request: Request) -> openvino.CompiledModel:
        if self._int8 is None:
            graph = convert(self._deployment, request)
        else:
            graph = self._shape_int8(self._int8, request)
        graph = take_stored(graph, request)
        return self._core.compile_model(
            graph,
            "CPU",
            {
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": PRECISION_HINTS[self._precision],
                # OMP_NUM_THREADS sets the threads of all runtimes.
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            },
        )

    def _read_int8(self, model: Model) -> openvino.Model:
        if model.int8_graph is None:
            raise ModelError(
                "int8 was requested and the model has no int8 graph",
                fix="make it with `terradelta quantize MODEL IMAGES`, or use --precision bf16",
            )
        try:
            graph = self._core.read_model(model.int8_graph)
            made_from = graph.get_rt_info(["terradelta", WEIGHTS_KEY]).astype(str)
        except RuntimeError as error:
            raise ModelError(
                f"{model.int8_graph} is damaged, or not made by terradelta: {error}",
                fix="make it again: `terradelta quantize MODEL IMAGES --overwrite`",
            ) from error
        if len(graph.inputs) != NUM_INPUTS:
            raise ModelError(
                f"{model.int8_graph} has {len(graph.inputs)} inputs and this version of terradelta "
                f"needs {NUM_INPUTS}",
                fix="make it again: `terradelta quantize MODEL IMAGES --overwrite`",
            )
        weights = hash_model(model.int8_graph.parent)
        if made_from != weights:
            raise ModelError(
                f"{model.int8_graph} was made from weights {made_from[:12]} and the model's are "
                f"{weights[:12]}",
                fix="make it again: `terradelta quantize MODEL IMAGES --overwrite`",
            )
        return graph

    def _shape_int8(self, graph: openvino.Model, request: Request) -> openvino.Model:
        height, width = request.valid_BHW.shape[-2:]
        if min(height, width) < self._least_px:
            raise ModelError(
                f"the int8 graph of this model needs images of {self._least_px} px or more, and "
                f"this one is {width} x {height} px",
                fix="use --precision bf16",
            )
        shaped = graph.clone()
        batch, bands = request.before_BCHW.shape[:2]
        set_shapes(shaped, (batch, bands, -1, -1))
        return shaped


def convert(deployment: Deployment, request: Request) -> openvino.Model:
    """Return the graph of a deployed network for images like those of a request, in float32.

    Its inputs are those of `list_arrays`, of the shape that `find_shape` returns. Uses the front
    end itself: `openvino.convert_model` sends telemetry.
    """
    shape = find_shape(deployment, request)
    batch, bands, height, width = shape
    if height == -1:
        height = width = _find_least_side(deployment)
    image_BCHW = torch.zeros((batch, bands, height, width))
    example = (
        image_BCHW,
        image_BCHW,
        torch.zeros((batch, height, width)),
        torch.tensor([0, height, 0, width]),
    )
    with warnings.catch_warnings(), torch.inference_mode():
        # Decisions by shape become constants on purpose: see `find_shape`.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # pyright: ignore[reportPrivateImportUsage]
        warnings.simplefilter("ignore", DeprecationWarning)
        decoder = TorchScriptPythonDecoder(
            deployment, example_input=example, trace_kwargs={"check_trace": False}
        )
    front_end = FrontEndManager().load_by_framework("pytorch")
    graph = front_end.convert(front_end.load(decoder))
    set_shapes(graph, shape)
    return graph


def find_shape(deployment: Deployment, request: Request) -> Shape:
    """Return the shape of the images that one graph answers for.

    A graph fits all sizes for which heads with global pooling take the same decision: to pool over
    windows, or over the whole image. So it has the size of an image in which their window does not
    fit.
    """
    batch, bands, height, width = request.before_BCHW.shape
    is_pooled = deployment.network.pool_window_px is not None
    if is_pooled and min(height, width) < _find_least_side(deployment):
        return batch, bands, height, width
    return batch, bands, -1, -1


def _find_least_side(deployment: Deployment) -> int:
    """Return the side of an image that the trace of a network needs to fit all larger ones."""
    network = deployment.network
    stride_px = network.output_stride
    if network.pool_window_px is None:
        return 2 * stride_px
    return (-(-network.pool_window_px // stride_px) + 1) * stride_px


def list_arrays(request: Request, crop: Crop) -> list[np.ndarray]:
    """Return the inputs of a graph."""
    arrays = [np.ascontiguousarray(part.numpy()) for part in request]
    return [*arrays, np.array(crop, np.int64)]


def set_shapes(graph: openvino.Model, shape: Shape):
    """Give a graph's inputs the shapes that belong to images of a shape."""
    batch, _, height, width = shape
    shapes = shape, shape, (batch, height, width), (4,)
    for port, wanted in zip(graph.inputs, shapes, strict=True):
        port.get_node().set_partial_shape(openvino.PartialShape(list(wanted)))
    graph.validate_nodes_and_infer_types()


def take_stored(graph: openvino.Model, request: Request) -> openvino.Model:
    """Return the graph for images and masks of the dtypes of a request, converted inside it."""
    processor = PrePostProcessor(graph)
    for number, part in enumerate(request):
        processor.input(number).tensor().set_element_type(ELEMENT_TYPES[part.dtype])
    return processor.build()


def multiplies_bfloat16() -> bool:
    """Return whether OpenVINO computes in bfloat16 on this processor."""
    return "BF16" in load_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
