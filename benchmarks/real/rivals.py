"""Change detection without learning: a change mask from only two images.

Legend of the array names: C bands, H rows, W columns, N pixels, F features.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.linalg import eigh
from scipy.stats import chi2
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

BINS = 256
BLOCK_PX = 5
COMPONENTS = 3
FITTED_PIXELS = 20_000
ROUNDS = 20


def difference_images(before_CHW: np.ndarray, after_CHW: np.ndarray) -> np.ndarray:
    """Grey levels' difference, cut by Otsu's threshold (Otsu, 1979)."""
    grey = [_standardize(image_CHW).mean(axis=0) for image_CHW in (before_CHW, after_CHW)]
    return _cut(np.abs(grey[0] - grey[1]))


def analyse_vectors(before_CHW: np.ndarray, after_CHW: np.ndarray) -> np.ndarray:
    """Change vector analysis: the length of the bands' difference (Malila, 1980), cut by Otsu's."""
    difference_CHW = _standardize(before_CHW) - _standardize(after_CHW)
    return _cut(np.linalg.norm(difference_CHW, axis=0))


def cluster_components(before_CHW: np.ndarray, after_CHW: np.ndarray) -> np.ndarray:
    """PCA and k-means of the difference's neighbourhoods (Celik, 2009)."""
    difference_CHW = np.abs(_standardize(before_CHW) - _standardize(after_CHW))
    reach = BLOCK_PX // 2
    padded_CHW = np.pad(difference_CHW, ((0, 0), (reach, reach), (reach, reach)), mode="reflect")
    blocks = np.lib.stride_tricks.sliding_window_view(padded_CHW, (BLOCK_PX, BLOCK_PX), (1, 2))
    shape = difference_CHW.shape[1:]
    blocks_NF = np.moveaxis(blocks, 0, 2).reshape(shape[0] * shape[1], -1)
    sample = np.random.default_rng(0).choice(len(blocks_NF), FITTED_PIXELS, replace=False)
    components = PCA(COMPONENTS, random_state=0).fit(blocks_NF[sample])
    features_NF = components.transform(blocks_NF)
    clusters = KMeans(2, n_init=3, random_state=0).fit(features_NF[sample])
    changed_N = clusters.predict(features_NF.astype(np.float32))
    strength_N = blocks_NF.mean(axis=1)
    is_second_stronger = strength_N[changed_N == 1].mean() > strength_N[changed_N == 0].mean()
    return (changed_N.reshape(shape) == 1) == is_second_stronger


def detect_multivariately(before_CHW: np.ndarray, after_CHW: np.ndarray) -> np.ndarray:
    """IR-MAD (Nielsen, 2007): reweighted canonical correlation, its chi-square cut by Otsu's."""
    before_NF, after_NF = (
        image_CHW.reshape(len(image_CHW), -1).T.astype(np.float64)
        for image_CHW in (before_CHW, after_CHW)
    )
    bands = before_NF.shape[1]
    sample = np.random.default_rng(0).choice(len(before_NF), FITTED_PIXELS, replace=False)
    weight_N = np.ones(FITTED_PIXELS)
    for _ in range(ROUNDS):
        measure = _fit_variates(before_NF[sample], after_NF[sample], weight_N)
        weight_N = chi2.sf(measure(before_NF[sample], after_NF[sample]), bands) + 1e-9
    return _cut(np.sqrt(measure(before_NF, after_NF)).reshape(before_CHW.shape[1:]))


def _fit_variates(
    before_NF: np.ndarray, after_NF: np.ndarray, weight_N: np.ndarray
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Return a function of each pixel's chi-square, from variates fitted to weighted pixels."""
    bands = before_NF.shape[1]
    joint = np.cov(np.hstack([before_NF, after_NF]).T, aweights=weight_N)
    own, other, between = joint[:bands, :bands], joint[bands:, bands:], joint[:bands, bands:]
    squared, first = eigh(between @ np.linalg.solve(other, between.T), own)
    correlation = np.sqrt(squared.clip(1e-9, 1 - 1e-9))
    second = np.linalg.solve(other, between.T) @ first / correlation
    means = (np.average(pixels_NF, 0, weight_N) for pixels_NF in (before_NF, after_NF))
    mean_before, mean_after = means

    def measure(before_NF: np.ndarray, after_NF: np.ndarray) -> np.ndarray:
        variates_NF = (before_NF - mean_before) @ first - (after_NF - mean_after) @ second
        return (variates_NF**2 / (2 * (1 - correlation))).sum(axis=1)

    return measure


RIVALS = {
    "image difference, Otsu": difference_images,
    "change vector analysis, Otsu": analyse_vectors,
    "PCA and k-means": cluster_components,
    "IR-MAD, Otsu": detect_multivariately,
}


def _standardize(image_CHW: np.ndarray) -> np.ndarray:
    image_CHW = image_CHW.astype(np.float32)
    mean_C11 = image_CHW.mean(axis=(1, 2), keepdims=True)
    return (image_CHW - mean_C11) / image_CHW.std(axis=(1, 2), keepdims=True).clip(1e-6)


def _cut(strength_HW: np.ndarray) -> np.ndarray:
    """Return the pixels above the threshold that best separates two classes (Otsu, 1979)."""
    counts, edges = np.histogram(strength_HW, BINS)
    centres = (edges[1:] + edges[:-1]) / 2
    below, above = np.cumsum(counts), counts.sum() - np.cumsum(counts)
    sums = np.cumsum(counts * centres)
    mean_below = sums / below.clip(1)
    mean_above = (sums[-1] - sums) / above.clip(1)
    return strength_HW > edges[1:][np.argmax(below * above * (mean_below - mean_above) ** 2)]
