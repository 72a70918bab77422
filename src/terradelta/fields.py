"""Values from files and from callers, checked once against the types of a dataclass or function.

The type gives the values that a field allows; `Annotated[float, Within(above=0)]` adds a range. A
number is always finite, a whole number is never a bool, a text can be written as UTF-8.
"""

from __future__ import annotations

import functools
import inspect
import math
import numbers
import reprlib
import types
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from typing import (
    Annotated,
    Any,
    Literal,
    ParamSpec,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from terradelta.errors import ArgumentError

Record = TypeVar("Record")
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

LARGEST_COUNT = 2**62
"""Larger whole numbers do not fit into an array."""


class FieldError(ValueError):
    """A value that is not allowed in its place.

    Args:
        place: The key, with those that lead to it: "models[0].sha256".
        value: The value.
        expected: The allowed values, in words.
    """

    def __init__(self, place: str, value: Any, expected: str):
        super().__init__(place, value, expected)
        self.place, self.value, self.expected = place, value, expected

    def __str__(self) -> str:
        if self.value is MISSING:
            return f"{self.place} is missing, and it must be {self.expected}"
        return (
            f"{self.place or 'the content'} is {show(self.value)}, and it must be {self.expected}"
        )


class Rule(ABC):
    """A condition on an option besides its type, as a note of its `Annotated` type."""

    @abstractmethod
    def holds(self, value: Any) -> bool:
        """Return whether a value is allowed."""

    @abstractmethod
    def __str__(self) -> str:
        """Return the allowed values in words."""


@dataclass(frozen=True)
class Within(Rule):
    """The range of a number."""

    least: float = -math.inf
    """The lowest allowed value."""
    most: float = math.inf
    """The highest allowed value."""
    above: float = -math.inf
    """Allowed values are above this."""
    below: float = math.inf
    """Allowed values are below this."""

    def holds(self, value: Any) -> bool:
        """Return whether a number is allowed."""
        return bool(self.least <= value <= self.most and self.above < value < self.below)

    def __str__(self) -> str:
        parts = [
            f"{words} {bound:g}" if abs(bound) < 1e6 else f"{words} {bound:,}"
            for words, bound in (
                ("at least", self.least),
                ("more than", self.above),
                ("at most", self.most),
                ("less than", self.below),
            )
            if math.isfinite(bound) and bound != LARGEST_COUNT
        ]
        return " and ".join(parts)


COUNT = Within(least=0, most=LARGEST_COUNT)
POSITIVE_COUNT = Within(least=1, most=LARGEST_COUNT)
SHARE = Within(least=0, most=1)

UNLESS_NONE: Mapping[str, Any] = types.MappingProxyType({"unless_none": True})
"""Metadata of a dataclass field whose key `write_fields` leaves out where its value is None."""
UNKNOWN_KEYS: Mapping[str, Any] = types.MappingProxyType({"keeps_unknown": True})
"""Metadata of a dataclass field, a dict, for the keys that a later version has added to a file."""


def keyed(key: str, **options: Any) -> Any:
    """Return a dataclass field whose key in a file differs from its name."""
    return field(metadata={"key": key}, **options)


def written_if(condition: Callable[[Any], bool]) -> dict[str, Any]:
    """Return metadata of a dataclass field whose key some files do not have.

    Args:
        condition: Of a record, whether `write_fields` writes the key.
    """
    return {"condition": condition}


def show(value: Any) -> str:
    """Return a value for a message: short, however large it is."""
    return _SHORT.repr(value)


def read_fields(cls: type[Record], content: Any, place: str = "") -> Record:
    """Return a dataclass made from the content of JSON or YAML.

    Keys that the dataclass does not know are ignored, or kept in its field with the
    metadata `UNKNOWN_KEYS`: a later version may have written them. Absent ones take their default.

    Args:
        cls: A dataclass, its fields typed with bool, int, float, str, None, Any, Literal, tuple,
            list, dict, unions, dataclasses and `Annotated[..., Within(...)]`.
        content: The content that was read.
        place: Keys that lead to it.

    Raises:
        FieldError: If a value is missing, of another type or out of its range.
    """
    if not isinstance(content, Mapping):
        raise FieldError(place, content, "an object")
    hints = _get_hints(cls)
    values: dict[str, Any] = {}
    known = _list_keys(cls)
    for one in fields(cls):  # pyright: ignore[reportArgumentType]
        if one.metadata.get("keeps_unknown"):
            values[one.name] = {key: part for key, part in content.items() if key not in known}
            continue
        key = one.metadata.get("key", one.name)
        inner = f"{place}.{key}" if place else key
        if key in content:
            values[one.name] = _convert(hints[one.name], content[key], inner)
        elif _is_required(one):
            raise FieldError(inner, MISSING, _describe(hints[one.name]))
    return cls(**values)


def refuse_unknown(cls: type, content: Any, place: str = ""):
    """Raise if content has a key that a dataclass does not know.

    Raises:
        FieldError: Naming it.
    """
    known = _list_keys(cls)
    for key in content if isinstance(content, Mapping) else ():
        if key not in known:
            inner = f"{place}.{show(key)}" if place else show(key)
            raise FieldError(inner, content[key], "left out, as there is no such field")


def write_fields(record: Any) -> dict[str, Any]:
    """Return a dataclass as JSON-ready content, its keys in the order of its fields.

    `read_fields` reads it.
    """
    content: dict[str, Any] = {}
    for one in fields(record):
        value, notes = getattr(record, one.name), one.metadata
        if notes.get("keeps_unknown"):
            content |= value
        elif "condition" in notes and not notes["condition"](record):
            continue
        elif value is not None or "unless_none" not in notes:
            content[notes.get("key", one.name)] = _write(value)
    return content


def check_fields(record: Any):
    """Raise if a field of a dataclass does not fit its type, or is out of its range.

    For `__post_init__` of options that callers, the command line and recipes fill in.

    Raises:
        ArgumentError: Naming the field, its value and its range.
    """
    for name, hint in _get_hints(type(record)).items():
        if name in record.__dataclass_fields__:
            check_value(name, getattr(record, name), hint)


def check_value(name: str, value: Any, hint: Any):
    """Raise if the value of an option does not fit its type, or is out of its range.

    Raises:
        ArgumentError: Naming the option, its value and its range.
    """
    try:
        _convert(hint, value, name)
    except FieldError as error:
        flag = f"--{name.split('[')[0].replace('_', '-')}"
        # An option that allows null may be left out.
        expected = error.expected.removesuffix(" or null")
        problem = f"{error.place} is {show(error.value)}, and it must be {expected}"
        raise ArgumentError(problem, fix=f"give {flag} {expected}") from error


def checks_ranges(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Make a function reject arguments outside of the ranges of their `Annotated` types.

    Only such arguments are checked: the range is given where the option is defined, and applies to
    the command line and for Python.
    """

    @functools.wraps(function)
    def checked(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        signature, ranged = _find_ranged(function)
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            if name in ranged:
                check_value(name, value, ranged[name])
        return function(*args, **kwargs)

    return checked


@functools.cache
def _find_ranged(function: Callable[..., Any]) -> tuple[inspect.Signature, dict[str, Any]]:
    hints = get_type_hints(function, include_extras=True)
    ranged = {name: hint for name, hint in hints.items() if _has_range(hint)}
    return inspect.signature(function), ranged


def _has_range(hint: Any) -> bool:
    if get_origin(hint) is Annotated:
        base, *notes = get_args(hint)
        return any(isinstance(note, Rule) for note in notes) or _has_range(base)
    return any(_has_range(part) for part in get_args(hint))


@functools.cache
def _get_hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls, include_extras=True)


@functools.cache
def _list_keys(cls: type) -> frozenset[str]:
    kept = (one for one in fields(cls) if not one.metadata.get("keeps_unknown"))
    return frozenset(one.metadata.get("key", one.name) for one in kept)


def _write(value: Any) -> Any:
    if is_dataclass(value):
        return write_fields(value)
    if isinstance(value, Mapping):
        return {key: _write(part) for key, part in value.items()}
    return [_write(part) for part in value] if isinstance(value, tuple | list) else value


def _is_required(one: Field[Any]) -> bool:
    return one.default is MISSING and one.default_factory is MISSING


def _convert(hint: Any, value: Any, place: str) -> Any:
    """Return a value in the form of its type.

    Raises:
        FieldError: If it does not fit.
    """
    origin, parts = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin is Annotated:
        converted = _convert(parts[0], value, place)
        for note in parts[1:]:
            if isinstance(note, Rule) and converted is not None and not note.holds(converted):
                raise FieldError(place, value, _describe(hint))
        return converted
    if origin in (Union, types.UnionType):
        return _convert_union(hint, parts, value, place)
    if origin is Literal:
        if not any(type(value) is type(known) and value == known for known in parts):
            raise FieldError(place, value, _describe(hint))
        return value
    if origin in (tuple, list, Sequence):
        return _convert_sequence(hint, value, place)
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise FieldError(place, value, "an object")
        return {
            _convert(parts[0], key, place): _convert(parts[1], part, f"{place}.{key}")
            for key, part in value.items()
        }
    if is_dataclass(hint):
        kind = cast(type, hint)
        return value if isinstance(value, kind) else read_fields(kind, value, place)
    return _convert_plain(hint, value, place)


def _convert_union(hint: Any, parts: tuple[Any, ...], value: Any, place: str) -> Any:
    if value is None and type(None) in parts:
        return None
    errors = []
    for part in parts:
        if part is not type(None):
            try:
                return _convert(part, value, place)
            except FieldError as error:
                errors.append(error)
    # With a single kind, the inner error is more specific.
    is_inside = len(errors) == 1 and errors[0].place != place
    raise errors[0] if is_inside else FieldError(place, value, _describe(hint))


def _convert_sequence(hint: Any, value: Any, place: str) -> Any:
    origin, parts = get_origin(hint), get_args(hint)
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise FieldError(place, value, _describe(hint))
    if origin is not tuple or parts[-1] is Ellipsis:
        parts = (parts[0],) * len(value)
    if len(parts) != len(value):
        raise FieldError(place, value, _describe(hint))
    converted = (
        _convert(part, one, f"{place}[{index}]")
        for index, (part, one) in enumerate(zip(parts, value, strict=True))
    )
    return tuple(converted) if origin is tuple else list(converted)


def _convert_plain(hint: Any, value: Any, place: str) -> Any:
    is_number = not isinstance(value, bool)
    if hint is int and is_number and isinstance(value, numbers.Integral):
        return int(value)
    if hint is float and is_number and isinstance(value, numbers.Real):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    elif hint is str and isinstance(value, str):
        if "\0" not in value and not any("\ud800" <= letter <= "\udfff" for letter in value):
            return value
    elif hint is not int and isinstance(value, hint):
        return value
    raise FieldError(place, value, _describe(hint))


_PLAIN_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    str: "a text",
    type(None): "null",
}


def _describe(hint: Any) -> str:
    """Return the values that a type allows, in words."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        rules = [note for note in parts[1:] if isinstance(note, Rule)]
        # A range follows the kind of number; any other rule describes the value completely.
        if any(not isinstance(rule, Within) for rule in rules):
            return " and ".join(map(str, rules))
        return " of ".join([_describe(parts[0]), *map(str, rules)])
    if origin in (Union, types.UnionType):
        # Whole numbers are numbers.
        named = (part for part in parts if part is not int or float not in parts)
        return " or ".join(map(_describe, named))
    if origin is Literal:
        return "one of " + ", ".join(map(str, parts))
    if origin in (tuple, list, Sequence):
        if origin is tuple and parts[-1] is not Ellipsis:
            return f"a list of {len(parts)}, each {_describe(parts[0])}"
        return f"a list, each {_describe(parts[0])}"
    if origin in (dict, Mapping) or is_dataclass(hint):
        return "an object"
    return _PLAIN_WORDS.get(hint, f"a {getattr(hint, '__name__', hint)}")


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60
_SHORT.maxlevel = 2
