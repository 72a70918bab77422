import pickle
import stat

import pytest

from terradelta.errors import DataError, OutputExistsError
from terradelta.outputs import refuse_existing, stage_file, stage_folder


def test_a_folder_appears_whole(tmp_path):
    target = tmp_path / "new" / "out"
    with stage_folder(target) as staged:
        (staged / "a").write_text("1")
        assert not target.exists()
    assert (target / "a").read_text() == "1"
    assert [p.name for p in target.parent.iterdir()] == ["out"]


def test_a_failure_leaves_what_was_there(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").write_text("precious")
    with pytest.raises(RuntimeError), stage_folder(target, overwrite=True) as staged:
        (staged / "new").write_text("half")
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert (target / "old").read_text() == "precious"


def test_an_existing_output_is_kept_unless_told(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    refuse_existing(target, overwrite=False)
    (target / "old").write_text("precious")
    with pytest.raises(OutputExistsError, match="--overwrite"), stage_folder(target):
        pass
    with stage_folder(target, overwrite=True) as staged:
        (staged / "new").write_text("whole")
    assert [p.name for p in target.iterdir()] == ["new"]


def test_a_file_appears_whole(tmp_path):
    target = tmp_path / "table.csv"
    target.write_text("old")
    with pytest.raises(RuntimeError), stage_file(target) as staged:
        staged.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    with stage_file(target) as staged:
        staged.write_text("whole")
    assert target.read_text() == "whole"
    assert [p.name for p in tmp_path.iterdir()] == ["table.csv"]


def test_errors_survive_pickling_between_processes():
    error = pickle.loads(pickle.dumps(DataError("a.png is 3 px and b.png is 4 px", fix="cut it")))
    assert str(error) == "a.png is 3 px and b.png is 4 px\n  fix: cut it"


def test_a_finished_folder_may_be_read_by_others(tmp_path):
    """Temporary folders may not: they are made for their owner alone."""
    with stage_folder(tmp_path / "out") as staged:
        (staged / "a").write_text("1")
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o755
