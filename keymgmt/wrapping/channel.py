"""Messages between the service and its worker: CBOR maps with a length in front, over a socket pair."""

from __future__ import annotations

import socket
from typing import Any

import cbor2

from crds.errors import KekkaiError, Problem

MAX_MESSAGE = 1 << 20


def encode(message: dict[str, Any]) -> bytes:
    """Length (4 bytes, big endian) and CBOR."""
    body = cbor2.dumps(message)
    if len(body) > MAX_MESSAGE:
        raise ValueError("a message to the worker is too long")
    return len(body).to_bytes(4, "big") + body


class Decoder:
    """Takes bytes as they come and yields whole messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """Messages completed by `data`. Raises ValueError on anything that is not one."""
        self._buffer += data
        messages = []
        while len(self._buffer) >= 4:
            length = int.from_bytes(self._buffer[:4], "big")
            if length > MAX_MESSAGE:
                raise ValueError("a message from the other side is too long")
            if len(self._buffer) < 4 + length:
                break
            message = cbor2.loads(bytes(self._buffer[4 : 4 + length]), max_depth=8)
            if not isinstance(message, dict):
                raise ValueError("a message is not a map")
            messages.append(message)
            del self._buffer[: 4 + length]
        return messages


def read(connection: socket.socket, decoder: Decoder) -> list[dict[str, Any]] | None:
    """Block for the next messages; None when the other side is gone."""
    while True:
        data = connection.recv(1 << 16)
        if not data:
            return None
        if messages := decoder.feed(data):
            return messages


def error_to_map(error: KekkaiError) -> dict[str, Any]:
    """An error as data."""
    return {"status": type(error).http_status, **error.problem.as_dict()}


class WorkerRefused(KekkaiError):
    """An error that the worker reported; reason and status are the original's."""

    def __init__(self, what: str, *, where: str = "", fix: str = "", reason: str = "", status: int = 500) -> None:
        super().__init__(what, where=where, fix=fix, reason=reason)
        self.status = status

    @classmethod
    def from_map(cls, fields: dict[str, Any]) -> WorkerRefused:
        """Inverse of `error_to_map`."""
        problem = Problem(
            str(fields.get("reason", "WorkerError")),
            str(fields.get("what", "the worker refused")),
            str(fields.get("where", "")),
            str(fields.get("fix", "")),
        )
        return cls(
            problem.what,
            where=problem.where,
            fix=problem.fix,
            reason=problem.reason,
            status=int(fields.get("status", 500)),
        )
