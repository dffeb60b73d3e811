"""A small client of the API server over `kubernetes.aio`: apply, status, create, delete, evict.

Objects go in and come out as plain mappings; the typed view is `crds`. Writes are
server-side apply with a named field manager, so that an operator owns just the fields
it states and a second apply of the same intent changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio import client, config
from yarl import URL

from crds.errors import KekkaiError
from operators.runtime.resources import ResourceType, type_of

Object = dict[str, Any]
Objects = list[Object]  # `list` is a method name below
_PAGE = 500


class ApiFault(KekkaiError):
    """The API server refused or failed. `code` is the HTTP status, `reason` its StatusReason."""

    def __init__(self, code: int, reason: str, message: str, where: str = "") -> None:
        super().__init__(message, where=where, reason=reason or f"Http{code}")
        self.code = code

    @property
    def gone(self) -> bool:
        return self.code == 404

    @property
    def conflict(self) -> bool:
        return self.code == 409

    @property
    def final(self) -> bool:
        """Whether the same request would be refused again: bad input or a policy's no."""
        return self.code in {400, 403, 405, 413, 422}


class Cluster:
    """One connection pool to one API server, as one identity.

    `kubernetes.aio` reads the configuration, makes the TLS context and keeps the token fresh; the requests go
    straight to aiohttp, since the generated client's way costs as much CPU again as the request itself.
    """

    def __init__(self, api: client.ApiClient, connections: int = 64) -> None:
        self._api = api
        self._host = str(api.configuration.host)
        connector = aiohttp.TCPConnector(limit=connections, ssl=api.rest_client.ssl_context, keepalive_timeout=60)
        self._session = aiohttp.ClientSession(connector=connector, read_bufsize=2**20)
        # As the kubeconfig says: by a proxy, to a server that has another name in its certificate.
        self._way = {"proxy": api.configuration.proxy, "server_hostname": api.configuration.tls_server_name or None}
        self.writes = 0  # requests that change something, for the benchmark's writes per Job

    @classmethod
    async def connect(cls, kubeconfig: Path | str | None = None, connections: int = 64) -> Cluster:
        """From a kubeconfig file, or from the pod's service account when there is none."""
        settings = client.Configuration()
        if kubeconfig:
            await config.load_kube_config(config_file=str(kubeconfig), client_configuration=settings)
        else:
            config.load_incluster_config(client_configuration=settings)
        return cls(client.ApiClient(settings), connections)

    async def close(self) -> None:
        await self._session.close()
        await self._api.close()

    async def __aenter__(self) -> Cluster:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        patience: float = 30.0,
    ) -> Any:
        """One call. Raises ApiFault on any refusal, with the server's own message."""
        if method != "GET":
            self.writes += 1
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        try:
            async with self._session.request(
                method,
                self._url(path, query),
                data=data,
                headers=await self._headers(content_type),
                timeout=aiohttp.ClientTimeout(total=patience),
                **self._way,
            ) as reply:
                answer = await reply.read()
        except (TimeoutError, OSError, aiohttp.ClientError) as error:
            raise ApiFault(0, "Unreachable", f"the API server did not answer: {error!r}", path) from error
        if not 200 <= reply.status < 300:
            raise _fault(reply.status, answer, path)
        if "json" not in reply.content_type:
            return answer.decode()
        return json.loads(answer) if answer else None

    async def text(self, path: str) -> str:
        """What the API server says in words: /metrics, /readyz."""
        found = await self.request("GET", path)
        return found if isinstance(found, str) else json.dumps(found)

    async def stream(self, path: str, query: Mapping[str, Any], silence: float) -> AsyncIterator[list[bytes]]:
        """The lines of a reply that does not end, as they come, several at once when they come so.

        Ends when the server ends it. Raises ApiFault on a refusal, and when nothing comes for `silence` seconds.
        """
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=silence)
        headers, url = await self._headers("application/json"), self._url(path, query)
        try:
            async with self._session.request("GET", url, headers=headers, timeout=timeout, **self._way) as reply:
                if reply.status != 200:
                    raise _fault(reply.status, await reply.read(), path)
                begun = b""
                async for chunk in reply.content.iter_any():
                    *lines, begun = (begun + chunk).split(b"\n")
                    if lines:
                        yield lines
        except (TimeoutError, OSError, aiohttp.ClientError) as error:
            raise ApiFault(0, "Unreachable", f"the API server did not answer: {error!r}", path) from error

    def _url(self, path: str, query: Mapping[str, Any] | None) -> URL:
        return URL(self._host + path + (f"?{urlencode(query)}" if query else ""), encoded=True)

    async def _headers(self, content_type: str) -> dict[str, str]:
        headers = {
            "Content-Type": content_type,
            "Accept": "application/json",
            "Accept-Encoding": "identity",  # to compress a list costs the API server more than it saves
            "User-Agent": "kekkai-operator",
        }
        await self._api.update_params_for_auth(headers, [], ["BearerToken"], "", "", None)
        return headers

    async def get(self, resource: ResourceType, name: str, namespace: str | None = None) -> Object | None:
        """The object, or None when it does not exist."""
        try:
            found: Object = await self.request("GET", resource.path(namespace, name))
        except ApiFault as fault:
            if fault.gone:
                return None
            raise
        return found

    async def list(
        self,
        resource: ResourceType,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
    ) -> Objects:
        """All objects, read in pages. Items carry apiVersion and kind like single reads."""
        return (await self.list_at(resource, namespace, label_selector, field_selector))[0]

    async def list_at(
        self,
        resource: ResourceType,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
    ) -> tuple[Objects, str]:
        """The same with the resourceVersion that the list is of, from which a watch goes on without a gap."""
        query: dict[str, Any] = {"limit": _PAGE}
        if label_selector:
            query["labelSelector"] = label_selector
        if field_selector:
            query["fieldSelector"] = field_selector
        items: Objects = []
        while True:
            page = await self.request("GET", resource.path(namespace), query, patience=60)
            for item in page["items"]:
                items.append({"apiVersion": resource.api_version, "kind": resource.kind, **item})
            token = page["metadata"].get("continue")
            if not token:
                return items, str(page["metadata"].get("resourceVersion") or "")
            query["continue"] = token

    async def apply(self, obj: Object, manager: str, subresource: str = "", force: bool = True) -> Object:
        """Server-side apply of the stated fields. Returns the whole object."""
        meta = obj["metadata"]
        path = type_of(obj).path(meta.get("namespace"), meta["name"], subresource)
        query = {"fieldManager": manager, "force": "true" if force else "false"}
        applied: Object = await self.request("PATCH", path, query, obj, "application/apply-patch+yaml")
        return applied

    async def create(self, obj: Object, manager: str) -> Object:
        """Create with the given (deterministic) name. Raises ApiFault 409 when it exists."""
        path = type_of(obj).path(obj["metadata"].get("namespace"))
        made: Object = await self.request("POST", path, {"fieldManager": manager}, obj)
        return made

    async def merge_patch(
        self,
        resource: ResourceType,
        name: str,
        patch: Mapping[str, Any],
        manager: str,
        namespace: str | None = None,
        subresource: str = "",
    ) -> Object:
        """RFC 7396 merge patch. Put metadata.resourceVersion into it for optimistic locking."""
        path = resource.path(namespace, name, subresource)
        patched: Object = await self.request(
            "PATCH", path, {"fieldManager": manager}, dict(patch), "application/merge-patch+json"
        )
        return patched

    async def json_patch(
        self,
        resource: ResourceType,
        name: str,
        operations: Objects,
        manager: str,
        namespace: str | None = None,
    ) -> Object:
        """RFC 6902 patch; use `test` operations to guard what was read."""
        path = resource.path(namespace, name)
        patched: Object = await self.request(
            "PATCH", path, {"fieldManager": manager}, operations, "application/json-patch+json"
        )
        return patched

    async def delete(
        self,
        resource: ResourceType,
        name: str,
        namespace: str | None = None,
        uid: str = "",
        propagation: str = "Background",
        grace_seconds: int | None = None,
    ) -> bool:
        """Delete; with `uid` only that very object. False when it is gone already."""
        options: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": propagation,
        }
        if uid:
            options["preconditions"] = {"uid": uid}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        try:
            await self.request("DELETE", resource.path(namespace, name), body=options)
        except ApiFault as fault:
            if fault.gone or (fault.conflict and uid):
                return False
            raise
        return True

    async def evict(self, namespace: str, pod: str) -> bool:
        """Ask for the pod's eviction. False when a PodDisruptionBudget says not now (429)."""
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod, "namespace": namespace},
        }
        try:
            await self.request("POST", f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction", body=body)
        except ApiFault as fault:
            if fault.code == 429:
                return False
            if not fault.gone:
                raise
        return True


def _fault(status: int, data: bytes | str, path: str) -> ApiFault:
    try:
        body = json.loads(data)
        return ApiFault(status, str(body.get("reason", "")), str(body.get("message", ""))[:4096], path)
    except (ValueError, AttributeError):
        text = data.decode(errors="replace") if isinstance(data, bytes) else data
        return ApiFault(status, "", text[:512], path)
