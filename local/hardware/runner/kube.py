"""The runner's calls to the API server, over `kubernetes.aio`: pods, nodes, ConfigMaps."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from kubernetes.aio import client, config
from kubernetes.aio.client.exceptions import ApiException

from crds.errors import KekkaiError

PODS = "/api/v1/pods"
BOUND = "spec.nodeName!="
WATCH_SECONDS = 300
MAX_EVENT = 8 << 20


class ServerRefused(KekkaiError):
    """The API server said no; `code` is the HTTP status."""

    reason = "ServerRefused"

    def __init__(self, code: int, what: str, where: str) -> None:
        super().__init__(what, where=where)
        self.code = code


class KubeApi:
    """One identity's connection."""

    def __init__(self, api: client.ApiClient) -> None:
        self._api = api

    @classmethod
    async def connect(cls, kubeconfig: Path) -> KubeApi:
        settings = client.Configuration()
        await config.load_kube_config(config_file=str(kubeconfig), client_configuration=settings)
        return cls(client.ApiClient(settings))

    async def close(self) -> None:
        await self._api.close()

    async def bound_pods(self) -> tuple[list[dict[str, Any]], str]:
        """All pods that are bound to a node, and the resource version to watch from."""
        reply = await self._json("GET", f"{PODS}?{urlencode({'fieldSelector': BOUND})}")
        return reply["items"], reply["metadata"]["resourceVersion"]

    async def watch_bound_pods(self, version: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Events (type, pod) until the server ends the watch. Raises ServerRefused (410: list again)."""
        query = {
            "fieldSelector": BOUND,
            "watch": "true",
            "resourceVersion": version,
            "timeoutSeconds": WATCH_SECONDS,
        }
        # The client's own reply reads to the end, which a watch has not: go to aiohttp's below it.
        response = (await self._send("GET", f"{PODS}?{urlencode(query)}", patience=WATCH_SECONDS + 30)).response
        buffer = b""
        try:
            async for part in response.content.iter_any():
                *lines, buffer = (buffer + part).split(b"\n")
                if len(buffer) > MAX_EVENT:
                    raise ServerRefused(0, "a watch event is too long", PODS)
                for line in lines:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise ServerRefused(event["object"].get("code", 0), str(event["object"].get("message")), PODS)
                    if event["type"] in {"ADDED", "MODIFIED", "DELETED"}:
                        yield event["type"], event["object"]
        finally:
            response.close()

    async def node(self, name: str) -> dict[str, Any] | None:
        return await self._optional(f"/api/v1/nodes/{name}")

    async def config_map(self, namespace: str, name: str) -> dict[str, Any] | None:
        return await self._optional(f"/api/v1/namespaces/{namespace}/configmaps/{name}")

    async def pod(self, namespace: str, name: str) -> dict[str, Any] | None:
        return await self._optional(f"{_pod_path(namespace, name)}")

    async def patch_status(self, pod: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
        """Patch the status of exactly this pod (by UID). False if it is gone or replaced."""
        meta = pod["metadata"]
        body = {"metadata": {"uid": meta["uid"]}, "status": status}
        path = f"{_pod_path(meta['namespace'], meta['name'])}/status"
        try:
            await self._json("PATCH", path, body, "application/strategic-merge-patch+json")
        except ServerRefused as refusal:
            if refusal.code in {404, 409}:
                return False
            raise
        return True

    async def finalize(self, pod: Mapping[str, Any]) -> None:
        """Confirm a deletion: remove exactly this pod with no grace. Not an error if it is gone."""
        meta = pod["metadata"]
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": meta["uid"]}}
        try:
            await self._json("DELETE", _pod_path(meta["namespace"], meta["name"]), body)
        except ServerRefused as refusal:
            if refusal.code not in {404, 409}:
                raise

    async def _optional(self, path: str) -> dict[str, Any] | None:
        try:
            return await self._json("GET", path)
        except ServerRefused as refusal:
            if refusal.code == 404:
                return None
            raise

    async def _json(
        self, method: str, path: str, body: Any = None, content_type: str = "application/json"
    ) -> dict[str, Any]:
        response = await self._send(method, path, body, content_type)
        try:
            document: dict[str, Any] = json.loads(await response.read())
        except (TimeoutError, OSError, ValueError) as error:
            raise ServerRefused(0, f"no whole answer: {error!r}", path) from error
        return document

    async def _send(
        self,
        method: str,
        path: str,
        body: Any = None,
        content_type: str = "application/json",
        patience: float = 30.0,
    ) -> Any:
        headers = {"Content-Type": content_type, "Accept": "application/json", "User-Agent": "kekkai-runner"}
        await self._api.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        url = self._api.configuration.host + path
        try:
            response = await self._api.call_api(method, url, headers, body, _request_timeout=patience)
        except ApiException as error:
            raise ServerRefused(error.status or 0, str(error.body or error.reason)[:1024], path) from None
        except (TimeoutError, OSError) as error:
            raise ServerRefused(0, f"the API server did not answer: {error!r}", path) from error
        if not 200 <= response.status < 300:
            text = (await response.read()).decode(errors="replace")
            raise ServerRefused(response.status, text[:1024], path)
        return response


def _pod_path(namespace: str, name: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods/{name}"
