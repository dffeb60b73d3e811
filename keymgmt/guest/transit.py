"""A key used from inside the enclave without holding it: encrypt, decrypt, data keys, signatures.

    with TransitKey(client, device, "aurora-train/dataset", init_data=text) as key:
        stored = key.encrypt(b"record", associated=b"table 7")
        assert key.decrypt(stored, associated=b"table 7") == b"record"

The handshake happens at first use and again when the session ends; each opens one grant,
which the policy counts as one run.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from keymgmt.guest.agent import MAX_HANDSHAKES, handshake
from keymgmt.guest.errors import KeyRefused
from keymgmt.guest.kbs_client import KbsClient, SessionEnded
from keymgmt.guest.tee_key import KeyKind, TeeKey
from keymgmt.guest.tsm import TsmDevice


class TransitKey:
    """One key, `namespace/name`. Every method raises GuestError."""

    def __init__(
        self,
        client: KbsClient,
        device: TsmDevice,
        key: str,
        *,
        init_data: str | None = None,
        key_kind: KeyKind = "hybrid",
    ) -> None:
        self._client, self._device, self._key = client, device, key
        self._init_data, self._key_kind = init_data, key_kind
        self._session: tuple[TeeKey, str] | None = None

    def __enter__(self) -> TransitKey:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session = None

    def encrypt(self, message: bytes, associated: bytes = b"") -> bytes:
        """A ciphertext that names its key version."""
        return _raw(self._use("encrypt", {"message": _text(message), **_with(associated)})[1], "ciphertext")

    def decrypt(self, ciphertext: bytes, associated: bytes = b"") -> bytes:
        """The message. Refused for another key's ciphertext or other associated data."""
        tee_key, reply = self._use("decrypt", {"ciphertext": _text(ciphertext), **_with(associated)})
        return bytes(tee_key.decrypt(_object(reply, "message"), allow_empty=True))

    def data_key(self, associated: bytes = b"") -> tuple[bytearray, bytes]:
        """A fresh key of 32 bytes, which the caller wipes, and its ciphertext, to be stored beside the data."""
        tee_key, reply = self._use("data-key", _with(associated))
        return tee_key.decrypt(_object(reply, "dataKey")), _raw(reply, "ciphertext")

    def sign(self, message: bytes) -> bytes:
        """A signature by the key's algorithm."""
        return _raw(self._use("sign", {"message": _text(message)})[1], "signature")

    def _use(self, operation: str, body: Mapping[str, Any]) -> tuple[TeeKey, dict[str, Any]]:
        for attempt in range(MAX_HANDSHAKES):
            try:
                if self._session is None:
                    fresh = TeeKey(self._key_kind)
                    self._session = fresh, handshake(self._client, self._device, fresh, self._init_data)
                tee_key, token = self._session
                return tee_key, self._client.transit(self._key, operation, body, token)
            except SessionEnded:
                self._session = None
                if attempt + 1 == MAX_HANDSHAKES:
                    raise
        raise KeyRefused("no session could be kept", where=self._key)


def _with(associated: bytes) -> dict[str, str]:
    return {"associatedData": _text(associated)} if associated else {}


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _raw(reply: Mapping[str, Any], name: str) -> bytes:
    try:
        return base64.b64decode(str(reply.get(name)), validate=True)
    except (binascii.Error, ValueError):
        raise KeyRefused("the reply is malformed", where=name, reason="ReplyMalformed") from None


def _object(reply: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = reply.get(name)
    if not isinstance(value, Mapping):
        raise KeyRefused("the reply is malformed", where=name, reason="ReplyMalformed")
    return value
