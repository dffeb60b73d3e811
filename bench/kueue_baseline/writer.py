"""Writes over keep-alive HTTP/1.1 connections, with next to no work on this side.

The generator of a load takes its CPU from what is measured; a general client would take
several times the CPU of these requests, which are all alike and whose answers nobody reads.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from operators.runtime import ApiFault

_TYPES = {"POST": "application/json", "PATCH": "application/merge-patch+json"}
_BRIEF = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_PATIENCE = 30.0  # seconds

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Writer:
    """As many connections as there are requests at once; each is kept for the next request."""

    def __init__(self, kubeconfig: Path) -> None:
        """`kubeconfig`: of a user with a token."""
        found = yaml.safe_load(kubeconfig.read_text())
        cluster = found["clusters"][0]["cluster"]
        server = urlsplit(cluster["server"])
        self._host, self._port = str(server.hostname), int(server.port or 443)
        self._tls = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        self._head = (
            f"Host: {self._host}\r\nAuthorization: Bearer {found['users'][0]['user']['token']}\r\n"
            f"Accept: {_BRIEF}\r\nAccept-Encoding: identity\r\n"
        )
        self._free: list[Connection] = []

    async def send(self, method: str, path: str, body: Any) -> None:
        """One POST or merge patch. Raises ApiFault on any refusal, code 0 when the server did not answer."""
        data = json.dumps(body, separators=(",", ":")).encode()
        head = f"{method} {path} HTTP/1.1\r\n{self._head}Content-Type: {_TYPES[method]}\r\n"
        try:
            async with asyncio.timeout(_PATIENCE):
                connection = self._free.pop() if self._free else await self._connect()
                connection[1].write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
                status, answer = await _answer(connection[0])
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            raise ApiFault(0, "Unreachable", f"the API server did not answer: {error!r}", path) from error
        self._free.append(connection)
        if not 200 <= status < 300:
            raise ApiFault(status, "", answer[:512].decode(errors="replace"), path)

    async def _connect(self) -> Connection:
        return await asyncio.open_connection(self._host, self._port, ssl=self._tls)

    def close(self) -> None:
        for _, writer in self._free:
            writer.close()


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = int(head.split(b" ", 2)[1])
    if b"transfer-encoding: chunked" in head:
        answer = b""
        while size := int(await reader.readline(), 16):
            answer += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
        return status, answer
    length = head.partition(b"content-length:")[2].split(b"\r\n", 1)[0]
    return status, await reader.readexactly(int(length or 0))
