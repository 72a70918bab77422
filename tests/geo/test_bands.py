"""Which band shows what, by the names that sensors and catalogues give their bands."""

from types import SimpleNamespace

import numpy as np
import pytest
from rasterio.enums import ColorInterp

from terradelta.errors import RasterError
from terradelta.geo.band_names import name_file_band
from terradelta.geo.bands import is_guess, join_bands, select_bands
from terradelta.geo.check import examine_pair
from terradelta.geo.pair import RasterPair
from terradelta.geo.pair_options import ModelNeeds, PairOptions

RGB = ("red", "green", "blue")
SENTINEL_2 = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"]


def name_bands(*names: str | None) -> SimpleNamespace:
    """What a raster with these bands says of them."""
    return SimpleNamespace(
        name="odd.tif",
        descriptions=names,
        colorinterp=[ColorInterp.gray, *[ColorInterp.undefined] * (len(names) - 1)],
        dtypes=["uint16"] * len(names),
        tags=lambda **_: {},
    )


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (SENTINEL_2, [4, 3, 2]),
        (["B02", "B03", "B04"], [3, 2, 1]),
        (["B4", "B3", "B2"], [1, 2, 3]),
        (["B2", "B3", "B4", "B8"], [3, 2, 1]),
        (["B8", "B4", "B3", "B2"], [2, 3, 4]),
        ([f"SR_B{n}" for n in range(1, 8)], [4, 3, 2]),  # Landsat 8
        ([f"SR_B{n}" for n in (1, 2, 3, 4, 5, 7)], [3, 2, 1]),  # Landsat 5
        (["SR_B2", "SR_B3", "SR_B4"], [3, 2, 1]),
        (["coastal", "blue", "green", "red", "nir08", "swir16"], [4, 3, 2]),
        (["coastal_blue", "blue", "green_i", "green", "yellow", "red", "rededge", "nir"], None),
        (["blue", "green_i", "green", "red", "rededge", "nir"], [4, 3, 1]),
        (["B4, central wavelength 665 nm", "B3, 560 nm", "B2, 490 nm"], [1, 2, 3]),
        (["Near Infrared", "Red", "Green", "Blue"], [2, 3, 4]),
        (["Blue band", "Green band", "Red band", "Red Edge", "NIR band"], [3, 2, 1]),
        (["490 nm", "560 nm", "665 nm", "842 nm"], [3, 2, 1]),
        (["Band 1", "Band 2", "Band 3"], [1, 2, 3]),
        (["B1", "B2", "B3"], [1, 2, 3]),
        ([None, None, None], [1, 2, 3]),
        ([None, None, None, None], [1, 2, 3]),
        ([None] * 5, None),
        ([f"SR_B{n}" for n in (1, 2, 3)], None),  # blue to red of Landsat 5, coastal to green of 8
        (["vv", "vh", "ratio"], None),
        (["red before", "red after", "green"], None),
    ],
)
def test_bands_are_found_by_the_names_in_use(names, numbers):
    raster = name_bands(*names)
    if numbers is None and "coastal_blue" in names:
        # Two blue ones by their words; the exact name decides.
        assert select_bands(raster, RGB) == [6, 4, 2]
    elif numbers is None:
        with pytest.raises(RasterError, match=r"odd.tif has the bands"):
            select_bands(raster, RGB)
    else:
        assert select_bands(raster, RGB) == numbers
        # What is given by name finds the same.
        assert select_bands(raster, RGB, list(map(str, numbers))) == numbers


def test_four_nameless_bands_are_a_guess_and_nothing_else_is():
    assert is_guess(name_bands(*[None] * 4), RGB)
    assert not is_guess(name_bands(*[None] * 4), RGB, [1, 2, 3])
    assert not is_guess(name_bands(*[None] * 4), ("red", "green", "blue", "nir"))
    assert not is_guess(name_bands(None, None, None), RGB)
    assert not is_guess(name_bands("B02", "B03", "B04", "B08"), RGB)


def test_the_fix_names_bands_where_the_raster_does():
    with pytest.raises(RasterError) as caught:
        select_bands(name_bands("swir", "nir", "red"), RGB)
    assert "--bands red,nir,red" in caught.value.fix
    with pytest.raises(RasterError, match="--bands 1,2,3"):
        select_bands(name_bands(*[None] * 5), RGB)


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("T32TQR_20190615T101031_B04_10m", "B04"),
        ("T32TQR_20190615T101031_B8A_20m", "B8A"),
        ("LC08_L2SP_192027_20190615_20200828_02_T1_SR_B4", "SR_B4"),
        ("LE07_L2SP_192027_20010615_20200828_02_T1_SR_B3", "red"),
        ("HLS.S30.T32TQR.2019166T101031.v2.0.B04", "B04"),
        ("scene_red", "red"),
        ("redmond_2019", None),
        ("20190615_b12_tile", "B12"),
        ("tile_17", None),
    ],
)
def test_a_file_of_one_band_says_in_its_name_what_it_shows(stem, name):
    assert name_file_band(stem) == name


@pytest.fixture
def write_bands(write_raster, tmp_path):
    """A function that writes the bands of a picture into a folder, a file each."""

    def write(folder, picture_CHW, names):
        (tmp_path / folder).mkdir()
        for name, band_HW in zip(names, picture_CHW, strict=True):
            written = write_raster(f"{folder}-{name}", band_HW[None], colours=None)
            written.rename(tmp_path / folder / f"{name}.tif")
        return tmp_path / folder

    return write


def test_joined_files_in_another_order_than_their_names_say_are_a_warning(
    write_raster, write_bands, picture_CHW
):
    """The order that is given counts, as `items.json#blue,green,red` may be what is meant."""
    folder = write_bands("joined", picture_CHW, ["B04", "B03", "B02"])
    whole = write_raster("whole", picture_CHW)

    def check_bands(*names):
        joined = " + ".join(str(folder / f"{name}.tif") for name in names)
        with RasterPair(whole, joined, RGB) as pair:
            read_CHW = pair.read(pair.area).after_CHW
        assert np.array_equal(
            read_CHW, [picture_CHW[["B04", "B03", "B02"].index(n)] for n in names]
        )
        report = examine_pair(whole, joined, PairOptions(), ModelNeeds())
        return next(finding for finding in report.findings if finding.name == "bands")

    assert check_bands("B04", "B03", "B02").level == "OK"
    swapped = check_bands("B02", "B03", "B04")
    assert swapped.level == "WARN"
    assert "the files of after show blue, green, red" in swapped.message


def test_a_folder_of_bands_is_refused_with_the_files_to_join(
    write_raster, write_bands, picture_CHW
):
    folder = write_bands("scene", [*picture_CHW, picture_CHW[0]], ["B04", "B03", "B02", "B08"])
    joined = join_bands(folder, RGB)
    assert joined == " + ".join(str(folder / f"{name}.tif") for name in ("B04", "B03", "B02"))
    report = examine_pair(folder, write_raster("after", picture_CHW), PairOptions(), ModelNeeds())
    found = {finding.name: finding for finding in report.findings}
    assert found["before"].level == "FAIL"
    assert joined in (found["before"].fix or "")
    assert join_bands(write_bands("other", picture_CHW, ["a", "b", "c"]), RGB) is None
