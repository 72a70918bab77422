"""Pairs that are stored oddly: layouts, compressions, archives, networks."""

from __future__ import annotations

import gzip
import shutil
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, Resampling
from rasterio.shutil import copy

from .cases import Bench, Pair, draw_rgb, home, mapped
from .drawing import Raster
from .range_server import serve
from .values import PHASE, palette_after_resampled, write_virtual


def _pair(bench: Bench, name: str = "after.tif", **profile) -> Pair:
    """Return a pair whose after image is written with these options."""
    before, after = draw_rgb(home(), "before"), draw_rgb(PHASE, "after")
    return Pair(
        bench.write("before.tif", before), bench.write(name, after, **profile), (before, after)
    )


def _as_stored(pair: Pair) -> Pair:
    """Return the pair with what a lossy compression left of the after image as its truth."""
    with rasterio.open(pair.after) as dataset:
        after = replace(pair.truth[1], image_CHW=dataset.read())
    return replace(pair, truth=(pair.truth[0], after))


@mapped
def strips_of_one_row(bench: Bench) -> Pair:
    return _pair(bench, blockysize=1, tiled=False)


@mapped
def tiles_interleaved_by_band(bench: Bench) -> Pair:
    return _pair(bench, tiled=True, blockxsize=32, blockysize=16, interleave="band")


@mapped
def tiles_interleaved_by_pixel_deflated(bench: Bench) -> Pair:
    options = {"tiled": True, "blockxsize": 48, "blockysize": 64, "interleave": "pixel"}
    return _pair(bench, compress="deflate", predictor=2, **options)


@mapped
def compressed_by_lzw(bench: Bench) -> Pair:
    return _pair(bench, compress="lzw", predictor=2)


@mapped
def compressed_by_zstd(bench: Bench) -> Pair:
    return _pair(bench, compress="zstd")


@mapped
def compressed_by_jpeg(bench: Bench) -> Pair:
    options = {"tiled": True, "blockxsize": 32, "blockysize": 32, "jpeg_quality": 90}
    return _as_stored(_pair(bench, compress="jpeg", photometric="ycbcr", **options))


@mapped
def big_endian(bench: Bench) -> Pair:
    before, after = (
        r.recode("uint16") for r in (draw_rgb(home(), "before"), draw_rgb(PHASE, "after"))
    )
    truth = before, after
    return Pair(
        bench.write("before.tif", before, endianness="big"),
        bench.write("after.tif", after, endianness="big"),
        truth,
    )


@mapped
def bigtiff(bench: Bench) -> Pair:
    return _pair(bench, bigtiff="yes")


@mapped
def sparse_blocks_are_nodata(bench: Bench) -> Pair:
    pair = _pair(bench)
    raster = pair.truth[1]
    valid_HW = np.zeros_like(raster.valid_HW)
    valid_HW[32:64, 16:80] = True
    after = replace(raster, valid_HW=valid_HW)
    options = {"tiled": True, "blockxsize": 16, "blockysize": 16, "sparse_ok": True, "nodata": 0}
    pair.after = bench.write("sparse.tif", after, **options)
    return replace(pair, truth=(pair.truth[0], after))


@mapped
def cog_with_overviews(bench: Bench) -> Pair:
    pair = _pair(bench)
    options = {"driver": "COG", "BLOCKSIZE": 128, "OVERVIEW_COUNT": 2, "COMPRESS": "LZW"}
    copy(pair.after, bench.folder / "cog.tif", **options)
    return replace(pair, after=bench.folder / "cog.tif")


@mapped
def overviews_that_show_something_else(bench: Bench) -> Pair:
    pair = _pair(bench)
    image = pair.after.read_bytes()
    raster = pair.truth[1]
    bench.write("after.tif", replace(raster, image_CHW=255 - raster.image_CHW))
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(pair.after, "r+") as dataset:
        dataset.build_overviews([2, 4], Resampling.nearest)
    pair.after.write_bytes(image)
    assert (bench.folder / "after.tif.ovr").is_file()
    return pair


@mapped
def png_with_a_world_file(bench: Bench) -> Pair:
    pair = _pair(bench)
    # World file and .aux.xml hold the place.
    copy(pair.after, bench.folder / "after.png", driver="PNG", WORLDFILE="YES")
    return replace(pair, after=bench.folder / "after.png")


@mapped
def jpeg_2000(bench: Bench) -> Pair:
    pair = _pair(bench)
    copy(
        pair.after, bench.folder / "after.jp2", driver="JP2OpenJPEG", QUALITY=100, REVERSIBLE="YES"
    )
    return _as_stored(replace(pair, after=bench.folder / "after.jp2"))


@mapped
def envi_header_beside_raw_pixels(bench: Bench) -> Pair:
    pair = _pair(bench)
    copy(pair.after, bench.folder / "after.img", driver="ENVI", INTERLEAVE="BIL")
    return replace(pair, after=bench.folder / "after.img")


@mapped
def geopackage_raster(bench: Bench) -> Pair:
    pair = _pair(bench)
    copy(
        pair.after,
        bench.folder / "after.gpkg",
        driver="GPKG",
        TILE_FORMAT="PNG",
        RASTER_TABLE="scene",
    )
    return _without_alpha(replace(pair, after=bench.folder / "after.gpkg"))


def _without_alpha(pair: Pair) -> Pair:
    with rasterio.open(pair.after) as dataset:
        assert (dataset.read((1, 2, 3)) == pair.truth[1].image_CHW).all()
    return pair


@mapped
def suffix_of_another_format(bench: Bench) -> Pair:
    return _pair(bench, name="after.jpg")


@mapped
def name_with_blanks_and_umlauts(bench: Bench) -> Pair:
    return _pair(bench, name="Überflug & Straße #2 (50%).tif")


@mapped
def virtual_mosaic_of_two_files(bench: Bench) -> Pair:
    pair = _pair(bench)
    raster = pair.truth[1]
    for name, columns in (("west", slice(0, 70)), ("east", slice(70, 112))):
        frame = raster.frame.cut(columns.start, 0, columns.stop - columns.start)
        part = Raster(frame, raster.image_CHW[..., columns], raster.valid_HW[:, columns])
        bench.write(f"{name}.tif", part)
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}">'
        + "".join(
            f'<SimpleSource><SourceFilename relativeToVRT="1">{name}.tif</SourceFilename>'
            f"<SourceBand>{band}</SourceBand>"
            f'<SrcRect xOff="0" yOff="0" xSize="{size}" ySize="96"/>'
            f'<DstRect xOff="{start}" yOff="0" xSize="{size}" ySize="96"/></SimpleSource>'
            for name, start, size in (("west", 0, 70), ("east", 70, 42))
        )
        + "</VRTRasterBand>"
        for band in (1, 2, 3)
    )
    transform = ", ".join(map(repr, raster.frame.transform.to_gdal()))
    pair.after = bench.folder / "mosaic.vrt"
    pair.after.write_text(
        f'<VRTDataset rasterXSize="112" rasterYSize="96"><SRS>{raster.frame.crs}</SRS>'
        f"<GeoTransform>{transform}</GeoTransform>{bands}</VRTDataset>"
    )
    return pair


@mapped
def virtual_raster_beside_its_file(bench: Bench) -> Pair:
    pair = _pair(bench)
    return replace(pair, after=write_virtual(pair.after, {1: "", 2: "", 3: ""}))


@mapped
def zipped(bench: Bench) -> Pair:
    return replace(_pair(bench), after=_zip(bench))


@mapped
def zipped_with_vsizip(bench: Bench) -> Pair:
    return replace(_pair(bench), after=f"/vsizip/{_zip(bench)}/deep/after.tif")


@mapped
def zipped_with_a_uri(bench: Bench) -> Pair:
    return replace(_pair(bench), after=f"zip://{_zip(bench)}!deep/after.tif")


@mapped
def zipped_palette(bench: Bench) -> Pair:
    pair = palette_after_resampled(bench)
    return replace(pair, after=f"zip://{_zip(bench)}!deep/after.tif")


def _zip(bench: Bench) -> Path:
    path = bench.folder / "after.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(bench.folder / "after.tif", "deep/after.tif")
    (bench.folder / "after.tif").unlink()
    return path


@mapped
def in_a_tar_archive(bench: Bench) -> Pair:
    pair = _pair(bench)
    with tarfile.open(bench.folder / "after.tar.gz", "w:gz", format=tarfile.GNU_FORMAT) as archive:
        archive.add(pair.after, "after.tif")
    pair.after.unlink()
    return replace(pair, after=bench.folder / "after.tar.gz")


@mapped
def in_a_plain_tar_archive(bench: Bench) -> Pair:
    pair = _pair(bench)
    with tarfile.open(bench.folder / "after.tar", "w", format=tarfile.GNU_FORMAT) as archive:
        archive.add(pair.after, "after.tif")
    pair.after.unlink()
    return replace(pair, after=bench.folder / "after.tar")


@mapped
def gzipped(bench: Bench) -> Pair:
    pair = _pair(bench)
    packed = bench.folder / "after.tif.gz"
    with pair.after.open("rb") as file, gzip.open(packed, "wb") as target:
        shutil.copyfileobj(file, target)
    pair.after.unlink()
    return replace(pair, after=packed)


@mapped
def uri_of_a_local_file(bench: Bench) -> Pair:
    pair = _pair(bench)
    return replace(pair, after=f"file://{pair.after}")


@mapped
def served_by_http(bench: Bench) -> Pair:
    pair = _pair(bench, tiled=True, blockxsize=32, blockysize=32)
    url = bench.exits.enter_context(serve(bench.folder))
    return replace(pair, before=f"{url}/before.tif", after=f"{url}/after.tif")


@mapped
def served_by_http_with_vsicurl(bench: Bench) -> Pair:
    pair = _pair(bench)
    url = bench.exits.enter_context(serve(bench.folder))
    return replace(pair, after=f"/vsicurl/{url}/after.tif")


@mapped
def bands_at_signed_addresses_longer_than_a_file_name(bench: Bench) -> Pair:
    pair = _pair(bench)
    for band in range(3):
        bench.write(f"band{band}.tif", pair.truth[1].arrange(band))
    url = bench.exits.enter_context(serve(bench.folder))
    signature = "s" * 300
    after = " + ".join(f"{url}/band{band}.tif?signature={signature}" for band in range(3))
    return replace(pair, before=f"{url}/before.tif?signature={signature}", after=after)


def _write_bands(bench: Bench, rasters: Sequence[Raster], **profile) -> str:
    """Write each raster's one band as a file and return what names them all."""
    paths = [
        bench.write(f"band{number}.tif", raster, **profile)
        for number, raster in enumerate(rasters, start=1)
    ]
    return " + ".join(map(str, paths))


@mapped
def a_file_for_each_band(bench: Bench) -> Pair:
    pair = _pair(bench)
    after = [pair.truth[1].arrange(band) for band in range(3)]
    return replace(pair, after=_write_bands(bench, after))


@mapped
def a_file_for_each_band_with_holes(bench: Bench) -> Pair:
    pair = _pair(bench)
    after = pair.truth[1].punch()
    files = _write_bands(bench, [after.arrange(band) for band in range(3)], nodata=0)
    return replace(pair, after=files, truth=(pair.truth[0], after))


@mapped
def a_file_for_each_band_and_a_mask_in_the_second(bench: Bench) -> Pair:
    pair = _pair(bench)
    after = pair.truth[1].punch()
    files = [
        bench.write(f"band{band}.tif", after.arrange(band), mask=band == 1) for band in range(3)
    ]
    return replace(pair, after=" + ".join(map(str, files)), truth=(pair.truth[0], after))


@mapped
def a_file_for_two_bands_and_alpha_and_one_for_the_third(bench: Bench) -> Pair:
    pair = _pair(bench)
    after = pair.truth[1].punch()
    colours = ColorInterp.red, ColorInterp.green, ColorInterp.alpha
    alpha_HW = after.valid_HW * 255
    first = bench.write("rg.tif", after.arrange(0, 1), colours=colours, extra_HW=alpha_HW)
    last = bench.write("b.tif", after.arrange(2), colours=(ColorInterp.blue,))
    return replace(pair, after=f"{first} + {last}", truth=(pair.truth[0], after))


@mapped
def a_file_for_each_band_and_one_of_them_coarser(bench: Bench) -> Pair:
    before, after = draw_rgb(home(), "before", 20), draw_rgb(PHASE, "after", 20)
    half = PHASE.zoom(2, PHASE.width // 2, PHASE.height // 2)
    coarse = draw_rgb(half, "after", 20).arrange(0)
    files = _write_bands(bench, [coarse, after.arrange(1), after.arrange(2)])
    # Laid on the pixels of the others and then on the map's, both bilinearly.
    options = {"pixel_m": 20, "grey_levels": 6, "wrong_share": 0.03}
    return Pair(bench.write("before.tif", before), files, (before, after), **options)


@mapped
def a_plus_in_the_name_of_a_file(bench: Bench) -> Pair:
    return _pair(bench, "red + green + blue.tif")
