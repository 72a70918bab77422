"""ONNX Runtime, on a CPU."""

from __future__ import annotations

import warnings

import onnxruntime
import torch

from terradelta.inference.backends.interface import Request
from terradelta.models.bundle import Model
from terradelta.models.change_network import ChangeOutput, crop_scores
from terradelta.models.crop import Crop
from terradelta.models.deployment import Deployment

INPUTS = ("before", "after", "valid")


class ONNXBackend:
    """A float32 session for each shape that is requested.

    Args:
        model: The model.
        pool_window_px: See `Deployment`.
    """

    def __init__(self, model: Model, pool_window_px: int | None):
        self._deployment = Deployment(model, pool_window_px)
        self._sessions: dict[tuple[torch.Size, torch.dtype], onnxruntime.InferenceSession] = {}

    def __call__(self, request: Request, crop: Crop | None = None) -> ChangeOutput:
        """Return float32 logits of a part at the heads' own resolutions; all are computed."""
        key = request.before_BCHW.shape, request.before_BCHW.dtype
        if key not in self._sessions:
            self._sessions[key] = self._build_session(request)
        arrays = [part.contiguous().numpy() for part in request]
        answers = self._sessions[key].run(None, dict(zip(INPUTS, arrays, strict=True)))
        scores = ChangeOutput(*(torch.from_numpy(answer) for answer in answers))
        height, width = request.valid_BHW.shape[-2:]
        return scores if crop is None else crop_scores(scores, crop, (height, width))

    def _build_session(self, request: Request) -> onnxruntime.InferenceSession:
        with warnings.catch_warnings():
            # The exporter raises torch's own deprecation warnings.
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            program = torch.onnx.export(
                self._deployment,
                tuple(request),
                input_names=INPUTS,
                output_names=ChangeOutput._fields,
                dynamo=True,
                verbose=False,
            )
        assert program is not None
        options = onnxruntime.SessionOptions()
        # OMP_NUM_THREADS sets the threads of all runtimes.
        options.intra_op_num_threads = torch.get_num_threads()
        return onnxruntime.InferenceSession(
            program.model_proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
