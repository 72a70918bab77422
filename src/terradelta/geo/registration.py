"""Measures the shift between two images to a fraction of a pixel.

Phase correlation (Kuglin & Hines 1975) over patches of the pair, in two steps. The whole pixels
come from the correlation of edge orientations (Fitch et al. 2002, "Orientation correlation", here
of doubled angles), which is robust to other light or season, even to bright objects turned dark.
The fraction comes from the phase of plain gradients of patches cut again at those whole pixels, its
peak found on a finely sampled Fourier transform (Guizar-Sicairos, Thurman & Fienup 2008).

Change on the ground differs from patch to patch, while the shift is the same in all: spectra
are summed over the patches before the search for a peak.

Legend of the array names: C bands, H rows, W columns, P patches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from terradelta.geo.grid import cut_window
from terradelta.geo.pair import RasterPair

PATCH_SIZE_PX = 256
PATCHES_PER_SIDE = 6
MAX_SHIFT_PX = 24
"""Larger shifts are not searched; they are errors of georeferencing."""
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
"""The same if fewer than three patches agree; then it was up to 5.9."""
MIN_CONTRAST = 1e-6
"""Of a band's largest value, and of a patch, the standard deviation below which it is flat."""
AGREEMENT_PX = 1.0
MIN_AGREEING_SHARE = 0.4
"""Share of all patches; between images of different places it was at most 0.22."""
MAD_TO_SIGMA = 1.4826


@dataclass(frozen=True)
class Shift:
    """The shift of the after image against the before image."""

    columns_px: float
    """Distance to the right; pass it as `shift_px` to undo it."""
    rows_px: float
    """Distance down."""
    spread_px: float
    """Robust standard deviation over the patches, the larger of both axes; NaN without patches."""
    patches: int
    """Patches that agree, to within a pixel."""
    of_patches: int
    """Patches with enough data and detail."""
    reliable: bool
    """Whether the shift is reliable: a clear peak on which enough patches agree."""

    @property
    def length_px(self) -> float:
        """Distance in pixels."""
        return float(np.hypot(self.columns_px, self.rows_px))


UNKNOWN = Shift(0.0, 0.0, float("nan"), 0, 0, False)


def measure_shift(pair: RasterPair) -> Shift:
    """Return the shift of the after image, from at most 36 patches spread over the pair.

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
    before, after = zip(*patches, strict=True)
    return measure_stack(before, after, reach)


def measure_stack(
    before_PHW: Sequence[np.ndarray], after_PHW: Sequence[np.ndarray], reach: int
) -> Shift:
    """Return the shift between two stacks of patches of the same places.

    Spectra are made patch by patch, so that only one is in memory.

    Args:
        before_PHW: Grey patches of the before image, with a border of `reach` pixels; NaN where
            there are no data.
        after_PHW: The same of the after image.
        reach: Largest shift in whole pixels that is searched in each direction, at least 1.
    """
    pairs = list(zip(before_PHW, after_PHW, strict=True))
    surfaces_PHW = np.stack([_correlate_orientations(*pair, reach) for pair in pairs])
    rows, columns, significance = _find_peak(surfaces_PHW.sum(axis=0), reach)
    own = np.array([_find_peak(surface_HW, reach)[:2] for surface_HW in surfaces_PHW])
    agrees_P = np.abs(own - (rows, columns)).max(axis=1) <= AGREEMENT_PX
    needed = MIN_SIGNIFICANCE if agrees_P.sum() >= 3 else MIN_SIGNIFICANCE_ALONE
    reliable = significance >= needed and agrees_P.mean() >= MIN_AGREEING_SHARE
    if not agrees_P.any():
        return Shift(float(columns), float(rows), float("nan"), 0, len(agrees_P), False)

    whole = np.array([rows, columns])
    for _ in range(ROUNDS):
        step = np.rint(_find_fraction(reduce(np.add, _cross_spectra(pairs, reach, whole))))
        step = np.clip(whole + step, -reach, reach).astype(int) - whole
        if not step.any():
            break
        whole = whole + step
    total_HW, fractions = np.zeros((), dtype=complex), []
    for agrees, spectrum_HW in zip(agrees_P, _cross_spectra(pairs, reach, whole), strict=True):
        total_HW = total_HW + spectrum_HW
        if agrees:
            fractions.append(_find_fraction(spectrum_HW))
    fractions_P2 = np.array(fractions)
    deviation = np.abs(fractions_P2 - np.median(fractions_P2, axis=0))
    spread_px = MAD_TO_SIGMA * np.median(deviation, axis=0).max()
    total = whole + _find_fraction(total_HW)
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
            if min(np.nanstd(before_HW), np.nanstd(after_HW)) > MIN_CONTRAST:
                patches.append((before_HW, after_HW))
    return patches


def _spread(length: int, side: int) -> list[int]:
    """Return starts of patches spread evenly over an axis, that overlap as little as possible."""
    count = min(PATCHES_PER_SIDE, max(1, length // side))
    return np.linspace(0, length - side, count).round().astype(int).tolist()


def _grey(image_CHW: np.ndarray, valid_HW: np.ndarray) -> np.ndarray:
    """Return the mean of the bands, each of mean 0 and variance 1 or all 0; NaN where invalid."""
    grey_HW = np.where(valid_HW, 0.0, np.nan)
    for band_HW in image_CHW:
        values = band_HW[valid_HW].astype(np.float64)
        # The mean of equal numbers may differ from them by rounding.
        if values.std() > MIN_CONTRAST * np.abs(values).max():
            grey_HW[valid_HW] += (values - values.mean()) / values.std()
    return grey_HW / len(image_CHW)


def _gradients(image_HW: np.ndarray) -> np.ndarray:
    """Return x + iy gradients, tapered to 0 at the patch's borders; 0 beside NaN."""
    rows_HW, columns_HW = np.nan_to_num(np.gradient(image_HW))
    taper_HW = np.outer(*(np.hanning(length + 2)[1:-1] for length in image_HW.shape))
    return (columns_HW + 1j * rows_HW) * taper_HW


def _correlate_orientations(before_HW: np.ndarray, after_HW: np.ndarray, reach: int) -> np.ndarray:
    """Return the correlation of doubled edge angles for shifts of -reach to reach."""
    spectra = []
    for image_HW in (before_HW, after_HW):
        squared_HW = _gradients(image_HW) ** 2
        strength_HW = np.abs(squared_HW)
        # The root separates edges from noise and keeps the strongest from dominating.
        floor = strength_HW.mean() + 1e-12
        spectra.append(np.fft.fft2(squared_HW / np.sqrt(strength_HW * floor + floor**2)))
    surface_HW = np.fft.ifft2(spectra[0].conj() * spectra[1]).real
    surface_HW = np.roll(surface_HW, (reach, reach), axis=(0, 1))
    surface_HW = surface_HW[: 2 * reach + 1, : 2 * reach + 1]
    return surface_HW / (surface_HW.std() + 1e-12)


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


def _cross_spectra(
    pairs: Iterable[tuple[np.ndarray, np.ndarray]], reach: int, whole: np.ndarray
) -> Iterator[np.ndarray]:
    """Yield each pair's cross spectrum, once its border is cut at a shift of whole pixels."""
    row, column = reach + whole
    for before_HW, after_HW in pairs:
        inner_HW = before_HW[reach:-reach, reach:-reach]
        height, width = inner_HW.shape
        yield _cross(inner_HW, after_HW[row : row + height, column : column + width])


def _cross(before_HW: np.ndarray, after_HW: np.ndarray) -> np.ndarray:
    """Return the phases of the cross spectrum of gradients, fine detail left out."""
    before, after = (np.fft.fft2(_gradients(image)) for image in (before_HW, after_HW))
    cross_HW = before.conj() * after
    frequencies = (np.fft.fftfreq(length) for length in cross_HW.shape)
    rows, columns = np.meshgrid(*frequencies, indexing="ij")
    wanted_HW = np.hypot(rows, columns) <= MAX_FREQUENCY
    strength_HW = np.abs(cross_HW)
    floor = strength_HW.mean() + 1e-12
    # Between plain correlation and pure phase: weak frequencies are mostly noise.
    return cross_HW / np.sqrt(strength_HW * floor + floor**2) * wanted_HW


def _find_fraction(spectrum_HW: np.ndarray) -> np.ndarray:
    """Return the (rows, columns) within a pixel at which the correlation is highest."""
    shifts = np.arange(-FINE_REACH_PX, FINE_REACH_PX + FINE_STEP_PX / 2, FINE_STEP_PX)
    waves = [
        np.exp(2j * np.pi * np.outer(shifts, np.fft.fftfreq(length)))
        for length in spectrum_HW.shape
    ]
    # The magnitude, as bright objects may have turned dark.
    surface = np.abs(np.real(waves[0] @ spectrum_HW @ waves[1].T))
    row, column = np.unravel_index(surface.argmax(), surface.shape)
    return np.array([shifts[row], shifts[column]])
