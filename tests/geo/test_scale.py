"""Pixels on the ground against those a model knows, in whatever units a CRS has."""

import logging

import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS

from terradelta.geo.check import examine_pair
from terradelta.geo.grid import Grid
from terradelta.geo.pair_options import ModelNeeds, PairOptions
from terradelta.geo.scale import SeenPixels, advise_scale, find_seen_pixels, measure_pixel_size

KNOWN_M = (0.3, 1.2)
"""Whose middle is 0.6 m."""


def place(crs: str | None, side: float, origin: tuple[float, float]) -> Grid:
    transform = Affine(side, 0, origin[0], 0, -side, origin[1])
    return Grid(None if crs is None else CRS.from_user_input(crs), transform, 100, 100)


@pytest.mark.parametrize(
    ("crs", "unit_m", "origin"),
    [
        ("EPSG:32632", 1.0, (500_000, 5_400_000)),
        ("EPSG:2229", 0.3048, (6_500_000, 1_800_000)),  # California, US feet
        ("EPSG:4326", 111_000, (11.0, 0.5)),
        ("EPSG:3857", 0.5, (1_200_000, 8_399_000)),  # 60 degrees north, where it doubles lengths
    ],
)
def test_finer_pixels_are_joined_to_the_middle_of_what_the_model_knows(crs, unit_m, origin):
    grid = place(crs, 0.1 / unit_m, origin)
    assert measure_pixel_size(grid) == pytest.approx(0.1, rel=0.02)
    assert advise_scale(grid, KNOWN_M) is None
    assert find_seen_pixels(grid, KNOWN_M) == SeenPixels(reduction=6)


def test_joined_and_enlarged_pixels_are_always_of_a_size_that_the_model_knows():
    for size_m in np.geomspace(0.081, 0.299, 200):
        seen = find_seen_pixels(place("EPSG:32632", size_m, (500_000, 5_400_000)), (0.3, 0.8))
        assert seen.reduction > 1
        assert 0.3 <= seen.reduction * size_m <= 0.8
    for size_m in np.geomspace(0.82, 3.1, 200):
        seen = find_seen_pixels(place("EPSG:32632", size_m, (500_000, 5_400_000)), (0.3, 0.8))
        assert seen.enlargement > 1
        assert 0.3 <= size_m / seen.enlargement <= 0.8
    for size_m in (0.3, 0.5, 0.8, 3.3, 10):
        grid = place("EPSG:32632", size_m, (500_000, 5_400_000))
        assert find_seen_pixels(grid, (0.3, 0.8)) == SeenPixels()
    grid = place("EPSG:32632", 0.1, (500_000, 5_400_000))
    assert find_seen_pixels(grid, None) == SeenPixels()
    assert find_seen_pixels(place(None, 0.1, (0, 0)), (0.3, 0.8)) == SeenPixels()


@pytest.mark.parametrize("size_m", [1e-3, 0.01, 0.07])
def test_far_finer_pixels_are_not_joined_and_a_coarser_grid_is_advised(size_m):
    """Tiles of so many pixels would not fit into memory."""
    grid = place("EPSG:32632", size_m, (500_000, 5_400_000))
    assert find_seen_pixels(grid, (0.3, 0.8)) == SeenPixels()
    advice = advise_scale(grid, (0.3, 0.8))
    assert advice is not None
    side = float(advice[1].split()[1].rstrip(","))
    assert measure_pixel_size(place("EPSG:32632", side, (500_000, 5_400_000))) == pytest.approx(
        0.49, rel=0.05
    )


def test_what_fits_needs_no_advice_and_an_unknown_size_does():
    fitting = place("EPSG:32632", 0.5, (500_000, 5_400_000))
    assert advise_scale(fitting, KNOWN_M) is None
    assert advise_scale(fitting, None) is None
    unknown = place(None, 0.5, (0, 0))
    assert advise_scale(unknown, None) is None
    advice = advise_scale(unknown, KNOWN_M)
    assert advice is not None
    assert "unknown, and the model learned from 0.3 to 1.2 m" in advice[0]


def test_enlarged_pixels_are_reported():
    advice = advise_scale(place("EPSG:32632", 1.8, (500_000, 5_400_000)), (0.3, 0.8))
    assert advice is not None
    assert "pixels of 1.8 m, and the model learned from 0.3 to 0.8 m" in advice[0]
    assert "4 x 4 interpolated pixels" in advice[0]


def test_coarse_pixels_are_reported_and_no_grid_is_advised_for_them():
    advice = advise_scale(place("EPSG:32632", 10, (500_000, 5_400_000)), KNOWN_M)
    assert advice is not None
    assert "pixels of 10 m, and the model learned from 0.3 to 1.2 m" in advice[0]
    assert "--grid" not in advice[1]


def test_check_and_predict_say_so(write_raster, tmp_path, caplog):
    from terradelta.mapping.run import predict
    from terradelta.models.embedded import load_cards

    image_CHW = np.random.default_rng(0).integers(0, 255, (3, 64, 64), dtype=np.uint8)
    ten_m = Affine(10, 0, 500_000, 0, -10, 5_400_000)
    paths = [write_raster(name, image_CHW, transform=ten_m) for name in ("before", "after")]
    resolution_m = load_cards(None)[0].resolution_m
    assert resolution_m is not None
    needs = ModelNeeds(resolution_m=resolution_m)
    findings = examine_pair(*paths, PairOptions(), needs).findings
    (found,) = [finding for finding in findings if finding.name == "scale"]
    assert found.level == "WARN"
    with caplog.at_level(logging.WARNING):
        predict(*paths, tmp_path / "out")
    assert "pixels of 10 m" in caplog.text
