"""The command line: one thin function a verb; whatever is heavy is imported inside."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Group, Parameter

from terradelta.errors import ArgumentError, TerradeltaError
from terradelta.report.summary import print_numbers, print_prediction, print_scores, print_summary
from terradelta.train.config import TrainConfig, Views

app = App(
    name="terradelta",
    help="What changed between two images of a place: from what, to what, where and how much.",
    help_format="plaintext",
)
_recipe = Group("Recipe", sort_key=1)

Models = Annotated[
    str | None,
    Parameter(name=["--model", "-m"]),
]
Output = Annotated[Path, Parameter(name=["--output", "-o"])]
Overwrite = Annotated[bool, Parameter(negative=())]
Bands = Annotated[str | None, Parameter(name="--bands")]
ValueRange = Annotated[str | None, Parameter(name="--value-range")]
Json = Annotated[bool, Parameter(name="--json", negative=())]
Protocol = Literal["second", "from-to", "ual"]
Runtime = Literal["auto", "torch", "torch-compile", "openvino", "onnx"]
Precision = Literal["auto", "fp32", "bf16", "fp16", "int8"]


@app.command
def demo(*, output: Output = Path("demo"), overwrite: Overwrite = False):
    """Draw a scene, run the embedded model on it and show what changed.

    Args:
        output: Folder to make.
        overwrite: Replace an existing output.
    """
    from terradelta.demo import demo as run_demo
    from terradelta.report.terminal import print_map

    result = run_demo(output, overwrite=overwrite)
    print_summary(result.summary)
    if sys.stdout.isatty():
        print_map(result.folder / "change.tif")
    print(
        f"\nmaps and polygons  {result.folder}\npicture            {result.folder / 'picture.png'}"
    )


@app.command
def check(
    before: str,
    after: str,
    /,
    *,
    model: Models = None,
    bands: Bands = None,
    value_range: ValueRange = None,
    grid: str = "before",
    aoi: Path | None = None,
    as_json: Json = False,
):
    """Say what is wrong with a pair of rasters, and which flag of `predict` mends it.

    Exit code 0 when nothing fails, 2 otherwise.

    Args:
        before: The earlier raster: a path, a URL, or anything else GDAL opens.
        after: The later raster.
        model: Model folder whose bands and values the pair is held against; the embedded model by
            default.
        bands: Which bands the model reads, by number from 1 or by name: 1,2,3.
        value_range: Stored values that are dark and bright: 0,3000.
        grid: Whose pixels the map gets: before, after, or the side of a pixel in CRS units.
        aoi: Vector file with polygons; the rest is not looked at.
        as_json: Print one JSON object.
    """
    from terradelta.geo.check import check as run_check
    from terradelta.predict.run import load_cards

    card = load_cards(_split(model))[0]
    report = run_check(
        before,
        after,
        band_names=card.bands,
        bands=_split(bands),
        value_range=_parse_range(value_range) or (0.0, card.scaling.divisor),
        grid=grid,
        aoi=aoi,
    )
    print(json.dumps(report.to_dict(), ensure_ascii=False) if as_json else report.to_text())
    if report.level == "FAIL":
        sys.exit(2)


@app.command
def predict(
    before: str,
    after: str,
    /,
    *,
    output: Output,
    model: Models = None,
    tta: Views = "none",
    time_budget: float | None = None,
    bands: Bands = None,
    value_range: ValueRange = None,
    grid: str = "before",
    aoi: Path | None = None,
    register: Annotated[bool, Parameter(negative=())] = False,
    min_area: str = "0",
    vector: Literal["gpkg", "parquet"] = "gpkg",
    layout: Literal["terradelta", "senseearth"] = "terradelta",
    memory: str = "4GB",
    tile_size: int | None = None,
    device: str = "auto",
    backend: Runtime = "auto",
    precision: Precision = "auto",
    shard: str = "1/1",
    picture: Annotated[bool, Parameter(negative=())] = False,
    overwrite: Overwrite = False,
):
    """Map what changed between two rasters, or between two folders of images.

    A run on rasters that was stopped goes on where it was when the same command is run again.

    Args:
        before: The earlier raster (a path, a URL, or anything else GDAL opens), or a folder of
            images.
        after: The later raster, or a folder of images with the same names.
        output: Folder to make; it appears whole or not at all.
        model: Model folder, or several that vote: M1,M2; the embedded model by default.
        tta: Flips and turns whose answers are averaged; slower, a little better.
        time_budget: Seconds after which the map must be done; flips and turns are dropped when
            late.
        bands: Which bands the model reads, by number from 1 or by name: 1,2,3.
        value_range: Stored values that are dark and bright, the same for both dates, for images of
            another depth than the model's: 0,3000.
        grid: Whose pixels the map gets: before, after, or the side of a pixel in units of the
            before raster's CRS.
        aoi: Vector file with polygons, in any CRS; the rest is nodata.
        register: Measure the shift between the two images and undo it.
        min_area: Smaller patches of change are taken for unchanged: 100m2, 0.5ha.
        vector: Format of the polygons.
        layout: For folders: before/ after/ change/, or im1/ im2/ as the contest asks.
        memory: What the process may take.
        tile_size: Side of the squares that the network sees, in pixels; 1024 by default,
            more for networks that look very far.
        device: auto, cpu, cuda or cuda:N.
        backend: What runs the network.
        precision: bf16 is faster where the processor has it, int8 faster still for a model that
            has been quantized, fp32 exact.
        shard: 2/4 answers the second quarter of the map only; `merge` joins the quarters.
        picture: Also draw before, after and the map into OUTPUT/picture.png.
        overwrite: Replace an existing output.
    """
    from terradelta.predict.run import predict as run_predict

    result = run_predict(
        before,
        after,
        output,
        model=_split(model),
        tta=tta,
        time_budget=time_budget,
        bands=_split(bands),
        value_range=_parse_range(value_range),
        grid=grid,
        aoi=aoi,
        register=register,
        min_area=min_area,
        vector=vector,
        layout=layout,
        memory=memory,
        tile_size=tile_size,
        device=device,
        backend=backend,
        precision=precision,
        shard=shard,
        picture=picture,
        overwrite=overwrite,
    )
    if "blocks" in result.summary:
        done, blocks = result.summary["blocks_done"], result.summary["blocks"]
        print(f"{done} of {blocks} blocks are done; when all are: terradelta merge {output}")
        return
    print_prediction(result)


@app.command
def merge(output: Path, /, *, overwrite: Overwrite = False):
    """Join the shards of a map into one prediction.

    Args:
        output: The output that the shards were given; their blocks lie in OUTPUT.partial.
        overwrite: Replace an existing output.
    """
    from terradelta.predict.run import merge as run_merge

    print_prediction(run_merge(output, overwrite=overwrite))


@app.command
def train(
    source: str,
    /,
    *,
    output: Output = Path("runs/train"),
    config: Annotated[TrainConfig, Parameter(name="*", group=_recipe)] = TrainConfig(),  # noqa: B008
    resume: Annotated[bool, Parameter(negative=())] = False,
    overwrite: Overwrite = False,
):
    """Train a network on labelled pairs; the defaults are the reference recipe.

    Args:
        source: Data set (a folder or a CSV), or a YAML recipe; options given here override it.
        config: The recipe.
        output: Run folder: best/ and last/ model, log.csv, config.yaml, checkpoints/.
        resume: Go on after the last finished epoch of OUTPUT.
        overwrite: Start anew in an OUTPUT that holds a run.
    """
    from dataclasses import replace

    from terradelta.train.loop import train as run_train

    if not _is_recipe(source):
        config = replace(config, data=source)
    result = run_train(config, output, resume=resume, overwrite=overwrite)
    if result.rank != 0:
        return
    print(f"best epoch {result.best_epoch}, validation, protocol second")
    print_numbers(result.scores)
    print(f"\nmodel in {result.folder / 'best'}")


@app.command
def evaluate(
    model: str,
    data: str,
    /,
    *,
    split: Literal["train", "val", "test", "all"] = "val",
    protocol: Protocol = "second",
    tta: Views = "none",
    device: str = "auto",
    backend: Runtime = "auto",
    precision: Precision = "auto",
    as_json: Json = False,
):
    """Score a model on a labelled data set.

    Args:
        model: Model folder, or several that vote: M1,M2.
        data: Data set: a folder in a known layout, or a CSV.
        split: Which part of it.
        protocol: How pixels are counted; numbers of different protocols do not compare.
        tta: Flips and turns whose answers are averaged.
        device: auto, cpu, cuda or cuda:N.
        backend: What runs the network.
        precision: bf16 is faster where the processor has it, int8 faster still for a model that
            has been quantized, fp32 exact.
        as_json: Print one JSON object.
    """
    from terradelta.evaluate.scoring import evaluate as run_evaluate

    scores = run_evaluate(
        model.split(","),
        data,
        split=split,
        protocol=protocol,
        tta=tta,
        device=device,
        backend=backend,
        precision=precision,
    )
    print_scores(scores, as_json)


@app.command
def score(
    predictions: Path, labels: Path, /, *, protocol: Protocol = "second", as_json: Json = False
):
    """Score predicted masks against labels of the same names.

    Args:
        predictions: Folder with before/ after/, im1/ im2/ or label1/ label2/.
        labels: Folder with the true masks, named alike.
        protocol: How pixels are counted; numbers of different protocols do not compare.
        as_json: Print one JSON object.
    """
    from terradelta.evaluate.scoring import score as run_score

    print_scores(run_score(predictions, labels, protocol=protocol), as_json)


@app.command
def synth(
    *,
    output: Output,
    pairs: int = 100,
    seed: int = 0,
    size: int = 256,
    gsd: float = 0.5,
    geotiff: Annotated[bool, Parameter(negative=())] = False,
    crs: str = "EPSG:32632",
    overwrite: Overwrite = False,
):
    """Draw scenes with known truth: PNG folders to train on, or one GeoTIFF pair of any size.

    Args:
        output: Folder to make.
        pairs: How many pairs of PNGs.
        seed: The same seed draws the same scenes.
        size: Side of a scene in pixels.
        gsd: Ground size of a pixel in metres.
        geotiff: Draw one georeferenced pair with its true maps instead of PNGs.
        crs: Coordinate reference system of the GeoTIFF pair.
        overwrite: Replace an existing output.
    """
    from terradelta.data.synthetic import write_folders, write_geotiff_pair

    if geotiff:
        write_geotiff_pair(output, seed, size, gsd_m=gsd, crs=crs, overwrite=overwrite)
    else:
        write_folders(output, pairs, seed, size_px=size, gsd_m=gsd, overwrite=overwrite)
    print(f"written to {output}")


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
            If most of a map comes out as changed, it was the other one.
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
    split: Literal["train", "val", "test", "all"] = "all",
    pairs: int = 24,
    overwrite: Overwrite = False,
):
    """Make a model's int8 graph, for `predict --precision int8`.

    Args:
        model: Model folder; the graph goes into it.
        data: Images like those to come, in a known layout; labels are not needed.
        split: Which part of them.
        pairs: How many to calibrate on; half as many others tell how far the labels agree.
        overwrite: Replace a graph that is there.
    """
    from terradelta.predict.backends.quantization import quantize as run_quantize

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
        tile_size: Side of the images that it takes, in pixels; by default any where the network
            allows it, and otherwise the tiles of `predict`.
        overwrite: Replace an existing output.
    """
    from terradelta.export import export as run_export

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
def info(model: Path, /):
    """Show what a model folder says of itself.

    Args:
        model: Model folder.
    """
    from terradelta.models.bundle import load_card

    print(json.dumps(load_card(model).to_dict(), indent=2, ensure_ascii=False))


def _is_recipe(source: str) -> bool:
    return Path(source).suffix.lower() in (".yaml", ".yml")


def _split(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",")]


def _parse_range(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        low, high = map(float, text.split(","))
    except ValueError as error:
        raise ArgumentError(
            f"{text!r} is no range of values", fix="give two numbers: --value-range 0,3000"
        ) from error
    return low, high


def _load_recipe(arguments: Sequence[str]):
    """Make the YAML file on a `train` line the source of the options that the line leaves out."""
    from cyclopts.config import Dict

    recipes = [argument for argument in arguments[1:] if _is_recipe(argument)]
    if recipes:
        given = TrainConfig.read_yaml(recipes[0]).to_dict()
        given = {key: value for key, value in given.items() if value is not None}
        app["train"].config = (Dict(given, source=recipes[0], use_commands_as_keys=False),)


def main(arguments: Sequence[str] | None = None):
    """Run the command line; the exit code is 2 for what the user can mend."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("terradelta").setLevel(logging.INFO)
    try:
        if arguments[:1] == ["train"]:
            _load_recipe(arguments)
        app(arguments, exit_on_error=False)
    except TerradeltaError as error:
        print(f"terradelta: {error}", file=sys.stderr)
        sys.exit(2)
    except CycloptsError:
        # cyclopts has printed what is wrong with the line.
        sys.exit(2)


if __name__ == "__main__":
    main()
