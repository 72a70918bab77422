"""The fuzz works, and finds nothing in a few runs; `make fuzz` does thousands."""

import subprocess
import sys

import pytest

from terradelta.cli import app

from .judgement import judge, list_files
from .lines import HEALTHY, Line
from .options import list_options
from .runner import Run

ERROR = "terradelta: a.tif is missing\n  fix: check the path\n"
TRACEBACK = """Traceback (most recent call last):
  File "/x/site-packages/terradelta/cli/__init__.py", line 3, in main
  File "/x/site-packages/terradelta/geo/grid.py", line 7, in window_of
  File "/x/site-packages/numpy/core.py", line 1, in floor
ValueError: cannot convert float NaN to integer
"""


def test_every_verb_has_a_healthy_line_and_every_option_a_type():
    verbs = {name for name in app if not name.startswith("-")}
    assert {line.verb for line in HEALTHY.values()} == verbs
    for verb in verbs:
        assert all(option.hint is not None for option in list_options(verb)), verb


def test_a_few_runs_find_nothing():
    line = [sys.executable, "-m", "tests.fuzz", "--seed", "4", "--first", "2", "--runs", "38"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| all | 38 |" in done.stdout


@pytest.mark.slow
def test_healthy_lines_work():
    line = [sys.executable, "-m", "tests.fuzz", "--healthy", "--runs", "0"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def root(tmp_path):
    """A place with a raster, a document and an older prediction."""
    home = tmp_path / "home"
    for name in ("scene/before.tif", "scene/after.tif", "notes.txt", "out/run.json"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(name)
    return tmp_path


def look(root, text, code, stderr="", act=lambda home: None, **fields):
    """Judge a run that acted so and ended so; returns the kinds of findings."""
    before = list_files(root)
    act(root / "home")
    run = Run(code, fields.get("stdout", ""), stderr, fields.get("is_late", False), 0)
    return [finding.kind for finding in judge(Line.parse(text), run, root, before)]


PREDICT = "predict scene/before.tif scene/after.tif --output=new"


def test_a_run_that_is_as_it_must_be_is_no_finding(root):
    assert not look(root, PREDICT, 2, ERROR)
    assert not look(root, "info model", 0)
    assert not look(root, "check a b", 2, stdout="FAIL  depth")
    assert not look(root, PREDICT, 2, ERROR, lambda home: (home / "new.partial").mkdir())
    again = f"{PREDICT.replace('new', 'out')} --overwrite"
    assert not look(root, again, 2, ERROR)


@pytest.mark.parametrize(
    ("code", "stderr", "kind"),
    [
        (1, TRACEBACK, "traceback"),
        (0, f"Exception in thread Thread-1:\n{TRACEBACK}", "traceback"),
        (-11, "Fatal Python error: Segmentation fault", "signal"),
        (1, "", "exit code"),
        (130, "", "exit code"),
        (2, "", "message"),
        (2, "terradelta: something is wrong\n", "message"),
        (2, ERROR + ERROR, "message"),
        (0, ERROR, "message"),
    ],
)
def test_a_bad_end_is_a_finding(root, code, stderr, kind):
    assert look(root, PREDICT, code, stderr) == [kind]


def test_a_traceback_is_named_by_its_innermost_own_frame(root):
    before = list_files(root)
    findings = judge(Line.parse(PREDICT), Run(1, "", TRACEBACK, False, 0), root, before)
    assert [each.where for each in findings] == ["ValueError at terradelta/geo/grid.py:7:window_of"]


@pytest.mark.parametrize(
    ("text", "code", "act", "kind"),
    [
        (PREDICT, 2, lambda home: (home / "new").mkdir(), "leftover"),
        (PREDICT, 2, lambda home: (home / ".new-x1").mkdir(), "leftover"),
        ("info model", 0, lambda home: (home / "scene/before.tif.aux.xml").touch(), "touched"),
        ("info model", 0, lambda home: (home.parent / "beside").touch(), "touched"),
        (f"{PREDICT} --overwrite", 2, lambda home: (home / "notes.txt").unlink(), "lost"),
        ("synth --output=scene --overwrite", 0, lambda home: _empty(home / "scene"), "lost"),
        ("synth --output=out", 0, lambda home: _empty(home / "out"), "lost"),
        ("report out", 0, lambda home: (home / "out/run.json").write_text("{}"), "lost"),
    ],
)
def test_what_is_touched_beside_the_output_is_a_finding(root, text, code, act, kind):
    assert look(root, text, code, ERROR if code else "", act) == [kind]


def _empty(folder):
    for path in folder.iterdir():
        path.unlink()


def test_numbers_that_are_none_are_findings(root):
    assert look(root, "info model --json", 0, stdout='{"score": NaN}') == ["content"]
    assert not look(root, "info model --json", 0, stdout='{"score": null}')
