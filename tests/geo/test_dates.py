"""When images were taken: from flags, tags, STAC items and names, and never from an identifier."""

from datetime import UTC, datetime

import numpy as np
import pystac
import pytest
import rasterio

from terradelta.errors import ArgumentError
from terradelta.geo.dates import (
    ImageDate,
    check_dates,
    find_date,
    find_dates,
    read_flag,
    read_name,
)
from terradelta.outputs import write_json
from terradelta.prediction.records import DateRecord


@pytest.fixture
def image(write_raster):
    """A function that writes a raster of a name, with tags, and returns its path."""

    def write(name, tags=None, imagery=None):
        path = write_raster(name, np.zeros((3, 8, 8), np.uint8))
        with rasterio.open(path, "r+") as dataset:
            dataset.update_tags(**(tags or {}))
            dataset.update_tags(ns="IMAGERY", **(imagery or {}))
        return path

    return write


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "S2A_MSIL1C_20170105T013442_N0204_R031_T53NMJ_20170105T013443.SAFE",
            "2017-01-05T01:34:42Z",
        ),
        ("T32TQM_20190601T101031_B04_10m.jp2", "2019-06-01T10:10:31Z"),
        ("LC08_L2SP_039034_20190601_20200828_02_T1_SR_B4.TIF", "2019-06-01"),
        ("LC80390342019152LGN00_B4.TIF", "2019-06-01"),
        ("m_3808801_ne_16_060_20190601.tif", "2019-06-01"),
        ("m_4609915_sw_14_1_20120704_20121018.tif", "2012-07-04"),
        ("20190601_101010_55_1018_3B_AnalyticMS.tif", "2019-06-01T10:10:10Z"),
        ("global_monthly_2019_06_mosaic.tif", "2019-06"),
        ("site_2019_06_01_rgb.tif", "2019-06-01"),
        ("site.2019-06-01.tif", "2019-06-01"),
        ("site_2019-06.tif", "2019-06"),
        ("naip_2009.tif", "2009"),
        ("2019/B04.tif", "2019"),
        ("https://host/20190601.tif?version=20200101", "2019-06-01"),
        ("scene_20191231T999999.tif", "2019-12-31"),
    ],
)
def test_names_say_when(name, text):
    date = read_name(name)
    assert date is not None
    assert date.text == text


@pytest.mark.parametrize(
    "name",
    [
        "before.tif",
        "19991399.tif",  # no thirteenth month
        "tile_20190230.tif",  # nor a thirtieth of February
        "tile_12345678.tif",
        "120190601.tif",  # a longer number
        "a8b20190601c.tif",  # a hash
        "20990101.tif",  # yet to come
        "tile_2000_1500.tif",  # a corner
        "crop2000x1999.tif",
        "2009_2019.tif",  # which of the two?
        "LC80390342019452LGN00.tif",  # no 452nd day
        "project2019data/before.tif",
    ],
)
def test_identifiers_and_nonsense_are_no_dates(name):
    assert read_name(name) is None


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("2019", "2019-01-01T00:00:00", "2019-12-31T23:59:59.999999"),
        ("2020-02", "2020-02-01T00:00:00", "2020-02-29T23:59:59.999999"),
        ("2019-12", "2019-12-01T00:00:00", "2019-12-31T23:59:59.999999"),
        ("2019-06-01", "2019-06-01T00:00:00", "2019-06-01T23:59:59.999999"),
        ("2019-06-01T12:00:00+02:00", "2019-06-01T10:00:00", "2019-06-01T10:00:00"),
        ("2019-05-30/2019-06-02", "2019-05-30T00:00:00", "2019-06-02T23:59:59.999999"),
    ],
)
def test_a_period_has_a_first_and_a_last_moment(text, start, end):
    date = ImageDate.parse(text, "flag")
    assert date.start == datetime.fromisoformat(start).replace(tzinfo=UTC)
    assert date.end == datetime.fromisoformat(end).replace(tzinfo=UTC)
    assert DateRecord(**date.to_dict()).build() == date


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "2019-13", "2019-02-30", "01.06.2019", "20190601", "0019", "2020/2019"],
)
def test_a_flag_that_is_no_date_says_how_to_write_one(text):
    with pytest.raises(ArgumentError, match=r"--after-date .* is not a date") as caught:
        read_flag("--after-date", text)
    assert "--after-date 2019-06-01" in caught.value.fix


def test_flags_go_before_tags_and_tags_before_names(image):
    path = image("site_20180101", {"TIFFTAG_DATETIME": "2019:06:01 10:20:30"})
    assert str(find_date(path)) == "2019-06-01T10:20:30Z (tag)"
    assert str(find_dates(path, path, ("2017", None))[0]) == "2017 (flag)"
    acquired = {"ACQUISITIONDATETIME": "2016-05-04 03:02:01"}
    path = image("other_20180101", {"TIFFTAG_DATETIME": "2019:06:01 10:20:30"}, acquired)
    assert str(find_date(path)) == "2016-05-04T03:02:01Z (tag)"
    path = image("third_20180101", {"TIFFTAG_DATETIME": "0000:00:00 00:00:00"})
    assert str(find_date(path)) == "2018-01-01 (file name)"
    assert find_date(image("plain")) is None


def test_a_mosaic_spans_its_rasters_and_band_files_are_asked_alike(image, tmp_path):
    paths = [image("a_20190601"), image("b_20190603")]
    date = find_date(paths)
    assert date is not None
    assert date.text == "2019-06-01/2019-06-03"
    assert (date.start.day, date.end.day) == (1, 3)
    listing = tmp_path / "summer_2019.txt"
    listing.write_text("\n".join(map(str, [paths[0], image("undated")])))
    # One of them has none, so the list's own name speaks.
    assert str(find_date(listing)) == "2019 (file name)"
    joined = find_date(f"{paths[0]} + {image('c_20190601')}")
    assert joined is not None
    assert joined.text == "2019-06-01"


def test_stac_items_span_their_dates(image, tmp_path):
    items = []
    for number, taken in enumerate(
        (datetime(2020, 5, 1, tzinfo=UTC), datetime(2019, 5, 1, tzinfo=UTC))
    ):
        item = pystac.Item(f"item-{number}", None, None, taken, {})
        item.add_asset("visual", pystac.Asset(str(image(f"stac_{number}"))))
        items.append(item.to_dict(transform_hrefs=False))
    path = tmp_path / "items.json"
    write_json(path, {"type": "FeatureCollection", "features": items})
    date = find_date(f"{path}#visual")
    assert date is not None
    assert date.origin == "STAC"
    assert (date.start.year, date.end.year) == (2019, 2020)


def judge(before, after, origins=("flag", "flag")):
    dates = (ImageDate.parse(*part) for part in zip((before, after), origins, strict=True))
    (finding,) = check_dates(*dates)
    return finding


def test_dates_are_compared_as_far_as_they_are_known():
    assert judge("2009", "2019").level == "OK"
    swapped = judge("2019-06-01", "2009")
    assert swapped.level == "WARN"
    assert swapped.caution is not None
    assert "--before-date" in swapped.caution.fix
    # The year holds the day: which is earlier is not known.
    assert judge("2019-06-01", "2019").level == "OK"
    assert judge("2019", "2019").level == "OK"
    assert judge("2019-06-01T10:00:00Z", "2019-06-01T09:00:00Z").level == "WARN"
    assert judge("2019-06-01", "2019-06-01").level == "WARN"
    # A folder may hold both images, and be named by when they were fetched.
    assert judge("2019-06-01", "2019-06-01", ("folder name",) * 2).level == "OK"
    assert list(check_dates(None, ImageDate.parse("2019", "flag"))) == []
