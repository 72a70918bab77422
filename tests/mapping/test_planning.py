"""Plans against blocks counted one by one."""

import json

import numpy as np
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS
from rasterio.windows import Window

import terradelta as td
from terradelta.cli import main
from terradelta.errors import ArgumentError
from terradelta.geo.area import measure_pixels
from terradelta.geo.grid import Grid
from terradelta.inference.tiling import BlockPlan, Tiling
from terradelta.mapping.planning import choose_tiles, measure_extent
from terradelta.mapping.prices import parse_workers

GRID = Grid(CRS.from_epsg(32632), Affine(10, 0, 400_000, 0, -10, 6_000_000), 9_300, 7_100)


def cut(tiles_per_side: int) -> BlockPlan:
    area = Window(130, 70, 9_000, 6_900)
    return BlockPlan(Tiling(320, 32, 8), GRID.height, GRID.width, area, tiles_per_side)


def scatter(seed: int, count: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = shapely.points(rng.uniform(-200, 9_000, (count, 2)))
    return shapely.buffer(centres, rng.uniform(20, 900, count), quad_segs=2)


def touch(window: Window, layers, spare_px: float = 0) -> bool:
    edges = window.col_off, window.row_off
    box = shapely.box(*edges, edges[0] + window.width, edges[1] + window.height)
    box = shapely.buffer(box, spare_px, join_style="mitre")
    return all(shapely.intersects(layer, box).any() for layer in layers)


@pytest.mark.parametrize("tiles_per_side", [1, 3])
def test_blocks_tiles_bytes_and_ground_are_those_of_blocks_counted_one_by_one(tiles_per_side):
    blocks = cut(tiles_per_side)
    layers = [scatter(1, 25), scatter(2, 25)]
    extent = measure_extent(blocks, GRID, layers, 6)
    work = [block for block in blocks if touch(block.write, layers)]
    # A block that is missed by a hair may be counted, none that is touched is not.
    assert 0 < len(work) <= extent.blocks <= 1.05 * len(work) < len(blocks)
    assert extent.empty_blocks == len(blocks) - extent.blocks
    tiles = [tile for block in blocks for tile in block.tiles if touch(tile.write, layers)]
    assert len(tiles) <= extent.tiles <= 1.05 * len(tiles)
    read_bytes = 6 * sum(int(block.read.width * block.read.height) for block in work)
    assert read_bytes <= extent.bytes_read <= 1.05 * read_bytes
    area_m2 = sum(float(measure_pixels(GRID, block.write).sum()) for block in work)
    assert extent.area_km2 == pytest.approx(area_m2 / 1e6, rel=0.05)


def test_without_polygons_all_blocks_are_work():
    blocks = cut(2)
    extent = measure_extent(blocks, GRID, [], 6)
    area_m2 = sum(float(measure_pixels(GRID, block.write).sum()) for block in blocks)
    assert extent.blocks == len(blocks)
    assert extent.bytes_read == 6 * sum(block.read.width * block.read.height for block in blocks)
    assert extent.area_km2 == pytest.approx(area_m2 / 1e6, rel=1e-4)
    assert extent.tiles == sum(len(block.tiles) for block in blocks)


def test_tiles_to_measure_are_spread_over_the_work():
    layers = [scatter(1, 25)]
    blocks = cut(3)
    tiles = list(choose_tiles(blocks, layers, measure_extent(blocks, GRID, layers, 6).tiles))
    assert len(tiles) == 4
    known = {tile for block in blocks for tile in block.tiles}
    assert all(tile in known and touch(tile.write, layers, 64) for tile in tiles)


def test_prices_are_the_users():
    assert [(k.speed, k.price_per_hour) for k in parse_workers("0.4")] == [(1, 0.4)]
    kinds = parse_workers("cpu:0.4, gpu@25:1.2")
    assert [(k.name, k.speed, k.price_per_hour) for k in kinds] == [
        ("cpu", 1, 0.4),
        ("gpu", 25, 1.2),
    ]
    assert parse_workers(None)[0].price_per_hour is None
    for wrong in ("cheap", "gpu@0:1", "gpu@fast:1"):
        with pytest.raises(ArgumentError, match="price of a worker"):
            parse_workers(wrong)


def test_the_plan_of_all_land_fits_on_a_screen(model_folder):
    made = td.plan(
        "-180,-60,180,84",
        runtime=td.Runtime(tile_size=512),
        grid="EPSG:6933@10",
        model=model_folder,
        prices="0.5,big@10:2",
    )
    assert made.extent.area_km2 == pytest.approx(474e6, rel=0.01)
    assert made.extent.tiles > 10_000_000
    small, big = made.kinds
    assert made.hours(small) == pytest.approx(10 * made.hours(big))
    facts = made.to_dict()["workers"][0]
    assert facts["cost"] == pytest.approx(0.5 * facts["worker_hours"])
    assert len(made.to_text().splitlines()) == 6
    with pytest.raises(ArgumentError, match="EPSG:6933@10"):
        td.plan("0,0,1,1", grid="10", model=model_folder)


def test_predict_plan_measures_the_pair_and_makes_nothing(
    model_folder, tmp_path, capsys, monkeypatch
):
    from terradelta.data.synthetic import write_geotiff_pair

    monkeypatch.chdir(tmp_path)
    write_geotiff_pair(tmp_path / "scene", 11, (330, 420))
    line = ["predict", "scene/before.tif", "scene/after.tif", "-m", str(model_folder)]
    line += ["--tile-size", "320", "--plan", "--price-per-hour", "0.4", "--json"]
    with pytest.raises(SystemExit) as stopped:
        main(line)
    assert stopped.value.code == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["blocks"], facts["empty_blocks"]) == (1, 0)
    assert facts["tiles"] > 1
    assert facts["measured"]["read_seconds"] > 0
    assert facts["workers"][0]["cost"] > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scene"]
