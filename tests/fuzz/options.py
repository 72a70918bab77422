"""Hostile values for every option of every verb, found in the command line itself."""

from __future__ import annotations

import types
import typing
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, Literal

from terradelta.cli import app

from .lines import OUTPUT_FLAGS, Line

INTEGERS = (
    *("-1", "0", "1", "2", "3", "7", "64", "255", "512", "1000000", "2147483648"),
    *("9223372036854775808", "1" * 400, "-0", "+3", " 3", "1_0", "0x10", "1e3", "1.5"),
    *("", "nan", "inf", "٣", "²", "three", "--", "None", "1/0"),
)
NUMBERS = (
    *("-1", "0", "-0.0", "1", "0.5", "0.999999", "2", "100", "1e-308", "1e308", "-1e308", "1e400"),
    *("nan", "-nan", "inf", "-inf", "Infinity", "", " ", "1,5", "٠.٥", "1_0.5", "0x1p3", "half"),
)
WORKING = ("1", "2", "3", "-1", "0", "5", "", "nan", "²", "-5", "1.5")
"""For options that ask for honest work: large values take as long as they say."""
WORK_FLAGS = (
    *("--pairs", "--size", "--epochs", "--rounds", "--models-per-round", "--workers", "--points"),
    *("--batch-size", "--accumulate-batches", "--worker-cpus", "--picture-pairs", "--chip-size"),
)
TEXTS = (
    *("", " ", "-", "--", "x", "0", "-1", "nan", "None", ",", "a,b", "a" * 300, "naïve", "²,1,1"),
    *("日本", "\u202eabc", "a\nb", "%s%n{}{0}", "'; DROP TABLE x; --", "<b>&amp;</b>", "\udce9"),
    *("\x1b[31m", "1e308", "*", "?", "~", "$HOME", "auto"),
)
PATHS = (
    *("", ".", "..", "/", "missing.tif", "missing/below/it", "empty", "link", "dangling"),
    *("documents", "documents/thesis.doc", "notes.txt", "notes.txt/below", "scene"),
    *("scene/before.tif", "scene/after.tif", "rasters/real.tif", "rasters/wide.tif"),
    *("rasters/alpha.tif", "rasters/masked.tif", "mosaic.txt", "mosaic.txt#x", "pairs.csv"),
    *("recipe.yaml", "classes.json", "data", "data/im1", "masks", "model", "model/model.json"),
    *("model/model.safetensors", "published.pth", "out", "out/change.tif", "out/run.json"),
    *("out/changes.gpkg", "pieces", "pieces/items.json", "pieces/items.json#change", "reviewed"),
    *("assessed", "assessed/area_estimates.json", "assessed/zones/zones.gpkg", "shards.partial"),
    *("points.gpkg", "aoi.gpkg", "aoi.geojson", "aoi.fgb", "zones.gpkg", "run", "run/best"),
    *("model,model", "model,run/best", "model,", ",", "run,run", "points.gpkg,points.gpkg"),
    *(
        "scene/before.tif + scene/after.tif",
        " + ",
        "scene/before.tif + ",
        "a" * 300,
        "d\udce9j\u00e0",
    ),
    *(
        "/dev/null",
        "/vsizip/x.zip/y.tif",
        "/vsimem/x.tif",
        "file:///x.tif",
        "s3://",
        "<VRTDataset>",
    ),
    *("http://127.0.0.1:9/x.tif", "GTIFF_DIR:1:scene/before.tif", "GTIFF_RAW:scene/before.tif"),
)
"""Relative to the healthy files; none names a place outside that can be written."""
OUTPUTS = (
    *("new", "new", "new.gpkg", "new/deep/er", "./new/", "", ".", "..", "../beside", "empty"),
    *("empty/", "link", "dangling", "documents", "documents/new", "documents/thesis.doc"),
    *("notes.txt", "notes.txt/below", "busy", "scene", "scene/before.tif", "scene/new", "data"),
    *("data/im1", "model", "model/new", "out", "out/new", "annotated", "reviewed", "pieces", "run"),
    *("shards", "shards.partial", "points.gpkg", "zones.gpkg", "masks", "recipe.yaml"),
    *(
        "a" * 250,
        "a" * 300,
        "na\u00efve",
        "d\udce9j\u00e0",
        "a b",
        "a\nb",
        "-",
        "~",
        "*",
        "%d",
        "#1",
    ),
    *("new.tif", "new.zip", "new.onnx", "new.", ".new", "CON", "new\\er"),
)
EXAMPLES = {
    "--bands": (
        *("1,2,3", "3,2,1", "1,1,1", "0,1,2", "1,2", "1,2,3,4", "-1,2,3", "²,1,1", "1.5,2,3"),
        *("red,green,blue", "B04,B03,B02", "red", "99999999999,1,2", "1,2,3,", "1:3", "1,٢,3"),
    ),
    "--value-range": (
        *("0,255", "255,0", "0,1", "1,1", "0,inf", "-inf,inf", "nan,1", "1000,3000", "0", "0,1,2"),
        *("-1e308,1e308", "1e-300,2e-300", "0,65535", "a,b", "1e400,1", ",", "0;255", "254,256"),
    ),
    "--grid": (
        *(
            "before",
            "after",
            "0.5",
            "0.6",
            "5",
            "1000",
            "1e9",
            "1e-9",
            "0.0001",
            "nan",
            "inf",
            "-1",
        ),
        *("0", "EPSG:4326@0.00001", "EPSG:4326@1e-12", "EPSG:4326@1", "EPSG:3857@1", "EPSG:0@1"),
        *("EPSG:99999@1", "@1", "EPSG:32632@", "EPSG:32632@nan", "EPSG:32632@-1", "EPSG:32610@1"),
        *("IAU_2015:30100@1", "EPSG:4978@1", "EPSG:5703@1", 'LOCAL_CS["x"]@1', "EPSG:3035@0.5"),
        *("EPSG:3995@1", "ESRI:54009@1", "+proj=longlat@1", "EPSG:3035@1e308", "EPSG:3035@1@2"),
    ),
    "--min-area": (
        *("0", "100m2", "0.5ha", "1km2", "-1m2", "nanm2", "nan", "inf", "1e308ha", "1 m2", "m2"),
        *("1e-320m2", "²m2", "1acre", "5"),
    ),
    "--memory": (
        *("4GB", "2GB", "1", "0", "-1GB", "nanGB", "infGB", "1e400GB", "1XB", "500MB", "GB"),
        *("9999999TB", "4 GB", "²GB", "1e9", "0.1GB"),
    ),
    "--shard": ("1/1", "1/2", "2/2", "0/1", "3/2", "1/0", "-1/2", "²/3", "1/1000000", "1/", "a/b"),
    "--price-per-hour": (
        *("0.40", "cpu:0.40,gpu@25:1.20", "-1", "nan", "inf", "1e308", "cpu@0:1", "cpu@nan:1"),
        *("cpu:", ":1", "cpu@:1", "a:1,a:2", "cpu:1,,"),
    ),
    "--device": ("cpu", "auto", "cuda", "cuda:7", "cuda:-1", "xpu", "mps", "meta", "cpu:3", "gpu"),
    "--precision": ("auto", "fp32", "bf16", "fp16", "int8", "fp8", "FP32"),
    "--backend": ("auto", "torch", "openvino", "numpy"),
    "--engine": ("local", "spark"),
    "--address": ("127.0.0.1:9", "auto", "x"),
    "--crs": ("EPSG:32632", "EPSG:4326", "EPSG:4978", "EPSG:5703", "EPSG:0", "IAU_2015:49900"),
    "--basemap": ("http://127.0.0.1:9/{z}/{x}/{y}.png", "file:///{z}/{x}/{y}", "http://[", "{z}"),
    "--port": ("0", "1", "80", "-1", "65535", "65536", "99999999999"),
    "--model": ("model", "fcn", "unet", "pspnet", "deeplabv3plus", "fpn", "resnet", "model,model"),
    "--encoder": ("resnet18_slim", "resnet18", "efficientnet_lite0", "timm:x", "timm:resnet18"),
    "--name": ("name", "fid", "geometry", "geom", "Name", "area"),
    "--encoder-weights": ("imagenet", "aerial", "published.pth"),
    "--class-weights": ("1", "0", "nan", "inf", "-1", "1e308"),
    "AREA": (
        "11,48,11.01,48.01",
        "-180,-90,180,90",
        "11,48",
        "nan,0,1,1",
        "11,48,10,47",
        "0,0,0,0",
    ),
}
"""Values that come further than what is wrong at first sight."""
PATH_FLAGS = (
    *("--aoi", "--zones", "--classes", "--recipe", "--model", "--before", "--after", "--against"),
    *("--areas", "--from", "--encoder-weights", "--data", "--map", "--mask"),
)


@dataclass(frozen=True)
class Option:
    """What a verb takes."""

    flag: str
    """Its long name, or the name of a positional."""
    hint: Any
    """Type, with None taken off."""
    is_positional: bool


def list_options(verb: str) -> list[Option]:
    """Return what the command line takes for a verb."""
    found = []
    for argument in app[verb].assemble_argument_collection():
        names = [name for name in argument.names if name.startswith("--")]
        if "*" in argument.names:
            continue
        name = names[0] if names else argument.names[0]
        found.append(Option(name, _strip_none(argument.hint), not names))
    return found


def _strip_none(hint: Any) -> Any:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
        return kinds[0]
    return hint


def draw_line(random: Random, line: Line) -> Line:
    """Return a healthy line with some of its options and paths made hostile."""
    options = list_options(line.verb)
    for _ in range(random.choice((1, 1, 1, 2, 2, 3, 4))):
        option = random.choice(options) if options else None
        if option is None:
            continue
        if option.is_positional:
            index = [each.flag for each in options if each.is_positional].index(option.flag)
            line = _put_positional(random, line, index, option)
        else:
            line = line.put(option.flag, draw_value(random, option))
    if random.random() < 0.03:
        line = line.put(random.choice(("--nothing", "--help", "--version", "-x")), None)
    if line.outputs and random.random() < 0.3:
        line = line.put("--overwrite", None)
    return line


def _put_positional(random: Random, line: Line, index: int, option: Option) -> Line:
    words = list(line.positionals)
    if index >= len(words):
        return line
    if random.random() < 0.05:
        del words[index]
    else:
        words[index] = draw_value(random, option) or ""
    # A verb that writes into the folder it is given must not be given one outside.
    return replace(line, positionals=tuple("x" if word == "/" else word for word in words))


def draw_value(random: Random, option: Option) -> str | None:
    """Return a value for an option, None for a flag that takes none."""
    if option.hint is bool:
        return None if random.random() < 0.95 else random.choice(("1", "no", ""))
    if option.flag in OUTPUT_FLAGS:
        return random.choice(OUTPUTS)
    if option.flag in EXAMPLES and random.random() < 0.7:
        return random.choice(EXAMPLES[option.flag])
    if option.flag in WORK_FLAGS:
        return random.choice(WORKING)
    if typing.get_origin(option.hint) is Literal:
        choices = [choice for choice in typing.get_args(option.hint) if choice in _cheap(option)]
        return random.choice((*choices, *choices, *choices, "", "NONE", "x"))
    if option.hint is int:
        return random.choice(INTEGERS)
    if option.hint is float or typing.get_origin(option.hint) is tuple:
        return random.choice(NUMBERS)
    if option.hint is Path or option.is_positional or option.flag in PATH_FLAGS:
        return random.choice(PATHS) if random.random() < 0.9 else random.choice(TEXTS)
    return random.choice((*TEXTS, *PATHS[:8]))


def _cheap(option: Option) -> tuple[str, ...]:
    """Return the choices that take no minute: no compiler, no cluster."""
    return EXAMPLES.get(option.flag, typing.get_args(option.hint))
