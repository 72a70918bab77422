"""Rasters of other pixels than the model's: it sees means, or interpolated ones.

The map has the raster's pixels.

Legend of the array names: C bands, H rows, W columns.
"""

from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from PIL import Image
from tests.flat_options import predict_flat
from tests.weights import DRAWN_MODEL

import terradelta as td
from terradelta.data.synthetic import write_geotiff_pair
from terradelta.geo.pair import RasterPair
from terradelta.geo.scale import SeenPixels
from terradelta.inference.prediction_options import Runtime
from terradelta.inference.predictor import Predictor
from terradelta.models.bundle import load_model, save_model

FACTOR = 3
DATES = ("before", "after")
EXACT = {"backend": "torch", "precision": "fp32", "device": "cpu"}
LAYERS = ("before_class", "after_class", "change", "confidence")
CENTRES = slice(FACTOR // 2, None, FACTOR)
"""Of the squares: there a resize from the network's answer asks for the same places."""


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    """A model of pixels of half a metre."""
    folder = tmp_path_factory.mktemp("models") / "model"
    model = load_model(DRAWN_MODEL)
    save_model(replace(model, card=replace(model.card, resolution_m=(0.4, 0.8))), folder)
    return folder


@pytest.fixture(scope="module")
def coarse(tmp_path_factory):
    """A pair with pixels of 0.6 m."""
    folder = tmp_path_factory.mktemp("coarse")
    write_geotiff_pair(folder, 5, (212, 300))
    return tuple(resize(folder / f"{date}.tif", folder / f"{date}_60.tif", 0.6) for date in DATES)


def resize(source, target, side_m: float, factor: int = 1):
    """Write a raster whose pixels are squares of those of another one."""
    with rasterio.open(source) as dataset:
        image_CHW, profile = dataset.read(), dataset.profile
        left, top = dataset.transform.c, dataset.transform.f
    image_CHW = image_CHW.repeat(factor, 1).repeat(factor, 2)
    height, width = image_CHW.shape[1:]
    transform = Affine(side_m, 0, left, 0, -side_m, top)
    profile = {**profile, "height": height, "width": width, "transform": transform}
    for key in ("blockxsize", "blockysize", "tiled", "driver"):
        profile.pop(key, None)
    with rasterio.open(target, "w", driver="GTiff", **profile) as dataset:
        dataset.write(image_CHW)
    return target


@pytest.fixture(scope="module")
def fine(coarse, tmp_path_factory):
    """The same ground with nine times as many pixels of 0.2 m."""
    folder = tmp_path_factory.mktemp("fine")
    return tuple(
        resize(path, folder / f"{date}.tif", 0.2, FACTOR)
        for date, path in zip(DATES, coarse, strict=True)
    )


@pytest.fixture(scope="module")
def maps(coarse, fine, model_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps")
    return [
        predict_flat(*pair, folder / name, model=model_folder, **EXACT)
        for name, pair in (("coarse", coarse), ("fine", fine))
    ]


def read(prediction, layer):
    with rasterio.open(prediction.folder / f"{layer}.tif") as dataset:
        return dataset.read(1)


def test_a_square_of_equal_pixels_is_answered_like_the_one_pixel(maps):
    coarse, fine = maps
    assert 0.02 < (read(coarse, "change") > 0).mean() < 0.9
    for layer in LAYERS:
        assert read(fine, layer).shape == (FACTOR * 212, FACTOR * 300)
        assert (read(fine, layer)[CENTRES, CENTRES] == read(coarse, layer)).all()
    areas_ha = [prediction.summary.changed_ha for prediction in maps]
    assert areas_ha[1] == pytest.approx(areas_ha[0], rel=0.02)
    run = td.PredictionFolder(fine.folder).read_run()
    assert run.parameters.reduction == FACTOR
    assert not [caution for caution in run.cautions if caution.name == "scale"]
    (said,) = [finding for finding in run.findings if finding.name == "scale"]
    assert "means of 3 x 3 of them (0.6 m)" in said.message


def test_the_map_is_the_same_for_every_tile(fine, maps, model_folder, tmp_path):
    small = predict_flat(*fine, tmp_path / "small", model=model_folder, tile_size=384, **EXACT)
    plan = td.PredictionFolder(small.folder).read_run().plan
    assert plan is not None
    assert plan.tile_size_px == 384 * FACTOR
    for layer in LAYERS[:3]:
        assert (read(small, layer) == read(maps[1], layer)).mean() > 0.999


def test_means_are_of_the_pixels_with_data():
    """Against a loop over the squares."""
    random = np.random.default_rng(0)
    predictor = Predictor([load_model(DRAWN_MODEL)], Runtime(**EXACT))
    images = torch.from_numpy(random.integers(0, 256, (2, 1, 3, 96, 96), dtype=np.uint8))
    valid_BHW = torch.from_numpy(random.random((1, 96, 96)) < 0.5)
    valid_BHW[:, :24] = False
    small = torch.zeros(2, 1, 3, 32, 32)
    for row, column in np.ndindex(32, 32):
        place = slice(3 * row, 3 * row + 3), slice(3 * column, 3 * column + 3)
        kept = valid_BHW[0][place]
        if kept.any():
            small[..., row, column] = images[..., *place][..., kept].float().mean(-1)
    has_data_BHW = valid_BHW.reshape(1, 32, 3, 32, 3).any(4).any(2)
    wanted = predictor(*small, has_data_BHW)
    predictor.see(SeenPixels(reduction=FACTOR))
    answer = predictor(*images, valid_BHW)
    for part, whole in zip(answer, wanted, strict=True):
        assert torch.allclose(part[..., CENTRES, CENTRES], whole, atol=1e-5)


@pytest.mark.parametrize("pair", ["fine", "far"])
def test_a_worker_of_a_cluster_sees_the_same_pixels(pair, model_folder, tmp_path, request):
    from terradelta.inference.cluster.worker import Errand, Worker, read_model_files
    from terradelta.inference.job import Job

    rasters = request.getfixturevalue(pair)
    options = {"model": model_folder, "tile_size": 540, **EXACT}
    predict_flat(*rasters, tmp_path / "half", shard="2/2", **options)
    job = Job.load(tmp_path / "half")
    index = next(index for index in range(len(job.plan)) if job.store.has(index))
    worker = Worker(Errand(job.record, 4 * 1024**3, "."))
    worker.start(read_model_files(model_folder))
    content = worker.answer(index, 1).content
    with rasterio.MemoryFile(content) as memory, memory.open() as dataset:
        assert (dataset.read() == np.stack(job.store.read(index)[0])).all()


@pytest.fixture(scope="module")
def far(coarse, tmp_path_factory):
    """Images with pixels of 1.8 m, of which the model sees three for each."""
    folder = tmp_path_factory.mktemp("far")
    return tuple(
        resize(path, folder / f"{date}.tif", 1.8) for date, path in zip(DATES, coarse, strict=True)
    )


def make_images(height: int, width: int):
    """Return two smooth random images, (2, 1, 3, H, W) float32."""
    random = np.random.default_rng(3)
    small = random.uniform(0, 255, (2, 1, 3, height // 4, width // 4)).astype(np.float32)
    return torch.from_numpy(small.repeat(4, 3).repeat(4, 4))


def test_a_coarse_pixel_is_answered_like_the_middle_of_interpolated_ones():
    """Against Pillow's interpolation; with three of them, the middles are at the same places."""
    images = make_images(64, 128)
    predictor = Predictor([load_model(DRAWN_MODEL)], Runtime(**EXACT))
    larger = torch.stack([enlarge(image_1CHW) for image_1CHW in images])
    wanted = predictor(*larger)
    predictor.see(SeenPixels(enlargement=FACTOR))
    answer = predictor(*images)
    for part, whole in zip(answer, wanted, strict=True):
        assert part.shape[-2:] == (64, 128)
        assert torch.allclose(part, whole[..., CENTRES, CENTRES], atol=1e-4)


def enlarge(image_1CHW: torch.Tensor) -> torch.Tensor:
    bands = [Image.fromarray(band_HW.numpy()) for band_HW in image_1CHW[0]]
    size = (FACTOR * bands[0].width, FACTOR * bands[0].height)
    larger = [np.asarray(band.resize(size, Image.Resampling.BILINEAR)) for band in bands]
    return torch.from_numpy(np.stack(larger))[None]


def test_pixels_without_data_do_not_show_in_those_interpolated_beside_them():
    images = make_images(64, 128)
    valid_BHW = torch.ones(1, 64, 128, dtype=torch.bool)
    valid_BHW[..., 90:] = False
    predictor = Predictor([load_model(DRAWN_MODEL)], Runtime(**EXACT))
    predictor.see(SeenPixels(enlargement=2))
    answers = []
    for value in (0.0, 255.0):
        images[..., 90:] = value
        answers.append(predictor(*images, valid_BHW))
    for one, other in zip(*answers, strict=True):
        assert torch.equal(one, other)


def test_a_map_of_coarse_pixels_is_the_same_for_every_tile_and_says_what_is_doubtful(
    far, model_folder, tmp_path
):
    whole = predict_flat(*far, tmp_path / "whole", model=model_folder, **EXACT)
    small = predict_flat(*far, tmp_path / "small", model=model_folder, tile_size=516, **EXACT)
    run = td.PredictionFolder(small.folder).read_run()
    assert run.parameters.enlargement == FACTOR
    assert run.plan is not None
    assert run.plan.tile_size_px < 212  # so that there is more than one
    for layer in LAYERS:
        assert read(whole, layer).shape == (212, 300)
    assert 0.005 < (read(whole, "change") > 0).mean() < 0.9
    for layer in LAYERS[:3]:
        assert (read(small, layer) == read(whole, layer)).mean() > 0.999
    (said,) = [caution for caution in run.cautions if caution.name == "scale"]
    assert "3 x 3 interpolated pixels" in said.message


@pytest.mark.parametrize("pair", ["fine", "far"])
def test_blocks_for_a_sink_of_ones_own_see_the_same_pixels(pair, model_folder, tmp_path, request):
    rasters = request.getfixturevalue(pair)
    wanted = predict_flat(*rasters, tmp_path / "map", model=model_folder, **EXACT)
    predictor = Predictor([load_model(model_folder)], Runtime(**EXACT))
    after_HW = np.zeros(read(wanted, "after_class").shape, np.uint8)

    class Sink:
        def put(self, block):
            rows, columns = block.window.toslices()
            after_HW[rows, columns] = block.maps.after_HW

    with RasterPair(*rasters, predictor.bands) as opened:
        td.predict_blocks(opened, Sink(), predictor)
    assert (after_HW == read(wanted, "after_class")).all()
    # Arrays have no pixel size: what the raster needed does not stay.
    images = make_images(64, 128).numpy()[:, 0]
    found = td.predict_arrays(*images, predictor=predictor)
    fresh = td.predict_arrays(*images, model=model_folder)
    assert (found.after_class == fresh.after_class).mean() > 0.99
    assert predictor.seen_pixels == SeenPixels()
