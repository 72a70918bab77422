"""The class table: what the class ids of a map mean and how they are drawn."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from typing import Annotated, Any

from terradelta.errors import ArgumentError
from terradelta.fields import Within, read_fields

Channel = Annotated[int, Within(least=0, most=255)]
MAX_CLASSES = 254
"""With unchanged and nodata they fit a byte."""
Colour = tuple[Channel, Channel, Channel]


@dataclass(frozen=True)
class ClassTable:
    """Names and colours of the class ids 0..K; id 0 is always unchanged or not labelled.

    Raises:
        ArgumentError: If the names and colours differ in number, or a class id does not fit a byte.
    """

    names: tuple[str, ...]
    """Name of each class id, the first being that of id 0."""
    colours: tuple[Colour, ...]
    """RGB colour, 0 to 255, of each class id."""

    def __post_init__(self):
        if len(self.names) != len(self.colours):
            raise ArgumentError(
                f"the class table has {len(self.names)} names but {len(self.colours)} colours",
                fix="give one colour per class, id 0 included",
            )
        if not 2 <= len(self.names) <= MAX_CLASSES + 1:
            raise ArgumentError(
                f"the class table has {len(self.names)} ids, and only 2 to 255 can be stored",
                fix="give id 0 and 1 to 254 land-cover classes",
            )

    @classmethod
    def numbered(cls, num_classes: int) -> ClassTable:
        """Return a table for classes of which only the number is known."""
        hues = (colorsys.hsv_to_rgb(i / num_classes, 0.8, 0.85) for i in range(num_classes))
        return cls(
            names=("unchanged", *(f"class {i}" for i in range(1, num_classes + 1))),
            colours=(
                (255, 255, 255),
                *((int(r * 255), int(g * 255), int(b * 255)) for r, g, b in hues),
            ),
        )

    @property
    def num_classes(self) -> int:
        """K, the number of land-cover classes; id 0 is not among them."""
        return len(self.names) - 1

    @property
    def num_transitions(self) -> int:
        """Number of values a from-to map can hold, unchanged (0) included: (K+1)^2."""
        return (self.num_classes + 1) ** 2

    def encode_transition(self, from_class: Any, to_class: Any) -> Any:
        """Return `from * (K+1) + to` for ints or integer arrays; unchanged is 0."""
        return from_class * (self.num_classes + 1) + to_class

    def decode_transition(self, transition: Any) -> tuple[Any, Any]:
        """Return (from class id, to class id) of transition values; inverse of the encoding."""
        return transition // (self.num_classes + 1), transition % (self.num_classes + 1)

    def name_transition(self, transition: int) -> str:
        """Return 'tree → building', or the name of id 0 for an unchanged pixel."""
        from_class, to_class = self.decode_transition(transition)
        if transition == 0:
            return self.names[0]
        return f"{self.names[from_class]} → {self.names[to_class]}"

    def colour_transition(self, transition: int) -> Colour:
        """Return the colour of a transition: that of the class it became, tinted by the old one."""
        from_class, to_class = self.decode_transition(transition)
        if transition == 0:
            return self.colours[0]
        red, green, blue = (
            (3 * to + was) // 4
            for to, was in zip(self.colours[to_class], self.colours[from_class], strict=True)
        )
        return red, green, blue

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form; `from_dict` reads it."""
        return {"names": list(self.names), "colours": [list(colour) for colour in self.colours]}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> ClassTable:
        """Build a table from what `to_dict` returned.

        Raises:
            FieldError: If a key is missing or holds something else.
            ArgumentError: Same as in the class.
        """
        return read_fields(cls, fields)


SENSEEARTH = ClassTable(
    names=("unchanged", "water", "ground", "low vegetation", "tree", "building", "playground"),
    colours=(
        (255, 255, 255),
        (0, 0, 255),
        (128, 128, 128),
        (0, 128, 0),
        (0, 255, 0),
        (128, 0, 0),
        (255, 0, 0),
    ),
)
"""The six land-cover classes of SenseEarth2020 and SECOND."""

BINARY = ClassTable(names=("unchanged", "changed"), colours=((255, 255, 255), (214, 39, 40)))
"""One class: data sets that say only whether something changed."""
