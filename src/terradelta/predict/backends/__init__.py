"""What runs a network: torch, OpenVINO or ONNX Runtime behind one protocol."""

from terradelta.predict.backends.choice import BACKENDS, PRECISIONS, Choice, choose_backend
from terradelta.predict.backends.interface import Backend, Request

__all__ = ["BACKENDS", "PRECISIONS", "Backend", "Choice", "Request", "choose_backend"]
