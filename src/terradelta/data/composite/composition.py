"""Two dates of a place, composed from labelled images of one date.

A crop of a scene is used for both dates, unless there is an image of another date. Pieces of
another place are pasted into one random date where their class differs, so objects appear
as often as they vanish. Pasting into both dates, and relighting within an outline, make seams where
nothing changed. At the end each date gets its own light, season and sensor. The idea is that of
copy-paste augmentation (Ghiasi et al., 2021) and of change pairs from single dates (Zheng et al.,
"Change is Everywhere", 2021).

Legend of the array names: C bands, H rows, W columns.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from terradelta.data.composite.light import draw_field, draw_gain, expose
from terradelta.data.composite.options import Composition
from terradelta.errors import DataError
from terradelta.geo.outlines import find_areas

BOTH = (0, 1)
_LEAST_LABELLED = 0.5
_LEAST_KEPT = 0.5
_LARGEST_OBJECT = 0.25
_LARGEST_CORRECTION = 40.0
_TRIES = 20


class LabelledScene(NamedTuple):
    """An image of one date and its land cover."""

    image_CHW: np.ndarray
    """(3, H, W) uint8."""
    classes_HW: np.ndarray
    """(H, W) uint8 class ids, 0 = not labelled."""
    other_date_CHW: np.ndarray | None = None
    """(3, H, W) uint8: the same ground, unchanged, in another light or season, if there is
    such an image."""


class ComposedPair(NamedTuple):
    """Two dates and the truth about both, which fits them to within half the largest shift."""

    before_CHW: np.ndarray
    """(3, H, W) uint8."""
    after_CHW: np.ndarray
    """(3, H, W) uint8."""
    before_class_HW: np.ndarray
    """(H, W) uint8 land cover, 0 where the source is not labelled."""
    after_class_HW: np.ndarray
    """(H, W) uint8 land cover, likewise."""
    pasted_HW: np.ndarray
    """(H, W) bool, True where a date was pasted or relit."""

    @property
    def change_HW(self) -> np.ndarray:
        """(H, W) bool, True where the land cover differs."""
        return self.before_class_HW != self.after_class_HW

    @property
    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        """Class ids before and after where changed, else 0, as in SECOND."""
        return (
            np.where(self.change_HW, self.before_class_HW, 0).astype(np.uint8),
            np.where(self.change_HW, self.after_class_HW, 0).astype(np.uint8),
        )


class _Piece(NamedTuple):
    """A piece to paste, and its place."""

    image_CHW: np.ndarray
    classes_HW: np.ndarray
    mask_HW: np.ndarray
    place: tuple[slice, slice]
    """Rows and columns of the canvas that it covers."""


def compose_pair(
    rng: np.random.Generator,
    scene: LabelledScene,
    other: LabelledScene,
    size_px: int = 256,
    options: Composition | None = None,
) -> ComposedPair:
    """Compose two dates of a place in `scene` with pieces of `other` and of `scene`.

    Where the land cover differs, and only there, a piece of another class was pasted. Pixels that
    are not labelled are neither pasted nor pasted over. Outside of `pasted_HW` the dates differ by
    light, season, blur, noise and shift only, and by the differences of a scene's real other date.

    Args:
        rng: Source of all randomness; the same state composes the same bytes.
        scene: Scene that the place is cropped from.
        other: Scene that pieces come from; it may be the same scene.
        size_px: Side of the pair.
        options: Options of pastes and of the differences between dates; None for the defaults.

    Raises:
        DataError: If an image is not 3 bands of uint8, does not fit its mask, or is smaller than
            the pair and its margin for the shift.
    """
    options = options or Composition()
    margin_px = math.ceil(options.largest_shift_px / 2)
    canvas_px = size_px + 2 * margin_px
    for source in (scene, other):
        check_scene(source, canvas_px)
    place = _crop(rng, scene, canvas_px)
    if place.other_date_CHW is not None and rng.random() < 0.5:
        place = LabelledScene(place.other_date_CHW, place.classes_HW, place.image_CHW)
    canvas = _Canvas(place, options)
    donors = [_Donor(rng, source, canvas) for source in (other, other, scene)]
    if rng.random() >= options.unchanged:
        # Objects last: a region would cover them.
        for draw, most in ((_draw_region, options.regions), (_draw_object, options.objects)):
            for _ in range(_draw_number(rng, most)):
                piece = draw(rng, donors[rng.integers(len(donors))])
                date = int(rng.integers(2))
                if piece is not None:
                    canvas.paste_change(piece, date)
    for _ in range(_draw_number(rng, options.decoys)):
        _paste_decoy(rng, canvas, donors)
    x, y = rng.uniform(-options.largest_shift_px, options.largest_shift_px, 2) / 2
    pictures = [
        expose(image_CHW, classes_HW, shift_px, rng, options)
        for image_CHW, classes_HW, shift_px in zip(
            canvas.images, canvas.classes, ((-x, -y), (x, y)), strict=True
        )
    ]
    inside = slice(margin_px, margin_px + size_px), slice(margin_px, margin_px + size_px)
    before_CHW, after_CHW = (np.ascontiguousarray(image_CHW[:, *inside]) for image_CHW in pictures)
    before_class_HW, after_class_HW = (classes_HW[inside].copy() for classes_HW in canvas.classes)
    pasted_HW = canvas.pasted_HW[inside].copy()
    return ComposedPair(before_CHW, after_CHW, before_class_HW, after_class_HW, pasted_HW)


def check_scene(scene: LabelledScene, least_px: int, name: str = "the scene"):
    """Raise if pairs cannot be composed from a scene.

    Raises:
        DataError: See `compose_pair`.
    """
    bands, height, width = scene.image_CHW.shape
    if bands != 3 or scene.image_CHW.dtype != np.uint8:
        raise DataError(
            f"{name} has {bands} bands of {scene.image_CHW.dtype}, and pairs are composed of RGB"
            " images of uint8",
            fix="choose three bands and scale them to 0 to 255, for example with gdal_translate",
        )
    if scene.other_date_CHW is not None and scene.other_date_CHW.shape != scene.image_CHW.shape:
        raise DataError(
            f"{name} is {height} x {width} pixels of {bands} bands, and its other date"
            f" {scene.other_date_CHW.shape}",
            fix="resample both dates to one grid first",
        )
    if scene.classes_HW.shape != (height, width):
        raise DataError(
            f"{name} is {height} x {width} pixels, but its mask is"
            f" {' x '.join(map(str, scene.classes_HW.shape))}",
            fix="make mask and image the same size (resample masks by nearest neighbour)",
        )
    if min(height, width) < least_px:
        raise DataError(
            f"{name} is {height} x {width} pixels, and the pair with its margin needs {least_px}",
            fix="compose smaller pairs, or leave the small images out",
        )


class _Canvas:
    """The place that is composed: two pictures and their land cover."""

    def __init__(self, scene: LabelledScene, options: Composition):
        self.options = options
        self.scene = scene
        later_CHW = scene.image_CHW if scene.other_date_CHW is None else scene.other_date_CHW
        self.originals = (scene.image_CHW, later_CHW)
        self.images = [image_CHW.astype(np.float32) for image_CHW in self.originals]
        self.classes = [scene.classes_HW.copy() for _ in BOTH]
        self.pasted_HW = np.zeros_like(scene.classes_HW, bool)

    @property
    def size(self) -> tuple[int, int]:
        height, width = self.pasted_HW.shape
        return height, width

    def paste_change(self, piece: _Piece, date: int):
        """Paste pixels of another class into one date, unless they are too few."""
        fits_HW = self._free(piece) & (piece.classes_HW != self.classes[0][piece.place])
        if fits_HW.sum() < _LEAST_KEPT * piece.mask_HW.sum():
            return
        self._paste(piece, _drop_small(fits_HW, self.options.smallest_px), (date,))

    def paste_decoy(self, piece: _Piece, dates: tuple[int, ...]):
        """Paste into both dates, or relight pixels of one."""
        self._paste(piece, _drop_small(self._free(piece), self.options.smallest_px), dates)

    def _free(self, piece: _Piece) -> np.ndarray:
        """Return where both sides are labelled and nothing was pasted yet."""
        is_labelled_HW = (piece.classes_HW != 0) & (self.classes[0][piece.place] != 0)
        return piece.mask_HW & is_labelled_HW & ~self.pasted_HW[piece.place]

    def _paste(self, piece: _Piece, mask_HW: np.ndarray, dates: tuple[int, ...]):
        alpha_HW = _fade(mask_HW, self.options.seam_px)
        self.pasted_HW[piece.place] |= mask_HW
        for date in dates:
            target_CHW = self.images[date][:, *piece.place]
            target_CHW += alpha_HW * (piece.image_CHW - target_CHW)
            self.classes[date][piece.place][mask_HW] = piece.classes_HW[mask_HW]


class _Donor:
    """Another place, of the canvas's size and light, and the whole areas in it."""

    def __init__(self, rng: np.random.Generator, source: LabelledScene, canvas: _Canvas):
        crop = _crop(rng, source, canvas.size[0])
        turns, flip = int(rng.integers(4)), rng.random() < 0.5
        image_CHW, self.classes_HW = (
            np.rot90(layer[..., ::-1] if flip else layer, turns, (-2, -1))
            for layer in (crop.image_CHW, crop.classes_HW)
        )
        offset_C = _match_colours(image_CHW, self.classes_HW, canvas.scene)
        corrected_CHW = image_CHW + canvas.options.harmony * offset_C[:, None, None]
        self.image_CHW = corrected_CHW.clip(0, 255).astype(np.float32)
        areas = find_areas(self.classes_HW)
        self.owner_HW = areas.owner_HW
        self.objects = _list_objects(areas.owner_HW, areas.values_P, canvas.options.smallest_px)


def _draw_object(rng: np.random.Generator, donor: _Donor) -> _Piece | None:
    """Return a whole area of a class, moved to another place; every class is equally likely."""
    if not donor.objects:
        return None
    of_class = list(donor.objects.values())[rng.integers(len(donor.objects))]
    mask_HW = donor.owner_HW == of_class[rng.integers(len(of_class))]
    rows, columns = (np.flatnonzero(mask_HW.any(axis=axis)) for axis in (1, 0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    height, width = mask_HW[box].shape
    top = int(rng.integers(mask_HW.shape[0] - height + 1))
    left = int(rng.integers(mask_HW.shape[1] - width + 1))
    place = slice(top, top + height), slice(left, left + width)
    return _Piece(donor.image_CHW[:, *box], donor.classes_HW[box], mask_HW[box], place)


def _draw_region(rng: np.random.Generator, donor: _Donor) -> _Piece:
    """Return irregular parts of a place, 4 to 35 % of it, in their own position."""
    mask_HW = _draw_blobs(rng, donor.classes_HW.shape, rng.uniform(0.04, 0.35))
    whole = slice(0, mask_HW.shape[0]), slice(0, mask_HW.shape[1])
    return _Piece(donor.image_CHW, donor.classes_HW, mask_HW, whole)


def _paste_decoy(rng: np.random.Generator, canvas: _Canvas, donors: list[_Donor]):
    """Make a seam where nothing changes."""
    kind = rng.integers(3)
    donor = donors[rng.integers(len(donors))]
    if kind == 0:
        piece = _draw_object(rng, donor)
        if piece is not None:
            canvas.paste_decoy(piece, BOTH)
        return
    mask_HW = _draw_blobs(rng, canvas.size, rng.uniform(0.01, 0.08))
    whole = slice(0, canvas.size[0]), slice(0, canvas.size[1])
    if kind == 1:
        canvas.paste_decoy(_Piece(donor.image_CHW, donor.classes_HW, mask_HW, whole), BOTH)
        return
    date = int(rng.integers(2))
    original_CHW = canvas.originals[date]
    relit_CHW = original_CHW * draw_gain(len(original_CHW), 0.3, rng)
    relit = _Piece(relit_CHW.clip(0, 255), canvas.scene.classes_HW, mask_HW, whole)
    canvas.paste_decoy(relit, (date,))


def _draw_number(rng: np.random.Generator, most: int) -> int:
    """Return the number to try, 1 to `most`, or 0 if none are wanted."""
    return int(rng.integers(1, most + 1)) if most else 0


def _draw_blobs(rng: np.random.Generator, size: tuple[int, int], share: float) -> np.ndarray:
    """Return the highest parts of smooth noise, covering a share of an array, (H, W) bool."""
    field_HW = draw_field(size, int(rng.integers(4, 9)), rng)
    return field_HW > np.quantile(field_HW, 1 - share)


def _crop(rng: np.random.Generator, scene: LabelledScene, size_px: int) -> LabelledScene:
    """Return a random square, at least half labelled if some tries find one."""
    height, width = scene.classes_HW.shape
    best, best_share = None, -1.0
    for _ in range(_TRIES):
        top = int(rng.integers(height - size_px + 1))
        left = int(rng.integers(width - size_px + 1))
        window = slice(top, top + size_px), slice(left, left + size_px)
        share = np.count_nonzero(scene.classes_HW[window]) / size_px**2
        if share > best_share:
            best, best_share = window, share
        if share >= _LEAST_LABELLED:
            break
    assert best is not None
    other_date_CHW = scene.other_date_CHW
    return LabelledScene(
        scene.image_CHW[:, *best],
        scene.classes_HW[best],
        None if other_date_CHW is None else other_date_CHW[:, *best],
    )


def _match_colours(
    image_CHW: np.ndarray, classes_HW: np.ndarray, target: LabelledScene
) -> np.ndarray:
    """Return how much brighter the target is, (C,), over the classes that both places have."""
    differences = [
        target.image_CHW[:, target.classes_HW == class_id].mean(axis=1)
        - image_CHW[:, classes_HW == class_id].mean(axis=1)
        for class_id in np.intersect1d(classes_HW, target.classes_HW)
        if class_id != 0
    ]
    if not differences:
        return np.zeros(len(image_CHW))
    return np.mean(differences, axis=0).clip(-_LARGEST_CORRECTION, _LARGEST_CORRECTION)


def _list_objects(
    owner_HW: np.ndarray, values_P: np.ndarray, smallest_px: int
) -> dict[int, list[int]]:
    """Return by class the areas that are not cut by the crop, too small or too large."""
    sizes = np.bincount(owner_HW.ravel(), minlength=len(values_P) + 1)
    fits = (sizes >= smallest_px) & (sizes <= _LARGEST_OBJECT * owner_HW.size)
    fits[0] = False
    for edge in (owner_HW[0], owner_HW[-1], owner_HW[:, 0], owner_HW[:, -1]):
        fits[edge] = False
    objects: dict[int, list[int]] = {}
    for number in np.flatnonzero(fits).tolist():
        objects.setdefault(int(values_P[number - 1]), []).append(number)
    return dict(sorted(objects.items()))


def _drop_small(mask_HW: np.ndarray, smallest_px: int) -> np.ndarray:
    owner_HW = find_areas(mask_HW.astype(np.uint8)).owner_HW
    is_large = np.bincount(owner_HW.ravel()) >= smallest_px
    is_large[0] = False
    return is_large[owner_HW]


def _fade(mask_HW: np.ndarray, seam_px: float) -> np.ndarray:
    """Return opacities, (H, W): 0 outside, from about 3/4 at the outline to 1 inside.

    Nothing fades outwards, so that the pasted pixels are exactly the mask; none is under one half,
    so that every pasted pixel is visible.
    """
    if not seam_px:
        return mask_HW.astype(np.float32)
    reach_px = math.ceil(3 * seam_px)
    wide = Image.fromarray(np.pad(mask_HW, reach_px).astype(np.uint8) * 255)
    blurred_HW = np.asarray(wide.filter(ImageFilter.GaussianBlur(0.7 * seam_px)), np.float32) / 255
    inside = slice(reach_px, -reach_px), slice(reach_px, -reach_px)
    return np.where(mask_HW, np.maximum(blurred_HW[inside], 0.5), 0).astype(np.float32)
