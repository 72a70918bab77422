from __future__ import annotations

import struct
import zlib
from functools import partial

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from rasterio.enums import ColorInterp

from terradelta.classes import BINARY, SENSEEARTH, ClassTable
from terradelta.data.images import (
    read_change_mask,
    read_image,
    read_mask,
    write_change_mask,
    write_mask,
)
from terradelta.errors import ArgumentError, DataError, OutputExistsError

PALETTE = np.array(SENSEEARTH.colours, np.uint8)


@pytest.fixture
def random():
    return np.random.default_rng(0)


def write_tif(path, bands_CHW, **profile):
    count, height, width = bands_CHW.shape
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        dataset = rasterio.open(
            path,
            "w",
            driver=profile.pop("driver", "GTiff"),
            width=width,
            height=height,
            count=count,
            dtype=bands_CHW.dtype,
            **profile,
        )
    with dataset:
        dataset.write(bands_CHW)
    return path


def save_palette(path, indices_HW, colours):
    image = Image.fromarray(indices_HW.astype(np.uint8))
    image.putpalette([value for colour in colours for value in colour])
    image.save(path)
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".PNG", ".TIF"])
def test_rgb_image_is_read_as_stored(tmp_path, random, suffix):
    pixels_HWC = random.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    path = tmp_path / f"image{suffix}"
    Image.fromarray(pixels_HWC).save(path)
    image_CHW = read_image(path)
    assert image_CHW.dtype == np.uint8
    np.testing.assert_array_equal(image_CHW, pixels_HWC.transpose(2, 0, 1))


def test_jpeg_is_read_as_pillow_decodes_it(tmp_path, random):
    path = tmp_path / "image.jpg"
    Image.fromarray(random.integers(0, 256, (16, 24, 3), dtype=np.uint8)).save(path)
    expected = np.asarray(Image.open(path)).transpose(2, 0, 1)
    np.testing.assert_array_equal(read_image(path), expected)


@pytest.mark.parametrize(
    ("mode", "bands"), [("L", 1), ("LA", 1), ("RGB", 3), ("RGBA", 3), ("P", 3)]
)
def test_png_mode_decides_the_bands_and_alpha_is_dropped(tmp_path, random, mode, bands):
    source = Image.fromarray(random.integers(0, 256, (6, 4, 4), dtype=np.uint8), "RGBA")
    image = source.convert("RGB").quantize(16) if mode == "P" else source.convert(mode)
    path = tmp_path / "image.png"
    image.save(path)
    expected = np.asarray(image.convert("L" if bands == 1 else "RGB")).reshape(6, 4, bands)
    np.testing.assert_array_equal(read_image(path), expected.transpose(2, 0, 1))


@pytest.mark.parametrize("bands", [1, 3])
def test_16_bit_png_keeps_its_16_bits(tmp_path, random, bands):
    image_CHW = random.integers(0, 65536, (bands, 5, 6), dtype=np.uint16)
    path = write_tif(tmp_path / "deep.png", image_CHW, driver="PNG")
    np.testing.assert_array_equal(read_image(path), image_CHW)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("bands", [1, 4, 13])
def test_geotiff_keeps_bands_and_data_type(tmp_path, random, dtype, bands):
    image_CHW = random.integers(0, 200, (bands, 5, 6)).astype(dtype)
    image = read_image(write_tif(tmp_path / "image.tif", image_CHW))
    assert image.dtype == dtype
    np.testing.assert_array_equal(image, image_CHW)


def test_float64_becomes_float32_and_int32_is_refused(tmp_path):
    floats = write_tif(tmp_path / "floats.tif", np.full((1, 2, 2), 0.1))
    assert read_image(floats).dtype == np.float32
    integers = write_tif(tmp_path / "integers.tif", np.ones((1, 2, 2), np.int32))
    with pytest.raises(DataError, match=r"integers\.tif holds pixels of int32.*uint8"):
        read_image(integers)


def test_near_infrared_that_gdal_declares_as_alpha_is_kept_and_an_opacity_mask_is_not(tmp_path):
    image_CHW = np.arange(4 * 6, dtype=np.uint8).reshape(4, 2, 3)
    path = write_tif(tmp_path / "nir.tif", image_CHW)
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning), rasterio.open(path) as dataset:
        assert dataset.colorinterp[3] == ColorInterp.alpha  # the trap
    np.testing.assert_array_equal(read_image(path), image_CHW)

    image_CHW[3] = [[0, 255, 255], [0, 0, 255]]
    opacity = write_tif(tmp_path / "opacity.tif", image_CHW)
    np.testing.assert_array_equal(read_image(opacity), image_CHW[:3])


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
def test_truncated_or_foreign_files_name_themselves(tmp_path, random, suffix):
    whole = tmp_path / f"whole{suffix}"
    Image.fromarray(random.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(whole)
    broken = tmp_path / f"broken{suffix}"
    for content in (whole.read_bytes()[: whole.stat().st_size // 2], b"no image", b""):
        broken.write_bytes(content)
        with pytest.raises(DataError, match=rf"broken\{suffix}.*\({len(content)} bytes\)"):
            read_image(broken)


def test_a_missing_file_and_a_foreign_ending_are_data_errors(tmp_path):
    for name, problem in (
        ("gone.png", "does not exist"),
        ("gone.tif", "gone.tif"),
        ("a.txt", "txt"),
    ):
        with pytest.raises(DataError, match=problem):
            read_image(tmp_path / name)


def test_a_header_that_asks_for_too_much_memory_is_a_data_error(tmp_path):
    path = tmp_path / "huge.tif"
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        rasterio.open(
            path,
            "w",
            driver="GTiff",
            width=100_000,
            height=100_000,
            count=1,
            dtype="uint8",
            SPARSE_OK=True,
        ).close()
    with pytest.raises(DataError, match=r"huge\.tif is 100000 x 100000 pixels, 9\.3 GiB, .* 4 GiB"):
        read_image(path)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(suffix=st.sampled_from([".png", ".jpg", ".bmp", ".tif"]), data=st.data())
def test_damaged_bytes_give_pixels_or_a_data_error(tmp_path, suffix, data):
    whole = tmp_path / f"whole{suffix}"
    if not whole.exists():
        pixels = np.random.default_rng(1).integers(0, 256, (9, 9, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(whole)
    content = bytearray(whole.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    damaged = tmp_path / f"damaged{suffix}"
    damaged.write_bytes(content)
    problem = ""
    try:
        image_CHW = read_image(damaged)
    except DataError as error:
        problem = error.problem
    else:
        assert image_CHW.ndim == 3
    assert not problem or str(damaged) in problem


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data(), num_classes=st.integers(1, 254))
def test_a_written_mask_is_read_back(tmp_path, data, num_classes):
    table = ClassTable(
        names=tuple(f"class {i}" for i in range(num_classes + 1)),
        colours=tuple((i, 255 - i, 7) for i in range(num_classes + 1)),
    )
    size = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    seed = data.draw(st.integers(0, 2**32 - 1))
    ids_HW = np.random.default_rng(seed).integers(0, num_classes + 1, size)
    path = tmp_path / "mask.png"
    write_mask(path, ids_HW, table)
    read = read_mask(path, table)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, ids_HW)
    drawn = np.asarray(Image.open(path).convert("RGB"))
    np.testing.assert_array_equal(drawn, np.array(table.colours, np.uint8)[ids_HW])
    assert [file.name for file in tmp_path.iterdir()] == ["mask.png"]


def test_a_mask_of_classes_drawn_alike_is_read_back(tmp_path):
    table = ClassTable(names=("a", "b", "c"), colours=((1, 1, 1), (2, 2, 2), (2, 2, 2)))
    ids_HW = np.array([[0, 1, 2]])
    write_mask(tmp_path / "mask.png", ids_HW, table)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png", table), ids_HW)
    Image.fromarray(np.full((1, 1, 3), 2, np.uint8)).save(tmp_path / "rgb.png")
    with pytest.raises(ArgumentError, match="several ids in one colour"):
        read_mask(tmp_path / "rgb.png", table)


def test_write_mask_refuses_what_it_could_not_store(tmp_path):
    for ids_HW, name, problem in (
        (np.array([[7]]), "mask.png", "7 to 7.*0 to 6"),
        (np.array([[-1]]), "mask.png", "-1 to -1"),
        (np.zeros((1, 2, 2), int), "mask.png", r"\(1, 2, 2\)"),
        (np.zeros((2, 2)), "mask.png", "float64"),
        (np.zeros((2, 2), int), "mask.jpg", r"mask\.jpg"),
    ):
        with pytest.raises(ArgumentError, match=problem):
            write_mask(tmp_path / name, ids_HW, SENSEEARTH)
    assert list(tmp_path.iterdir()) == []


def test_a_mask_is_replaced_whole_and_a_failure_leaves_nothing_behind(tmp_path):
    old, new = np.array([[1, 2]]), np.array([[3, 4]])
    write_mask(tmp_path / "mask.png", old, SENSEEARTH)
    # A second name of the old file keeps the old content only if the new one came by renaming.
    (tmp_path / "link.png").hardlink_to(tmp_path / "mask.png")
    write_mask(tmp_path / "mask.png", new, SENSEEARTH)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png", SENSEEARTH), new)
    np.testing.assert_array_equal(read_mask(tmp_path / "link.png", SENSEEARTH), old)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OutputExistsError, match=r"folder\.png"):
        write_mask(tmp_path / "folder.png", new, SENSEEARTH)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder.png", "link.png", "mask.png"]


@pytest.mark.parametrize(
    "form", ["gray.png", "rgb.png", "rgba.png", "rgb.tif", "gray.tif", "gray.bmp"]
)
def test_a_land_cover_mask_reads_the_same_in_every_form(tmp_path, random, form):
    ids_HW = random.integers(0, 7, (8, 9), dtype=np.uint8)
    array = {"gray": ids_HW, "rgb": PALETTE[ids_HW]}.get(form.split(".")[0])
    if form == "rgba.png":
        array = np.dstack([PALETTE[ids_HW], np.full((8, 9), 200, np.uint8)])
    Image.fromarray(array).save(tmp_path / form)
    np.testing.assert_array_equal(read_mask(tmp_path / form, SENSEEARTH), ids_HW)


def test_palette_colours_win_over_the_order_of_the_palette(tmp_path, random):
    ids_HW = random.integers(0, 7, (8, 9), dtype=np.uint8)
    shuffled = np.array([3, 1, 6, 0, 2, 5, 4])
    indices_HW = np.argsort(shuffled)[ids_HW]
    path = save_palette(tmp_path / "mask.png", indices_HW, PALETTE[shuffled].tolist())
    np.testing.assert_array_equal(read_mask(path, SENSEEARTH), ids_HW)


def test_indices_count_where_a_used_palette_colour_is_no_class(tmp_path, random):
    ids_HW = random.integers(0, 7, (8, 9), dtype=np.uint8)
    foreign = [(i, 0, 99) for i in range(6)] + [SENSEEARTH.colours[1]]
    path = save_palette(tmp_path / "mask.png", ids_HW, foreign)
    np.testing.assert_array_equal(read_mask(path, SENSEEARTH), ids_HW)


def test_geotiff_palette_decides_like_a_png_palette(tmp_path):
    path = tmp_path / "mask.tif"
    indices_HW = np.array([[0, 1, 1], [1, 0, 1]], np.uint8)
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        dataset = rasterio.open(
            path,
            "w",
            driver="GTiff",
            width=3,
            height=2,
            count=1,
            dtype="uint8",
            photometric="palette",
        )
    with dataset:
        dataset.write(indices_HW, 1)
        dataset.write_colormap(
            1, {0: (*SENSEEARTH.colours[5], 255), 1: (*SENSEEARTH.colours[2], 255)}
        )
    np.testing.assert_array_equal(read_mask(path, SENSEEARTH), np.where(indices_HW == 0, 5, 2))


def test_unknown_colours_are_named_with_their_share_and_the_table(tmp_path):
    pixels_HWC = np.full((10, 10, 3), 255, np.uint8)
    pixels_HWC[0, :2] = (1, 2, 3)
    pixels_HWC[0, 5] = (9, 9, 200)
    Image.fromarray(pixels_HWC).save(tmp_path / "mask.png")
    with pytest.raises(DataError) as caught:
        read_mask(tmp_path / "mask.png", SENSEEARTH)
    problem = caught.value.problem
    assert str(tmp_path / "mask.png") in problem
    assert "(1, 2, 3) 2.00%, (9, 9, 200) 1.00% of the pixels" in problem
    assert "5 building (128, 0, 0)" in problem


def test_many_unknown_colours_are_counted(tmp_path, random):
    pixels_HWC = random.integers(30, 60, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels_HWC).save(tmp_path / "mask.png")
    num_colours = len(np.unique(pixels_HWC.reshape(-1, 3), axis=0))
    with pytest.raises(DataError, match=f"and {num_colours - 8} more"):
        read_mask(tmp_path / "mask.png", SENSEEARTH)


def test_three_copies_of_the_ids_are_recognised(tmp_path):
    Image.fromarray(np.full((4, 4, 3), 5, np.uint8)).save(tmp_path / "mask.png")
    with pytest.raises(DataError) as caught:
        read_mask(tmp_path / "mask.png", SENSEEARTH)
    assert "three copies" in caught.value.fix


def test_ids_beyond_the_table_are_named(tmp_path):
    Image.fromarray(np.array([[0, 3, 7], [9, 9, 9]], np.uint8)).save(tmp_path / "mask.png")
    with pytest.raises(
        DataError, match=r"mask\.png holds the values 0, 3, 7, 9, .* 0 to 6"
    ) as caught:
        read_mask(tmp_path / "mask.png", SENSEEARTH)
    assert "0/255" not in caught.value.fix


def test_a_0_255_mask_among_land_cover_gets_its_own_hint(tmp_path):
    Image.fromarray(np.array([[0, 255]], np.uint8)).save(tmp_path / "mask.png")
    with pytest.raises(DataError, match="0, 255") as caught:
        read_mask(tmp_path / "mask.png", SENSEEARTH)
    assert "0/255 change mask" in caught.value.fix


def test_masks_of_other_kinds_are_refused(tmp_path):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "lossy.jpg")
    two = write_tif(tmp_path / "two.tif", np.zeros((2, 3, 3), np.uint8))
    deep = write_tif(tmp_path / "deep.tif", np.zeros((3, 3, 3), np.uint16))
    fraction = write_tif(tmp_path / "fraction.tif", np.full((1, 3, 3), 0.5, np.float32))
    for path, problem in (
        (tmp_path / "lossy.jpg", "JPEG"),
        (two, "2 bands"),
        (deep, "uint16"),
        (fraction, r"0\.5"),
    ):
        with pytest.raises(DataError, match=problem) as caught:
            read_mask(path, SENSEEARTH)
        assert path.name in str(caught.value)


def write_png_header(path, side_px, bit_depth):
    """Write a PNG whose header says how large it is, with pixels for a few rows only."""
    header = struct.pack(">IIBBBBB", side_px, side_px, bit_depth, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * 100_000)
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for name, content in ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")):
            checksum = zlib.crc32(name + content)
            file.write(struct.pack(">I", len(content)) + name + content)
            file.write(struct.pack(">I", checksum))


@pytest.mark.parametrize("bit_depth", [8, 16])
def test_a_header_that_promises_more_than_its_file_is_refused(tmp_path, bit_depth):
    path = tmp_path / "bomb.png"
    write_png_header(path, 12_000, bit_depth)
    assert path.stat().st_size < 1000
    for read in (read_image, read_change_mask, partial(read_mask, classes=SENSEEARTH)):
        with pytest.raises(DataError, match=r"bomb\.png has \d+ bytes.* 12000 x 12000 pixels"):
            read(path)


def test_an_empty_tiff_of_gigabytes_is_refused_and_a_mask_of_one_value_read(tmp_path):
    profile = {"driver": "GTiff", "count": 3, "dtype": "uint8", "tiled": True}
    options = {"sparse_ok": True, "width": 30_000, "height": 30_000, "blockxsize": 4096}
    options |= {"blockysize": 4096}
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        rasterio.open(tmp_path / "empty.tif", "w", **profile, **options).close()
    assert (tmp_path / "empty.tif").stat().st_size < 10_000
    with pytest.raises(DataError, match=r"empty\.tif has .* its header says 30000 x 30000"):
        read_image(tmp_path / "empty.tif")
    Image.fromarray(np.zeros((9000, 9000), np.uint8)).save(tmp_path / "one.png")
    assert not read_mask(tmp_path / "one.png", SENSEEARTH).any()


@pytest.mark.parametrize(
    ("stray", "count", "is_read"),
    [
        (254, 35, True),
        (3, 35, True),
        (207, 65, True),
        (207, 66, False),  # 0.1 % of 256 x 256 is 65 pixels
        (206, 35, False),  # far from both
        (128, 1, False),
        (1, 1, False),  # means changed in masks of 0 and 1
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_stray_pixels_of_a_change_mask(tmp_path, random, stray, count, is_read, channels):
    """Mask 9 of a released data set holds 35 pixels of 254 among 0 and 255."""
    mask_HW = 255 * random.integers(0, 2, (256, 256), dtype=np.uint8)
    mask_HW.reshape(-1)[random.choice(mask_HW.size, count, replace=False)] = stray
    path = tmp_path / "mask.png"
    Image.fromarray(mask_HW if channels == 1 else np.stack([mask_HW] * 3, axis=-1)).save(path)
    if is_read:
        assert (read_change_mask(path) == (mask_HW >= 128)).all()
    else:
        with pytest.raises(DataError, match=r"mask\.png holds the values") as caught:
            read_change_mask(path)
        assert "terradelta doctor DATA" in caught.value.fix


@pytest.mark.parametrize("high", [1, 255])
@pytest.mark.parametrize("form", ["L", "RGB", "1", "tif"])
def test_change_mask_is_1_where_changed_in_every_form(tmp_path, random, high, form):
    change_HW = random.integers(0, 2, (6, 7), dtype=np.uint8)
    array = change_HW * np.uint8(high)
    path = tmp_path / "mask.png"
    if form == "tif":
        path = write_tif(tmp_path / "mask.tif", array[None])
    elif form == "1":
        Image.fromarray(change_HW * np.uint8(255)).convert("1").save(path)
    else:
        Image.fromarray(array if form == "L" else np.dstack([array] * 3)).save(path)
    mask = read_change_mask(path)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, change_HW)


@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64])
def test_a_written_change_mask_is_read_back_even_if_constant(tmp_path, value, dtype):
    for change_HW in (np.full((3, 4), value, dtype), np.eye(4).astype(dtype)):
        write_change_mask(tmp_path / "mask.png", change_HW)
        np.testing.assert_array_equal(read_change_mask(tmp_path / "mask.png"), change_HW)
        np.testing.assert_array_equal(read_mask(tmp_path / "mask.png", BINARY), change_HW)


@pytest.mark.parametrize("colours", [((0, 0, 0), (255, 255, 255)), ((255, 255, 255), (0, 0, 0))])
def test_a_black_and_white_palette_is_taken_as_it_looks(tmp_path, colours):
    white_HW = np.array([[0, 1, 1], [0, 0, 1]], np.uint8)
    path = save_palette(tmp_path / "mask.png", white_HW if colours[1][0] else 1 - white_HW, colours)
    assert np.array_equal(np.asarray(Image.open(path).convert("L")) == 255, white_HW == 1)
    np.testing.assert_array_equal(read_change_mask(path), white_HW)


def test_other_change_masks_are_refused_with_their_values(tmp_path, random):
    def save(name, array):
        Image.fromarray(array).save(tmp_path / name)
        return tmp_path / name

    differing = np.zeros((2, 2, 3), np.uint8)
    differing[0, 0, 1] = 255
    for path, problem in (
        (save("ids.png", np.array([[0, 1, 2]], np.uint8)), "0, 1, 2"),
        (save("mixed.png", np.array([[0, 1, 255]], np.uint8)), "0, 1, 255"),
        (save("gray.png", np.array([[128, 255]], np.uint8)), "128, 255"),
        (save("colour.png", differing), "3 bands"),
    ):
        with pytest.raises(DataError, match=problem) as caught:
            read_change_mask(path)
        assert path.name in str(caught.value)
    blurred = save("blurred.jpg", random.integers(0, 2, (16, 16), dtype=np.uint8) * np.uint8(255))
    with pytest.raises(DataError) as caught:
        read_change_mask(blurred)
    assert "JPEG" in caught.value.fix
