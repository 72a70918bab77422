"""Debian's Chromium, in which pages are tested."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WITHOUT_GPU = ("--disable-gpu",)
WEBGL_IN_SOFTWARE = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")


def require_browser() -> Any:
    """Return playwright, or skip a module that cannot do without it and the browser."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(
            "Debian's chromium is not installed (make test does it)", allow_module_level=True
        )
    return playwright


@contextmanager
def launch(playwright: Any, flags: tuple[str, ...]) -> Iterator[Any]:
    """Start a browser and close it in the end."""
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=str(CHROMIUM), args=[*FLAGS, *flags])
        yield chromium
        chromium.close()
