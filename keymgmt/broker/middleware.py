"""Bounds on every request: bytes of body, time, and number at once; and its duration as a metric.

Written against ASGI itself: the body is counted as it arrives, so that a wrong or missing
Content-Length changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crds.errors import InvalidInput, KekkaiError, Unavailable
from keymgmt.broker.metrics import Metrics
from keymgmt.config import Limits

logger = logging.getLogger(__name__)


class BodyTooLarge(InvalidInput):
    """More bytes than the service takes."""

    reason = "BodyTooLarge"
    http_status = 413


class RequestTimeout(KekkaiError):
    """The request took too long."""

    reason = "RequestTimeout"
    http_status = 408


class TooManyRequests(Unavailable):
    """As many requests as the limit allows are under way."""

    reason = "TooManyRequests"
    http_status = 503


class Bounds:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp, limits: Limits, metrics: Metrics) -> None:
        self._app, self._limits, self._metrics = app, limits, metrics
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        reply = _Reply(send)
        self._under_way += 1
        try:
            if self._under_way > self._limits.concurrent_requests:
                raise TooManyRequests("too many requests at once", fix="retry later")
            async with asyncio.timeout(self._limits.request_seconds):
                await self._app(scope, _Counted(receive, self._limits.body_bytes), reply)
        except TimeoutError:
            await reply.fail(RequestTimeout("the request took too long", fix="retry later"), scope, receive)
        except KekkaiError as error:
            await reply.fail(error, scope, receive)
        except Exception as error:
            logger.exception("unexpected error: %s", type(error).__name__)
            await reply.fail(KekkaiError("an internal error occurred"), scope, receive)
        finally:
            self._under_way -= 1
            route = getattr(scope.get("route"), "path", "none")
            labels = self._metrics.seconds.labels(route, f"{reply.status // 100}xx")
            labels.observe(time.perf_counter() - started)


class _Reply:
    """Passes the reply on and remembers whether it began."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message.setdefault("headers", [])
            message["headers"] = [
                *message["headers"],
                (b"cache-control", b"no-store"),
                (b"x-content-type-options", b"nosniff"),
            ]
        await self._send(message)

    async def fail(self, error: KekkaiError, scope: Scope, receive: Receive) -> None:
        if self.status == 0:
            await problem_response(error)(scope, receive, self)


class _Counted:
    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive, self._left = receive, limit

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            if self._left < 0:
                raise BodyTooLarge("the request body is too large")
        return message


def problem_response(error: KekkaiError, status: int | None = None) -> JSONResponse:
    """Our errors as JSON: reason, what, where, fix."""
    code = status or getattr(error, "status", None) or type(error).http_status
    headers: dict[str, Any] = {"Retry-After": "1"} if code == 503 else {}
    return JSONResponse(error.problem.as_dict(), status_code=code, headers=headers)
