"""The server's answers: tiles, patches, sums and reviews of one prediction."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import anyio.to_thread
from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from terradelta.errors import TerradeltaError
from terradelta.inputs import ContentError, parse_json
from terradelta.prediction.folder import RUN_FILE
from terradelta.prediction.records import DatesRecord
from terradelta.reports.wording import name_image
from terradelta.viewer.patch_table import PatchFilter, PatchTable
from terradelta.viewer.protection import Protection
from terradelta.viewer.result import Result
from terradelta.viewer.tiles import TILE_SIZE_PX, ChangeTiles, ConfidenceTiles, ImageTiles

PAGE = Path(__file__).parent / "page"
MAX_ZOOM = 24
MAX_PATCHES_DRAWN = 2000
"""Most patches in a view, the largest ones: 1 MB of GeoJSON, which a browser draws at once."""
MAX_NOTE_LENGTH = 2000
STATIC = "private, max-age=86400, immutable"
"""Cache header of tiles, whose addresses name the prediction and its version."""

Status = Literal["unreviewed", "accepted", "rejected", "relabelled"]
Id = Annotated[int, Field(ge=0, le=65_535)]
Ids = Annotated[list[Id] | None, Query()]
Share = Annotated[float, Query(ge=0, le=1)]


class ReviewForm(BaseModel):
    """A review as sent by the page."""

    model_config = ConfigDict(extra="forbid", strict=True)

    status: Status
    from_id: int | None = None
    to_id: int | None = None
    note: str = Field(default="", max_length=MAX_NOTE_LENGTH)


async def read_review(request: Request) -> ReviewForm:
    """Return the review in a request's body.

    Raises:
        HTTPException: 400 if it is not JSON of the standard, 422 if it is not a review.
    """
    try:
        content = parse_json(await request.body(), strict=True)
    except ContentError as error:
        raise HTTPException(400, str(error)) from error
    try:
        form = ReviewForm.model_validate(content)
    except ValidationError as error:
        raise HTTPException(422, _say_first(error.errors())) from error
    if "\0" in form.note:
        raise HTTPException(422, "note: a NUL character cannot be stored")
    return form


def _say_first(errors: Sequence[Any]) -> str:
    """Return the first of pydantic's errors without the value, which may not be JSON."""
    place = ".".join(str(part)[:60] for part in errors[0]["loc"])
    return f"{place or 'the review'}: {errors[0]['msg']}"


def read_filter(
    from_ids: Ids = None,
    to_ids: Ids = None,
    min_area_m2: Annotated[float, Query(ge=0, allow_inf_nan=False)] = 0.0,
    min_confidence: Share = 0.0,
    max_confidence: Share = 1.0,
    statuses: Annotated[list[Status] | None, Query()] = None,
) -> PatchFilter:
    """Return the filter that a request names."""
    return PatchFilter(from_ids, to_ids, min_area_m2, min_confidence, max_confidence, statuses)


Wanted = Annotated[PatchFilter, Depends(read_filter)]


@asynccontextmanager
async def _limit_threads(_: FastAPI) -> AsyncIterator[None]:
    """Answer about as many requests at once as there are cores; more would only wait."""
    anyio.to_thread.current_default_thread_limiter().total_tokens = (os.cpu_count() or 1) + 1
    yield


def create_application(result: Result, token: str, basemap: str | None = None) -> FastAPI:
    """Return the application that shows a prediction.

    Args:
        result: The prediction.
        token: Token required by requests that write; no answer contains it.
        basemap: Address of background tiles with {z}, {x} and {y}.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=_limit_threads)
    origin = None
    if basemap is not None:
        parts = urlsplit(basemap)
        origin = f"{parts.scheme}://{parts.netloc}"
    app.add_middleware(Protection, token=token, image_origin=origin)
    app.add_exception_handler(TerradeltaError, _explain)
    app.add_exception_handler(RequestValidationError, _refuse)
    _add_page(app)
    patches = PatchTable(result)
    run = {
        "basemap": basemap,
        "version": _name_version(result),
        "patches": len(patches),
    }
    _add_tiles(app, result, run)
    _add_patches(app, patches, len(result.classes.names))
    return app


def _explain(_: Request, error: Exception) -> Response:
    assert isinstance(error, TerradeltaError)
    return JSONResponse({"detail": error.to_text()}, status_code=409)


def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return JSONResponse({"detail": _say_first(error.errors())}, status_code=422)


def _add_page(app: FastAPI):
    app.mount("/page", StaticFiles(directory=PAGE), name="page")

    @app.get("/")
    def show_page() -> Response:
        return FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})


def _add_tiles(app: FastAPI, result: Result, run: dict[str, Any]):
    images = {date: ImageTiles(result, date) for date in result.rasters}
    change, confidence = ChangeTiles(result), ConfidenceTiles(result)

    @app.get("/api/session")
    def describe() -> dict[str, Any]:
        return {**_describe(result, images, change), **run}

    @app.get("/api/preparation")
    def tell_preparation() -> dict[str, Any]:
        reductions = {date: image.reduction for date, image in images.items()}
        return {
            date: {"share": part.done_share, "is_done": part.is_done, "error": part.error}
            for date, part in reductions.items()
            if part is not None
        }

    @app.get("/tiles/{layer}/{zoom}/{column}/{row}")
    def draw_tile(
        layer: Literal["before", "after", "change", "confidence"],
        zoom: int,
        column: int,
        row: int,
        transitions: Ids = None,
    ) -> Response:
        if not (0 <= zoom <= MAX_ZOOM and 0 <= column < 2**zoom and 0 <= row < 2**zoom):
            raise HTTPException(404, "no such tile")
        tile = zoom, column, row
        media_type = "image/png"
        if layer == "change":
            content = change.draw(tile, transitions)
        elif layer == "confidence":
            content = confidence.draw(tile)
        else:
            drawn = images[layer].draw(tile)
            if drawn is None:
                return Response(status_code=204, headers={"Cache-Control": "no-store"})
            content, media_type = drawn
        return Response(content, media_type=media_type, headers={"Cache-Control": STATIC})


def _add_patches(app: FastAPI, patches: PatchTable, num_names: int):
    def require(fid: int):
        if fid not in patches:
            raise HTTPException(404, f"no patch {fid}")

    @app.get("/api/sums")
    def sum_patches(wanted: Wanted) -> dict[str, Any]:
        return patches.sum(wanted)

    @app.get("/api/patches")
    def draw_patches(
        wanted: Wanted,
        west: Annotated[float, Query(ge=-180, le=180)],
        south: Annotated[float, Query(ge=-90, le=90)],
        east: Annotated[float, Query(ge=-180, le=180)],
        north: Annotated[float, Query(ge=-90, le=90)],
    ) -> Response:
        content = patches.draw(wanted, (west, south, east, north), MAX_PATCHES_DRAWN)
        return Response(content, media_type="application/geo+json")

    @app.get("/api/next")
    def find_next(wanted: Wanted, step: Literal["1", "-1"], fid: int | None = None) -> Any:
        found = patches.find_next(wanted, fid, int(step))
        return None if found is None else patches.describe(found)

    @app.get("/api/patches/{fid}")
    def describe(fid: int) -> dict[str, Any]:
        require(fid)
        return patches.describe(fid)

    @app.put("/api/patches/{fid}/review")
    def review(fid: int, form: Annotated[ReviewForm, Depends(read_review)]) -> dict[str, Any]:
        require(fid)
        if form.status == "relabelled" and not all(
            label is not None and 0 < label < num_names for label in (form.from_id, form.to_id)
        ):
            raise HTTPException(422, "a relabelled patch needs a class before and one after")
        patches.review(fid, form.status, form.from_id, form.to_id, form.note.strip())
        return patches.describe(fid)


def _describe(result: Result, images: dict[str, ImageTiles], change: ChangeTiles) -> dict[str, Any]:
    """Return the data that the page needs before it draws."""
    classes = result.classes
    return {
        "title": result.folder.resolve().name,
        "classes": [
            {"name": name, "colour": colour}
            for name, colour in zip(classes.names, classes.colours, strict=True)
        ],
        "transition_colours": [
            classes.colour_transition(transition) for transition in range(classes.num_transitions)
        ],
        "tile_size_px": TILE_SIZE_PX,
        "layers": {
            "change": {"bounds": change.bounds, "max_zoom": change.max_zoom},
            **{
                date: {
                    "bounds": image.bounds,
                    "max_zoom": image.max_zoom,
                    "name": _name_image(result, date),
                }
                for date, image in images.items()
            },
        },
        "cautions": [caution.to_dict() for caution in result.summary.cautions],
        "valid_ha": result.summary.valid_ha,
        "changed_ha": result.summary.changed_ha,
        "changed_percent": result.summary.changed_percent,
    }


def _name_image(result: Result, date: str) -> str:
    """Return the file of a date, its present path, and when it was taken."""
    dates = (result.run.dates or DatesRecord()).build()
    return name_image(result.rasters[date], dates[("before", "after").index(date)])


def _name_version(result: Result) -> str:
    """Return a unique name of a prediction, which changes when it is made again."""
    made = (result.folder / RUN_FILE).stat().st_mtime_ns
    facts = [str(result.folder.resolve()), made, *result.rasters.values()]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:12]
