"""The `view` verb: a server on this machine that shows one prediction in the browser."""

from __future__ import annotations

import importlib.util
import logging
import secrets
import socket
import tempfile
import threading
import warnings
import webbrowser
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from terradelta.errors import ArgumentError
from terradelta.fields import Within, checks_ranges

PORT = 8765
"""Used if it is free, so that an open page finds the server when it is started again."""
ADDRESS = "127.0.0.1"

logger = logging.getLogger(__name__)


@checks_ranges
def view(
    folder: str | Path,
    *,
    port: Annotated[int, Within(least=0, most=65_535)] | None = None,
    browser: bool = True,
    before: str | Path | None = None,
    after: str | Path | None = None,
    basemap: str | None = None,
):
    """Show a prediction of two rasters in the browser until interrupted.

    The server answers only this machine. It reads the prediction's files and the two rasters, and
    writes only reviews, into the prediction's `changes.gpkg`, from pages that were opened
    with the token in the printed address.

    Args:
        folder: The prediction.
        port: Port; 8765 by default, or any free port if that is taken.
        browser: Whether to open the page in the browser.
        before: New path of the earlier raster, if it was moved.
        after: New path of the later raster.
        basemap: Address of background tiles with {z}, {x} and {y}.

    Raises:
        ArgumentError: If the extra `view` is not installed, the port is taken or the basemap is not
            an address of tiles.
        TerradeltaError: If the prediction or its rasters cannot be opened.
    """
    for package in ("fastapi", "uvicorn", "morecantile"):
        if importlib.util.find_spec(package) is None:
            raise ArgumentError(
                f"the map viewer needs {package}, which is not installed",
                fix='pip install "terradelta[view]"',
            )
    import uvicorn

    from terradelta.viewer.endpoints import create_application
    from terradelta.viewer.result import Result

    # rasterio suppresses it when it warps arrays, but not safely in several threads.
    warnings.filterwarnings("ignore", "Dataset has no geotransform", module=r"rasterio\.warp")
    _require_tiles(basemap)
    result = Result.load(folder, before=before, after=after)
    with ExitStack() as exits:
        listener = exits.enter_context(_listen(port))
        token = secrets.token_urlsafe(32)
        app = create_application(result, token, basemap)
        # After the #, as browsers do not send that part.
        address = f"http://{ADDRESS}:{listener.getsockname()[1]}/#token={token}"
        print(f"{folder} is shown at {address}\nCtrl-C ends it", flush=True)
        if browser:
            door = exits.enter_context(_hide_address(address))
            # The listener queues the request until the server is ready.
            threading.Thread(target=webbrowser.open, args=(door,), daemon=True).start()
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", access_log=False, server_header=False)
        )
        try:
            server.run(sockets=[listener])
        except KeyboardInterrupt:
            logger.info("ended; reviews are in %s", result.polygons)


@contextmanager
def _hide_address(address: str) -> Iterator[str]:
    """Yield the address of a file that leads to another address.

    All users of a machine may read the command lines of all programs, including the browser's; only
    the user can read the file.
    """
    with tempfile.TemporaryDirectory(prefix="terradelta-view-") as folder:
        path = Path(folder) / "open.html"
        path.touch(0o600)
        path.write_text(
            f'<!doctype html><meta charset="utf-8"><title>terradelta</title>'
            f'<meta http-equiv="refresh" content="0; url={address}">'
            f'<a href="{address}">terradelta view</a>\n',
            encoding="utf-8",
        )
        yield path.as_uri()


def _listen(port: int | None) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((ADDRESS, PORT if port is None else port))
    except (OSError, OverflowError) as error:
        if port is not None:
            listener.close()
            raise ArgumentError(
                f"port {port} of {ADDRESS} cannot be used: {error}",
                fix="give another one, or leave --port out to take any that is free",
            ) from error
        listener.bind((ADDRESS, 0))
    listener.listen()
    return listener


def _require_tiles(basemap: str | None):
    if basemap is None:
        return
    parts = urlsplit(basemap)
    is_address = parts.scheme in ("http", "https") and parts.hostname
    if not is_address or not all(key in basemap for key in ("{z}", "{x}", "{y}")):
        raise ArgumentError(
            f"the basemap {basemap!r} is not an address of tiles",
            fix="give one like https://tiles.example.org/{z}/{x}/{y}.png",
        )
