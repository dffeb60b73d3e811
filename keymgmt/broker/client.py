"""Client of the key service's administration, for custodians, auditors and the CLI. TLS 1.3 only."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from crds.errors import KekkaiError, Unavailable
from keymgmt.broker import paths
from keymgmt.policy.custodians import CustodianSet
from keymgmt.policy.dsse import Envelope

MAX_REPLY = 16 << 20


class Refused(KekkaiError):
    """The key service said no; the fields are its own."""

    def __init__(self, what: str, *, where: str = "", fix: str = "", reason: str = "", status: int = 400) -> None:
        super().__init__(what, where=where, fix=fix, reason=reason)
        self.status = status


class AdminClient:
    """Calls /v1 and reads the log. Raises Refused for a refusal, Unavailable when there is no answer.

    A service that is absent or answers 503 is asked again for `patience` seconds: every call
    here may be repeated without harm.
    """

    def __init__(
        self,
        url: str,
        ca: Path | None = None,
        token: str | None = None,
        *,
        timeout: float = 30.0,
        patience: float = 10.0,
    ) -> None:
        self._patience = patience
        context = ssl.create_default_context(cafile=str(ca) if ca else None)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(base_url=url, verify=context, timeout=timeout, headers=headers, trust_env=False)

    def close(self) -> None:
        """Drop the connections."""
        self._http.close()

    def register_custodians(self, custodians: CustodianSet) -> str:
        """A tenant's first custodians (registrar). Returns the set's digest."""
        body = custodians.model_dump(mode="json", by_alias=True)
        return str(self._call("PUT", paths.CUSTODIANS.format(tenant=custodians.tenant), body)["custodianSet"])

    def replace_custodians(self, tenant: str, envelope: Envelope) -> str:
        """A set signed by the quorum of the one before (registrar). Returns the set's digest."""
        body = {"envelope": envelope.as_dict()}
        return str(self._call("PUT", paths.CUSTODIANS.format(tenant=tenant), body)["custodianSet"])

    def custodians(self, tenant: str) -> dict[str, Any]:
        """A tenant's present custodians (any role)."""
        return self._call("GET", paths.CUSTODIANS.format(tenant=tenant))

    def submit_policy(self, envelope: Envelope) -> dict[str, Any]:
        """File a signed policy. Returns digest, custodianSet, signers."""
        return self._call("POST", paths.POLICIES, envelope.as_dict())

    def policy(self, digest: str) -> dict[str, Any]:
        """A policy and its envelope (any role)."""
        return self._call("GET", paths.POLICY.format(digest=digest))

    def key(self, namespace: str, name: str) -> dict[str, Any]:
        """A key (operator, auditor)."""
        return self._call("GET", paths.KEY.format(namespace=namespace, name=name))

    def all_keys(self) -> Iterator[dict[str, Any]]:
        """All keys (operator, auditor)."""
        query: dict[str, Any] = {"limit": 500}
        while True:
            page = self._call("GET", paths.KEYS, query=query)
            yield from page["items"]
            if page["next"] is None:
                return
            query["after"] = page["next"]

    def rotate(self, namespace: str, name: str) -> dict[str, Any]:
        """Make a generated key's next version (operator). Not repeated by itself: each call makes one."""
        return self._call("POST", paths.KEY_ROTATE.format(namespace=namespace, name=name))

    def rewrap(self, namespace: str, name: str) -> dict[str, Any]:
        """Put a key under new HSM keys (operator)."""
        return self._call("POST", paths.KEY_REWRAP.format(namespace=namespace, name=name))

    def set_state(self, namespace: str, name: str, state: str, cause: str) -> dict[str, Any]:
        """Deactivate a key or report it compromised (operator)."""
        body = {"state": state, "cause": cause}
        return self._call("POST", paths.KEY_STATE.format(namespace=namespace, name=name), body)

    def import_key(self) -> dict[str, Any]:
        """The public key to wrap imports for."""
        return self._call("GET", paths.IMPORT_KEY)

    def submit_import(self, namespace: str, name: str, envelope: Envelope) -> dict[str, Any]:
        """Carry out a signed import order. Returns the key."""
        return self._call("POST", paths.KEY_IMPORT.format(namespace=namespace, name=name), envelope.as_dict())

    def destroy(self, namespace: str, name: str, envelope: Envelope) -> dict[str, Any]:
        """Carry out a signed destroy order. Returns the destruction record."""
        return self._call("POST", paths.KEY_DESTROY.format(namespace=namespace, name=name), envelope.as_dict())

    def releases(self, namespace: str | None = None, name: str | None = None) -> Iterator[dict[str, Any]]:
        """Release and denial entries, newest first (auditor)."""
        query: dict[str, Any] = {"namespace": namespace, "name": name, "limit": 1000}
        while True:
            page = self._call("GET", paths.RELEASES, query={k: v for k, v in query.items() if v is not None})
            yield from page["entries"]
            if page["next"] is None:
                return
            query["before"] = page["next"]

    def status(self) -> dict[str, Any]:
        """Mechanisms, fallbacks, log (any role)."""
        return self._call("GET", paths.STATUS)

    def read(self, path: str) -> bytes | None:
        """A file of the public log (`transparency.tiles.TileReader`)."""
        reply = self._send("GET", f"/log/{path}")
        if reply.status_code == 404:
            return None
        if reply.status_code != 200:
            raise Unavailable(f"HTTP {reply.status_code}", where=f"/log/{path}")
        return reply.content

    def _call(self, method: str, path: str, body: Any = None, query: dict[str, Any] | None = None) -> dict[str, Any]:
        reply = self._send(method, path, body, query)
        try:
            document = reply.json()
        except ValueError:
            document = {}
        if not isinstance(document, dict):
            document = {}
        if reply.status_code >= 400:
            raise Refused(
                str(document.get("what", f"HTTP {reply.status_code}")),
                where=str(document.get("where", path)),
                fix=str(document.get("fix", "")),
                reason=str(document.get("reason", "Refused")),
                status=reply.status_code,
            )
        return document

    def _send(self, method: str, path: str, body: Any = None, query: dict[str, Any] | None = None) -> httpx.Response:
        deadline, pause = time.monotonic() + self._patience, 0.1
        while True:
            late = time.monotonic() + pause > deadline
            try:
                reply = self._send_once(method, path, body, query)
                if reply.status_code != 503 or late:
                    return reply
            except Unavailable:
                if late:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, 1.0)

    def _send_once(
        self, method: str, path: str, body: Any = None, query: dict[str, Any] | None = None
    ) -> httpx.Response:
        try:
            with self._http.stream(method, path, json=body, params=query) as stream:
                data = b""
                for chunk in stream.iter_bytes():
                    data += chunk
                    if len(data) > MAX_REPLY:
                        raise Unavailable("the reply is too large", where=path)
                return httpx.Response(stream.status_code, content=data)
        except (httpx.HTTPError, OSError) as error:
            raise Unavailable(
                f"the key service does not answer: {type(error).__name__}",
                where=path,
                fix="check --url and --ca",
                reason="KeyServiceUnreachable",
            ) from None
