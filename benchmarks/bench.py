"""Runs all measurements of `make bench` in turn and writes benchmarks/results.md.

Each part runs in its own process, and its tables are written as soon as it ends.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tables import describe_machine

HERE = Path(__file__).parent
RESULTS = HERE / "results.md"
PARTS = ("overheads", "training", "inference", "rasters")
INTRODUCTION = """# Results

The last results of `make bench`; README.md explains the numbers.
"""


def main():
    """Measure, print and write."""
    text = f"{INTRODUCTION}\n```\n{describe_machine()}\n```\n"
    for part in PARTS:
        print(f"measuring {part}", file=sys.stderr)
        text += "\n" + measure(part)
        RESULTS.write_text(text, encoding="utf-8")
    print(text)


def measure(part: str) -> str:
    """Return the tables of a part as Markdown."""
    code = (
        f"import {part}, tables\n"
        f"text = tables.format_tables({part}.measure())\n"
        "open('work/tables.md', 'w', encoding='utf-8').write(text)\n"
    )
    (HERE / "work").mkdir(exist_ok=True)
    subprocess.run([sys.executable, "-c", code], cwd=HERE, check=True, stdout=sys.stderr)
    return (HERE / "work" / "tables.md").read_text(encoding="utf-8")


if __name__ == "__main__":
    main()
