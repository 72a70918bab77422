"""Healthy files of every kind that a verb reads, small enough that a run takes a second.

All paths are relative to the folder that holds them, so that a copy of it works as well.
"""

from __future__ import annotations

import json
import shutil
from contextlib import chdir
from dataclasses import replace
from pathlib import Path

import geopandas
import numpy as np
import rasterio
import shapely
import torch
from rasterio.enums import ColorInterp

import terradelta as td
from terradelta.cli import main
from terradelta.data.class_file import write_classes
from terradelta.data.synthetic import write_folders, write_geotiff_pair
from terradelta.models.bundle import save_model
from terradelta.models.published import list_published_keys
from terradelta.viewer.reviews import Review, ReviewStore
from tests.areas.maps import label
from tests.conftest import make_model
from tests.training.recipes import SMALL

MADE = ("out", "pieces", "model", "data", "run", "shards")
"""Folders that terradelta made and that hold nothing else, so that --overwrite may replace them."""
PAIR = ("scene/before.tif", "scene/after.tif")
RUNTIME = ("--device", "cpu", "--backend", "torch", "--precision", "fp32")
NETWORK = ("--model", "model", "--tile-size", "320", *RUNTIME)
"""The network's memory is measured on an empty tile, so small ones save time."""


def make_corpus(home: Path):
    """Write the healthy files into `home`, which is made."""
    home.mkdir(parents=True)
    with chdir(home):
        _write_foreign()
        write_geotiff_pair("scene", 5, (96, 128))
        _write_rasters()
        _write_vectors()
        model = make_model()
        save_model(model, "model")
        _write_data(model.card.classes)
        _write_published()
        _map_scene()
        _survey()
        _train()


def _run(*line: str):
    try:
        main(line)
    except SystemExit as stop:
        if stop.code:
            raise RuntimeError(f"terradelta {' '.join(line)} ended with {stop.code}") from stop


def _write_foreign():
    """Write what people keep beside their rasters; no verb may ever touch it."""
    Path("documents").mkdir()
    Path("documents/thesis.doc").write_text("years of work\n")
    Path("notes.txt").write_text("call the surveyor\n")
    Path("empty").mkdir()
    Path("link").symlink_to("empty")
    Path("dangling").symlink_to("nowhere")
    Path("busy.partial").write_text("a file where work would go\n")


def _write_rasters():
    """Write the before image in the ways that GeoTIFFs come in."""
    folder = Path("rasters")
    folder.mkdir()
    with rasterio.open(PAIR[0]) as source:
        image_CHW, colours = source.read(), source.colorinterp
        shape = {"width": source.width, "height": source.height}
        place = {"crs": source.crs, "transform": source.transform}
    wide_CHW = image_CHW.astype(np.uint16) * 10 + 300
    opaque_HW = np.full(image_CHW.shape[1:], 255, np.uint8)
    opaque_HW[:, :20] = 0
    forms = {
        "strips": (image_CHW, {}),
        "tiled": (image_CHW, {"tiled": True, "blockxsize": 32, "blockysize": 32}),
        "packed": (image_CHW, {"compress": "deflate", "predictor": 2, "interleave": "band"}),
        "lzw": (image_CHW, {"compress": "lzw", "nodata": 0}),
        "jpeg": (image_CHW, {"compress": "jpeg", "photometric": "ycbcr", "tiled": True}),
        "wide": (wide_CHW, {"nodata": 0}),
        "real": (image_CHW.astype(np.float32), {"nodata": -9999.0, "compress": "deflate"}),
        "big": (image_CHW, {"bigtiff": "yes"}),
        "alpha": (np.concatenate([image_CHW, opaque_HW[None]]), {}),
        "masked": (image_CHW, {"compress": "deflate"}),
        "tagged": (image_CHW, {}),
    }
    for name, (pixels_CHW, options) in forms.items():
        profile = {"driver": "GTiff", "count": len(pixels_CHW), "dtype": pixels_CHW.dtype}
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(
                folder / f"{name}.tif", "w", **profile, **shape, **place, **options
            ) as target,
        ):
            target.colorinterp = (*colours, ColorInterp.alpha)[: len(pixels_CHW)]
            target.write(pixels_CHW)
            if name == "masked":
                target.write_mask(opaque_HW)
            if name == "tagged":
                target.update_tags(AREA_OR_POINT="Point", TIFFTAG_DATETIME="2019:05:01 10:00:00")
                target.scales, target.offsets = (1e-4,) * 3, (-0.1,) * 3
                target.build_overviews([2, 4])
    Path("mosaic.txt").write_text("rasters/tiled.tif\nscene/after.tif\n")


def _write_vectors():
    """Write two polygons as an area of interest and as zones."""
    with rasterio.open(PAIR[0]) as source:
        left, bottom, right, top = source.bounds
        crs = source.crs.to_wkt()
    middle = (left + right) / 2
    halves = [shapely.box(left, bottom, middle, top), shapely.box(middle, bottom, right, top)]
    frame = geopandas.GeoDataFrame({"name": ["west", "east"]}, geometry=halves, crs=crs)
    for name in ("aoi.gpkg", "aoi.geojson", "aoi.fgb", "zones.gpkg"):
        frame.to_file(name)


def _write_data(classes: td.ClassTable):
    """Write labelled pairs, a CSV of them, a class table and predicted masks."""
    write_folders(Path("data"), 4, seed=7, size_px=64)
    write_classes(Path(), classes)
    for ours, theirs in (("before", "label1"), ("after", "label2")):
        shutil.copytree(f"data/{theirs}", f"masks/{ours}")
    for folder in ("data", "masks"):
        shutil.copy("classes.json", folder)
    lines = ["before,after,before_label,after_label,split"]
    for name, split in zip(
        sorted(path.name for path in Path("data/im1").iterdir()),
        ("train", "train", "val", "test"),
        strict=True,
    ):
        files = (f"data/{folder}/{name}" for folder in ("im1", "im2", "label1", "label2"))
        lines.append(",".join([*files, split]))
    Path("pairs.csv").write_text("\n".join(lines) + "\n")


def _write_published():
    network = td.create_model("fcn", encoder="resnet18_slim")
    keys = list_published_keys(network)
    state = {f"module.{keys[key]}": value for key, value in network.state_dict().items()}
    torch.save(state, "published.pth")


def _map_scene():
    """Map the scene: whole, in pieces, reviewed, and as far as the assembly."""
    line = ("predict", *PAIR, *NETWORK)
    _run(*line, "-o", "out")
    _run(*line, "-o", "pieces", "--cog-size", "512")
    shutil.copytree("out", "annotated")
    Path("annotated/remarks.txt").write_text("seen on site\n")
    shutil.copytree("out", "reviewed")
    store = ReviewStore(Path("reviewed/changes.gpkg"))
    for fid in (1, 2):
        store.write(fid, Review("rejected", None, None, "a shadow", "2024-06-02T10:00:00Z"))
    for number in (1, 2):
        _run(*line, "-o", "shards", "--shard", f"{number}/2")


def _survey():
    """Draw points from the map, label them as it says, and make what reports show of both."""
    _run("sample", "out", "-o", "points.gpkg", "--points", "60", "--floor", "2", "--chip-size", "8")
    with rasterio.open("out/change.tif") as source:
        label(Path("points.gpkg"), source.read(1))
    shutil.copytree("out", "assessed")
    _run("assess", "points.gpkg", "-o", "assessed")
    _run("stats", "assessed", "--zones", "zones.gpkg")


def _train():
    """Train a network for an epoch, with test numbers so that runs can be compared."""
    recipe = replace(SMALL, data="pairs.csv", epochs=1, batch_size=2, workers=0, picture_pairs=1)
    recipe.write_yaml(Path("recipe.yaml"))
    _run("train", "recipe.yaml", "-o", "run", "--device", "cpu")
    if not json.loads(Path("run/test.json").read_text()):
        raise RuntimeError("the run has no test numbers")
