import numpy as np
import pytest
import rasterio.shutil
from rasterio.crs import CRS
from rasterio.errors import RasterioError, RasterioIOError
from rasterio.warp import transform

from terradelta.geo.gdal_errors import is_gdal_error
from terradelta.geo.grid import allow_no_place


def copy_to_nowhere(folder):
    with (
        allow_no_place(),
        rasterio.open(
            folder / "a.tif", "w", driver="GTiff", count=1, width=16, height=16, dtype="uint8"
        ) as file,
    ):
        file.write(np.zeros((1, 16, 16), np.uint8))
    rasterio.shutil.copy(folder / "a.tif", folder / "missing" / "b.tif", driver="GTiff")


def leave_the_projection(_):
    transform(CRS.from_epsg(4326), CRS.from_epsg(3857), [0.0], [1e9])


@pytest.mark.parametrize("fail", [copy_to_nowhere, leave_the_projection])
def test_gdals_own_errors_are_known_though_their_class_is_private(tmp_path, fail):
    with pytest.raises(Exception, match=r"No such file|Invalid latitude") as caught:
        fail(tmp_path)
    assert is_gdal_error(caught.value)
    assert not isinstance(caught.value, RasterioError)


def test_only_errors_of_rasterio_and_gdal_are_known():
    assert is_gdal_error(RasterioIOError("no such file"))
    for error in (ValueError("rasterio"), MemoryError(), OSError("rasterio")):
        assert not is_gdal_error(error)
