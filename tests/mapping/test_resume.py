"""What a resumed run takes up: the same rasters, blocks as they were written, its own folder."""

import os
import shutil
from functools import partial

import numpy as np
import pytest
import rasterio
from tests.flat_options import sort_options

import terradelta as td
from terradelta.errors import OutputError, OutputExistsError, RasterError
from terradelta.inference import job as jobs
from terradelta.inference import rasters
from terradelta.inference.job import Job

from .small_blocks import TILE_SIZE_PX, assert_same_bytes

HEADER_BYTES = 65_536


@pytest.fixture(scope="module")
def pair(scene, tmp_path_factory):
    """The scene without compression, so that another image takes as many bytes."""
    folder = tmp_path_factory.mktemp("pair")
    for date in ("before", "after"):
        with rasterio.open(scene / f"{date}.tif") as source:
            image_CHW, profile = source.read(), source.profile
        for name in ("blockxsize", "blockysize", "compress"):
            profile.pop(name)
        with rasterio.open(folder / f"{date}.tif", "w", **profile | {"tiled": False}) as target:
            target.write(image_CHW)
    return folder


@pytest.fixture
def own_pair(pair, tmp_path):
    """A copy that a test may write to."""
    return shutil.copytree(pair, tmp_path / "pair")


@pytest.fixture
def options(model_folder, small_blocks):
    return {"model": model_folder, "tile_size": TILE_SIZE_PX, "precision": "fp32"}


def predict(folder, output, **options):
    return td.predict(folder / "before.tif", folder / "after.tif", output, **sort_options(options))


@pytest.fixture(scope="module")
def whole(pair, model_folder, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rasters, "MAX_BLOCK_SIZE_PX", TILE_SIZE_PX)
        options = {"model": model_folder, "tile_size": TILE_SIZE_PX, "precision": "fp32"}
        return predict(pair, tmp_path_factory.mktemp("whole") / "out", **options).folder


def list_blocks(output):
    return sorted((output.with_name(f"{output.name}.partial") / "blocks").rglob("*.tif"))


@pytest.mark.parametrize("change", ["another image", "one byte", "shorter"])
def test_a_raster_that_was_replaced_is_noticed(own_pair, options, tmp_path, change):
    path, output = own_pair / "before.tif", tmp_path / "out"
    content, status = path.read_bytes(), path.stat()
    assert len(content) > 3 * HEADER_BYTES
    predict(own_pair, output, shard="1/2", **options)
    blocks = {block: block.read_bytes() for block in list_blocks(output)}
    assert blocks
    other = bytearray(content)
    if change == "another image":
        pixels = np.frombuffer(content[HEADER_BYTES:], np.uint8)
        other[HEADER_BYTES:] = (255 - pixels).tobytes()
    elif change == "one byte":
        other[len(content) // 2 + 12_345] ^= 1
    else:
        del other[-1000:]
    path.write_bytes(other)
    # As a careful copy sets it.
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    # One that is shorter is read no further than the look at the pair.
    with pytest.raises(
        (OutputExistsError, RasterError),
        match=r"before\.tif(:.* cannot be| has changed| had 4)",
    ):
        predict(own_pair, output, shard="2/2", **options)
    assert {block: block.read_bytes() for block in list_blocks(output)} == blocks
    path.write_bytes(content)
    predict(own_pair, output, shard="2/2", **options)


def test_the_same_rasters_elsewhere_and_later_are_the_same(pair, options, whole, tmp_path):
    output = tmp_path / "out"
    predict(pair, output, shard="1/2", **options)
    for date in ("before", "after"):
        shutil.copyfile(pair / f"{date}.tif", tmp_path / f"{date}.tif")
    predict(tmp_path, output, shard="2/2", **options)
    assert_same_bytes(td.merge(output).folder, whole)


def flip(path, place):
    """Flip a bit."""
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 16
    path.write_bytes(content)


DAMAGES = {
    "begin": partial(flip, place=0),
    "pixels": partial(flip, place=0.5),
    "checksum": partial(flip, place=1),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "empty": lambda path: path.write_bytes(b""),
    "no checksum": lambda path: path.write_bytes(path.read_bytes()[:-42]),
}


def test_damaged_blocks_are_named_and_made_again(pair, options, whole, tmp_path, caplog):
    output = tmp_path / "out"
    for number in (1, 2):
        predict(pair, output, shard=f"{number}/2", **options)
    blocks = list_blocks(output)
    contents = [block.read_bytes() for block in blocks]
    for damage in DAMAGES.values():
        damage(blocks[1])
        with pytest.raises(OutputError, match=r"lacks 1 of .*number 2; .*00000001\.tif is damaged"):
            td.merge(output)
        with pytest.raises(RasterError, match=r"00000001\.tif, a finished part .*, is damaged"):
            Job.load(output).store.read(1)
        blocks[1].write_bytes(contents[1])
    DAMAGES["pixels"](blocks[0])
    DAMAGES["pixels"](blocks[-1])
    caplog.clear()
    # Not as shards: all at once, blocks that are there taken up.
    with caplog.at_level("INFO", logger="terradelta"):
        predict(pair, output, **options)
    assert "00000000.tif, a finished part of the map, is damaged" in caplog.text
    assert f"resuming after {len(blocks) - 2} of {len(blocks)} blocks" in caplog.text
    assert_same_bytes(output, whole)


def test_too_little_space_is_an_error_before_the_work(pair, options, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "BLOCK_BYTES_PER_PIXEL", 1e12)
    with pytest.raises(OutputError, match=r"has [\d,]+ MB of free space, .* about [\d,]+ MB"):
        predict(pair, tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())


def test_a_damaged_job_is_dropped_on_request_only(pair, options, whole, tmp_path):
    output = tmp_path / "out"
    predict(pair, output, shard="1/2", **options)
    path = tmp_path / "out.partial" / "job.json"
    damaged = r"job\.json(: versions is missing| cannot be read| holds a list)"
    for content in (b"", b"\xff", b"[]", b'{"format": 2}', path.read_bytes()[:-100]):
        path.write_bytes(content)
        with pytest.raises(
            OutputError, match=r"job\.json(: versions is missing| cannot be read| holds a list)"
        ):
            predict(pair, output, **options)
        with pytest.raises(OutputError, match=damaged):
            td.merge(output)
    predict(pair, output, overwrite=True, **options)
    assert_same_bytes(output, whole, ("changes.gpkg",))


def test_what_somebody_puts_into_a_run_is_not_removed_with_it(pair, options, tmp_path, caplog):
    output = tmp_path / "out"
    predict(pair, output, shard="1/2", **options)
    mine = tmp_path / "out.partial" / "blocks" / "thesis.doc"
    mine.write_text("precious")
    with pytest.raises(OutputError, match=r"thesis\.doc exists, and terradelta did not make it"):
        predict(pair, output, overwrite=True, **options)
    assert list_blocks(output)
    mine.rename(tmp_path / "mine")
    job = Job.load(output)
    (tmp_path / "mine").rename(mine)
    job.discard()
    assert mine.read_text() == "precious"
    assert "thesis.doc" in caplog.text
    assert [path for path in (tmp_path / "out.partial").rglob("*") if path.is_file()] == [mine]
