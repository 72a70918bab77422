import json
import re
import subprocess
import sys

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
import torch

import terradelta as td
from terradelta.cli import app, main
from terradelta.models.embedded import DEFAULT_MODEL
from terradelta.models.published import list_published_keys
from terradelta.training.config import TrainConfig
from tests.areas.maps import UTM, draw_map, draw_truth, label, write_prediction, write_raster

VERBS = (
    "demo",
    "check",
    "predict",
    "merge",
    "sample",
    "assess",
    "stats",
    "report",
    "view",
    "train",
    "evaluate",
    "compare",
    "doctor",
    "pseudo-label",
    "export",
    "quantize",
    "score",
    "synth",
    "compose",
    "convert",
    "models",
    "info",
)


def start(*arguments, **options) -> subprocess.CompletedProcess:
    """Run a line in a process of its own."""
    command = [sys.executable, "-m", "terradelta.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run a line in the folder of the test, in this process: each start takes seconds."""

    def run_here(*arguments) -> subprocess.CompletedProcess:
        monkeypatch.chdir(tmp_path)
        capsys.readouterr()
        code = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code or 0
        return subprocess.CompletedProcess(arguments, code, *capsys.readouterr())

    return run_here


def test_warnings_of_gdal_in_bytes_are_lines_of_the_log(tmp_path):
    path = tmp_path / "image.tif"
    write_raster(path, np.full((3, 200, 240), 9, np.uint8), UTM)
    with rasterio.open(path, "r+") as file:
        file.update_tags(note="x")
    healthy = path.read_bytes()
    assert b' name="note"' in healthy
    path.write_bytes(healthy.replace(b' name="note"', b" \xff          "))
    ended = start("check", path, path)
    assert "attribute '\\xff'" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_help_starts_without_torch_or_gdal():
    """Of all verbs in one process: what one of them imports, it names."""
    code = (
        "import sys\n"
        "from terradelta.cli import main\n"
        f"for verb in [(), *zip({VERBS!r})]:\n"
        "    try:\n"
        "        main([*verb, '--help'])\n"
        "    except SystemExit as stop:\n"
        "        assert not stop.code, verb\n"
        "    heavy = {'torch', 'rasterio', 'numpy', 'fastapi'} & set(sys.modules)\n"
        "    assert not heavy, (verb, heavy)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    usages = re.findall("^Usage: terradelta *([a-z-]*)", done.stdout, re.MULTILINE)
    assert [usage for usage in usages if usage] == list(VERBS)


def test_importing_the_package_imports_no_torch_and_verbs_are_functions():
    code = (
        "import sys, terradelta as td\n"
        "assert 'torch' not in sys.modules\n"
        "from terradelta.inference.predictor import Predictor\n"
        "from terradelta.evaluation.scoring import Scores\n"
        "assert td.predict.__name__ == 'predict' and callable(td.evaluate) and callable(td.train)\n"
        "assert all(hasattr(td, name) for name in td.__all__)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("line", [("report",), ("doctor",), ("info",)])
def test_a_name_that_is_too_long_is_exit_code_2(run, line):
    done = run(*line, "n" * 300)
    assert done.returncode == 2
    assert "too long" in done.stderr
    assert "  fix: " in done.stderr
    assert "Traceback" not in done.stderr


def test_every_verb_is_a_function_of_the_same_name():
    verbs = {name.replace("-", "_") for name in app if not name.startswith("-")}
    # It lists the names that `list_models` and `list_encoders` return.
    assert verbs - set(td.__all__) == {"models"}
    for verb in verbs - {"models"}:
        assert callable(getattr(td, verb)), verb


@pytest.mark.parametrize(
    "arguments",
    [
        ("predict", "missing.tif", "other.tif", "-o", "out"),
        ("predict", "missing.tif", "other.tif"),
        ("predict", "missing.tif", "other.tif", "-o", "out", "--tta", "all"),
        ("predict", "missing.tif", "other.tif", "-o", "out", "--memory", "lots"),
        ("predict", "missing.tif", "other.tif", "-o", "out", "--shard", "3/2"),
        ("predict", "missing.tif", "other.tif", "-o", "out", "--min-area", "5 acres"),
        ("predict", "missing.tif", "other.tif", "-o", "out", "--value-range", "0"),
        ("predict", "missing.tif", "other.tif", "-o", "out", "--value-range", "0,inf"),
        ("predict", "missing.tif", "other.tif", "-o", "out", "--after-value-range", "-1,nan"),
        ("predict", ".", ".", "-o", "out", "--grid", "2"),
        ("merge", "out"),
        ("sample", "missing", "-o", "points.gpkg"),
        ("sample", "missing", "-o", "points.gpkg", "--buffer-px", "-1"),
        ("assess", "missing.gpkg"),
        ("stats", "missing", "--zones", "missing.gpkg"),
        ("report", "missing"),
        ("view", "missing"),
        ("view", "missing", "--export", "checked.gpkg"),
        ("train", "missing", "-o", "out"),
        ("score", "missing", "missing"),
        ("score", "missing", "missing", "--against", "other"),
        ("compare", "missing", "missing"),
        ("pseudo-label", "missing", "missing", "-o", "out"),
        ("pseudo-label", "missing", "missing", "-o", "out", "--rounds", "2"),
        ("info", "missing"),
        ("no-such-verb",),
    ],
)
def test_bad_input_is_exit_code_2(run, arguments, tmp_path):
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.strip()
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_process_ends_so_without_a_traceback(tmp_path):
    done = start("predict", "missing.tif", "other.tif", "-o", "out", cwd=tmp_path)
    assert done.returncode == 2
    assert re.fullmatch(r"terradelta: missing\.tif [^\n]+\n  fix: [^\n]+\n", done.stderr)
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_options_on_the_line_override_the_recipe_even_with_its_default(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    TrainConfig(data="somewhere", model="unet", epochs=7, class_weights=(1, 2)).write_yaml(recipe)
    code = (
        "import sys\nfrom terradelta.training import loop\n"
        "def train(config, output, **_):\n"
        "    print(config.model, config.epochs, config.data, config.class_weights)\n"
        "    raise SystemExit\n"
        "loop.train = train\n"
        "from terradelta.cli import main\n"
        f"main(['train', {str(recipe)!r}, '--model', 'fcn', '-o', 'run'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "fcn 7 somewhere (1.0, 2.0)"


def test_the_main_job_from_the_command_line(run, tmp_path):
    """Draw, train, evaluate, predict, score: the numbers of a model and of its masks agree."""
    quick = ("--encoder", "resnet18_slim", "--workers", 0)
    steps = [
        ("synth", "-o", "drawn", "--pairs", 6, "--size", 64, "--seed", 2),
        ("train", "drawn", "-o", "run", *quick, "--epochs", 1, "--batch-size", 2),
        ("evaluate", "run/last", "drawn", "--split", "all", "--json"),
        ("predict", "drawn/im1", "drawn/im2", "-o", "out", "-m", "run/last"),
        ("score", "out", "drawn", "--json"),
        ("score", "out", "drawn", "--protocol", "ual"),
        ("info", "run/best", "--json"),
        ("models",),
        ("evaluate", "run/last", "drawn", "--split", "all", "-o", "seen"),
        ("evaluate", "run/last", "drawn", "--split", "all", "--against", "run/last", "--json"),
        ("score", "out", "drawn", "--bootstrap", 100, "--json"),
        ("score", "out", "drawn", "--against", "drawn", "--bootstrap", 100),
        ("pseudo-label", "run/last", "drawn", "-o", "named", "--confidence", 0, "--json"),
        ("train", "named/data.csv"),
        ("calibrate", "run/last", "drawn", "--split", "all"),
    ]
    printed = []
    for step in steps:
        done = run(*step)
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout)
    assert json.loads(printed[2]) == json.loads(printed[4])
    assert printed[5].startswith("protocol ual, 6 pairs\n")
    assert json.loads(printed[6])["training"]["epochs"] == 1
    assert "efficientnet_lite0" in printed[7]
    assert (tmp_path / "seen" / "reliability.png").exists()
    assert json.loads((tmp_path / "run" / "last" / "model.json").read_text())["temperatures"]
    itself = json.loads(printed[9])
    assert itself["differences"]["score"] == {
        "difference": 0,
        "interval_95_percent": [0, 0],
        "p_value": 1,
    }
    scored = json.loads(printed[10])
    intervals = scored.pop("intervals_95_percent")
    assert scored == json.loads(printed[4])
    assert intervals.keys() == scored.keys() - {"protocol", "pairs"}
    difference = next(line for line in printed[11].splitlines() if line.startswith("fscd"))
    added = json.loads(printed[12])
    assert added["added_px"] + added["disagreed_px"] == added["unlabelled_px"] > 0
    assert "# 5 pairs to train on, 1 for validation" in printed[13]
    assert "logits of change divided by" in printed[14]
    assert difference.split()[1:3] == [f"{scored['fscd'] or 0:.4f}", "1.0000"]


def test_info_without_a_model_is_the_card_of_the_embedded_one(run):
    done = run("info")
    assert done.stdout == (DEFAULT_MODEL / "README.md").read_text()
    assert "## Where it fails\n\n- " in done.stdout


def test_published_weights_are_converted_from_the_command_line(run, tmp_path):
    network = td.create_model("fcn", encoder="resnet18")
    keys = list_published_keys(network)
    state = {f"module.{keys[key]}": value for key, value in network.state_dict().items()}
    torch.save(state, tmp_path / "published.pth")
    options = ("--model", "fcn", "--encoder", "resnet18")
    without = run("convert", "published.pth", "-o", "model", *options)
    assert without.returncode == 2
    assert "--polarity" in without.stderr
    done = run("convert", "published.pth", "-o", "model", *options, "--polarity", "unchanged")
    assert done.returncode == 0, done.stderr
    converted = td.load_model(tmp_path / "model")
    assert converted.card.training["polarity"] == "unchanged"
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        ours, theirs = converted.network(image, -image), network.eval()(image, -image)
    assert torch.equal(ours.before_logits, theirs.before_logits)
    assert torch.allclose(ours.change_logits, -theirs.change_logits, atol=1e-6)


def test_a_pair_is_checked_and_mapped_in_shards(run, tmp_path):
    """The analyst's way, with the embedded model."""
    assert run("synth", "-o", "scene", "--geotiff", "--size", 320).returncode == 0
    pair = ("scene/before.tif", "scene/after.tif")
    checked = run("check", *pair)
    assert checked.returncode == 0
    assert "both EPSG:32632" in checked.stdout
    assert json.loads(run("check", *pair, "--json").stdout)["level"] in ("OK", "WARN")
    failed = run("check", pair[0], "missing.tif")
    assert failed.returncode == 2
    assert "FAIL  after" in failed.stdout

    part = run("predict", *pair, "-o", "out", "--shard", "1/1")
    assert "written to out" in part.stdout
    for number in (1, 2):
        shard = ("--shard", f"{number}/2")
        part = start("predict", *pair, "-o", "halves", *shard, cwd=tmp_path)
        assert part.returncode == 0
    assert "1 of 1 blocks are done; when all are: terradelta merge halves" in part.stdout
    merged = run("merge", "halves")
    assert "written to halves" in merged.stdout
    maps = [(tmp_path / name / "change.tif").read_bytes() for name in ("out", "halves")]
    assert maps[0] == maps[1]
    # What runs the network and why, and no progress bar.
    assert re.fullmatch(r"torch at (fp32|bf16): too few pixels .*\n", part.stderr)


def test_areas_from_the_command_line(run, tmp_path):
    """Points, labels, estimates and zones; the numbers printed are those in the files."""
    truth_HW = draw_truth(UTM)
    write_prediction(tmp_path / "out", draw_map(truth_HW), UTM)
    design = ("--points", 200, "--floor", 20, "--buffer-px", 2, "--seed", 5, "--chip-size", 8)
    drawn = run("sample", "out", "-o", "points.gpkg", *design)
    assert drawn.returncode == 0, drawn.stderr
    assert "200 points, seed 5" in drawn.stdout
    assert len(list((tmp_path / "points_chips").glob("*.png"))) == 400
    refused = run("assess", "points.gpkg")
    assert refused.returncode == 2
    assert "200 of 200 points have no answer (200 unlabelled)" in refused.stderr

    label(tmp_path / "points.gpkg", truth_HW)
    assessed = run("assess", "points.gpkg")
    assert assessed.returncode == 0, assessed.stderr
    content = json.loads((tmp_path / "out" / "area_estimates.json").read_text())
    changed = content["change"]["classes"][1]
    assert re.search(
        rf"changed +{changed['mapped_ha']:.3f} +{changed['area_ha']['value']:.3f}", assessed.stdout
    )
    again = run("assess", "points.gpkg", "-o", "elsewhere", "--json")
    assert json.loads(again.stdout) == content

    left, bottom, right, top = UTM.bounds
    halves = np.linspace(left, right, 3)
    zones = [shapely.box(halves[i], bottom, halves[i + 1], top) for i in range(2)]
    frame = geopandas.GeoDataFrame({"half": ["west", "east"]}, geometry=zones, crs=UTM.crs.to_wkt())
    frame.to_file(tmp_path / "zones.gpkg")
    summed = run("stats", "out", "--zones", "zones.gpkg", "--name", "half")
    assert summed.returncode == 0, summed.stderr
    table = geopandas.read_file(tmp_path / "out" / "zones" / "zones.gpkg")
    for name, valid_ha, changed_ha in table[["zone", "valid_ha", "changed_ha"]].itertuples(
        index=False
    ):
        assert re.search(rf"{name} +{valid_ha:.3f} +{changed_ha:.3f}", summed.stdout)
    assert table["changed_ha"].sum() == pytest.approx(changed["mapped_ha"], rel=1e-6)
