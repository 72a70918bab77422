"""What works where a package is not installed: its import fails in a process of its own."""

import json
import math
import subprocess
import sys

import pytest

from terradelta.data.synthetic import write_geotiff_pair
from terradelta.inference.backends.choice import COMPILE_FROM_PIXELS

WITHOUT = """
import sys
sys.modules[sys.argv.pop(1)] = None
from terradelta.cli import main
main()
"""


def run_without(package, *line):
    """Run a command line; the next argument after the program is the package that is missing."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, package, *map(str, line)],
        capture_output=True,
        text=True,
        check=False,
    )


def assert_refused(process, problem, fix):
    assert process.returncode == 2, process.stderr
    assert problem in process.stderr
    assert fix in process.stderr
    assert "Traceback" not in process.stderr


def draw(folder, side_px):
    write_geotiff_pair(folder, 0, side_px)
    return folder / "before.tif", folder / "after.tif"


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("scene") / "pair", 128)


def test_without_openvino_torch_makes_the_map_and_says_so_once(model_folder, tmp_path):
    output = tmp_path / "out"
    # Large enough for OpenVINO.
    large = draw(tmp_path / "large", math.ceil(math.sqrt(COMPILE_FROM_PIXELS)))
    line = ("predict", *large, "-o", output, "--model", model_folder)
    process = run_without("openvino", *line)
    assert process.returncode == 0, process.stderr
    said = [text for text in process.stderr.splitlines() if "openvino" in text]
    assert len(said) == 1
    assert said[0].startswith("torch at ")
    assert 'pip install "terradelta[openvino]"' in said[0]
    parameters = json.loads((output / "run.json").read_text())["parameters"]
    assert parameters["backend"] == "torch"


@pytest.mark.parametrize("options", [("--backend", "openvino"), ("--precision", "int8")])
def test_without_openvino_what_needs_it_is_refused(pair, model_folder, tmp_path, options):
    output = tmp_path / "out"
    line = ("predict", *pair, "-o", output, "--model", model_folder, *options)
    assert_refused(
        run_without("openvino", *line),
        "backend openvino needs openvino, which is not installed",
        'fix: pip install "terradelta[openvino]", or use --backend torch',
    )
    assert not output.exists()


def test_without_openvino_nothing_is_quantized_or_exported_for_it(model_folder, tmp_path):
    assert_refused(
        run_without("openvino", "quantize", model_folder, tmp_path),
        "quantizing networks needs openvino, which is not installed",
        'pip install "terradelta[int8]"',
    )
    output = tmp_path / "model.xml"
    assert_refused(
        run_without("openvino", "export", model_folder, "--to", "openvino", "-o", output),
        "writing openvino needs the package openvino, which is not installed",
        'pip install "terradelta[openvino]"',
    )
    assert not output.exists()


def test_lightning_is_for_training_alone(pair, model_folder, tmp_path):
    missing = "lightning_fabric"
    line = ("predict", *pair, "-o", tmp_path / "out", "--model", model_folder)
    for verb in (line, ("models",), ("info",), ("report", tmp_path / "out", "--overwrite")):
        process = run_without(missing, *map(str, verb))
        assert process.returncode == 0, process.stderr
    # The check that the block works.
    train = run_without(missing, "train", pair[0].parent, "-o", tmp_path / "run")
    assert "import of lightning_fabric halted" in train.stderr
