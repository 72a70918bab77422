"""Dates of images, from the user, their tags, their STAC items or their names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from terradelta.errors import ArgumentError
from terradelta.geo.finding import Finding
from terradelta.geo.listing import RasterPaths, list_dates, list_rasters, split_files
from terradelta.geo.source import open_raster
from terradelta.redaction import redact

MOMENT = timedelta(microseconds=1)
"""Separator of two dates."""
MAX_TAGS_READ = 100
"""Rasters of a mosaic whose headers are read; for larger ones only names are."""
FIRST_YEAR = 1840
"""Before it there were no photographs."""
ACQUIRED = "ACQUISITION"
"""Prefixes of tags with the date of an image, as in GDAL's IMAGERY domain."""
WRITTEN = "TIFFTAG_DATETIME"

_ISO = re.compile(r"(\d{4})(?:-(\d\d))?(?:-(\d\d)(?:[T ](\d\d:\d\d.*))?)?")
_TAG = re.compile(r"(\d{4})[:-](\d\d)[:-](\d\d)(?:[T ](\d\d:\d\d:\d\d(?:\.\d+)?)Z?)?")
_LANDSAT = re.compile(r"(?<![A-Za-z0-9])L[COTEM]\d{7}(\d{4})(\d{3})[A-Z]{3}\d\d")
"""Scene identifiers of the first collections: path, row, year and day of the year."""
_DAY = re.compile(
    r"(?<!\d)(\d{4})([-_.]?)(\d\d)\2(\d\d)"
    r"(?:[T_-]?(\d\d)[:-]?(\d\d)[:-]?(\d\d)(?:\.\d+)?Z?(?![0-9]))?"
    r"(?![0-9]|[A-SU-Za-z])"
)
_MONTH = re.compile(r"(?<![0-9A-Za-z])(\d{4})-(\d\d)(?![-0-9A-Za-z])|monthly_(\d{4})_(\d\d)_")
_YEAR = re.compile(r"(?<![0-9A-Za-z])((?:19|20)\d\d)(?![0-9A-Za-z])")
_COORDINATES = re.compile(r"(?<!\d)\d{4}[-_.]\d{4}(?!\d)")
"""Two numbers such as the corner of a tile, neither of which is a year."""


@dataclass(frozen=True)
class ImageDate:
    """The time when an image was taken: an instant, a day, a month, a year or longer."""

    start: datetime
    """Its first moment, in UTC unless stated otherwise."""
    end: datetime
    """Its last moment."""
    text: str
    """ISO 8601, as precise as known: 2019, 2019-06-01, 2019-06-01T10:20:30Z."""
    origin: str
    """Its source: "flag", "tag", "STAC", "file name" or "folder name"."""

    @classmethod
    def parse(cls, text: str, origin: str) -> Self:
        """Read a date, date and time, month or year in ISO 8601, or two of them with a / between.

        Raises:
            ValueError: If it is not a date.
        """
        first, _, last = text.strip().partition("/")
        start, _ = _read_iso(first)
        _, end = _read_iso(last or first)
        if start > end:
            raise ValueError(f"{first} is later than {last}")
        return cls(start, end, text.strip(), origin)

    @classmethod
    def spanning(cls, dates: Sequence[ImageDate]) -> ImageDate:
        """Return the period from the first of some dates to the last."""
        first = min(dates, key=lambda date: date.start)
        last = max(dates, key=lambda date: date.end)
        if (first.start, first.end) == (last.start, last.end):
            return first
        ends = first.text.split("/")[0], last.text.split("/")[-1]
        return cls(first.start, last.end, "/".join(ends), first.origin)

    def to_dict(self) -> dict[str, str]:
        """Return a JSON-ready form."""
        return {
            "text": self.text,
            "start": self.start.isoformat(),
            "end": self.end.isoformat(),
            "origin": self.origin,
        }

    def is_same_day(self, other: ImageDate) -> bool:
        """Return whether two images have the same day or moment; folders hold several."""
        is_same = (self.start, self.end) == (other.start, other.end)
        is_short = self.end - self.start < timedelta(days=1)
        return is_same and is_short and "folder name" not in (self.origin, other.origin)

    def __str__(self) -> str:
        return f"{self.text} ({self.origin})"


Dates = tuple[ImageDate | None, ImageDate | None]
"""Dates of the before and of the after image."""


def find_dates(
    before: RasterPaths, after: RasterPaths, given: tuple[str | None, str | None] = (None, None)
) -> Dates:
    """Return the dates of the two images, None if unknown.

    Args:
        before: The earlier raster or mosaic; see `list_rasters`.
        after: The later one.
        given: Dates given by the user.

    Raises:
        ArgumentError: If a date given by the user is not valid.
        RasterError: If a raster cannot be opened.
    """
    given_dates = [
        read_flag(flag, text)
        for flag, text in zip(("--before-date", "--after-date"), given, strict=True)
    ]
    first, second = (
        date or find_date(source) for date, source in zip(given_dates, (before, after), strict=True)
    )
    return first, second


def find_folder_dates(folders: tuple[str | Path, str | Path], given: Dates) -> Dates:
    """Return the dates of two folders of images, from the user or from their names.

    Args:
        folders: Folders of the before and of the after images.
        given: Dates given by the user.
    """
    first, second = (
        date or _read_text(Path(folder).name, "folder name")
        for folder, date in zip(folders, given, strict=True)
    )
    return first, second


def read_flag(flag: str, text: str | None) -> ImageDate | None:
    """Return the date that a user gives, None if none was given.

    Raises:
        ArgumentError: If it is not a date.
    """
    if text is None:
        return None
    try:
        return ImageDate.parse(str(text), "flag")
    except ValueError as error:
        raise ArgumentError(
            f"{flag} {text} is not a date: {error}",
            fix=f"write it in ISO 8601: {flag} 2019-06-01, 2019-06, 2019 or 2019-06-01T10:20:30Z",
        ) from error


def find_date(source: RasterPaths) -> ImageDate | None:
    """Return the date of an image from its tags, its STAC items or its name.

    Raises:
        RasterError: If it cannot be opened.
    """
    period = list_dates(source)
    if period is not None:
        known = [ImageDate.parse(_shorten(text), "STAC") for text in period]
        return ImageDate.spanning(known)
    paths = list_rasters(source)
    if paths is None:
        assert isinstance(source, str | Path)
        return _find_date_of(split_files(source), asks_tags=True)
    files = [file for path in paths for file in split_files(path)]
    found = _find_date_of(files, asks_tags=len(files) <= MAX_TAGS_READ)
    if found is None and isinstance(source, str | Path):
        return read_name(str(source))
    return found


def _find_date_of(files: Sequence[str], *, asks_tags: bool) -> ImageDate | None:
    """Return the period of some files, None unless each of them has a date."""
    dates = [(_read_tags(file) if asks_tags else None) or read_name(file) for file in files]
    known = [date for date in dates if date is not None]
    return ImageDate.spanning(known) if known and len(known) == len(files) else None


def _read_tags(path: str) -> ImageDate | None:
    with closing(open_raster(path)) as dataset:
        tags = {**dataset.tags(), **dataset.tags(ns="IMAGERY")}
    names = [name for name in sorted(tags) if name.upper().startswith(ACQUIRED)]
    for name in (*names, WRITTEN):
        match = _TAG.match(tags.get(name, "").strip())
        if match is None:
            continue
        year, month, day, time = match.groups()
        found = _try(f"{year}-{month}-{day}" + (f"T{time}Z" if time else ""), "tag")
        if found is not None:
            return found
    return None


def read_name(path: str) -> ImageDate | None:
    """Return the date in the name of a file, or of its folder if that name is only a date.

    The first of several counts: it is the acquisition in the names of Sentinel-2, Landsat, NAIP and
    Planet, before the date of processing. A bare year counts if it is the only one.
    """
    location = Path(re.split("[?#]", redact(path))[0].rstrip("/"))
    folder = location.parent.name
    is_date = re.fullmatch(r"\d{4}([-_.]?\d\d([-_.]?\d\d)?)?", folder) is not None
    found = _read_text(location.name, "file name")
    return found or (_read_text(folder, "folder name") if is_date else None)


def _read_text(name: str, origin: str) -> ImageDate | None:
    for text in (*_list_days(name), *_list_months(name), *_list_years(name)):
        found = _try(text, origin)
        if found is not None and found.start < datetime.now(UTC):
            return found
    return None


def _list_days(name: str) -> Iterator[str]:
    for year, day in _LANDSAT.findall(name):
        if int(year) >= FIRST_YEAR and 1 <= int(day) <= 366:
            yield f"{datetime(int(year), 1, 1) + timedelta(days=int(day) - 1):%Y-%m-%d}"
    for year, _, month, day, *time in _DAY.findall(name):
        if all(time) and int(time[0]) < 24 and int(time[1]) < 60 and int(time[2]) < 60:
            yield f"{year}-{month}-{day}T{':'.join(time)}Z"
        yield f"{year}-{month}-{day}"


def _list_months(name: str) -> Iterator[str]:
    for match in _MONTH.findall(name):
        year, month = filter(None, match)
        yield f"{year}-{month}"


def _list_years(name: str) -> Iterator[str]:
    years = set(_YEAR.findall(_COORDINATES.sub("", name)))
    if len(years) == 1:
        yield years.pop()


def _try(text: str, origin: str) -> ImageDate | None:
    try:
        return ImageDate.parse(text, origin)
    except ValueError:
        return None


def _read_iso(text: str) -> tuple[datetime, datetime]:
    """Return the first and the last moment of a year, month, day or instant."""
    match = _ISO.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not in ISO 8601")
    year, month, day, time = match.groups()
    if not FIRST_YEAR <= int(year) <= 2100:
        raise ValueError(f"the year {year} is not between {FIRST_YEAR} and 2100")
    if time is not None:
        moment = datetime.fromisoformat(text.strip())
        moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        return moment, moment
    start = datetime(int(year), int(month or 1), int(day or 1), tzinfo=UTC)
    if day:
        following = start + timedelta(days=1)
    elif month:
        following = (start + timedelta(days=31)).replace(day=1)
    else:
        following = start.replace(year=start.year + 1)
    return start, following - MOMENT


def _shorten(moment: str) -> str:
    """Return a moment with Z for UTC."""
    return moment.replace("+00:00", "Z")


def check_dates(before: ImageDate | None, after: ImageDate | None) -> Iterator[Finding]:
    """Compare the dates of two images."""
    if before is None or after is None:
        return
    values = {"before": before.to_dict(), "after": after.to_dict()}
    message = f"before is dated {before}, after {after}"
    fix = "give the earlier image first, or give the dates: --before-date, --after-date"
    if before.start > after.end:
        yield Finding("dates", "WARN", f"{message}: the order is wrong", fix, values)
    elif before.is_same_day(after):
        fix = "check that these are two dates, and give them: --before-date, --after-date"
        yield Finding("dates", "WARN", f"{message}: both are the same", fix, values)
    else:
        yield Finding("dates", "OK", message, values=values)
