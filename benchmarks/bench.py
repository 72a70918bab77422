"""Everything that `make bench` measures, one after the other, into benchmarks/results.md."""

from __future__ import annotations

import sys
from pathlib import Path

import inference
import overheads
import rasters
import training
from tables import describe_machine, format_tables

RESULTS = Path(__file__).parent / "results.md"
INTRODUCTION = """# Results

What `make bench` measured last; README.md says what the numbers mean.

"""


def main():
    """Measure, print and write."""
    machine = describe_machine()
    tables = {}
    for part in (overheads, training, inference, rasters):
        print(f"measuring {part.__name__}", file=sys.stderr)
        tables.update(part.measure())
    text = f"{INTRODUCTION}```\n{machine}\n```\n\n{format_tables(tables)}"
    RESULTS.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
