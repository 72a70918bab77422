import os
import pickle
import stat
from pathlib import Path

import pytest

from terradelta.destination import claim_file, claim_folder
from terradelta.errors import DataError, OutputError, OutputExistsError
from terradelta.outputs import stage_file, stage_folder, write_bytes
from terradelta.ownership import MANIFEST_FILE


def write(folder: Path, *names: str, **options) -> Path:
    """Write an output of these files."""
    with stage_folder(folder, **options) as staged:
        for name in names:
            (staged / name).parent.mkdir(exist_ok=True)
            (staged / name).write_text(name)
    return folder


def list_visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != MANIFEST_FILE)


def test_a_folder_appears_whole(tmp_path):
    target = tmp_path / "new" / "out"
    with stage_folder(target) as staged:
        (staged / "a").write_text("1")
        assert not target.exists()
    assert (target / "a").read_text() == "1"
    assert [p.name for p in target.parent.iterdir()] == ["out"]


def test_a_failure_leaves_what_was_there(tmp_path):
    target = write(tmp_path / "out", "old")
    with pytest.raises(RuntimeError), stage_folder(target, overwrite=True) as staged:
        (staged / "new").write_text("half")
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert list_visible(target) == ["old"]


def test_an_existing_output_is_kept_without_overwrite(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    assert claim_folder(target) == target
    write(target, "old")
    with pytest.raises(OutputExistsError, match="--overwrite"), stage_folder(target):
        pass
    write(target, "new", overwrite=True)
    assert list_visible(target) == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_terradelta_did_not_make_is_never_replaced(tmp_path):
    target = tmp_path / "docs"
    target.mkdir()
    (target / "thesis.doc").write_text("precious")
    with pytest.raises(OutputExistsError, match=r"did not make it: it holds .*thesis\.doc"):
        claim_folder(target, overwrite=True)


def test_an_output_that_holds_something_else_is_not_replaced(tmp_path):
    target = write(tmp_path / "out", "im1/a.png")
    (target / "im1" / "b.png").write_text("precious")
    with pytest.raises(OutputExistsError, match=r"b\.png, which terradelta did not make"):
        claim_folder(target, overwrite=True)
    (target / "im1" / "b.png").unlink()
    # What GDAL puts beside a file, and a folder that holds nothing.
    (target / "im1" / "a.png.aux.xml").touch()
    (target / "empty").mkdir()
    write(target, "new", overwrite=True)
    assert list_visible(target) == ["new"]


def test_what_is_put_into_an_output_while_it_is_replaced_is_kept(tmp_path, caplog):
    target = write(tmp_path / "out", "old")
    with stage_folder(target, overwrite=True) as staged:
        (staged / "new").write_text("new")
        (target / "late.doc").write_text("precious")
    assert list_visible(target) == ["new"]
    (kept,) = tmp_path.rglob("late.doc")
    assert kept.read_text() == "precious"
    assert str(kept) in caplog.text


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("data", "is .*data, an input"),
        ("data/im1/out", "lies in the input .*data"),
        (".", "is the working directory"),
        ("..", "holds the working directory"),
        ("", "is the working directory"),
        ("data/../../work", "is the working directory"),
        ("/", "where a file system begins"),
        ("home", "is the home directory"),
        ("link-to-data", "an input"),
        ("aside", "holds the input .*aside/raster.tif"),
        ("data/im1/raster.tif", "lies in the input data"),
        ("data/im1/raster.tif/out", "below"),
        ("loop", "cannot be written"),
        ("n" * 300, "cannot be written: File name too long"),
        ("d\udce9j\u00e0", "not UTF-8"),
        ("a\nb", r"'a\\nb' has control characters"),
    ],
)
def test_places_that_no_output_may_have(tmp_path, monkeypatch, output, message):
    work = tmp_path / "work"
    for folder in ("data/im1", "home", "aside"):
        (work / folder).mkdir(parents=True)
    (work / "data/im1/raster.tif").write_text("raster")
    (work / "aside/raster.tif").write_text("raster")
    # A link in a folder that is read leads to what is read.
    (work / "data/im1/linked.tif").symlink_to(work / "aside/raster.tif")
    (work / "link-to-data").symlink_to("data")
    (work / "loop").symlink_to("loop")
    monkeypatch.chdir(work)
    monkeypatch.setenv("HOME", str(work / "home"))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OutputError, match=message):
        claim_folder(output, ["data", "data/im1/raster.tif"], overwrite=True)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="permissions of POSIX")
def test_a_folder_that_cannot_be_written_is_refused_beforehand(tmp_path):
    if os.geteuid() == 0:
        # Even for root.
        with pytest.raises(OutputError, match="/proc/out cannot be written"):
            claim_folder("/proc/out")
    else:
        tmp_path.chmod(0o555)
        with pytest.raises(OutputError, match="cannot be written"):
            claim_folder(tmp_path / "out")
        tmp_path.chmod(0o755)


def test_names_beside_an_output_are_checked_too(tmp_path):
    name = "n" * 250
    assert claim_folder(tmp_path / name) == tmp_path / name
    with pytest.raises(OutputError, match="too long"):
        claim_folder(tmp_path / name, beside=[".partial"])


def test_links_are_followed(tmp_path):
    target = tmp_path / "disk" / "out"
    link = tmp_path / "link"
    link.symlink_to(target)
    write(link, "first")
    write(link, "second", overwrite=True)
    assert link.is_symlink()
    assert list_visible(target) == ["second"]
    assert [path.name for path in target.parent.iterdir()] == ["out"]
    file = tmp_path / "table.csv"
    file.symlink_to(target.parent / "real.csv")
    with stage_file(file) as staged:
        staged.write_text("whole")
    assert file.is_symlink()
    assert (target.parent / "real.csv").read_text() == "whole"
    write_bytes(file, b"again")
    assert (target.parent / "real.csv").read_text() == "again"


def test_a_file_is_replaced_only_where_it_may_be(tmp_path):
    read, other, folder = tmp_path / "read.gpkg", tmp_path / "other.gpkg", tmp_path / "folder"
    folder.mkdir()
    read.touch()
    other.touch()
    (tmp_path / "same.gpkg").hardlink_to(read)
    assert claim_file(tmp_path / "new.gpkg", [read]) == tmp_path / "new.gpkg"
    assert claim_file(other, [read], overwrite=True) == other
    os.mkfifo(tmp_path / "pipe")
    for path, message, options in (
        (other, "--overwrite", {}),
        (other, "does not write such files", {"overwrite": True, "is_own": lambda path: False}),
        (read, "an input", {"overwrite": True}),
        (tmp_path / "same.gpkg", "an input", {"overwrite": True}),
        (folder, "is a folder", {"overwrite": True}),
        (tmp_path / "pipe", "not a regular file", {"overwrite": True}),
        (other / "below.gpkg", "below", {"overwrite": True}),
    ):
        with pytest.raises((OutputError, OutputExistsError), match=message):
            claim_file(path, [read], **options)
    with pytest.raises(OutputError, match="lies in the input"):
        claim_file(folder / "new.gpkg", [folder])


def test_a_file_appears_whole(tmp_path):
    target = tmp_path / "table.csv"
    target.write_text("old")
    # Names of earlier versions of terradelta, which are somebody's now.
    (tmp_path / ".table.partial.csv").write_text("mine")
    with pytest.raises(RuntimeError), stage_file(target) as staged:
        staged.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    with stage_file(target) as staged:
        staged.write_text("whole")
    assert target.read_text() == "whole"
    assert sorted(p.name for p in tmp_path.iterdir()) == [".table.partial.csv", "table.csv"]


def test_a_file_follows_links_and_takes_no_folder_away(tmp_path):
    (tmp_path / "link").symlink_to("nowhere")
    with stage_file(tmp_path / "link" / "table.csv") as staged:
        staged.write_text("whole")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "nowhere" / "table.csv").read_text() == "whole"
    (tmp_path / "log.csv").mkdir()
    with (
        pytest.raises(OutputExistsError, match=r"log\.csv is a folder"),
        stage_file(tmp_path / "log.csv"),
    ):
        pytest.fail("nothing is written")


def test_errors_survive_pickling_between_processes():
    error = pickle.loads(pickle.dumps(DataError("a.png is 3 px and b.png is 4 px", fix="cut it")))
    assert str(error) == "a.png is 3 px and b.png is 4 px\n  fix: cut it"


@pytest.fixture
def set_umask():
    """A function that sets the umask until the test ends."""
    was = os.umask(0o022)
    yield os.umask
    os.umask(was)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="permissions of POSIX")
@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077])
def test_a_finished_folder_has_the_permissions_of_any_new_folder(tmp_path, set_umask, umask):
    """A private user's stays private, a group's can be written by the group."""
    set_umask(umask)
    with stage_folder(tmp_path / "out") as staged:
        (staged / "a").write_text("1")
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o777 & ~umask
    assert stat.S_IMODE((tmp_path / "out" / "a").stat().st_mode) == 0o666 & ~umask
