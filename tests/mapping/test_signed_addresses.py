"""Rasters at signed addresses: nobody who gets the map gets to read them."""

import subprocess
import sys

import pytest
from tests.flat_options import sort_options

import terradelta as td
from terradelta.data.synthetic import write_geotiff_pair
from terradelta.errors import RasterError

from ..nasty_rasters.range_server import serve
from .small_blocks import PROGRAM, TILE_SIZE_PX, assert_same_bytes

FIRST, SECOND = "X-Amz-Date=1&X-Amz-Signature=5ec2e7", "X-Amz-Date=2&X-Amz-Signature=0the25ec2e7"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    write_geotiff_pair(folder, 11, (330, 340))
    with serve(folder) as url:
        yield url


@pytest.fixture(scope="module")
def predict(address, model_folder):
    """Predict the pair, signed with this."""

    def run(output, query, **options):
        rasters = [f"{address}/{date}.tif?{query}" for date in ("before", "after")]
        options = {"model": model_folder, "tile_size": TILE_SIZE_PX, "precision": "fp32", **options}
        return td.predict(*rasters, output, **sort_options(options))

    return run


def find_secret(folder):
    return [path for path in folder.rglob("*") if path.is_file() and b"5ec2e7" in path.read_bytes()]


def test_no_output_holds_a_signature_and_the_report_has_pictures(predict, address, tmp_path):
    result = predict(tmp_path / "out", FIRST, picture=True)
    assert not find_secret(result.folder)
    page = (result.folder / "report.html").read_text()
    assert "before.tif" in page
    assert page.count("data:image/webp") > 2
    # What lies there is still told.
    assert f"{address}/before.tif" in (result.folder / "run.json").read_text()


def test_an_address_signed_again_resumes_the_run(predict, small_blocks, tmp_path):
    whole = predict(tmp_path / "whole", FIRST)
    output = tmp_path / "out"
    predict(output, FIRST, shard="1/2")
    job = tmp_path / "out.partial" / "job.json"
    blocks = {path: path.stat().st_mtime_ns for path in job.parent.rglob("*.tif")}
    assert blocks
    predict(output, SECOND, shard="2/2")
    assert SECOND in job.read_text()
    assert FIRST not in job.read_text()
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in blocks.items())
    assert_same_bytes(td.merge(output).folder, whole.folder)
    assert not find_secret(output)


def test_an_error_and_the_log_name_the_file_and_no_signature(address, model_folder, tmp_path):
    absent = f"{address}/absent.tif?{FIRST}"
    with pytest.raises(RasterError, match=r"/absent\.tif cannot be opened") as caught:
        td.predict(absent, absent, tmp_path / "out", model=model_folder)
    assert "5ec2e7" not in str(caught.value)
    line = [sys.executable, "-c", PROGRAM, "predict", absent, absent]
    line += ["-o", str(tmp_path / "out"), "-m", str(model_folder)]
    run = subprocess.run(line, capture_output=True, text=True)
    assert run.returncode == 2
    assert "absent.tif" in run.stderr
    assert "5ec2e7" not in run.stderr
