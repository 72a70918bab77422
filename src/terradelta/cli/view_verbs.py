"""Verbs that show what was mapped."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from terradelta.cli.application import Overwrite, app


@app.command
def view(
    output: Path,
    /,
    *,
    port: int | None = None,
    browser: bool = True,
    before: str | None = None,
    after: str | None = None,
    basemap: str | None = None,
    export: Annotated[Path | None, Parameter(name="--export")] = None,
    overwrite: Overwrite = False,
):
    """Show a prediction of two rasters on a map in the browser, and check its patches there.

    Accepted, rejected and relabelled patches are saved in OUTPUT/changes.gpkg at once.

    Args:
        output: The prediction, a folder that `predict` made.
        port: Port on this machine; 8765 by default, or any free port if that is taken.
        browser: Open the page in the browser.
        before: New path of the earlier raster, if it was moved.
        after: New path of the later raster.
        basemap: Address of background tiles: https://.../{z}/{x}/{y}.png
        export: Write the checked map's patches to this GeoPackage instead of showing the map:
            rejected ones left out, relabelled ones changed.
        overwrite: Replace an existing file of --export.
    """
    if export is not None:
        from terradelta.viewer.checked import export_checked

        count = export_checked(output, export, overwrite=overwrite)
        print(f"{count:,} patches written to {export}")
        return
    from terradelta.viewer.server import view as run_view

    run_view(output, port=port, browser=browser, before=before, after=after, basemap=basemap)
