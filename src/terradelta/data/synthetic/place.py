"""Lays out a drawn place and changes it between the dates."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from shapely import LineString, Polygon

from terradelta.data.synthetic.materials import CANOPY, CLASS_OF, TEXTURE_OF, Palette
from terradelta.data.synthetic.shapes import (
    AFTER,
    BASE,
    BEFORE,
    BOTH,
    CROWN,
    MARKING,
    PATH,
    PLOT,
    RIVER,
    ROAD,
    ROOF,
    ROOF_DETAIL,
    Frame,
    Rectangle,
    Shape,
    draw_blob,
    draw_ribbon,
    square_off,
)

LARGEST_BLOCK_M = 95.0
TOWN = {"houses": 9, "halls": 4, "park": 3, "sports": 3, "parking": 2, "forest": 2, "pond": 2}
_FENCE_GREY = 111.0
COUNTRY = {"field": 7, "meadow": 3, "forest": 5, "pond": 3, "houses": 4, "halls": 2, "sports": 2}


class Place:
    """Draws the shapes of one place; `shapes` holds them.

    Args:
        rng: Draws everything.
        palette: Colours of the place at both dates.
        frame: Position of the place in the picture.
        extent_m: Half the side of the square that the place fills.
        change_rate: Probability that an object or plot changes between the dates.
        fenced: Whether a street runs around the square; no river then crosses it.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        palette: Palette,
        frame: Frame,
        extent_m: float,
        change_rate: float,
        *,
        fenced: bool = False,
    ):
        self.shapes: list[Shape] = []
        self._rng = rng
        # A separate generator, so that objects on bare ground do not move others.
        self._site_rng = rng.spawn(1)[0]
        self._palette = palette
        self._frame = frame
        self._change_rate = change_rate
        self._kinds = TOWN if rng.random() < 0.55 else COUNTRY
        self._river_bed: Polygon | None = None
        square = Rectangle(-extent_m, -extent_m, extent_m, extent_m)
        if fenced:
            # The same colour in every place, so that streets continue across places.
            asphalt = np.full((2, 3), _FENCE_GREY, np.float32)
            self._add(square.inset(-extent_m).corners(), BASE, "asphalt", colours=asphalt)
        self._add(square.corners(), BASE, "grass")
        if not fenced and rng.random() < 0.2:
            self._draw_river(extent_m)
        self._divide(square, street_m=rng.uniform(7, 11))

    def _divide(self, area: Rectangle, street_m: float):
        """Cut an area into blocks by smaller and smaller streets, and fill the blocks."""
        longest = max(area.width, area.height)
        if longest < LARGEST_BLOCK_M or (longest < 150 and self._rng.random() < 0.25):
            self._fill(area)
            return
        parts = area.split(self._rng.uniform(0.35, 0.65), street_m)
        first, second = parts
        if area.width >= area.height:
            street = Rectangle(first.right, area.top, second.left, area.bottom)
        else:
            street = Rectangle(area.left, first.bottom, area.right, second.top)
        self._add(street.corners(), ROAD, "asphalt" if street_m > 5 else "gravel")
        for part in parts:
            self._divide(part, max(4.5, street_m * self._rng.uniform(0.7, 0.95)))

    def _fill(self, block: Rectangle):
        kinds = list(self._kinds)
        shares = np.array([self._kinds[kind] for kind in kinds], float)
        kind = kinds[self._rng.choice(len(kinds), p=shares / shares.sum())]
        getattr(self, f"_draw_{kind}")(block)

    def _happens(self) -> bool:
        return bool(self._rng.random() < self._change_rate)

    def _choose_dates(self, appears: float = 0.6) -> int:
        """Return BOTH, or for a change the only date at which an object exists."""
        if not self._happens():
            return BOTH
        return AFTER if self._rng.random() < appears else BEFORE

    def _add(
        self, outline_m: np.ndarray, layer: int, surface: str, dates: int = BOTH, **fields
    ) -> Shape:
        if "colours" not in fields:
            fields["colours"] = self._palette.paint(surface, self._rng)
        if "texture" not in fields:
            fields["texture"] = TEXTURE_OF[surface]
        if "class_id" not in fields:
            fields["class_id"] = CLASS_OF[surface]
        outline = self._frame.to_px(outline_m)
        shape = Shape(outline=outline, layer=layer, dates=dates, **fields)
        # Plots end at a river and streets bridge it, but nothing else is drawn in it.
        if layer <= ROAD or self._is_dry(outline_m):
            self.shapes.append(shape)
        return shape

    def _is_dry(self, outline_m: np.ndarray) -> bool:
        return self._river_bed is None or not self._river_bed.intersects(Polygon(outline_m))

    def _draw_houses(self, block: Rectangle):
        rng = self._rng
        self._add(block.corners(), PLOT, "grass")
        along_x = block.width >= block.height
        length = block.width if along_x else block.height
        rows = block.split(0.5, 0.0) if min(block.width, block.height) > 45 else (block,)
        if len(rows) == 2 and along_x:
            middle = (block.top + block.bottom) / 2
            rows = (
                Rectangle(block.left, block.top, block.right, middle),
                Rectangle(block.left, middle, block.right, block.bottom),
            )
        plots = max(1, round(length / rng.uniform(18, 26)))
        for row in rows:
            for number in range(plots):
                low, high = number / plots, (number + 1) / plots
                plot = (
                    Rectangle(
                        row.left + low * row.width,
                        row.top,
                        row.left + high * row.width,
                        row.bottom,
                    )
                    if along_x
                    else Rectangle(
                        row.left,
                        row.top + low * row.height,
                        row.right,
                        row.top + high * row.height,
                    )
                )
                self._draw_home(plot)

    def _draw_home(self, plot: Rectangle):
        rng = self._rng
        dates = self._choose_dates()
        centre = np.array(plot.centre) + rng.uniform(-0.1, 0.1, 2) * (plot.width, plot.height)
        width = min(rng.uniform(9, 16), 0.75 * plot.width)
        depth = min(rng.uniform(8, 12), 0.75 * plot.height)
        if dates != BOTH:
            # A building site, or the remains of a demolition.
            yard = Rectangle(
                centre[0] - width, centre[1] - depth, centre[0] + width, centre[1] + depth
            )
            bare = BEFORE + AFTER - dates if rng.random() < 0.6 else dates
            self._draw_bare_ground(_clip(yard, plot), bare)
        self._draw_building(tuple(centre), width, depth, dates, gable=rng.random() < 0.75)
        if rng.random() < 0.12 and min(plot.width, plot.height) > 18:
            corner = (plot.left + 0.2 * plot.width, plot.top + 0.15 * plot.height)
            pool = Rectangle(corner[0], corner[1], corner[0] + 8, corner[1] + 5)
            self._add(pool.corners(), PATH, "pool", self._choose_dates())
        for _ in range(rng.integers(0, 4)):
            spot = (
                rng.uniform(plot.left, plot.right),
                plot.bottom - rng.uniform(0, 0.25) * plot.height,
            )
            self._draw_tree(spot, self._choose_dates(appears=0.3))

    def _draw_bare_ground(self, area: Rectangle, dates: int, layer: int = PATH):
        """Add soil worked on by machines: a ragged edge, tracks and heaps.

        From above, a smooth rectangle would look like a flat roof.
        """
        rng = self._site_rng
        reach = np.array([area.width, area.height]) / 2
        outline = square_off(draw_blob((0, 0), 0.9, rng, roughness=0.2), 0.7).clip(-1, 1)
        soil = self._add(outline * reach + area.centre, layer, "soil", dates)

        def add_worked(outline_m: np.ndarray, height_px: float = 0):
            shade = rng.choice((rng.uniform(0.75, 0.9), rng.uniform(1.08, 1.2)))
            colours = soil.colours * shade
            self._add(outline_m, layer, "soil", dates, colours=colours, height_px=height_px)

        # Larger sites have more objects.
        thousands_m2 = math.ceil(area.width * area.height / 1000)
        for _ in range(rng.integers(1, 3 + thousands_m2)):
            start, end = rng.uniform(-0.7, 0.7, (2, 2))
            bend = (start + end) / 2 + rng.uniform(-0.15, 0.15, 2)
            line = np.stack([start, bend, end]) * reach + area.centre
            add_worked(draw_ribbon(line, rng.uniform(1.2, 2.5)))
        for _ in range(rng.integers(0, 4 + thousands_m2)):
            spot = rng.uniform(-0.6, 0.6, 2) * reach + area.centre
            radius = rng.uniform(0.8, 2)
            heap = draw_blob(tuple(spot), radius, rng, roughness=0.3)
            add_worked(heap, 0.7 * radius / self._frame.gsd_m)

    def _draw_building(
        self, centre: tuple[float, float], width: float, depth: float, dates: int, *, gable: bool
    ):
        """Add a building; its roof slopes to both sides of a ridge, or is flat with units on it."""
        rng = self._rng
        x, y = centre
        height_px = rng.uniform(4, 9) / self._frame.gsd_m
        body = Rectangle(x - width / 2, y - depth / 2, x + width / 2, y + depth / 2)
        if not self._is_dry(body.corners()):
            return
        if not gable:
            self._add(body.corners(), ROOF, "flat roof", dates, height_px=height_px)
            for _ in range(int(width * depth / 150)):
                spot = rng.uniform((body.left, body.top), (body.right - 3, body.bottom - 3))
                unit = Rectangle(*spot, *(spot + rng.uniform(1.5, 3, 2)))
                texture = TEXTURE_OF["flat roof"]
                self._add(unit.corners(), ROOF_DETAIL, "roof unit", dates, texture=texture)
            return
        colours = self._palette.paint("roof", rng)
        along_x = width >= depth
        for side in (-1, 1):
            half = _half(body, along_x, side)
            turn = self._frame.turn + (math.pi / 2 if along_x else 0)
            slope = (side * 0.5 * math.cos(turn), side * 0.5 * math.sin(turn))
            self._add(
                half.corners(),
                ROOF,
                "roof",
                dates,
                colours=colours,
                slope=slope,
                height_px=height_px,
            )
        if rng.random() < 0.3:
            wing = Rectangle(x, y, x + width * 0.45, y + depth * rng.uniform(0.8, 1.0))
            self._add(wing.corners(), ROOF, "roof", dates, colours=colours, height_px=height_px)

    def _draw_tree(self, spot: tuple[float, float], dates: int = BOTH):
        rng = self._rng
        radius = rng.uniform(2.4, 5.0)
        surface = "evergreen" if rng.random() < 0.3 else "broadleaf"
        self._add(
            draw_blob(spot, radius, rng, roughness=0.12),
            CROWN,
            surface,
            dates,
            height_px=rng.uniform(1.2, 2.2) * radius / self._frame.gsd_m,
        )

    def _draw_halls(self, block: Rectangle):
        rng = self._rng
        self._add(block.corners(), PLOT, "concrete" if rng.random() < 0.5 else "asphalt")
        lots = block.inset(4).split(rng.uniform(0.35, 0.65), 8)
        for lot in lots:
            dates = self._choose_dates()
            if dates != BOTH and rng.random() < 0.7:
                self._add(lot.corners(), PATH, "grass", BEFORE + AFTER - dates)
            hall = lot.inset(rng.uniform(1, 5))
            if rng.random() < 0.8:
                self._draw_building(hall.centre, hall.width, hall.height, dates, gable=False)
            else:
                self._park_cars(hall)

    def _draw_parking(self, block: Rectangle):
        dates = self._choose_dates()
        self._add(block.corners(), PLOT, "grass")
        self._add(block.inset(3).corners(), PATH, "asphalt", dates)
        if dates == BOTH:
            self._park_cars(block.inset(6))

    def _park_cars(self, lot: Rectangle):
        rng = self._rng
        if not self._is_dry(lot.corners()):
            return
        for y in np.arange(lot.top, lot.bottom - 4.5, 9.0):
            for x in np.arange(lot.left, lot.right - 2, 3.0):
                dates = int(rng.choice((0, BEFORE, AFTER, BOTH), p=(0.4, 0.25, 0.25, 0.1)))
                if dates:
                    car = Rectangle(x + 0.5, y, x + 2.3, y + 4.4)
                    texture = TEXTURE_OF["asphalt"]
                    self._add(car.corners(), MARKING, "car", dates, texture=texture)

    def _draw_field(self, block: Rectangle):
        rng = self._rng
        surface = "crop" if rng.random() < 0.75 else "grass"
        rows: dict[str, Any] = {
            "row_period_px": rng.uniform(1.6, 4) / self._frame.gsd_m,
            "row_angle": self._frame.turn + (math.pi / 2 if rng.random() < 0.5 else 0),
        }
        self._add(block.corners(), PLOT, surface, **(rows if surface == "crop" else {}))
        if not self._happens():
            return
        site = block.inset(rng.uniform(2, 12))
        change = rng.choice(("built", "paved", "flooded", "bare", "planted"))
        if change == "built":
            self._add(site.corners(), PATH, "concrete", AFTER)
            hall = site.inset(rng.uniform(4, 10))
            self._draw_building(hall.centre, hall.width, hall.height, AFTER, gable=False)
        elif change == "flooded":
            self._draw_water(site, AFTER)
        elif change == "planted":
            self._draw_grove(site, AFTER)
        else:
            dates = AFTER if rng.random() < 0.7 else BEFORE
            if change == "paved":
                self._add(site.corners(), PATH, "asphalt", dates)
            else:
                self._draw_bare_ground(site, dates)

    def _draw_meadow(self, block: Rectangle):
        self._add(block.corners(), PLOT, "grass")
        for _ in range(self._rng.integers(0, 9)):
            spot = self._rng.uniform((block.left, block.top), (block.right, block.bottom))
            self._draw_tree(tuple(spot), self._choose_dates(appears=0.3))

    def _draw_forest(self, block: Rectangle):
        self._add(block.corners(), PLOT, "grass")
        self._draw_grove(block, BOTH)
        if self._happens():
            clearing = block.inset(self._rng.uniform(0, 8)).split(self._rng.uniform(0.4, 0.9), 0)[0]
            if self._rng.random() < 0.6:
                self._draw_bare_ground(clearing, AFTER, CROWN)
            else:
                self._add(clearing.corners(), CROWN, "grass", AFTER)

    def _draw_grove(self, area: Rectangle, dates: int):
        """Add closed forest with a ragged edge."""
        rng = self._rng
        surface = "evergreen" if rng.random() < 0.4 else "broadleaf"
        height_px = rng.uniform(8, 15) / self._frame.gsd_m
        corners = area.inset(3.5).corners()
        steps = [
            (1 - share) * start + share * end
            for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True)
            for share in np.arange(0, 1, 0.1)
        ]
        edge = np.array(steps) + rng.uniform(-2.5, 2.5, (len(steps), 2))
        self._add(edge, CROWN, surface, dates, texture=CANOPY, height_px=height_px)

    def _draw_park(self, block: Rectangle):
        rng = self._rng
        self._add(block.corners(), PLOT, "grass")
        points = np.array(
            [
                (block.left, rng.uniform(block.top, block.bottom)),
                block.centre,
                (block.right, rng.uniform(block.top, block.bottom)),
            ]
        )
        self._add(draw_ribbon(points, rng.uniform(3, 5)), PATH, "gravel")
        if rng.random() < 0.4:
            court = block.inset(0.3 * min(block.width, block.height))
            self._draw_field_lines(court, "court", self._choose_dates())
        for _ in range(rng.integers(5, 22)):
            spot = rng.uniform((block.left, block.top), (block.right, block.bottom))
            self._draw_tree(tuple(spot), self._choose_dates(appears=0.3))

    def _draw_sports(self, block: Rectangle):
        rng = self._rng
        self._add(block.corners(), PLOT, "grass" if rng.random() < 0.7 else "soil")
        pitch = block.inset(rng.uniform(5, 9))
        dates = self._choose_dates()
        if min(pitch.width, pitch.height) > 40 and rng.random() < 0.6:
            x, y = pitch.centre
            angles = np.arange(32) / 32 * math.tau
            oval = np.stack([np.cos(angles), np.sin(angles)], 1)
            oval = square_off(oval, 0.55) * (pitch.width / 2, pitch.height / 2) + (x, y)
            self._add(oval, PATH, "track", dates)
            inner = pitch.inset(0.16 * min(pitch.width, pitch.height))
            self._draw_field_lines(inner, "turf", dates)
        else:
            self._draw_field_lines(pitch, "turf" if rng.random() < 0.4 else "court", dates)

    def _draw_field_lines(self, pitch: Rectangle, surface: str, dates: int):
        if not self._is_dry(pitch.corners()):
            return
        shape = self._add(pitch.corners(), MARKING, surface, dates)
        middle = pitch.split(0.5, 0.0)[0]
        for area in (pitch.inset(1.5), middle.inset(1.5)):
            outer, inner = area.corners(), area.inset(0.9).corners()
            self._add(outer, MARKING, "line", dates, class_id=shape.class_id, texture=shape.texture)
            self._add(
                inner,
                MARKING,
                surface,
                dates,
                colours=shape.colours,
                texture=shape.texture,
            )

    def _draw_pond(self, block: Rectangle):
        rng = self._rng
        self._add(block.corners(), PLOT, "grass")
        self._draw_water(block.inset(4), self._choose_dates(appears=0.4))
        for _ in range(rng.integers(0, 7)):
            x = rng.choice((block.left + 3, block.right - 3))
            self._draw_tree((x, rng.uniform(block.top, block.bottom)))

    def _draw_water(self, area: Rectangle, dates: int):
        rng = self._rng
        radius = 0.42 * min(area.width, area.height)
        stretch = np.array([area.width, area.height]) / min(area.width, area.height)
        blob = (draw_blob((0, 0), radius, rng, roughness=0.25) * stretch) + area.centre
        if dates != BOTH and rng.random() < 0.6:
            self._add(blob, PATH, "soil", BEFORE + AFTER - dates)
        self._add(blob, PATH, "water", dates)

    def _draw_river(self, extent_m: float):
        rng = self._rng
        x = np.linspace(-extent_m, extent_m, 40)
        wave = rng.uniform(5, 30) * np.sin(
            math.tau * x / rng.uniform(150, 400) + rng.uniform(0, math.tau)
        )
        line = np.stack([x, rng.uniform(-0.4, 0.4) * extent_m + wave], 1)
        if rng.random() < 0.5:
            line = line[:, ::-1]
        widest_m = width_m = rng.uniform(14, 32)
        self._add(draw_ribbon(line, width_m + 8), RIVER, "grass")
        flood = self._add(draw_ribbon(line, width_m), RIVER, "water")
        if self._happens():
            widest_m = wider = width_m * rng.uniform(1.4, 1.9)
            dates = AFTER if rng.random() < 0.6 else BEFORE
            self._add(draw_ribbon(line, wider), RIVER, "water", dates, colours=flood.colours)
        self._river_bed = LineString(line).buffer(widest_m / 2 + 1, quad_segs=4)


def _half(body: Rectangle, along_x: bool, side: int) -> Rectangle:
    """Return the half of a roof on one side of its ridge."""
    x, y = body.centre
    if along_x:
        top, bottom = (body.top, y) if side < 0 else (y, body.bottom)
        return Rectangle(body.left, top, body.right, bottom)
    left, right = (body.left, x) if side < 0 else (x, body.right)
    return Rectangle(left, body.top, right, body.bottom)


def _clip(inner: Rectangle, outer: Rectangle) -> Rectangle:
    return Rectangle(
        max(inner.left, outer.left),
        max(inner.top, outer.top),
        min(inner.right, outer.right),
        min(inner.bottom, outer.bottom),
    )
