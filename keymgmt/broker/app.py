"""The ASGI application: routes, error replies, bounds."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp

from crds.errors import KekkaiError
from keymgmt.broker import admin, kbs, public, transit
from keymgmt.broker.guest_routes import GuestRoutes
from keymgmt.broker.kbs_errors import INVALID_REQUEST_PATH, PLUGIN_INTERNAL_ERROR, kbs_error
from keymgmt.broker.key_admin import KeyAdmin
from keymgmt.broker.middleware import Bounds, problem_response
from keymgmt.broker.service import KeyService

logger = logging.getLogger(__name__)
ROTATION_SECONDS = 30.0
ROTATIONS_AT_ONCE = 8


def create_app(service: KeyService) -> ASGIApp:
    """The application over a started service."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(service.housekeeping()), asyncio.create_task(_rotation(service))]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()

    app = FastAPI(title="Kekkai key service", version="v1", lifespan=lifespan, docs_url=None, redoc_url=None)
    for routes in (kbs.router(service), transit.router(service), admin.router(service), public.router(service)):
        app.include_router(routes)
    app.add_exception_handler(KekkaiError, _problem)
    app.add_exception_handler(HTTPException, _http)
    return Bounds(GuestRoutes(app, service, _problem), service.config.limits, service.metrics)


async def _rotation(service: KeyService) -> None:
    """Every so often, rotate keys that are due. Of two replicas that try, one finds the key changed."""
    keys = KeyAdmin(service)
    while True:
        try:
            if await keys.rotate_due(ROTATIONS_AT_ONCE):
                continue
        except KekkaiError as error:
            logger.warning("rotation failed: %s", error.problem.reason)
        await asyncio.sleep(ROTATION_SECONDS)


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, KekkaiError)
    if request.url.path.startswith("/kbs/"):
        # A guest learns only that the service cannot answer now.
        return kbs_error(PLUGIN_INTERNAL_ERROR, error.problem.reason, type(error).http_status)
    return problem_response(error)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if request.url.path.startswith("/kbs/"):
        return kbs_error(INVALID_REQUEST_PATH, "Request path is invalid", 404)
    return problem_response(
        KekkaiError(str(error.detail), where=request.url.path[:128], reason="HttpError"), error.status_code
    )
