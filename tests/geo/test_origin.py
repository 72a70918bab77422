"""Which files a raster is read from, and whether they are as they were."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

from terradelta.geo import origin
from terradelta.geo.origin import describe_origins, find_differences, list_origins


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Rasters in all their wrappings."""
    folder = tmp_path_factory.mktemp("files")
    profile = {
        "driver": "GTiff",
        "width": 8,
        "height": 8,
        "count": 1,
        "dtype": "uint8",
        "crs": "EPSG:32632",
        "transform": Affine(1, 0, 0, 0, -1, 8),
    }
    for name in ("a", "b", "c"):
        with rasterio.open(folder / f"{name}.tif", "w", **profile) as target:
            target.write(np.ones((1, 8, 8), np.uint8))
    rasterio.shutil.copy(folder / "a.tif", folder / "a.vrt", driver="VRT")
    with zipfile.ZipFile(folder / "z.zip", "w") as archive:
        archive.write(folder / "c.tif", "inner/c.tif")
    (folder / "list.txt").write_text(f"a.tif\nb.tif + c.tif\n\n# a comment\n{folder}/a.vrt\n")
    (folder / "images").mkdir()
    return folder


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a.tif", {"a.tif"}),
        ("a.vrt", {"a.vrt", "a.tif"}),
        ("b.tif + c.tif", {"b.tif", "c.tif"}),
        ("list.txt", {"list.txt", "a.tif", "b.tif", "c.tif", "a.vrt"}),
        (["b.tif", "a.tif"], {"b.tif", "a.tif"}),
        ("z.zip", {"z.zip"}),
        ("/vsizip/z.zip/inner/c.tif", {"z.zip"}),
        ("/vsizip/{z.zip}/inner/c.tif", {"z.zip"}),
        ("zip://z.zip!/inner/c.tif", {"z.zip"}),
        ("vrt://a.tif?bands=1", {"a.tif"}),
        ("GTIFF_DIR:1:a.tif", {"a.tif"}),
        ("images", {"images"}),
        ("https://example.com/a.tif", set()),
        ("s3://bucket/a.tif", set()),
        ("missing.tif", set()),
        ("n" * 300, set()),
    ],
)
def test_the_files_behind_a_source(files, monkeypatch, source, expected):
    monkeypatch.chdir(files)
    found = {os.path.relpath(path.resolve(), files.resolve()) for path in list_origins(source)}
    assert found == expected


def test_a_file_is_another_when_a_byte_is(tmp_path):
    path = tmp_path / "a.tif"
    content = bytes(range(256)) * 40
    path.write_bytes(content)
    was = describe_origins(path)
    for place in range(0, len(content), 97):
        path.write_bytes(content[:place] + b"\xff\xfe" + content[place + 2 :])
        (difference,) = find_differences(was, describe_origins(path))
        assert "content differs" in difference
    path.write_bytes(content[:-1])
    (difference,) = find_differences(was, describe_origins(path))
    assert "had 10,240 bytes and has 10,239" in difference
    # Truncated, and fetched again.
    was = describe_origins(path)
    path.write_bytes(content)
    assert not list(find_differences(was, describe_origins(path)))
    assert list(find_differences(was, []))


@given(
    size=st.integers(0, 300_000),
    budget=st.integers(64, 200_000),
    seed=st.integers(0, 9),
)
def test_samples_are_the_parts_of_the_file_that_they_are_said_to_be(
    size, budget, seed, tmp_path_factory
):
    """Against the whole file in memory."""
    import hashlib

    content = np.random.default_rng(seed).bytes(size)
    path = tmp_path_factory.mktemp("samples") / "file"
    path.write_bytes(content + b"what was fetched later")
    if size <= budget:
        parts = [content]
    else:
        number = max(2, min(64, budget // 16_384))
        length = budget // number
        starts = [(size - length) * i // (number - 1) for i in range(number)]
        parts = [content[start : start + length] for start in starts]
        assert starts[0] == 0
        assert starts[-1] + length == size
    expected = hashlib.sha256(b"".join(parts)).hexdigest()
    assert origin._hash_samples(path, size, budget) == expected


def test_a_large_file_that_was_only_touched_is_the_same_and_said_to_be_sampled(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(origin, "SAMPLED_BYTES", 6400)
    monkeypatch.setattr(origin, "MIN_SAMPLED_BYTES", 640)
    path = tmp_path / "a.tif"
    path.write_bytes(bytes(100_000))
    was = describe_origins(path)
    os.utime(path, ns=(0, 0))
    assert not list(find_differences(was, describe_origins(path)))
    assert "2 samples" in caplog.text


def test_the_files_of_a_mosaic_share_what_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(origin, "SAMPLED_BYTES", 6400)
    monkeypatch.setattr(origin, "MIN_SAMPLED_BYTES", 640)
    paths = [Path(tmp_path, f"{number}.tif") for number in range(5)]
    for path in paths:
        path.write_bytes(bytes(100))
    described = describe_origins(paths)
    assert {file.sampled_bytes for file in described} == {1280}
    assert [file.path for file in described] == list(map(str, paths))
