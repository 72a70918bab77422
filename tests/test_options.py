"""One definition of an option: for Python, the command line and YAML."""

import subprocess
import sys
from dataclasses import fields

import pytest

import terradelta as td
from terradelta.cli import main
from terradelta.errors import ArgumentError
from terradelta.flags import read_both, read_masks, read_nodata, read_range, read_shard
from terradelta.geo.cog import BLOCK_SIZE_PX
from terradelta.inference.executors import find_executor
from terradelta.inference.prediction_options import SMALLEST_PIECE_PX
from terradelta.mapping import run as mapping_run

VALUES = (td.RasterOptions, td.MapOptions, td.Runtime, td.Cluster)
LINE = """
    --bands red,2,3 --value-range 0,3000 --after-value-range -5,10 --nodata before=0,after=-9999
    --mask after=clouds.tif --mask-values scl --before-date 2019 --after-date 2024-05 --grid 2.5
    --aoi fields.gpkg#fields --register --min-area 0.5ha --vector parquet --cog-size 1024
    --layout senseearth --time-budget 90 --memory 2GB --shard 2/3 --picture --strict --tta d4
    --sensitivity few-alarms --tile-size 512 --device cpu --backend torch --precision fp32
    --engine ray --address host:1 --workers 3 --worker-cpus 2
"""
GIVEN = {
    "rasters": td.RasterOptions(
        bands=("red", "2", "3"),
        value_range=(0, 3000),
        after_value_range=(-5, 10),
        nodata=(0, -9999),
        mask=(None, "clouds.tif"),
        mask_values="scl",
        before_date="2019",
        after_date="2024-05",
        grid="2.5",
        aoi="fields.gpkg#fields",
    ),
    "maps": td.MapOptions(
        register=True,
        min_area="0.5ha",
        vector="parquet",
        cog_size=1024,
        layout="senseearth",
        time_budget=90,
        memory="2GB",
        shard="2/3",
        picture=True,
        strict=True,
    ),
    "runtime": td.Runtime(
        tta="d4",
        sensitivity="few-alarms",
        tile_size=512,
        device="cpu",
        backend="torch",
        precision="fp32",
    ),
    "cluster": td.Cluster(engine="ray", address="host:1", workers=3, worker_cpus=2),
}


BOMB = (
    "bands: [&a0 [1, 1]"
    + "".join(f", &a{depth} [{', '.join([f'*a{depth - 1}'] * 10)}]" for depth in range(1, 12))
    + "]"
)
"""Two hundred thousand million numbers in some hundred bytes."""


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """What a line of `predict` asks for; the prediction itself is tested elsewhere."""
    monkeypatch.chdir(tmp_path)

    class Asked(Exception):  # noqa: N818
        pass

    def note(*_, rasters, maps, runtime, cluster, **__):
        raise Asked({"rasters": rasters, "maps": maps, "runtime": runtime, "cluster": cluster})

    monkeypatch.setattr(mapping_run, "predict", note)

    def read(*line):
        with pytest.raises(Asked) as raised:
            main(["predict", "a.tif", "b.tif", "-o", "out", *line])
        return raised.value.args[0]

    return read


def test_the_line_above_names_every_option(asked):
    flags = {"--" + field.name.replace("_", "-") for kind in VALUES for field in fields(kind)}
    # Matched light excludes a range of the after image.
    assert flags - {"--match-light"} == {word for word in LINE.split() if word.startswith("--")}
    assert asked("--match-light", "linear")["rasters"] == td.RasterOptions(match_light="linear")


def test_a_line_gives_the_values_that_python_gives(asked):
    assert asked(*LINE.split()) == GIVEN


def test_a_file_gives_what_the_line_gives_and_the_line_comes_first(asked, tmp_path):
    words = LINE.split()
    lines = []
    for flag, value in zip(words, [*words[1:], "--"], strict=True):
        if flag.startswith("--"):
            name = flag[2:].replace("-", "_")
            lines.append(f"{name}: {'true' if value.startswith('--') else value}")
    lines[0] = "bands: [red, 2, 3]"
    (tmp_path / "options.yaml").write_text("\n".join(lines))
    assert asked("--options", "options.yaml") == GIVEN
    assert asked("--options", "options.yaml", "--tta", "flips")["runtime"].tta == "flips"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("gird: 2.5", "options that do not exist: gird"),
        ("[1, 2]", "holds list, not options"),
        ("memory: {a: 3}", "memory is neither a value nor a list of values"),
        ("memory: much", "is not an amount of memory"),
        ("value_range: 3", "is not a range of values"),
        ("tta: sideways", 'Choose from: "none"'),
        ("tile_size: -1", "tile_size is -1"),
        ("bands: [[1, 2], 3]", "bands is neither a value nor a list of values"),
        ("bands: []", "bands is neither a value nor a list of values"),
        (BOMB, "bands is neither a value nor a list of values"),
    ],
)
def test_a_file_that_holds_something_else_is_refused(
    tmp_path, monkeypatch, capsys, content, problem
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "options.yaml").write_text(content)
    with pytest.raises(SystemExit) as ended:
        main(["predict", "a.tif", "b.tif", "-o", "out", "--options", "options.yaml"])
    assert ended.value.code == 2
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert problem in said


def test_options_of_a_cluster_need_one():
    with pytest.raises(ArgumentError, match="--address, --workers was given, and the engine"):
        td.Cluster(address="host:1", workers=3)


def test_errors_name_the_python_arguments_of_their_flags():
    with pytest.raises(ArgumentError) as caught:
        td.RasterOptions(match_light="linear", after_value_range=(0, 9))
    assert "in Python: match_light for --match-light, after_value_range" in str(caught.value)
    assert "in Python" not in caught.value.to_text()
    assert "in Python" not in str(ArgumentError("a-- file --", fix="none -- of these"))


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (lambda: td.predict("a", "b", "out", runtime={"tta": "d4"}), "runtime is a dict"),
        (lambda: td.predict("a", "b", "out", rasters=None), "rasters is a NoneType"),
        (lambda: td.predict("a", "b", "out", maps=td.Runtime()), "maps is a Runtime"),
        (lambda: td.check("a", "b", rasters=td.MapOptions()), "rasters is a MapOptions"),
        (lambda: td.plan_pair("a", "b", rasters="x"), "rasters is a str"),
        (lambda: td.Predictor([], "cpu"), "runtime is a str"),
        (lambda: find_executor("ray", memory_bytes=1), "cluster is a str"),
    ],
)
def test_options_of_another_kind_are_refused(call, problem):
    with pytest.raises(ArgumentError, match=problem) as caught:
        call()
    assert "=td." in caught.value.fix


def test_lists_are_taken_for_pairs_of_the_dates():
    reading = td.RasterOptions(nodata=[0, 255], mask=["a.tif", None]).reading
    assert (reading.before.nodata, reading.after.nodata) == (0, 255)
    assert (reading.before.mask, reading.after.mask) == ("a.tif", None)


def test_the_smallest_piece_is_a_block_of_a_cog():
    assert SMALLEST_PIECE_PX == BLOCK_SIZE_PX


def test_the_command_line_names_flags_alone():
    line = ["predict", "a", "b", "-o", "out", "--workers", "2"]
    ended = subprocess.run(
        [sys.executable, "-m", "terradelta.cli", *line], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert "add --engine ray" in ended.stderr
    assert "in Python" not in ended.stderr


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (read_range, "-1.5, 2e3", (-1.5, 2000)),
        (read_nodata, "-9999", -9999),
        (read_nodata, "after=7", (None, 7)),
        (read_masks, "before=a,b.tif,after=c.tif", ("a,b.tif", "c.tif")),
        (read_shard, "2/4", (2, 4)),
    ],
)
def test_texts_are_read(read, text, value):
    assert read(text) == value


@pytest.mark.parametrize("text", ["before=1,before=2", "x,after=1", "before=", "zero"])
def test_values_of_dates_that_are_none_are_refused(text):
    with pytest.raises(ArgumentError, match="is not a value for the dates"):
        read_both(text, float)
