"""OpenVINO, on a CPU.

Legend of the tensor names: B batch, C bands, H rows, W columns.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import openvino
import torch
from openvino.frontend import FrontEndManager
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
from openvino.preprocess import PrePostProcessor

from terradelta.models.bundle import Model
from terradelta.models.deployment import Deployment
from terradelta.models.siamese import ChangeOutput
from terradelta.predict.backends.interface import Request

PRECISION_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "bf16"}
"""What an int8 graph computes outside of its convolutions."""


class OpenVINOBackend:
    """A graph compiled for each shape that is asked for.

    Args:
        model: The model.
        precision: "fp32", "bf16" or "int8".
        pool_window_px: See `Deployment`.
        graph_path: A quantized graph to run instead of the model's own.
    """

    def __init__(
        self,
        model: Model,
        precision: str,
        pool_window_px: int | None,
        graph_path: Path | None = None,
    ):
        self._deployment = Deployment(model, pool_window_px)
        self._precision = precision
        self._graph_path = graph_path
        self._core = openvino.Core()
        self._compiled: dict[tuple[torch.Size, torch.dtype], openvino.CompiledModel] = {}

    def __call__(self, request: Request) -> ChangeOutput:
        """Return float32 logits at the heads' own resolutions."""
        key = request.before_BCHW.shape, request.before_BCHW.dtype
        if key not in self._compiled:
            self._compiled[key] = self._compile(request)
        arrays = [np.ascontiguousarray(part.numpy()) for part in request]
        # Copied: the next call overwrites them.
        answers = self._compiled[key](arrays, share_inputs=True, share_outputs=True).to_tuple()
        return ChangeOutput(*(torch.from_numpy(answer.copy()) for answer in answers))

    def _compile(self, request: Request) -> openvino.CompiledModel:
        if self._graph_path is None:
            graph = convert(self._deployment, request)
        else:
            graph = self._core.read_model(self._graph_path)
            graph.reshape(
                {port: list(part.shape) for port, part in zip(graph.inputs, request, strict=True)}
            )
        if request.before_BCHW.dtype == torch.uint8:
            graph = take_bytes(graph)
        return self._core.compile_model(
            graph,
            "CPU",
            {
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": PRECISION_HINTS[self._precision],
                # One knob, OMP_NUM_THREADS, rules all runtimes.
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            },
        )


def convert(deployment: Deployment, request: Request) -> openvino.Model:
    """Return the graph of a deployed network for inputs of the shapes of a request, in float32.

    Through the front end itself: `openvino.convert_model` reports its use to its makers.
    """
    example = tuple(part.float() for part in request)
    with warnings.catch_warnings(), torch.inference_mode():
        # Shapes become constants, which is meant: the graph is for these shapes.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        decoder = TorchScriptPythonDecoder(
            deployment, example_input=example, trace_kwargs={"check_trace": False}
        )
    front_end = FrontEndManager().load_by_framework("pytorch")
    graph = front_end.convert(front_end.load(decoder))
    for port, part in zip(graph.inputs, example, strict=True):
        port.get_node().set_partial_shape(openvino.PartialShape(list(part.shape)))
    graph.validate_nodes_and_infer_types()
    return graph


def take_bytes(graph: openvino.Model) -> openvino.Model:
    """Return the graph for uint8 images and a boolean mask, converted inside it."""
    processor = PrePostProcessor(graph)
    for number, kind in enumerate((openvino.Type.u8, openvino.Type.u8, openvino.Type.boolean)):
        processor.input(number).tensor().set_element_type(kind)
    return processor.build()


def multiplies_bfloat16() -> bool:
    """Return whether OpenVINO computes in bfloat16 on this processor."""
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
