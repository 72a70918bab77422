"""How far the after image lies off the before image, to a fraction of a pixel.

Phase correlation (Kuglin & Hines 1975) over patches of the pair, in two steps. The whole pixels
come from the correlation of edge orientations (Fitch et al. 2002, "Orientation correlation", here
of doubled angles), which hardly notices other light or season, even bright things turned dark. The
fraction comes from the phase of plain gradients of patches cut again at those whole pixels, its
peak found on a finely sampled Fourier transform (Guizar-Sicairos, Thurman & Fienup 2008).

What changed on the ground differs from patch to patch, while the shift is the same in all: spectra
are summed over the patches before a peak is looked for.

Legend of the array names: C bands, H rows, W columns, P patches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from terradelta.geo.grid import cut_window
from terradelta.geo.pair import RasterPair

PATCH_SIZE_PX = 256
PATCHES_PER_SIDE = 6
MAX_SHIFT_PX = 24
"""Larger shifts are not looked for; they are errors of georeferencing."""
MIN_SIDE_PX = 64
MIN_VALID_SHARE = 0.5
MAX_FREQUENCY = 0.35
"""Cycles per pixel up to which phases count; finer detail is aliased."""
FINE_REACH_PX = 1.0
FINE_STEP_PX = 0.02
ROUNDS = 3
MIN_SIGNIFICANCE = 4.5
"""Height of the correlation's peak over the rest, in standard deviations, below which it is chance;
between images of different places it was 2 to 4.5."""
MIN_SIGNIFICANCE_ALONE = 6.5
"""The same where fewer than three patches agree; there it was up to 5.9."""
AGREEMENT_PX = 1.0
MIN_AGREEING_SHARE = 0.4
"""Of all patches; between images of different places at most 0.22."""
MAD_TO_SIGMA = 1.4826


@dataclass(frozen=True)
class Shift:
    """Where the after image shows what the before image shows."""

    columns_px: float
    """How far to the right; what to pass as `shift_px` to undo it."""
    rows_px: float
    """How far down."""
    spread_px: float
    """Robust standard deviation over the patches, of either axis the larger; NaN without any."""
    patches: int
    """Patches that agree, to within a pixel."""
    of_patches: int
    """Patches with enough data and detail."""
    reliable: bool
    """Whether there is a shift to speak of: a clear peak in which enough patches agree."""

    @property
    def length_px(self) -> float:
        """Distance in pixels."""
        return float(np.hypot(self.columns_px, self.rows_px))


UNKNOWN = Shift(0.0, 0.0, float("nan"), 0, 0, False)


def measure_shift(pair: RasterPair) -> Shift:
    """Return how far the after image lies off, from at most 36 patches spread over the pair.

    Raises:
        RasterError: If pixels cannot be read.
    """
    sides = int(pair.area.width), int(pair.area.height)
    reach = min(MAX_SHIFT_PX, min(sides) // 8)
    size = min(PATCH_SIZE_PX, min(sides) - 2 * reach)
    if size < MIN_SIDE_PX - 2 * reach or size < 2 * reach or reach < 1:
        return UNKNOWN
    patches = _read_patches(pair, size + 2 * reach)
    if not patches:
        return UNKNOWN
    before_PHW, after_PHW = (np.stack(images) for images in zip(*patches, strict=True))
    return measure_stack(before_PHW, after_PHW, reach)


def measure_stack(before_PHW: np.ndarray, after_PHW: np.ndarray, reach: int) -> Shift:
    """Return the shift between two stacks of patches that lie in the same places.

    Args:
        before_PHW: Grey patches of the before image, with a border of `reach` pixels; NaN where
            there is no data.
        after_PHW: The same of the after image.
        reach: Whole pixels that are looked for in each direction, at least 1.
    """
    surfaces_PHW = _correlate_orientations(before_PHW, after_PHW, reach)
    rows, columns, significance = _find_peak(surfaces_PHW.sum(axis=0), reach)
    own = np.array([_find_peak(surface_HW, reach)[:2] for surface_HW in surfaces_PHW])
    agrees_P = np.abs(own - (rows, columns)).max(axis=1) <= AGREEMENT_PX
    needed = MIN_SIGNIFICANCE if agrees_P.sum() >= 3 else MIN_SIGNIFICANCE_ALONE
    reliable = significance >= needed and agrees_P.mean() >= MIN_AGREEING_SHARE
    if not agrees_P.any():
        return Shift(float(columns), float(rows), float("nan"), 0, len(agrees_P), False)

    whole = np.array([rows, columns])
    inner = before_PHW[:, reach:-reach, reach:-reach]
    for _ in range(ROUNDS):
        spectra_PHW = _cross_spectra(inner, _cut(after_PHW, reach, whole))
        step = np.rint(_find_fraction(np.sum(spectra_PHW, axis=0)))
        step = np.clip(whole + step, -reach, reach).astype(int) - whole
        if not step.any():
            break
        whole = whole + step
    spectra_PHW = _cross_spectra(inner, _cut(after_PHW, reach, whole))
    fraction = _find_fraction(np.sum(spectra_PHW, axis=0))
    agreeing = spectra_PHW[agrees_P]
    fractions_P2 = np.array([_find_fraction(spectrum_HW) for spectrum_HW in agreeing])
    deviation = np.abs(fractions_P2 - np.median(fractions_P2, axis=0))
    spread_px = MAD_TO_SIGMA * np.median(deviation, axis=0).max()
    total = whole + fraction
    return Shift(
        columns_px=float(total[1]),
        rows_px=float(total[0]),
        spread_px=float(spread_px),
        patches=int(agrees_P.sum()),
        of_patches=len(agrees_P),
        reliable=bool(reliable),
    )


def _read_patches(pair: RasterPair, side: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return grey patches of both dates that hold enough data and detail."""
    area = pair.area
    patches = []
    for row in _spread(int(area.height), side):
        for column in _spread(int(area.width), side):
            window = cut_window(int(area.col_off) + column, int(area.row_off) + row, side, side)
            pixels = pair.read(window)
            if pixels.valid_HW.mean() < MIN_VALID_SHARE:
                continue
            before_HW, after_HW = (_grey(image, pixels.valid_HW) for image in pixels[:2])
            if np.nanstd(before_HW) > 0 and np.nanstd(after_HW) > 0:
                patches.append((before_HW, after_HW))
    return patches


def _spread(length: int, side: int) -> list[int]:
    """Return starts of patches spread evenly over an axis, that overlap as little as can be."""
    count = min(PATCHES_PER_SIDE, max(1, length // side))
    return np.linspace(0, length - side, count).round().astype(int).tolist()


def _grey(image_CHW: np.ndarray, valid_HW: np.ndarray) -> np.ndarray:
    """Return the mean of the bands, each of mean 0 and variance 1 or all 0; NaN where invalid."""
    grey_HW = np.where(valid_HW, 0.0, np.nan)
    for band_HW in image_CHW:
        values = band_HW[valid_HW].astype(np.float64)
        if values.std() > 0:
            grey_HW[valid_HW] += (values - values.mean()) / values.std()
    return grey_HW / len(image_CHW)


def _gradients(images_PHW: np.ndarray) -> np.ndarray:
    """Return x + iy gradients, tapered to nothing at the patches' borders; 0 beside NaN."""
    rows_PHW, columns_PHW = np.nan_to_num(np.gradient(images_PHW, axis=(-2, -1)))
    taper_HW = np.outer(*(np.hanning(length + 2)[1:-1] for length in images_PHW.shape[-2:]))
    return (columns_PHW + 1j * rows_PHW) * taper_HW


def _correlate_orientations(
    before_PHW: np.ndarray, after_PHW: np.ndarray, reach: int
) -> np.ndarray:
    """Return the correlation of doubled edge angles for shifts of -reach to reach, by patch."""
    spectra = []
    for images_PHW in (before_PHW, after_PHW):
        squared_PHW = _gradients(images_PHW) ** 2
        strength_PHW = np.abs(squared_PHW)
        # The root tells edges from noise and keeps the strongest from ruling alone.
        floor = strength_PHW.mean(axis=(-2, -1), keepdims=True) + 1e-12
        spectra.append(np.fft.fft2(squared_PHW / np.sqrt(strength_PHW * floor + floor**2)))
    surface_PHW = np.fft.ifft2(spectra[0].conj() * spectra[1]).real
    surface_PHW = np.roll(surface_PHW, (reach, reach), axis=(-2, -1))
    surface_PHW = surface_PHW[:, : 2 * reach + 1, : 2 * reach + 1]
    return surface_PHW / (surface_PHW.std(axis=(-2, -1), keepdims=True) + 1e-12)


def _find_peak(surface_HW: np.ndarray, reach: int) -> tuple[int, int, float]:
    """Return the peak's (rows, columns) and its height over the rest in standard deviations."""
    row, column = np.unravel_index(surface_HW.argmax(), surface_HW.shape)
    near_HW = np.zeros(surface_HW.shape, dtype=bool)
    near_HW[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3] = True
    rest = surface_HW[~near_HW]
    if rest.size == 0 or rest.std() == 0:
        return int(row) - reach, int(column) - reach, 0.0
    significance = (surface_HW[row, column] - rest.mean()) / rest.std()
    return int(row) - reach, int(column) - reach, float(significance)


def _cut(images_PHW: np.ndarray, reach: int, whole: np.ndarray) -> np.ndarray:
    """Return patches without their border, cut at a shift of whole pixels."""
    height, width = images_PHW.shape[-2:]
    row, column = reach + whole
    return images_PHW[:, row : row + height - 2 * reach, column : column + width - 2 * reach]


def _cross_spectra(before_PHW: np.ndarray, after_PHW: np.ndarray) -> np.ndarray:
    """Return the phases of the cross spectra of gradients, fine detail left out."""
    before, after = (np.fft.fft2(_gradients(images)) for images in (before_PHW, after_PHW))
    cross_PHW = before.conj() * after
    frequencies = (np.fft.fftfreq(length) for length in cross_PHW.shape[-2:])
    rows, columns = np.meshgrid(*frequencies, indexing="ij")
    wanted_HW = np.hypot(rows, columns) <= MAX_FREQUENCY
    strength_PHW = np.abs(cross_PHW)
    floor = strength_PHW.mean(axis=(-2, -1), keepdims=True) + 1e-12
    # Between plain correlation and pure phase: weak frequencies are mostly noise.
    return cross_PHW / np.sqrt(strength_PHW * floor + floor**2) * wanted_HW


def _find_fraction(spectrum_HW: np.ndarray) -> np.ndarray:
    """Return the (rows, columns) within a pixel at which the correlation is highest."""
    shifts = np.arange(-FINE_REACH_PX, FINE_REACH_PX + FINE_STEP_PX / 2, FINE_STEP_PX)
    waves = [
        np.exp(2j * np.pi * np.outer(shifts, np.fft.fftfreq(length)))
        for length in spectrum_HW.shape
    ]
    # The magnitude: what was bright may have turned dark.
    surface = np.abs(np.real(waves[0] @ spectrum_HW @ waves[1].T))
    row, column = np.unravel_index(surface.argmax(), surface.shape)
    return np.array([shifts[row], shifts[column]])
