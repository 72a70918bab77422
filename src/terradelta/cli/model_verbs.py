"""Verbs that handle model folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from terradelta.cli.application import Json, Output, Overwrite, Split, app


@app.command
def convert(
    checkpoint: Path,
    /,
    *,
    output: Output,
    model: str,
    encoder: str,
    polarity: Literal["changed", "unchanged"],
    lightweight: Annotated[bool, Parameter(negative=())] = False,
    overwrite: Overwrite = False,
):
    """Turn published weights (.pth) into a model folder.

    Args:
        checkpoint: The .pth file; only tensors are read from it.
        output: Model folder to make.
        model: Architecture it was trained with: fcn, pspnet, deeplabv3plus or unet.
        encoder: Encoder it was trained with.
        polarity: What 1 means in the checkpoint's change output. The published code contradicts
            itself: its loader and test script say 1 = unchanged, its training script 1 = changed.
            If most of a map is changed, use the other value.
        lightweight: Whether its heads are depthwise separable.
        overwrite: Replace an existing output.
    """
    from terradelta.models.bundle import convert as run_convert

    run_convert(
        checkpoint,
        output,
        model=model,
        encoder=encoder,
        polarity=polarity,
        lightweight=lightweight,
        overwrite=overwrite,
    )
    print(f"written to {output}")


@app.command
def quantize(
    model: Path,
    data: Path,
    /,
    *,
    split: Split = "all",
    pairs: int = 24,
    overwrite: Overwrite = False,
):
    """Make a model's int8 graph, for `predict --precision int8`.

    Args:
        model: Model folder; the graph is stored in it.
        data: Images like those to predict, in a known layout; labels are not needed.
        split: Split of the data set.
        pairs: Pairs to calibrate on; half as many others measure how far the labels agree.
        overwrite: Replace a graph that exists.
    """
    from terradelta.inference.quantization import quantize as run_quantize

    result = run_quantize(model, data, split=split, pairs=pairs, overwrite=overwrite)
    print(f"written to {result.path}, calibrated on {result.calibration_pairs} pairs")
    if result.agreement is not None:
        print(f"labels of {result.checked_pairs} others as with fp32: {result.agreement:.2%}")


@app.command
def export(
    model: Path,
    /,
    *,
    to: Literal["onnx", "openvino", "pt2", "deepness"],
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    tile_size: int | None = None,
    overwrite: Overwrite = False,
):
    """Write a model for another runtime, as one graph from stored values to probabilities.

    Args:
        model: Model folder.
        to: onnx, openvino (an .xml with a .bin beside it), pt2, or deepness: the ONNX file that
            QGIS's plug-in of this name opens.
        output: File to write; by default MODEL's name with the suffix of the format.
        tile_size: Side of the input images in pixels; by default any size if the network
            allows it, otherwise that of the tiles of `predict`.
        overwrite: Replace an existing output.
    """
    from terradelta.inference.export import export as run_export

    print(
        f"written to {run_export(model, output, to=to, tile_size=tile_size, overwrite=overwrite)}"
    )


@app.command
def models():
    """List the architectures and encoders that `train` knows."""
    from terradelta.models.registry import list_encoders, list_models

    print("architectures  " + "  ".join(list_models()))
    print("encoders       " + "\n               ".join(list_encoders()))


@app.command
def info(model: Path | None = None, /, *, as_json: Json = False):
    """Show the card of a model: its scores, limits and origin.

    Args:
        model: Model folder; the embedded model by default.
        as_json: Print one JSON object.
    """
    from terradelta.models.embedded import DEFAULT_MODEL
    from terradelta.models.embedded import info as read_info

    folder = model or DEFAULT_MODEL
    card = read_info(model)
    if as_json:
        print(json.dumps(card.to_dict(), indent=2, ensure_ascii=False))
    else:
        print(card.to_markdown(folder.resolve().name), end="")
