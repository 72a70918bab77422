from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp

UTM_ORIGIN = Affine(2, 0, 500_000, 0, -2, 5_000_000)
RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)


@pytest.fixture
def write_raster(tmp_path) -> Callable[..., Path]:
    """A function that writes a (C, H, W) array as a GeoTIFF."""

    def write(name: str, image_CHW: np.ndarray, *, colours=RGB, mask_HW=None, **profile) -> Path:
        path = tmp_path / f"{name}.tif"
        fields = {"driver": "GTiff", "crs": "EPSG:32632", "transform": UTM_ORIGIN, **profile}
        bands, height, width = image_CHW.shape
        with rasterio.open(
            path,
            "w",
            count=bands,
            height=height,
            width=width,
            dtype=image_CHW.dtype,
            **fields,
        ) as dataset:
            dataset.write(image_CHW)
            if colours is not None:
                dataset.colorinterp = colours
            if mask_HW is not None:
                dataset.write_mask(mask_HW)
        return path

    return write


@pytest.fixture
def picture_CHW() -> np.ndarray:
    """A smooth picture, so that resampling has something to get right."""
    rows, columns = np.mgrid[0:120, 0:160] / 20
    waves = [128 + 90 * np.sin(rows * a + columns * b) for a, b in ((1, 2), (2, 1), (1, -1))]
    return np.round(waves).astype(np.uint8)
