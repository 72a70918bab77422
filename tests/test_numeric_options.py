"""Numbers that no option can have, by the command line and from Python."""

from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest

import terradelta as td
from terradelta.cli import main
from terradelta.data.synthetic import write_folders, write_geotiff_pair
from terradelta.errors import ArgumentError
from terradelta.flags import read_memory
from terradelta.inference.predictor import Predictor
from terradelta.models.precision import choose_device
from terradelta.viewer.server import view
from tests.flat_options import sort_options


def refuse(capsys, *line):
    """Run a line that is refused, and return what it says."""
    with pytest.raises(SystemExit) as ended:
        main([str(part) for part in line])
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert "Traceback" not in said.err + said.out
    return said.err


PREDICT = ("predict", "before.tif", "after.tif", "-o", "out")
TRAIN = ("train", "data", "-o", "run")
SAMPLE = ("sample", "out", "-o", "p.gpkg")


@pytest.mark.parametrize(
    ("line", "flag", "value"),
    [
        (PREDICT, "--time-budget", "-1"),
        (PREDICT, "--time-budget", "0"),
        (PREDICT, "--time-budget", "nan"),
        (PREDICT, "--time-budget", "inf"),
        (PREDICT, "--tile-size", "0"),
        (PREDICT, "--tile-size", "-512"),
        (PREDICT, "--tile-size", "1000000000"),
        (PREDICT, "--workers", "0"),
        (PREDICT, "--worker-cpus", "nan"),
        (PREDICT, "--worker-cpus", "-1"),
        (("predict", "b.tif", "a.tif", "--plan"), "--tile-size", "0"),
        (("plan", "7,45,8,46", "--grid", "EPSG:3035@10"), "--tile-size", "0"),
        (("plan", "7,45,8,46", "--grid", "EPSG:3035@10"), "--bytes-per-pixel", "-3"),
        (SAMPLE, "--chip-size", "-1"),
        (SAMPLE, "--points", "0"),
        (SAMPLE, "--standard-error", "nan"),
        (SAMPLE, "--floor", "0"),
        (SAMPLE, "--stratum-share", "nan"),
        (SAMPLE, "--stratum-share", "2"),
        (SAMPLE, "--buffer-px", "-1"),
        (SAMPLE, "--expect-changed", "1.5"),
        (SAMPLE, "--expect-unchanged", "nan"),
        (SAMPLE, "--expect-near", "-0.1"),
        (SAMPLE, "--seed", "-1"),
        (("score", "a", "b"), "--bootstrap", "0"),
        (("score", "a", "b"), "--seed", "-1"),
        (("synth", "-o", "x"), "--size", "100000000"),
        (("synth", "-o", "x", "--geotiff"), "--seed", "-1"),
        (("view", "out"), "--port", "-1"),
        (TRAIN, "--epochs", "0"),
        (TRAIN, "--batch-size", "-1"),
        (TRAIN, "--learning-rate", "nan"),
        (TRAIN, "--learning-rate", "inf"),
        (TRAIN, "--weight-decay", "nan"),
        (TRAIN, "--ema-decay", "nan"),
        (TRAIN, "--class-weights", "nan"),
        (TRAIN, "--consistency-weight", "-1"),
        (TRAIN, "--changed-pixel-weight", "nan"),
        (TRAIN, "--poly-power", "-1"),
        (TRAIN, "--crop-size-px", "0"),
        (TRAIN, "--tile-size-px", "-5"),
        (TRAIN, "--zoom", "2"),
        (TRAIN, "--brightness", "nan"),
        (TRAIN, "--contrast", "-1"),
        (TRAIN, "--colour", "2"),
        (TRAIN, "--seed", "-1"),
        (TRAIN, "--workers", "-1"),
        (TRAIN, "--picture-pairs", "-1"),
        (TRAIN, "--patience", "0"),
        (TRAIN, "--val-every", "0"),
        (TRAIN, "--accumulate-batches", "0"),
        (TRAIN, "--warmup-steps", "-1"),
        (TRAIN, "--gradient-clip-norm", "0"),
        (TRAIN, "--head-rate-factor", "0"),
    ],
)
def test_a_number_out_of_range_is_refused_by_its_name(
    capsys, tmp_path, monkeypatch, line, flag, value
):
    monkeypatch.chdir(tmp_path)
    said = refuse(capsys, *line, flag, value)
    assert flag in said or flag.removeprefix("--").replace("-", "_") in said
    assert value in said or str(float(value)) in said
    assert not list(tmp_path.iterdir()), "refused before any work"


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--shard", "²/3"),
        ("--shard", "1/" + "9" * 5000),
        ("--memory", "9" * 400),
        ("--memory", "-1GB"),
        ("--memory", "nan"),
        ("--min-area", "9" * 400 + "m2"),
        ("--min-area", "nan"),
        ("--value-range", "0,inf"),
        ("--value-range", "nan,1"),
        ("--cog-size", "-512"),
        ("--device", "xpu"),
        ("--device", "meta"),
        ("--device", "cuda:-1"),
        ("--device", "cpu:3"),
        ("--device", ""),
        ("--price-per-hour", "9" * 400),
    ],
)
def test_a_text_that_is_no_number_for_its_option_is_refused(
    capsys, tmp_path, monkeypatch, flag, value
):
    write_geotiff_pair(tmp_path / "scene", 1, 64)
    monkeypatch.chdir(tmp_path / "scene")
    plan = ["--plan"] if flag == "--price-per-hour" else ["-o", "out"]
    said = refuse(capsys, "predict", "before.tif", "after.tif", *plan, f"{flag}={value}")
    assert "fix:" in said
    assert not Path("out").exists()


@pytest.mark.parametrize("bands", ["²,1,1", "1,1," + "9" * 5000, "1,1,-1", "1,,1"])
@pytest.mark.parametrize("verb", ["predict", "check"])
def test_bands_that_are_no_numbers_are_refused(capsys, tmp_path, monkeypatch, verb, bands):
    write_geotiff_pair(tmp_path / "scene", 1, 64)
    monkeypatch.chdir(tmp_path / "scene")
    output = ["-o", "out"] if verb == "predict" else []
    with pytest.raises(SystemExit) as ended:
        main([verb, "before.tif", "after.tif", *output, "--bands", bands])
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert "has no band" in said.err + said.out


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: td.predict("a", "b", "out", maps=td.MapOptions(time_budget=-1)), "time_budget"),
        (lambda: td.predict("a", "b", "out", runtime=td.Runtime(tile_size=0)), "tile_size"),
        (lambda: td.predict("a", "b", "out", runtime=td.Runtime(tile_size="512")), "tile_size"),
        (lambda: td.plan_pair("a", "b", runtime=td.Runtime(tile_size=0)), "tile_size"),
        (lambda: td.evaluate("m", "d", bootstrap=-1), "bootstrap"),
        (lambda: td.compare_masks("a", "b", "c", seed=-1), "seed"),
        (lambda: td.sample("a", "b.gpkg", chip_size_px=10**9), "chip_size_px"),
        (lambda: write_folders("x", 1, 0, size_px=10**9), "size_px"),
        (lambda: view("out", port=70_000), "port"),
        (lambda: Predictor([], batch_size=0), "batch_size"),
        (lambda: Predictor([], batch_size=-1), "batch_size"),
    ],
)
def test_python_is_refused_as_the_command_line_is(call, name):
    with pytest.raises(ArgumentError, match=f"{name} is .*and it must be"):
        call()


def test_what_the_library_allows_is_let_through():
    assert read_memory("2GB") == 2 * 2**30
    assert read_memory(5 * 10**9) == 5 * 10**9
    assert choose_device("cpu").type == "cpu"


def test_every_range_can_be_found():
    """Their types are looked up at the first call: names that only a type checker sees are none."""
    functions = [getattr(td, name) for name in td.__all__]
    ranged = [one for one in functions if hasattr(one, "__wrapped__")]
    assert len(ranged) >= 6
    for function in ranged:
        assert get_type_hints(function, include_extras=True)


@pytest.mark.parametrize("name", ["before", "after"])
@pytest.mark.parametrize(
    "array", [np.zeros((3, 8, 8), np.uint8), [np.zeros((3, 8, 8), np.uint8)], 3, None, b"x.tif"]
)
def test_arrays_are_no_paths(tmp_path, name, array):
    sources = {"before": "a.tif", "after": "b.tif", name: array}
    with pytest.raises(ArgumentError, match=f"{name} is of the type") as caught:
        td.predict(**sort_options(sources, output=tmp_path / "out"))
    assert "GeoTIFF" in caught.value.fix
    report = td.check(**sort_options(sources))
    assert report.level == "FAIL"
    assert "is of the type" in report.to_text()
