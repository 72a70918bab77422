"""The python blocks of the pages on losses and metrics run as they are printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize(
    ("page", "num_blocks", "printed"),
    [("losses.md", 2, "'semantic_after'"), ("metrics.md", 1, "second {'iou_unchanged'")],
)
def test_blocks_run_as_pasted(page, num_blocks, printed, capsys):
    blocks = re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(), re.S | re.M)
    assert len(blocks) == num_blocks
    for block in blocks:
        exec(compile(block, page, "exec"), {"__name__": "__main__"})
    assert printed in capsys.readouterr().out
