import subprocess
import sys

import pytest

from terradelta.train.config import TrainConfig

VERBS = ("demo", "predict", "train", "evaluate", "score", "synth", "convert", "models", "info")


def run(*arguments, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "terradelta.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


@pytest.mark.parametrize("verb", [(), *((verb,) for verb in VERBS)])
def test_help_starts_without_torch_or_gdal(verb):
    code = (
        "import sys\n"
        "from terradelta.cli import main\n"
        "try:\n"
        f"    main([{', '.join(map(repr, verb))}{',' if verb else ''} '--help'])\n"
        "except SystemExit as stop:\n"
        "    assert not stop.code\n"
        "print(sorted({'torch', 'rasterio', 'numpy'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: terradelta")
    assert done.stdout.splitlines()[-1] == "[]"


def test_importing_the_package_imports_no_torch_and_verbs_are_functions():
    code = (
        "import sys, terradelta as td\n"
        "assert 'torch' not in sys.modules\n"
        "from terradelta.predict.engine import Predictor\n"
        "from terradelta.evaluate.scoring import Scores\n"
        "assert td.predict.__name__ == 'predict' and callable(td.evaluate) and callable(td.train)\n"
        "assert all(hasattr(td, name) for name in td.__all__)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("predict", "missing.tif", "other.tif", "-o", "out"),
        ("predict", "missing.tif", "other.tif"),
        ("predict", "missing.tif", "other.tif", "-o", "out", "--tta", "all"),
        ("train", "missing", "-o", "out"),
        ("score", "missing", "missing"),
        ("info", "missing"),
        ("no-such-verb",),
    ],
)
def test_bad_input_is_exit_code_2_without_a_traceback(arguments, tmp_path):
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.strip()
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_options_on_the_line_override_the_recipe_even_with_its_default(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    TrainConfig(data="somewhere", model="unet", epochs=7, class_weights=(1, 2)).write_yaml(recipe)
    code = (
        "import sys, terradelta.train.loop as loop\n"
        "def train(config, output, **_):\n"
        "    print(config.model, config.epochs, config.data, config.class_weights)\n"
        "    raise SystemExit\n"
        "loop.train = train\n"
        "from terradelta.cli import main\n"
        f"main(['train', {str(recipe)!r}, '--model', 'fcn'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "fcn 7 somewhere (1.0, 2.0)"
