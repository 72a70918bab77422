"""Parts by name: terradelta's own, registered ones, and those of installed packages.

A package offers a part as an entry point of the group that its registry names. Parts of terradelta
and registered ones come before entry points of the same name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from itertools import chain
from typing import Any, Generic, TypeVar

from terradelta.errors import ArgumentError
from terradelta.fields import Rule

Part = TypeVar("Part")


class Registry(Mapping[str, Part], Generic[Part]):
    """Parts of one kind by name.

    Args:
        kind: Name of the kind, for messages.
        group: The group of entry points that packages offer such parts in.
    """

    def __init__(self, kind: str, group: str):
        self.kind = kind
        self.group = group
        self._parts: dict[str, Part] = {}

    def register(self, name: str, part: Part):
        """Add a part.

        Raises:
            ArgumentError: If the name is taken, or the part cannot be called.
        """
        if part is not None and not callable(part):
            raise ArgumentError(
                f"the {self.kind} {name!r} is of the type {type(part).__name__}, "
                "which cannot be called",
                fix="register a function or a class",
            )
        if name in self._parts:
            raise ArgumentError(
                f"the name {name!r} is taken by another {self.kind}", fix="register another name"
            )
        self._parts[name] = part

    def __getitem__(self, name: str) -> Part:
        """Return a part, importing its package if necessary.

        Raises:
            KeyError: If no part has that name.
            ArgumentError: If its package cannot be imported.
        """
        if name not in self._parts:
            entry = self._installed[name]
            try:
                self._parts[name] = entry.load()
            except (ImportError, AttributeError) as error:
                raise ArgumentError(
                    f"the {self.kind} {name!r} of {entry.value} cannot be loaded: {error}",
                    fix="install that package again, or remove it",
                ) from error
        return self._parts[name]

    def __contains__(self, name: object) -> bool:
        return name in self._parts or name in self._installed

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(chain(self._parts, self._installed)))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @cached_property
    def _installed(self) -> Mapping[str, EntryPoint]:
        return {entry.name: entry for entry in entry_points(group=self.group)}


@dataclass(frozen=True)
class Named(Rule):
    """The rule of an option that names a part."""

    registry: Registry[Any]
    """Where parts are registered."""
    own: tuple[str, ...]
    """The names of terradelta's own parts, which are not imported yet."""

    def holds(self, value: Any) -> bool:
        """Return whether there is a part of that name."""
        return value in self.own or value in self.registry

    def __str__(self) -> str:
        return "one of " + ", ".join(dict.fromkeys([*self.own, *self.registry]))


ARCHITECTURES: Registry[Any] = Registry("architecture", "terradelta.models")
"""Functions that take an `Architecture`; see `terradelta.models.registry.register_model`."""
ENCODERS: Registry[Any] = Registry("encoder", "terradelta.encoders")
"""Functions that take the bands and whether the last feature map is fine; see
`terradelta.models.registry.register_encoder`."""
READERS: Registry[Any] = Registry("reader", "terradelta.readers")
"""Functions that take a path; see `terradelta.geo.readers.register_reader`."""
CONSISTENCY_LOSSES: Registry[Any] = Registry("consistency loss", "terradelta.consistency_losses")
"""Functions without arguments, or None for no loss; see `terradelta.losses.register_loss`."""
CHANGE_LOSSES: Registry[Any] = Registry("change loss", "terradelta.change_losses")
"""Functions that take the weight of changed pixels; see `terradelta.losses.register_loss`."""


def find_reader(path: str) -> str | None:
    """Return the registered reader of a raster by the scheme or the ending of its path, or None."""
    scheme, separator, _ = path.partition("://")
    if separator:
        return scheme.lower() if scheme.lower() in READERS else None
    lower = path.lower()
    endings = [name for name in READERS if name.startswith(".") and lower.endswith(name)]
    return max(endings, key=len, default=None)
