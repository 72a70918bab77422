"""Only what terradelta made is taken for its own, and only that is removed."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terradelta.ownership import JOB_FILES, clear_folder, find_foreign, is_made, write_manifest

PREDICTION = (
    "change.tif",
    "change.qml",
    "change.tif.aux.xml",
    "changes.gpkg",
    "changes.gpkg-wal",
    "summary.json",
    "report.html",
    "area_estimates.csv",
    "zones/zones.gpkg",
    "scene/before.tif",
    "cogs/r00000_c00001/change.tif",
    ".terradelta-0123abcd.tif",
)
RUN = (
    "log.csv",
    "best/model.json",
    "last/model.safetensors",
    "pictures/epoch-0001.png",
    "checkpoints/epoch-0001/state.safetensors",
    "tensorboard/events.out.tfevents.1.host",
    ".terradelta-0123abcd/half",
)
OUTPUTS = {
    "prediction": ("run.json", {"versions": {}, "models": [], "parameters": {}}, PREDICTION),
    "model": (
        "model.json",
        {"architecture": {}, "classes": {}},
        ("model.safetensors", "README.md", "int8.xml", "int8.bin"),
    ),
    "run": ("config.yaml", "head_rate_factor: 10.0", RUN),
}
FOREIGN = (
    "thesis.doc",
    ".hidden",
    "change.tif.bak",
    "changes.gpkg.zip",
    "my-change.tif",
    "notes.aux.xml",
    "best/notes.txt",
    "cogs/thesis.doc",
    "zones/mine.gpkg",
    "checkpoints/epoch-0001/thesis.doc",
    "pictures/mine.png",
    "deep/er/still/thesis.doc",
    ".terradelta-mine",
    "blocks/00000/mine.tif",
)


def write(folder, names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def make(folder, kind):
    mark, content, names = OUTPUTS[kind]
    write(folder, names)
    (folder / mark).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def list_files(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir()}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_outputs_without_a_list_are_known_by_their_files(kind, tmp_path):
    folder = make(tmp_path / "out", kind)
    assert is_made(folder)
    assert find_foreign(folder) is None
    clear_folder(folder)
    assert not folder.exists()


@given(
    kind=st.sampled_from([*OUTPUTS, "listed"]),
    foreign=st.sets(st.sampled_from(FOREIGN), min_size=1),
)
def test_whatever_else_lies_in_an_output_is_found_and_stays(kind, foreign, tmp_path_factory):
    folder = tmp_path_factory.mktemp("outputs") / "out"
    if kind == "listed":
        write(folder, ("im1/a.png", "im1/ä\n.png", "label1/a.png"))
        write_manifest(folder)
    else:
        make(folder, kind)
    assert find_foreign(folder) is None
    write(folder, foreign)
    found = find_foreign(folder)
    assert found is not None
    assert found.relative_to(folder).as_posix() == min(foreign)
    clear_folder(folder)
    assert list_files(folder) == foreign
    assert all((folder / name).read_text() == name for name in foreign)


def test_a_folder_that_only_looks_like_an_output_is_not_one(tmp_path):
    for name, text in (
        ("run.json", '{"run": 1}'),
        ("run.json", "{"),
        ("model.json", "[]"),
        ("config.yaml", "colour: red"),
        ("zones.csv", "a,b"),
        (".terradelta.json", '{"files": ["thesis.doc"]}'),
    ):
        folder = tmp_path / f"{name}-{len(text)}"
        folder.mkdir()
        (folder / name).write_text(text)
        assert not is_made(folder)
        assert find_foreign(folder) == folder / name
        clear_folder(folder)
        assert (folder / name).read_text() == text


def test_links_in_an_output_are_foreign_and_not_followed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "change.tif").write_text("precious")
    folder = make(tmp_path / "out", "prediction")
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    assert find_foreign(folder) == folder / "link"
    (folder / "link").unlink()
    (folder / "cogs" / "r00001_c00001").symlink_to(tmp_path / "elsewhere")
    assert find_foreign(folder) == folder / "cogs" / "r00001_c00001"
    clear_folder(folder)
    assert (tmp_path / "elsewhere" / "change.tif").read_text() == "precious"


def test_rounds_are_known_by_the_outputs_in_them(tmp_path):
    folder = tmp_path / "rounds"
    write(folder / "round-1" / "labels", ("data.csv", "label1/a.png"))
    write_manifest(folder / "round-1" / "labels")
    make(folder / "round-1" / "run-0", "run")
    assert find_foreign(folder) is None
    write(folder, ("round-1/labels/label1/b.png",))
    assert find_foreign(folder) == folder / "round-1" / "labels" / "label1" / "b.png"
    clear_folder(folder)
    assert list_files(folder) == {"round-1/labels/label1/b.png"}


def test_what_is_under_way_is_known_by_its_names(tmp_path):
    folder = tmp_path / "out.partial"
    write(
        folder,
        (
            "job.json",
            "shard-1-of-2.lock",
            "assembly.lock",
            "blocks/00000/00000007.tif",
            "sieved/00001/00001007.tif",
            "assembled/change.tif",
            "assembled/change.tif.ovr.tmp",
            "assembled/changes.gpkg-journal",
            "assembled/cogs/r00000_c00000/change.unfinished.tif",
        ),
    )
    assert find_foreign(folder, JOB_FILES) is None
    for name in ("thesis.doc", "blocks/mine.tif", "assembled/thesis.doc"):
        write(folder, (name,))
        assert find_foreign(folder, JOB_FILES) == folder / name
        (folder / name).unlink()
    clear_folder(folder, JOB_FILES)
    assert not folder.exists()
