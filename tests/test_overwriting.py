"""Every verb that writes, told to write where it must not: exit code 2 and no byte lost."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import terradelta as td
from terradelta.areas.design import SampleDesign
from terradelta.cli import main
from terradelta.data.images import write_mask
from terradelta.data.synthetic import write_folders, write_geotiff_pair
from terradelta.models.published import list_published_keys
from tests.areas.maps import UTM, draw_map, draw_truth, label, write_prediction

PAIR = ("pair/before.tif", "pair/after.tif")
FOLDER_VERBS = {
    "predict": ("predict", *PAIR, "-m", "model", "-o"),
    "predict shard": ("predict", *PAIR, "-m", "model", "--shard", "1/2", "-o"),
    "predict folders": ("predict", "drawn/im1", "drawn/im2", "-m", "model", "-o"),
    "merge": ("merge",),
    "demo": ("demo", "-o"),
    "synth": ("synth", "--pairs", "1", "--size", "64", "-o"),
    "synth geotiff": ("synth", "--geotiff", "--size", "64", "-o"),
    "compose": ("compose", "drawn/im1", "covered", "--pairs", "1", "-o"),
    "doctor": ("doctor", "drawn", "--fix"),
    "convert": (
        *("convert", "published.pth", "--model", "fcn", "--encoder", "resnet18"),
        *("--polarity", "changed", "-o"),
    ),
    "train": ("train", "drawn", "--epochs", "1", "-o"),
    "train recipe": ("train", "recipe.yaml", "-o"),
    "evaluate": ("evaluate", "model", "drawn", "-o"),
    "pseudo-label": ("pseudo-label", "model", "drawn", "-o"),
    "pseudo-label rounds": ("pseudo-label", "model", "drawn", "--recipe", "recipe.yaml", "-o"),
    "stats": ("stats", "out", "--zones", "zones.geojson", "-o"),
}
FORBIDDEN_FOLDERS = {
    "a folder of somebody's": "docs",
    "a data set with something else in it": "mixed",
    "the working directory": ".",
    "what holds it": "..",
    "a part of a path that ends there": "docs/..",
    "the root": "/",
    "the home directory": "home",
    "a file": "notes.txt",
    "an input file": "pair/before.tif",
    "a link to a folder of somebody's": "link",
    "a link to a file": "link-to-notes",
    "below a file": "notes.txt/out",
    "a name that is too long": "n" * 300,
}
OWN_INPUTS = {
    "predict": ("pair", "pair/before.tif/", "model", "model/out"),
    "predict folders": ("drawn", "drawn/im1", "drawn/im1/out", "model"),
    "compose": ("drawn", "covered", "drawn/im1/out"),
    "doctor": ("drawn", "drawn/out", "drawn/im1"),
    "train": ("drawn", "drawn/run"),
    "evaluate": ("drawn", "model", "model/seen"),
    "pseudo-label": ("drawn", "model", "drawn/labels"),
    "pseudo-label rounds": ("drawn", "model"),
    "stats": ("out", "out/mine"),
}
FILE_VERBS = {
    "sample": (".gpkg", ("sample", "out", "--points", "20", "--chip-size", "0", "-o")),
    "view": (".gpkg", ("view", "out", "--export")),
    "export": (".onnx", ("export", "model", "--to", "onnx", "-o")),
}
FORBIDDEN_FILES = {
    "a file of another kind": "notes.txt",
    "a folder": "folder{suffix}",
    "below a file": "notes.txt/a{suffix}",
    "in an input": "{source}/a{suffix}",
    "a name that is too long": "n" * 300 + "{suffix}",
    "a link to a folder": "link-to-folder{suffix}",
}


@pytest.fixture(scope="module")
def prepared(model_folder, tmp_path_factory) -> Path:
    """A folder of inputs for all verbs."""
    root = tmp_path_factory.mktemp("prepared")
    work = root / "work"
    work.mkdir()
    write_geotiff_pair(work / "pair", 3, 64)
    write_folders(work / "drawn", 3, seed=1, size_px=64)
    shutil.copytree(model_folder, work / "model")
    for path in (work / "drawn" / "im1").iterdir():
        write_mask(work / "covered" / path.name, np.full((64, 64), 4), td.SENSEEARTH)
    truth_HW = draw_truth(UTM)
    write_prediction(work / "out", draw_map(truth_HW), UTM)
    td.sample(work / "out", work / "points.gpkg", SampleDesign(points=60, floor=5), chip_size_px=0)
    label(work / "points.gpkg", truth_HW)
    td.TrainConfig(data="drawn", encoder="resnet18_slim").write_yaml(work / "recipe.yaml")
    network = td.create_model("fcn", encoder="resnet18")
    keys = list_published_keys(network)
    state = {keys[key]: value for key, value in network.state_dict().items()}
    torch.save(state, work / "published.pth")
    (work / "zones.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    for folder in ("docs", "home", "folder.gpkg", "folder.onnx"):
        (work / folder).mkdir()
        (work / folder / "thesis.doc").write_text("years of work")
    write_folders(work / "mixed", 1, seed=1, size_px=64)
    (work / "mixed" / "label1" / "by-hand.png").write_text("a day of work")
    (work / "notes.txt").write_text("notes")
    (work / "link").symlink_to("docs")
    (work / "link-to-notes").symlink_to("notes.txt")
    for suffix in (".gpkg", ".onnx"):
        (work / f"link-to-folder{suffix}").symlink_to("docs")
    return root


@pytest.fixture
def work(prepared, tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(prepared / "work")
    monkeypatch.setenv("HOME", str(prepared / "work" / "home"))
    # Where libraries keep what they have found out of a machine.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "caches"))
    return prepared / "work"


def read_tree(root: Path) -> dict[str, bytes | str | None]:
    """Return all that lies in a folder: contents of files, targets of links."""
    return {
        str(path.relative_to(root)): str(path.readlink())
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else None
        for path in root.rglob("*")
    }


def refuse(root: Path, capsys, *arguments: str) -> str:
    """Run a line that is to be refused; return what it says."""
    before = read_tree(root)
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    said = capsys.readouterr()
    assert stopped.value.code == 2, said
    assert said.err.startswith("terradelta: "), said.err
    assert "\n  fix: " in said.err
    assert not said.out
    assert read_tree(root) == before
    return said.err


@pytest.mark.parametrize("where", FORBIDDEN_FOLDERS)
@pytest.mark.parametrize("verb", FOLDER_VERBS)
def test_no_folder_but_its_own_is_replaced(prepared, work, capsys, verb, where):
    output = FORBIDDEN_FOLDERS[where]
    said = refuse(prepared, capsys, *FOLDER_VERBS[verb], output, "--overwrite")
    assert str(Path(output)) in said


@pytest.mark.parametrize(
    ("verb", "output"), [(verb, output) for verb, places in OWN_INPUTS.items() for output in places]
)
def test_no_input_is_replaced_or_written_into(prepared, work, capsys, verb, output):
    refuse(prepared, capsys, *FOLDER_VERBS[verb], output, "--overwrite")


@pytest.mark.parametrize("output", ["docs", "drawn", "mixed", "drawn/run", "notes.txt", "."])
def test_nothing_but_a_run_is_resumed(prepared, work, capsys, output):
    refuse(prepared, capsys, "train", "drawn", "-o", output, "--resume")
    refuse(prepared, capsys, "train", "drawn", "-o", output, "--resume", "--overwrite")


def test_a_recipe_is_an_input(prepared, work, capsys):
    said = refuse(prepared, capsys, "train", "recipe.yaml", "-o", "recipe.yaml", "--overwrite")
    assert "recipe.yaml is recipe.yaml, an input" in said


@pytest.mark.parametrize("where", FORBIDDEN_FILES)
@pytest.mark.parametrize("verb", FILE_VERBS)
def test_no_file_but_its_own_is_replaced(prepared, work, capsys, verb, where):
    suffix, line = FILE_VERBS[verb]
    output = FORBIDDEN_FILES[where].format(suffix=suffix, source=line[1])
    refuse(prepared, capsys, *line, output, "--overwrite")


@pytest.mark.parametrize("verb", ["sample", "view"])
def test_layers_of_somebody_are_not_replaced(prepared, work, capsys, verb):
    _, line = FILE_VERBS[verb]
    path = work / "roads.gpkg"
    shutil.copy(work / "points.gpkg" if verb == "view" else Path(__file__), path)
    said = refuse(prepared, capsys, *line, "roads.gpkg", "--overwrite")
    assert "does not write such files" in said
    path.unlink()


def test_results_that_somebody_wrote_are_not_replaced(prepared, work, capsys):
    (work / "docs" / "area_estimates.csv").write_text("mine")
    line = ("assess", "points.gpkg", "--overwrite", "-o")
    said = refuse(prepared, capsys, *line, "docs")
    assert "area_estimates.csv" in said
    (work / "docs" / "area_estimates.csv").unlink()
    refuse(prepared, capsys, *line, "notes.txt")
    refuse(prepared, capsys, *line, "points.gpkg")


@pytest.mark.parametrize("name", ["predict", "predict shard", "merge", "demo"])
def test_what_is_made_beside_a_prediction_needs_a_name(prepared, work, capsys, name):
    refuse(prepared, capsys, *FOLDER_VERBS[name], "n" * 250)


@pytest.mark.parametrize("name", ["predict", "predict shard", "merge", "demo"])
@pytest.mark.parametrize("content", ["file", "link", "foreign", "damaged", "no job"])
def test_what_cannot_be_taken_up_is_refused_and_named(prepared, work, capsys, name, content):
    partial = work / "new.partial"
    if content == "file":
        partial.write_text("mine")
    elif content == "link":
        partial.symlink_to("nowhere")
    else:
        (partial / "blocks" / "00000").mkdir(parents=True)
        names = {
            "foreign": "thesis.doc",
            "damaged": "job.json",
            "no job": "blocks/00000/00000000.tif",
        }
        (partial / names[content]).write_text('{"format": 2')
    said = refuse(prepared, capsys, *FOLDER_VERBS[name], "new")
    assert "new.partial" in said
    if partial.is_dir():
        shutil.rmtree(partial)
    else:
        partial.unlink()


def test_outputs_of_every_kind_are_replaced_by_their_verb(work, tmp_path, capsys):
    lines = {
        "synth": FOLDER_VERBS["synth"],
        "pair": FOLDER_VERBS["synth geotiff"],
        "copy": FOLDER_VERBS["doctor"],
        "model": FOLDER_VERBS["convert"],
        "masks": FOLDER_VERBS["predict folders"],
        "named": FOLDER_VERBS["pseudo-label"],
        "seen": FOLDER_VERBS["evaluate"],
        "composed": (*FOLDER_VERBS["compose"][:-1], "--size", "32", "-o"),
    }
    for name, line in lines.items():
        output = tmp_path / name
        for options in ([], ["--overwrite"]):
            capsys.readouterr()
            with pytest.raises(SystemExit) as stopped:
                main([*line, str(output), *options])
            assert not stopped.value.code, capsys.readouterr().err
        (output / "thesis.doc").write_text("precious")
        said = refuse(tmp_path, capsys, *line, str(output), "--overwrite")
        assert "thesis.doc, which terradelta did not make" in said


def test_a_link_that_leads_nowhere_gets_what_it_leads_to(work, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "out")
    with pytest.raises(SystemExit) as stopped:
        main([*FOLDER_VERBS["synth"], str(tmp_path / "link")])
    assert not stopped.value.code
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "disk" / "out" / "im1").is_dir()
