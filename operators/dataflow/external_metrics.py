"""The API group external.metrics.k8s.io, behind the API server's aggregation layer.

For those who keep HorizontalPodAutoscaler: it serves each service's signals, and how many
replicas the data-flow decision would ask for. Only the API server's front proxy may connect:
its client certificate must chain to the request-header CA and bear an allowed name; whom
it names in the headers is then authorised by a SubjectAccessReview, as in
k8s.io/apiserver's delegated authorisation. A value that is too old is not served at all, so
that an HPA holds what it has.
"""

from __future__ import annotations

import json
import logging
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web

from crds.conditions import timestamp
from crds.errors import Forbidden, InvalidInput, KekkaiError, NotFound, Unauthenticated, Unavailable
from operators.dataflow.readings import Reading, Readings
from operators.dataflow.selectors import matches
from operators.runtime import ApiFault, Cluster

log = logging.getLogger(__name__)
GROUP, VERSION = "external.metrics.k8s.io", "v1beta1"
_BASE = f"/apis/{GROUP}/{VERSION}"
_TOO_OLD = 120.0  # seconds
_REMEMBERED = 10.0  # seconds that an authorisation is remembered
_MOST_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class FrontProxy:
    """How the API server proves itself and names users (configmap extension-apiserver-authentication)."""

    ca: str
    names: frozenset[str]  # empty: every name that the CA has signed
    user_headers: tuple[str, ...]
    group_headers: tuple[str, ...]
    extra_prefixes: tuple[str, ...]


async def front_proxy(cluster: Cluster) -> FrontProxy:
    """As the API server publishes it. Raises Unavailable when it runs without aggregation."""
    path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"
    data = (await cluster.request("GET", path)).get("data") or {}
    if not data.get("requestheader-client-ca-file"):
        raise Unavailable(
            "the API server has no request-header CA",
            where=path,
            fix="start it with --requestheader-client-ca-file",
        )

    def listed(name: str) -> tuple[str, ...]:
        return tuple(json.loads(data.get(name) or "[]"))

    return FrontProxy(
        data["requestheader-client-ca-file"],
        frozenset(listed("requestheader-allowed-names")),
        listed("requestheader-username-headers"),
        listed("requestheader-group-headers"),
        listed("requestheader-extra-headers-prefix"),
    )


class ExternalMetrics:
    """The HTTPS server. Use `start` and `stop` on one event loop."""

    def __init__(
        self, cluster: Cluster, readings: Readings, proxy: FrontProxy, clock: Callable[[], float] = time.time
    ) -> None:
        self._cluster = cluster
        self._readings = readings
        self._proxy = proxy
        self._clock = clock
        self._allowed: dict[tuple[Any, ...], tuple[float, bool]] = {}
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self, address: str, port: int, certificate: Path, key: Path) -> None:
        """Listen; `port` 0 takes a free one, which is then in `self.port`."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(certificate, key)
        context.load_verify_locations(cadata=self._proxy.ca)
        context.verify_mode = ssl.CERT_REQUIRED
        app = web.Application(middlewares=[self._guard], client_max_size=1024)
        app.router.add_get(_BASE, self._resources)
        app.router.add_get(_BASE + "/namespaces/{namespace}/{metric}", self._values)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, address, port, ssl_context=context)
        await site.start()
        self.port = int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            self._check_peer(request)
            return await handler(request)
        except web.HTTPException as refusal:
            return _status(refusal.status, refusal.reason, "not found")
        except KekkaiError as error:
            return _status(error.http_status, error.problem.reason, str(error))
        except ApiFault as fault:
            log.warning("authorisation could not be asked: %s", fault)
            return _status(503, "ServiceUnavailable", "authorisation could not be asked; try again")

    def _check_peer(self, request: web.Request) -> None:
        peer = request.transport.get_extra_info("peercert") if request.transport is not None else None
        subject = dict(pair for part in (peer or {}).get("subject", ()) for pair in part)
        name = subject.get("commonName", "")
        if not peer or (self._proxy.names and name not in self._proxy.names):
            raise Unauthenticated("the client is not the API server's front proxy", fix="ask through the API server")

    async def _resources(self, request: web.Request) -> web.Response:
        resources = [
            {
                "name": name,
                "singularName": "",
                "namespaced": True,
                "kind": "ExternalMetricValueList",
                "verbs": ["get"],
            }
            for name in self._readings.metrics()
        ]
        body = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": f"{GROUP}/{VERSION}"}
        return web.json_response({**body, "resources": resources})

    async def _values(self, request: web.Request) -> web.Response:
        namespace, metric = request.match_info["namespace"], request.match_info["metric"]
        await self._authorise(request, namespace, metric)
        selector = request.query.get("labelSelector", "")
        now = self._clock()
        found = self._readings.find(namespace, metric)
        if not found:
            raise NotFound(f"no service of namespace {namespace} has the signal {metric}", fix="see status.dataFlow")
        items = [
            _item(metric, name, reading)
            for name, reading in found
            if matches(selector, {"workload": name}) and now - reading.at <= _TOO_OLD
        ]
        body = {"kind": "ExternalMetricValueList", "apiVersion": f"{GROUP}/{VERSION}", "metadata": {}}
        return web.json_response({**body, "items": items})

    async def _authorise(self, request: web.Request, namespace: str, metric: str) -> None:
        user = next((request.headers[name] for name in self._proxy.user_headers if name in request.headers), "")
        if not user:
            raise Unauthenticated("the request names no user", fix="ask through the API server")
        groups = [value for name in self._proxy.group_headers for value in request.headers.getall(name, [])]
        extra: dict[str, list[str]] = {}
        for name, value in request.headers.items():
            for prefix in self._proxy.extra_prefixes:
                if name.lower().startswith(prefix.lower()):
                    extra.setdefault(name[len(prefix) :].lower(), []).append(value)
        key = (user, tuple(groups), json.dumps(extra, sort_keys=True), namespace, metric)
        known = self._allowed.get(key)
        now = time.monotonic()
        if known is None or known[0] < now:
            attributes = {
                "namespace": namespace,
                "verb": "list",
                "group": GROUP,
                "version": VERSION,
                "resource": metric,
            }
            spec = {"user": user, "groups": groups, "extra": extra, "resourceAttributes": attributes}
            body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
            path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
            review = await self._cluster.request("POST", path, body=body)
            verdict = review.get("status") or {}
            known = now + _REMEMBERED, bool(verdict.get("allowed")) and not verdict.get("denied")
            if len(self._allowed) >= _MOST_REMEMBERED:
                self._allowed.clear()
            self._allowed[key] = known
        if not known[1]:
            raise Forbidden(
                f"{user} may not list {metric}.{GROUP} in namespace {namespace}",
                fix="grant it by a Role, verbs get, list",
            )


def _item(metric: str, workload: str, reading: Reading) -> dict[str, Any]:
    return {
        "metricName": metric,
        "metricLabels": {"workload": workload},
        "timestamp": timestamp(datetime.fromtimestamp(reading.at, UTC)),
        "value": quantity(reading.value),
    }


def quantity(value: float) -> str:
    """A resource.Quantity, exact to a thousandth; raises InvalidInput beyond what one can hold."""
    milli = round(value * 1000)
    if abs(milli) >= 2**63:
        raise InvalidInput("the value is beyond a quantity", where="value", fix="declare the signal in a larger unit")
    return str(milli // 1000) if milli % 1000 == 0 else f"{milli}m"


def _status(code: int, reason: str, message: str) -> web.Response:
    body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return web.json_response({**body, "reason": reason, "message": message, "code": code}, status=code)
