"""Reviews outlive the prediction that they were made of, unless they are to be dropped."""

import shutil
import sqlite3
from contextlib import closing

import geopandas
import pyogrio
import pytest

import terradelta as td
from terradelta.cli import main
from terradelta.errors import OutputError
from terradelta.outputs import stage_folder
from terradelta.viewer.checked import export_checked
from terradelta.viewer.reviews import Review, ReviewStore
from tests.flat_options import sort_options
from tests.weights import DRAWN_MODEL

REVIEW = Review("rejected", None, None, "a shadow", "2026-01-01T00:00:00Z")


@pytest.fixture
def reviewed(folder):
    """A prediction, one of whose patches was reviewed."""
    ReviewStore(folder / "changes.gpkg").write(1, REVIEW)
    return folder


@pytest.fixture
def predict(scene):
    def run(output, **options):
        return td.predict(
            scene / "before.tif",
            scene / "after.tif",
            output,
            **sort_options(options, model=DRAWN_MODEL),
        )

    return run


def list_names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_reviews_are_kept_with_their_patches_and_named(predict, reviewed, tmp_path, caplog):
    patches = geopandas.read_file(reviewed / "changes.gpkg", layer="changes")
    for number in (1, 2):
        result = predict(reviewed, overwrite=True)
        kept = tmp_path / f"out.reviews-{number}.gpkg"
        assert result.kept_reviews == kept
        assert str(kept) in caplog.text
        assert ReviewStore(kept).read() == {1: REVIEW}
        assert geopandas.read_file(kept, layer="changes").equals(patches)
        assert "reviews" not in dict(pyogrio.list_layers(reviewed / "changes.gpkg"))
        ReviewStore(reviewed / "changes.gpkg").write(1, REVIEW)
    assert list_names(tmp_path) == ["out", "out.reviews-1.gpkg", "out.reviews-2.gpkg"]
    # What is kept can be shown and exported as ever.
    again = shutil.copytree(reviewed, tmp_path / "again")
    shutil.copy(kept, again / "changes.gpkg")
    assert export_checked(again, tmp_path / "checked.gpkg") == len(patches) - 1


def test_reviews_are_dropped_on_request_and_nothing_is_kept_without_any(
    predict, reviewed, tmp_path
):
    assert predict(reviewed, overwrite=True, discard_reviews=True).kept_reviews is None
    assert predict(reviewed, overwrite=True).kept_reviews is None
    assert list_names(tmp_path) == ["out"]


def test_merge_and_the_command_line_keep_them_too(predict, scene, reviewed, tmp_path, capsys):
    pair = (str(scene / "before.tif"), str(scene / "after.tif"))
    line = ["predict", *pair, "-o", str(reviewed), "-m", str(DRAWN_MODEL), "--overwrite"]
    for number, arguments in enumerate(
        ([*line, "--shard", "1/1"], ["merge", str(reviewed), "--overwrite"]), start=1
    ):
        if arguments[0] == "merge":
            for shard in ("1/2", "2/2"):
                predict(reviewed, shard=shard, overwrite=True)
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        said = capsys.readouterr()
        assert not stopped.value.code, said.err
        kept = tmp_path / f"out.reviews-{number}.gpkg"
        assert f"earlier reviews are kept in {kept}" in said.out
        assert ReviewStore(kept).read() == {1: REVIEW}
        ReviewStore(reviewed / "changes.gpkg").write(1, REVIEW)


def test_whatever_replaces_a_prediction_keeps_its_reviews(reviewed, tmp_path):
    with stage_folder(reviewed, overwrite=True) as staged:
        (staged / "new").touch()
    assert ReviewStore(tmp_path / "out.reviews-1.gpkg").read() == {1: REVIEW}


def test_what_another_program_has_not_written_through_is_kept(reviewed, tmp_path):
    path = reviewed / "changes.gpkg"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        with connection:
            connection.execute("UPDATE reviews SET note = 'in the log'")
        assert (reviewed / "changes.gpkg-wal").stat().st_size
        with stage_folder(reviewed, overwrite=True) as staged:
            (staged / "new").touch()
    assert ReviewStore(tmp_path / "out.reviews-1.gpkg").read()[1].note == "in the log"


def test_layers_that_people_added_are_kept(folder, tmp_path):
    frame = geopandas.read_file(folder / "changes.gpkg", layer="changes")
    frame.to_file(folder / "changes.gpkg", layer="mine")
    with stage_folder(folder, overwrite=True) as staged:
        (staged / "new").touch()
    assert "mine" in dict(pyogrio.list_layers(tmp_path / "out.reviews-1.gpkg"))


def test_polygons_that_cannot_be_read_are_not_replaced_unheard(predict, reviewed, tmp_path):
    path = reviewed / "changes.gpkg"
    content = path.read_bytes()
    path.write_bytes(b"damaged" + content[7:])
    with pytest.raises(OutputError, match=r"changes\.gpkg cannot be read.*\n.*--discard-reviews"):
        predict(reviewed, overwrite=True)
    assert path.read_bytes() == b"damaged" + content[7:]
    predict(reviewed, overwrite=True, discard_reviews=True)
    assert list_names(tmp_path) == ["out"]
