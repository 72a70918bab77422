"""Values that are checked against types: each kind of wrong value, and what is left alone."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from terradelta.errors import ArgumentError, DataError
from terradelta.fields import (
    UNKNOWN_KEYS,
    UNLESS_NONE,
    FieldError,
    Within,
    check_fields,
    checks_ranges,
    keyed,
    read_fields,
    show,
    write_fields,
    written_if,
)
from terradelta.inputs import MAX_DEPTH, ContentError, parse_json, read_json, read_record


@dataclass(frozen=True)
class Part:
    count: Annotated[int, Within(least=1)]


@dataclass(frozen=True)
class Whole:
    name: str
    share: Annotated[float, Within(least=0, below=1)]
    kind: Literal["a", "b"]
    pair: tuple[float, float]
    parts: tuple[Part, ...]
    start: str = keyed("from")
    text: str | list[str] | None = None
    table: dict[str, int] | None = None
    anything: Any = None
    is_on: bool = False


GOOD = {
    "name": "x",
    "share": 0,
    "kind": "a",
    "pair": [1, 2.5],
    "parts": [{"count": 3, "later": 1}],
    "from": "y",
    "unknown": object(),
}


def test_what_fits_becomes_what_the_types_say():
    whole = read_fields(Whole, GOOD)
    assert whole == Whole("x", 0.0, "a", (1.0, 2.5), (Part(3),), "y")
    assert isinstance(whole.share, float)


@dataclass(frozen=True)
class Written:
    """A record with a field of each kind that `write_fields` knows."""

    to_class: str = keyed("to")
    parts: tuple[Part, ...] = ()
    amount: int | float = 0
    gone: int | None = field(default=None, metadata=UNLESS_NONE)
    wet: int | None = field(default=None, metadata=written_if(lambda one: one.amount > 1))
    plain: int | None = None
    rest: dict[str, Any] = field(default_factory=dict, metadata=UNKNOWN_KEYS)


@pytest.mark.parametrize(
    "text",
    [
        '{"to": "a", "parts": [{"count": 1}], "amount": 1, "plain": null}',
        '{"to": "a", "parts": [], "amount": 1.0, "gone": 2, "plain": 3, "new": {"x": [null]}}',
        '{"to": "a", "parts": [], "amount": 2, "wet": null, "plain": null, "rest": 1}',
    ],
)
def test_what_is_read_is_written_as_it_was(text):
    record = read_fields(Written, json.loads(text))
    assert json.dumps(write_fields(record)) == text
    with pytest.raises(FieldError, match=r"amount is '3', and it must be a finite number$"):
        read_fields(Written, {**json.loads(text), "amount": "3"})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("name", None, "name is None, and it must be a text"),
        ("name", "\ud800", "name is"),
        ("name", "a\0b", "name is"),
        ("share", 1, "share is 1, and it must be a finite number of at least 0 and less than 1"),
        ("share", math.nan, "share is nan"),
        ("share", 10**400, "share is 1000"),
        ("share", True, "share is True"),
        ("share", "0.5", "share is '0.5'"),
        ("kind", "c", "kind is 'c', and it must be one of a, b"),
        ("kind", [], r"kind is \[\]"),
        ("pair", [1], r"pair is \[1\], and it must be a list of 2"),
        ("pair", "12", "pair is '12'"),
        ("pair", [1, math.inf], r"pair\[1\] is inf"),
        ("parts", [{}], r"parts\[0\]\.count is missing, and it must be a whole number of at least"),
        ("parts", [{"count": 0}], r"parts\[0\]\.count is 0"),
        ("parts", [{"count": 1.5}], r"parts\[0\]\.count is 1\.5"),
        ("parts", {"count": 1}, "parts is"),
        ("parts", [3], r"parts\[0\] is 3, and it must be an object"),
        ("from", 3, "from is 3"),
        ("text", 3, "text is 3, and it must be a text or a list, each a text or null"),
        ("table", {"a": "b"}, r"table\.a is 'b'"),
        ("table", [], r"table is \[\]"),
        ("is_on", 1, "is_on is 1, and it must be true or false"),
    ],
)
def test_what_does_not_fit_is_named(key, value, message):
    with pytest.raises(FieldError, match=message):
        read_fields(Whole, {**GOOD, key: value})


def test_every_missing_key_is_named():
    for key in ("name", "share", "kind", "pair", "parts", "from"):
        with pytest.raises(FieldError, match=f"{key} is missing"):
            read_fields(Whole, {k: v for k, v in GOOD.items() if k != key})


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_content_is_read_or_refused(value):
    for key in GOOD:
        with suppress(FieldError):
            read_fields(Whole, {**GOOD, key: value})


def test_a_value_is_shown_short_however_large():
    bomb: Any = "x" * 100
    for _ in range(20):
        bomb = [bomb] * 20
    assert len(show(bomb)) < 1000
    assert len(show("x" * 10**6)) < 100


@dataclass(frozen=True)
class Options:
    epochs: Annotated[int, Within(least=1)] = 3
    clip: Annotated[float, Within(above=0)] | None = None

    def __post_init__(self):
        check_fields(self)


def test_options_name_the_flag_and_the_range():
    Options(epochs=np.int64(2), clip=np.float32(0.5))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ArgumentError, match=r"epochs is 0.*\n.*--epochs a whole number of at leas"):
        Options(epochs=0)
    for clip in (0, -1.0, math.nan, math.inf, "1"):
        with pytest.raises(ArgumentError, match="clip is"):
            Options(clip=clip)  # pyright: ignore[reportArgumentType]


def test_a_function_refuses_what_is_out_of_range():
    calls = []

    @checks_ranges
    def work(path, size: Annotated[int, Within(least=1)] | None = None, other: int = 3):
        calls.append((path, size, other))

    work("x", 1, other=-5)
    work("x")
    with pytest.raises(ArgumentError, match="size is 0"):
        work("x", size=0)
    assert calls == [("x", 1, -5), ("x", None, 3)]


@pytest.mark.parametrize(
    "text",
    [
        '{"a": NaN}',
        '{"a": -Infinity}',
        '{"a": 1, "a": 2}',
        '"\\ud800"',
        "{",
        "",
        b"\xff",
        "[" * 10**5,
    ],
)
def test_strict_json_is_that_of_the_standard(text):
    with pytest.raises(ContentError):
        parse_json(text, strict=True)


def test_files_are_bounded_before_they_are_parsed(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("[1]")
    assert read_json(path) == [1]
    with pytest.raises(ContentError, match="more than 2 bytes"):
        read_json(path, most_bytes=2)
    path.write_text("[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2))
    with pytest.raises(ContentError, match="within each other"):
        read_json(path)
    path.write_bytes(b"\x00\xff\xfe")
    with pytest.raises(ContentError, match="UTF-8"):
        read_json(path)
    with pytest.raises(ContentError):
        read_json(tmp_path)


def test_a_record_says_which_file_and_key(tmp_path):
    path = tmp_path / "part.json"
    path.write_text(json.dumps({"count": -1}))
    with pytest.raises(DataError, match=r"part\.json: count is -1.*\n.*look at it"):
        read_record(path, Part, DataError, "look at it")
    path.write_text("[]")
    with pytest.raises(DataError, match="holds a list, not an object"):
        read_record(path, Part, DataError, "look at it")
