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

    What is accepted, rejected or relabelled is saved in OUTPUT/changes.gpkg as it goes.

    Args:
        output: The prediction, a folder that `predict` made.
        port: Where to listen on this machine; 8765 by default, or any free port if that is taken.
        browser: Open the page in the browser.
        before: Where the earlier raster is now, if not where it was.
        after: Where the later raster is now.
        basemap: Address of outside tiles to lay below: https://.../{z}/{x}/{y}.png
        export: Write the checked map's patches to this GeoPackage instead of showing anything:
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
