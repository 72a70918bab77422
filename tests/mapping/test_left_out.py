"""What --nodata and --mask leave out is nodata in every output, and part of what a job is."""

import json
from functools import partial

import numpy as np
import pytest
import rasterio
from tests.flat_options import predict_flat, sort_options

import terradelta as td
from terradelta.data.synthetic import write_folders
from terradelta.errors import ArgumentError, OutputExistsError, RasterError
from terradelta.viewer.result import Result
from terradelta.viewer.tiles import ImageTiles

from .small_blocks import TILE_SIZE_PX


@pytest.fixture(scope="module")
def inputs(scene, tmp_path_factory):
    """The scene with a black collar after, and a mask of clouds before."""
    folder = tmp_path_factory.mktemp("left_out")
    with rasterio.open(scene / "after.tif") as source:
        image_CHW, profile = np.maximum(source.read(), 1), source.profile
    image_CHW[:, :, :90] = 0
    with rasterio.open(folder / "after.tif", "w", **profile) as target:
        target.write(image_CHW)
    clouds_HW = np.full(image_CHW.shape[1:], 5, np.uint8)
    clouds_HW[200:260, 60:200] = 9
    clouds_HW[300:] = 4
    _write_mask(folder / "clouds.tif", clouds_HW, profile)
    _write_mask(folder / "others.tif", np.where(clouds_HW == 4, 9, 4), profile)
    return folder


def _write_mask(path, values_HW, profile):
    fields = {**profile, "driver": "GTiff", "count": 1, "photometric": "MINISBLACK"}
    with rasterio.open(path, "w", **fields) as target:
        target.write(values_HW.astype(np.uint8), 1)


@pytest.fixture
def predict(model_folder, scene, inputs):
    return partial(
        predict_flat,
        scene / "before.tif",
        inputs / "after.tif",
        nodata=(None, 0),
        mask=(inputs / "clouds.tif", None),
        mask_values="scl",
        tile_size=TILE_SIZE_PX,
        precision="fp32",
        model=model_folder,
    )


def test_what_is_left_out_is_nodata_in_every_output(predict, inputs, tmp_path, small_blocks):
    result = predict(output=tmp_path / "out")
    with rasterio.open(result.folder / "change.tif") as dataset:
        valid_HW = dataset.read(1) != dataset.nodata
    expected_HW = np.ones_like(valid_HW)
    expected_HW[:, :90] = expected_HW[200:260, 60:200] = False
    assert (valid_HW == expected_HW).all(), np.argwhere(valid_HW != expected_HW)
    assert result.summary.nodata_pixels == (~expected_HW).sum()
    run = json.loads((result.folder / "run.json").read_text())
    assert run["parameters"]["nodata"] == [None, 0]
    assert run["masks"][0]["path"] == str(inputs / "clouds.tif")
    assert run["masks"][1] is None
    report = (result.folder / "report.html").read_text()
    assert "Nodata given, before and after" in report
    assert "Mask values left out" in report


def test_the_viewer_shows_no_picture_where_nodata_was_given(predict, tmp_path):
    pytest.importorskip("morecantile")
    result = predict(output=tmp_path / "out")
    tiles = ImageTiles(Result.load(result.folder), "after")
    with tiles._tiles._opened() as dataset:
        # What its tiles are read from.
        assert dataset.tags(ns="TERRADELTA")["nodata"] == "0"


def test_another_mask_is_another_job(predict, inputs, tmp_path, small_blocks):
    output = tmp_path / "out"
    predict(output=output, shard="1/2")
    with pytest.raises(OutputExistsError, match=r"masks\[1\]\.header_sha256"):
        predict(output=output, shard="2/2", mask=(inputs / "others.tif", None))
    with pytest.raises(OutputExistsError, match="mask_values"):
        predict(output=output, shard="2/2", mask_values="8-10")
    with pytest.raises(OutputExistsError, match="nodata"):
        predict(output=output, shard="2/2", nodata=(0, 0))


@pytest.mark.parametrize(
    "options", [{"nodata": 0}, {"mask": "clouds.tif"}, {"mask_values": "scl"}], ids=str
)
def test_folders_of_images_have_neither(model_folder, tmp_path, options):
    write_folders(tmp_path / "data", 1, 64)
    (flag,) = options
    folders = sorted(path for path in (tmp_path / "data").rglob("*") if path.is_dir())
    with pytest.raises(ArgumentError, match=f"--{flag.replace('_', '-')} was given"):
        td.predict(
            folders[0],
            folders[-1],
            tmp_path / "out",
            **sort_options(options, model=model_folder),
        )


def test_a_plan_refuses_what_the_run_would_refuse(scene, inputs, model_folder):
    pair = scene / "before.tif", inputs / "after.tif"
    settings = {"model": model_folder, "mask": inputs / "clouds.tif", "tile_size": TILE_SIZE_PX}
    td.plan_pair(*pair, **sort_options(settings, mask_values="scl"))
    with pytest.raises(RasterError, match="no pixel is valid"):
        td.plan_pair(*pair, **sort_options(settings))
    with pytest.raises(ArgumentError, match="without a mask"):
        td.plan_pair(*pair, rasters=td.RasterOptions(mask_values="scl"), model=model_folder)
    with pytest.raises(RasterError, match="never the nodata value 1000"):
        td.plan_pair(*pair, rasters=td.RasterOptions(nodata=1000), model=model_folder)
