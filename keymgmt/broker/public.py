"""What anyone may read: the transparency log, the token key, health and metrics."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import JSONResponse, Response

from crds.errors import NotFound
from keymgmt.broker import paths
from keymgmt.broker.service import KeyService
from keymgmt.transparency.log import CHECKPOINT
from keymgmt.transparency.tiles import is_tile_path


def router(service: KeyService) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["public"])
    files = service.log_files

    @routes.get(paths.LOG_CHECKPOINT, summary="The signed checkpoint (c2sp.org/tlog-checkpoint)")
    async def checkpoint() -> Response:
        content = await asyncio.to_thread(service.checkpoint)
        if not content:
            raise NotFound("there is no checkpoint yet", where=CHECKPOINT)
        return Response(content, media_type="text/plain; charset=utf-8")

    @routes.get(paths.LOG_TILE, summary="A tile or entry bundle (c2sp.org/tlog-tiles)")
    async def tile(path: str) -> Response:
        content = await asyncio.to_thread(files.read, f"tile/{path}") if is_tile_path(path) else None
        if content is None:
            raise NotFound("no such tile", where=path[:128])
        return Response(content, media_type="application/octet-stream")

    @routes.get(paths.LOG_KEY, summary="The log's verifier key; pin it out of band")
    async def vkey() -> Response:
        return Response(f"{service.log_key}\n", media_type="text/plain")

    @routes.get(paths.JWKS, summary="The key that signs attestation tokens")
    async def jwks() -> Response:
        return JSONResponse({"keys": [service.token_key.jwk]})

    @routes.get(paths.HEALTH, summary="The process runs")
    async def health() -> Response:
        return Response("ok\n", media_type="text/plain")

    @routes.get(paths.READY, summary="Keys can be released")
    async def ready() -> Response:
        faults = service.readiness()
        fallbacks = service.worker.hello.get("capabilities", {}).get("fallbacks", [])
        body = {"ready": not faults, "faults": faults, "hsmFallbacks": fallbacks}
        return JSONResponse(body, status_code=503 if faults else 200)

    @routes.get(paths.METRICS, summary="Prometheus metrics")
    async def metrics() -> Response:
        values = service.metrics
        values.log_size.set(service.publication.size)
        values.batches.set(service.journal.batches)
        values.worker_up.set(1 if service.worker.ready else 0)
        values.worker_restarts.set(service.worker.restarts)
        return Response(generate_latest(values.registry), media_type=CONTENT_TYPE_LATEST)

    return routes
