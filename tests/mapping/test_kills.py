"""The map of a job that was killed at random moments is the map of one that was not."""

import json

import pytest

from terradelta.data.synthetic import write_geotiff_pair

from .kills import Starter, kill_again_and_again, run_whole


def kill(folder, size_px, tile_size_px, options, kills):
    """Map a drawn scene whole, then killed so many times; returns the tally."""
    write_geotiff_pair(folder / "scene", 11, (size_px, size_px))
    scene = [str(folder / "scene" / f"{date}.tif") for date in ("before", "after")]
    line = [*scene, "--tile-size", str(tile_size_px), *options]
    (folder / "maps").mkdir()
    with Starter(tile_size_px, line, folder) as starter:
        whole = folder / "maps" / "whole"
        course = run_whole(starter, whole)
        run = json.loads((whole / "run.json").read_text())
        tally = kill_again_and_again(starter, whole, course, run["blocks"], kills, seed=0)
    assert [path.name for path in (folder / "maps").iterdir()] == ["whole"]
    return tally


def test_a_map_killed_at_five_moments_is_the_same(model_folder, tmp_path):
    options = ["--model", str(model_folder), "--precision", "fp32"]
    tally = kill(tmp_path, 600, 448, options, kills=5)
    assert tally.kills == 5


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_map_of_4000_px_killed_at_a_hundred_moments_is_the_same(tmp_path, capsys):
    """The embedded network in blocks of one tile of 1,024 px: 64 of them."""
    tally = kill(tmp_path, 4000, 1024, [], kills=100)
    with capsys.disabled():
        print(f"\n{tally}")
    assert tally.kills == 100
    assert min(tally.answering, tally.assembling) > 10
