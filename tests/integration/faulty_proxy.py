"""An HTTP proxy that fails now and then: 5xx, a hang, a reply that is lost after the request took effect."""

from __future__ import annotations

import random
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

HANG = 3.0  # seconds


class FaultyProxy:
    """Forwards to `upstream`; each request fails with `probability`, each kind of failure alike."""

    def __init__(self, upstream: str, probability: float, seed: int = 1) -> None:
        self.injected = {"503": 0, "hang": 0, "lost reply": 0}
        self.requests = 0
        self.probability = probability
        self._chance = random.Random(seed)
        self._lock = threading.Lock()
        self._http = httpx.Client(base_url=upstream, timeout=30)
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def _do(self) -> None:
                proxy._handle(self)

            do_GET = do_POST = do_PATCH = _do

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._http.close()

    def _fault(self) -> str:
        with self._lock:
            self.requests += 1
            if self._chance.random() >= self.probability:
                return ""
            kind = self._chance.choice(list(self.injected))
            self.injected[kind] += 1
            return kind

    def _handle(self, one: BaseHTTPRequestHandler) -> None:
        body = one.rfile.read(int(one.headers.get("Content-Length") or 0))
        fault = self._fault()
        if fault == "503":
            one.send_error(503)
            return
        if fault == "hang":
            time.sleep(HANG)
            one.close_connection = True
            return
        headers = {key: value for key, value in one.headers.items() if key.lower() not in {"host", "connection"}}
        reply = self._http.request(one.command, one.path, content=body, headers=headers)
        if fault == "lost reply":
            one.close_connection = True
            one.connection.close()
            return
        one.send_response(reply.status_code)
        one.send_header("Content-Type", reply.headers.get("Content-Type", "application/json"))
        one.send_header("Content-Length", str(len(reply.content)))
        if "WWW-Authenticate" in reply.headers:
            one.send_header("WWW-Authenticate", reply.headers["WWW-Authenticate"])
        one.end_headers()
        one.wfile.write(reply.content)
