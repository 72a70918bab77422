"""The page on reliability names tests that are there."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "reliability.md"
NAMED = re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE.read_text(encoding="utf-8"))


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_named_test_is_there(file, name):
    assert re.search(rf"^def {name}\(", (TESTS / file).read_text(encoding="utf-8"), re.M)


def test_every_promise_names_a_test():
    rows = re.findall(r"^\| [^|]+ \| (`[^|]+`) \|$", PAGE.read_text(encoding="utf-8"), re.M)
    named = [row for row in rows if "::" in row]
    assert len(named) == len(NAMED) > 30
