"""The three requests that a release consists of, served without the general router.

What is not exactly one of them goes on to the application, which has the same routes and the
error replies.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from types import SimpleNamespace

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from crds.errors import KekkaiError
from keymgmt.broker import paths
from keymgmt.broker.kbs import Guest
from keymgmt.broker.service import KeyService

_RESOURCE = re.compile(r"/kbs/v0/resource/([^/]+)/([^/]+)/([^/]+)")
_ROUTES = {path: SimpleNamespace(path=path) for path in (paths.KBS_AUTH, paths.KBS_ATTEST, paths.KBS_RESOURCE)}
_Handler = Callable[[Request], Awaitable[Response]]


class GuestRoutes:
    """ASGI: a guest's requests to their handlers, all others to `inner`. `failed` makes an error's reply."""

    def __init__(
        self, inner: ASGIApp, service: KeyService, failed: Callable[[Request, Exception], Awaitable[Response]]
    ) -> None:
        guest = Guest(service)
        self._inner, self._failed, self._resource = inner, failed, guest.resource
        self._posts: dict[str, _Handler] = {paths.KBS_AUTH: guest.auth, paths.KBS_ATTEST: guest.attest}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        handler, route = None, ""
        if scope["type"] == "http" and scope["path"].startswith("/kbs/"):
            if scope["method"] == "POST":
                route = scope["path"]
                handler = self._posts.get(route)
            elif scope["method"] == "GET" and (found := _RESOURCE.fullmatch(scope["path"])):
                scope["path_params"] = dict(zip(("repository", "kind", "tag"), found.groups(), strict=True))
                handler, route = self._resource, paths.KBS_RESOURCE
        if handler is None:
            await self._inner(scope, receive, send)
            return
        scope["route"] = _ROUTES[route]  # for the metrics
        request = Request(scope, receive)
        try:
            response = await handler(request)
        except KekkaiError as error:
            response = await self._failed(request, error)
        await response(scope, receive, send)
