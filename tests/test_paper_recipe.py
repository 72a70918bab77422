"""The paper's table on a miniature in the layout of SECOND: the one line that its owners run."""

import subprocess
import sys
from pathlib import Path

import pytest

from terradelta.data.synthetic import write_folders

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "ual" / "paper.py"


@pytest.mark.slow
def test_one_line_makes_the_table_and_resumes_where_it_stopped(tmp_path):
    for split, pairs in (("train", 8), ("test", 6)):
        write_folders(tmp_path / "SECOND" / split, pairs, seed=len(split), size_px=128)
    (tmp_path / "short.yaml").write_text("epochs: 1\nbatch_size: 4\nworkers: 0\n")
    options = ["--seeds", "2", "--recipe", "short.yaml", "--losses", "none", "ual"]
    command = [sys.executable, str(SCRIPT), "SECOND", "-o", "paper", *options]
    for encoders in (["resnet18"], ["resnet18", "resnet34"]):
        done = subprocess.run(
            [*command, "--encoders", *encoders],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
    table = (tmp_path / "paper" / "table.md").read_text()
    assert done.stdout.strip() == table.strip()
    assert table.startswith("Numbers of the test split.")
    for network in ("fcn resnet18", "fcn resnet34", "pspnet resnet18", "pspnet resnet34"):
        assert table.count(f"| {network} | ual | ") == 3
    runs = [path for path in (tmp_path / "paper").iterdir() if path.is_dir()]
    assert len(runs) == 16
