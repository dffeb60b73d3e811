"""A service that works off a flow of requests, and shows it on /metrics."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_STEP = 0.1  # seconds between two looks at the flow
_BUCKETS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)


@dataclass(frozen=True, slots=True)
class Flow:
    """What comes, as a function of seconds since the start: requests/s; and what a request moves, in bytes."""

    requests: Callable[[float], float]
    ingress_bytes: float = 1e6
    write_bytes: float = 1e6


class EmulatedService:
    """`carries`: requests/s of one replica. `ready` may be set at any time: how many replicas serve."""

    def __init__(self, name: str, namespace: str, flow: Flow, carries: float, ready: int = 1) -> None:
        self.name, self.namespace = name, namespace
        self.ready = ready
        self.waiting = 0.0
        self._flow = flow
        self._carries = carries
        self._registry = CollectorRegistry()
        labels = ["namespace", "service"]

        def counter(metric: str, text: str) -> Counter:
            return Counter(metric, text, labels, registry=self._registry)

        of = (namespace, name)
        self._requests = counter("service_requests", "Requests that came.").labels(*of)
        self._ingress = counter("service_ingress_bytes", "Bytes that came.").labels(*of)
        self._writes = counter("service_write_bytes", "Bytes written to the volumes.").labels(*of)
        self._queue = Gauge("service_waiting", "Requests that wait.", labels, registry=self._registry).labels(*of)
        self._latency = Histogram(
            "service_latency_seconds", "Of requests.", labels, registry=self._registry, buckets=_BUCKETS
        ).labels(*of)
        self._stop = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _page(self._registry))
        self._threads = [
            threading.Thread(target=self._server.serve_forever, daemon=True),
            threading.Thread(target=self._work, daemon=True),
        ]
        self.began = time.monotonic()

    @property
    def port(self) -> int:
        """Where /metrics is served on the loopback address."""
        return int(self._server.server_address[1])

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> EmulatedService:
        self.began = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._server.shutdown()
        self._server.server_close()
        for thread in self._threads:
            thread.join(5)

    def _work(self) -> None:
        last = time.monotonic()
        while not self._stop.wait(_STEP):
            now = time.monotonic()
            self.advance(now - self.began, now - last)
            last = now

    def advance(self, at: float, seconds: float) -> None:
        """So much time has passed at `at` seconds after the start: requests come, wait and are served."""
        came = max(0.0, self._flow.requests(at)) * seconds
        room = max(0, self.ready) * self._carries
        served = min(self.waiting + came, room * seconds)
        self.waiting += came - served
        self._requests.inc(came)
        self._ingress.inc(came * self._flow.ingress_bytes)
        self._writes.inc(served * self._flow.write_bytes)
        self._queue.set(self.waiting)
        if served > 0:
            self._latency.observe(0.05 + (self.waiting / room if room > 0 else 60.0))


def _page(registry: CollectorRegistry) -> type[BaseHTTPRequestHandler]:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path == "/metrics"
            body = generate_latest(registry) if known else b""
            self.send_response(200 if known else 404)
            self.send_header("Content-Type", CONTENT_TYPE_LATEST)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """A scrape is no news."""

    return Page
