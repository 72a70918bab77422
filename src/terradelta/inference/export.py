"""A model for other runtimes: ONNX, OpenVINO, PyTorch's .pt2, and QGIS's plug-in Deepness.

Every file holds one graph with one input, `pair`: the bands of before, then those of after, in
stored values. The scaling is part of the graph, and so are the probabilities.

Legend of the tensor names: B batch, C bands of a date, K classes, H rows, W columns.
"""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from terradelta.destination import claim_file
from terradelta.errors import ArgumentError
from terradelta.fields import checks_ranges
from terradelta.inference.prediction_options import TILE_SIZE
from terradelta.inference.predictor import (
    choose_pool_window,
)
from terradelta.inference.tiling import USUAL_MARGINS_PER_TILE
from terradelta.inference.votes import separate_dates
from terradelta.models.bundle import Model, hash_model, load_model
from terradelta.models.change_network import ChangeNetwork
from terradelta.models.deployment import fold_norms

ONNX_OPSET = 18
"""The oldest that torch writes: more machines can read it."""
DEFAULT_TILE_SIZE_PX = 1024
PT2_METADATA_FILE = "terradelta.json"
DEEPNESS_DIVISOR = 255
"""Deepness divides the stored values of a raster by this, before it standardises."""
MAX_OVERLAP_PERCENT = 90

TargetName = Literal["onnx", "openvino", "pt2", "deepness"]


class PairGraph(nn.Module):
    """The network with its scaling in front and its probabilities behind.

    Args:
        model: The model; its network is in eval mode.
    """

    outputs = ("before", "after", "change")

    def __init__(self, model: Model):
        super().__init__()
        self.network = model.network
        self.scaling = model.card.scaling
        self.temperatures = model.card.temperatures

    def forward(self, pair_BCHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return float32 probabilities: before and after (B, K, H, W), change (B, H, W).

        Args:
            pair_BCHW: float32 (B, 2C, H, W), before's bands and then after's, in stored values.
        """
        before_BCHW, after_BCHW = pair_BCHW.chunk(2, dim=1)
        output = self.network(self.scaling.apply(before_BCHW), self.scaling.apply(after_BCHW))
        return (
            (output.before_logits / self.temperatures.classes).softmax(dim=1),
            (output.after_logits / self.temperatures.classes).softmax(dim=1),
            self.temperatures.calibrate_change(output.change_logits).sigmoid(),
        )


class DeepnessGraph(nn.Module):
    """Land cover at both dates where it changed, as the arg-max of channels, which Deepness takes.

    Args:
        model: The model; its network is in eval mode.
    """

    outputs = ("before_class", "after_class")

    def __init__(self, model: Model):
        super().__init__()
        self.pair = PairGraph(model)
        self.rule = model.card.find_rule()

    def forward(self, pair_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return before_class and after_class (B, K + 1, H, W) float32, whose arg-max is the class.

        Channel 0 is 1 where nothing changed and 0 elsewhere. The others are the probabilities of
        the classes where something changed and 0 elsewhere.
        """
        before_BKHW, after_BKHW, change_BHW = self.pair(pair_BCHW)
        rule = self.rule
        if rule.decided_by == "transition":
            if not rule.same_class:
                before_BKHW, after_BKHW = separate_dates(before_BKHW, after_BKHW)
            change_BHW = change_BHW * before_BKHW.amax(dim=1) * after_BKHW.amax(dim=1)
        changed_BHW = change_BHW >= rule.threshold
        if not rule.same_class:
            changed_BHW &= before_BKHW.argmax(dim=1) != after_BKHW.argmax(dim=1)
        changed_B1HW = changed_BHW.float()[:, None]
        unchanged_B1HW = 1 - changed_B1HW
        return (
            torch.cat([unchanged_B1HW, before_BKHW * changed_B1HW], dim=1),
            torch.cat([unchanged_B1HW, after_BKHW * changed_B1HW], dim=1),
        )


Graph = PairGraph | DeepnessGraph


@dataclass(frozen=True)
class InputSize:
    """The images that a graph accepts, in batches of any size."""

    bands: int
    """2C."""
    stride_px: int
    """Both sides are multiples of this."""
    tile_size_px: int | None
    """Both sides; None allows any."""

    @property
    def shape(self) -> list[int]:
        """(B, 2C, H, W), -1 where any size is allowed."""
        side_px = self.tile_size_px or -1
        return [-1, self.bands, side_px, side_px]

    def make_example(self) -> Tensor:
        """Return a pair whose open sizes all differ: equal ones would become a condition."""
        height, width = (self.tile_size_px or steps * self.stride_px for steps in (3, 4))
        return torch.zeros(2, self.bands, height, width)


@checks_ranges
def export(
    model: str | Path,
    output: str | Path | None = None,
    *,
    to: TargetName,
    tile_size: Annotated[int, TILE_SIZE] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a model for another runtime, whole or not at all.

    Args:
        model: Model folder.
        output: File to write; by default the folder's name with the target's suffix, in the
            current folder.
        to: "onnx", "openvino" (an .xml with a .bin beside it), "pt2", or "deepness": the ONNX file
            that QGIS's plug-in of this name opens.
        tile_size: Side of the images in pixels, a multiple of the network's output stride. By
            default images of any such size fit, except for networks that pool over the image and
            for Deepness, which take tiles of the size that `predict` would cut.
        overwrite: Replace an existing output.

    Returns:
        The file that was written.

    Raises:
        ArgumentError: If the target, the suffix or the tile size is not valid, or a package that
            writes the format is not installed.
        ModelError: If the folder is not a model.
        OutputExistsError: If the output exists and `overwrite` is False.
    """
    if to not in TARGETS:
        raise ArgumentError(f"{to!r} is not a valid target", fix=f"use one of {', '.join(TARGETS)}")
    target = TARGETS[to]
    path = Path(output) if output else Path(Path(model).resolve().name + target.suffixes[0])
    if path.suffix != target.suffixes[0]:
        raise ArgumentError(
            f"{path} ends in {path.suffix!r}, and {to} files end in {target.suffixes[0]}",
            fix=f"name it {path.parent / ((path.stem or 'model') + target.suffixes[0])}",
        )
    files = [
        claim_file(path.with_suffix(suffix), [model], overwrite=overwrite)
        for suffix in target.suffixes
    ]
    names = [path.with_suffix(suffix).name for suffix in target.suffixes]
    _require_extra(target.extra, to)

    loaded = load_model(model)
    loaded = Model(fold_norms(loaded.network), loaded.card)
    loaded.network.pool_window_px = choose_pool_window(loaded)
    tile_size_px = choose_tile_size(loaded.network, to, tile_size)
    size = InputSize(2 * len(loaded.card.bands), loaded.network.output_stride, tile_size_px)
    graph = target.graph(loaded).eval()
    metadata = describe(loaded, graph, size) | {"weights_sha256": hash_model(model)}

    folder = files[0].parent
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".terradelta-", dir=folder) as staged:
        target.write(graph, size, Path(staged) / names[0], metadata)
        # The file that is opened comes last, so that it never lacks its weights.
        for name, file in reversed(list(zip(names, files, strict=True))):
            (Path(staged) / name).replace(file)
    return path


def choose_tile_size(network: ChangeNetwork, to: str, tile_size_px: int | None) -> int | None:
    """Return the side of the images a graph takes, or None for any multiple of the output stride.

    Args:
        network: The network, with `pool_window_px` set where it pools.
        to: The target.
        tile_size_px: The requested size.

    Raises:
        ArgumentError: If it is not a multiple of the output stride.
    """
    stride_px = network.output_stride
    if tile_size_px is not None and (tile_size_px < 1 or tile_size_px % stride_px):
        nearest = max(1, round(tile_size_px / stride_px)) * stride_px
        raise ArgumentError(
            f"tiles of {tile_size_px} px do not fit a network of output stride {stride_px}",
            fix=f"use a multiple of {stride_px}: --tile-size {nearest}",
        )
    if tile_size_px is not None:
        return tile_size_px
    if to == "deepness":
        return _choose_deepness_tile(network.margin_px, stride_px)
    if network.has_global_pooling:
        return max(DEFAULT_TILE_SIZE_PX, USUAL_MARGINS_PER_TILE * network.margin_px)
    return None


def trace(graph: Graph, size: InputSize) -> ExportedProgram:
    """Return the operations of a graph, for images of a size."""
    shapes: dict[int, Any] = {0: Dim("batch", min=1)}
    if size.tile_size_px is None:
        rows, columns = (size.stride_px * Dim(name, min=1) for name in ("rows", "columns"))
        shapes |= {2: rows, 3: columns}
    with torch.no_grad():
        program = torch.export.export(graph, (size.make_example(),), dynamic_shapes=(shapes,))
    for node in program.graph.nodes:
        # Otherwise the file would contain folder names of its author.
        node.meta.pop("stack_trace", None)
    return program


def describe(model: Model, graph: Graph, size: InputSize) -> dict[str, Any]:
    """Return the metadata needed to use a graph, JSON-ready.

    Raises:
        ArgumentError: If Deepness cannot lay out tiles of this size.
    """
    card, network = model.card, model.network
    metadata = {
        "terradelta_version": version("terradelta"),
        "architecture": card.architecture,
        "input_bands": [f"{date} {band}" for date in ("before", "after") for band in card.bands],
        "outputs": list(graph.outputs),
        "classes": list(card.classes.names),
        "change_threshold": card.change_threshold,
        "decided_by": card.decided_by,
        "same_class_changes": card.same_class_changes,
        "largest_value": card.scaling.divisor,
        "tile_size_px": size.tile_size_px,
        "size_multiple_px": size.stride_px,
        "margin_px": network.margin_px,
        "pool_window_px": network.pool_window_px,
        "licence": card.licence,
    }
    if isinstance(graph, DeepnessGraph) and size.tile_size_px is not None:
        metadata |= _describe_for_deepness(model, size.tile_size_px)
    return metadata


def _describe_for_deepness(model: Model, tile_size_px: int) -> dict[str, Any]:
    """Return the metadata that Deepness 0.6 reads for a segmentation model, under its keys."""
    card, network = model.card, model.network
    bands = 2 * len(card.bands)
    return {
        "model_type": "Segmentor",
        "class_names": [
            {number: f"{date}: {name}" for number, name in enumerate(card.classes.names)}
            for date in ("before", "after")
        ],
        "tile_size": tile_size_px,
        "tiles_overlap": _choose_overlap(tile_size_px, network.margin_px, network.output_stride),
        # Deepness gives (value / 255 - mean) / std: so the graph undoes this.
        "standardization_mean": [0.0] * bands,
        "standardization_std": [1 / DEEPNESS_DIVISOR] * bands,
        # The graph applies the threshold already.
        "seg_thresh": 0.0,
        "seg_small_segment": 0,
    }


def write_onnx(graph: Graph, size: InputSize, path: Path, metadata: dict[str, Any]):
    """Write an .onnx file; the metadata are its properties, each a JSON text."""
    with _hush_torch():
        written = torch.onnx.export(
            trace(graph, size),
            input_names=["pair"],
            output_names=list(graph.outputs),
            opset_version=ONNX_OPSET,
            verbose=False,
        )
    assert written is not None
    names = ("batch", "bands", "height", "width")
    shape = written.model.graph.inputs[0].shape
    assert shape is not None
    written.rename_axes(
        {dim: name for dim, name in zip(shape, names, strict=True) if not isinstance(dim, int)}
    )
    for node in written.model.graph.all_nodes():
        node.metadata_props.clear()
    written.model.metadata_props.update(_to_texts(metadata))
    written.save(path, external_data=False)


def write_openvino(graph: Graph, size: InputSize, path: Path, metadata: dict[str, Any]):
    """Write an .xml and a .bin; the metadata are `rt_info` under "terradelta", each a JSON text.

    Uses the front end itself: `openvino.convert_model` sends telemetry.
    """
    import openvino
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with _hush_torch(), torch.no_grad():
        decoder = TorchScriptPythonDecoder(
            graph, example_input=size.make_example(), trace_kwargs={"check_trace": False}
        )
    front_end = FrontEndManager().load_by_framework("pytorch")
    written = front_end.convert(front_end.load(decoder))
    (pair,) = written.inputs
    pair.get_node().set_partial_shape(openvino.PartialShape(size.shape))
    pair.get_node().set_element_type(openvino.Type.f32)
    written.validate_nodes_and_infer_types()
    pair.set_names({"pair"})
    for port, name in zip(written.outputs, graph.outputs, strict=True):
        port.set_names({name})
    for key, text in _to_texts(metadata).items():
        written.set_rt_info(text, ["terradelta", key])
    openvino.save_model(written, path, compress_to_fp16=False)


def write_pt2(graph: Graph, size: InputSize, path: Path, metadata: dict[str, Any]):
    """Write a .pt2 file; the metadata are its extra file `terradelta.json`."""
    with _hush_torch():
        torch.export.save(
            trace(graph, size), path, extra_files={PT2_METADATA_FILE: json.dumps(metadata)}
        )


class Target(NamedTuple):
    """A file format and what goes into it."""

    suffixes: tuple[str, ...]
    """Suffixes of the file that is opened, and of the files beside it."""
    write: Callable[[Graph, InputSize, Path, dict[str, Any]], None]
    graph: type[PairGraph] | type[DeepnessGraph] = PairGraph
    extra: str | None = None
    """The extra of terradelta whose packages write it."""


PACKAGES = {"onnx": ("onnx", "onnxscript"), "openvino": ("openvino",)}
"""The packages that each extra installs to write files."""
TARGETS: dict[str, Target] = {
    "onnx": Target((".onnx",), write_onnx, extra="onnx"),
    "openvino": Target((".xml", ".bin"), write_openvino, extra="openvino"),
    "pt2": Target((".pt2",), write_pt2),
    "deepness": Target((".onnx",), write_onnx, DeepnessGraph, extra="onnx"),
}


def _choose_deepness_tile(margin_px: int, stride_px: int) -> int:
    """Return the smallest tile, at least the default, that a whole percent of overlap fits."""
    overlap_px = 2 * margin_px
    for percent in range(100 * overlap_px // (USUAL_MARGINS_PER_TILE * margin_px), 0, -1):
        tile_size_px, rest = divmod(100 * overlap_px, percent)
        if not rest and tile_size_px >= DEFAULT_TILE_SIZE_PX and tile_size_px % stride_px == 0:
            return tile_size_px
    raise AssertionError("one percent always suits")


def _choose_overlap(tile_size_px: int, margin_px: int, stride_px: int) -> int:
    """Return the least overlap of neighbours, in percent, that discards the margins.

    Deepness cuts half of it off on either side, and rounds it to whole pixels; tiles must still
    begin at multiples of the stride.
    """
    for percent in range(1, MAX_OVERLAP_PERCENT + 1):
        overlap_px = tile_size_px * percent // 100
        if overlap_px >= 2 * margin_px and overlap_px % stride_px == 0:
            return percent
    suited = _choose_deepness_tile(margin_px, stride_px)
    raise ArgumentError(
        f"Deepness cannot lay out tiles of {tile_size_px} px: their margins of {margin_px} px are "
        f"thrown away, and they begin at multiples of {stride_px} px",
        fix=f"use --tile-size {suited}",
    )


def _to_texts(metadata: dict[str, Any]) -> dict[str, str]:
    return {key: json.dumps(value, ensure_ascii=False) for key, value in metadata.items()}


def _require_extra(extra: str | None, to: str):
    for package in PACKAGES.get(extra or "", ()):
        try:
            import_module(package)
        except ImportError as error:
            raise ArgumentError(
                f"writing {to} needs the package {package}, which is not installed: {error}",
                fix=f'install it with pip install "terradelta[{extra}]"',
            ) from error


@contextmanager
def _hush_torch() -> Iterator[None]:
    """Hide the warnings of torch's export from users, who cannot fix them.

    Shapes that a trace turns into constants come from the module's own decisions, which are the
    same for every accepted size.
    """
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", torch.jit.TracerWarning)  # pyright: ignore[reportPrivateImportUsage]
            for category in (FutureWarning, DeprecationWarning):
                warnings.simplefilter("ignore", category)
            yield
    finally:
        logger.setLevel(level)
