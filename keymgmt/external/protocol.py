"""`kekkai.dev/external-release/v1`: one POST to `{url}/v1/release`.

Request: the key's name and id, the guest's attestation token (EAR, signed by the key service;
it holds the guest's public key), the log entry that authorises this release, and the offline
proof that the entry is in the log. Reply: a flattened JWE for that public key; or
`{"reason", "what"}` with a status of 400 and above.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from crds.errors import InvalidInput
from keymgmt import strict_json

VERSION = "kekkai.dev/external-release/v1"
PATH = "/v1/release"
MAX_REQUEST = 256 * 1024
MAX_REPLY = 64 * 1024
_MEMBERS = ("protected", "encrypted_key", "iv", "ciphertext", "tag")


@dataclass(frozen=True, slots=True)
class ExternalRelease:
    """The request. `entry`: the release entry's bytes; `proof`: its c2sp.org/tlog-proof@v1."""

    key: str  # namespace/name
    key_id: str
    token: str
    entry: bytes
    proof: bytes

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "apiVersion": VERSION,
            "key": self.key,
            "keyId": self.key_id,
            "token": self.token,
            "entry": base64.b64encode(self.entry).decode(),
            "proof": base64.b64encode(self.proof).decode(),
        }

    @classmethod
    def parse(cls, body: bytes) -> ExternalRelease:
        """Raises InvalidInput."""
        document = strict_json.parse_object(body, limit=MAX_REQUEST)
        if document.get("apiVersion") != VERSION:
            raise InvalidInput(f"{VERSION} is expected", where="apiVersion")
        texts = {}
        for name in ("key", "keyId", "token", "entry", "proof"):
            value = document.get(name)
            if not isinstance(value, str):
                raise InvalidInput("a string is expected", where=name)
            texts[name] = value
        return cls(texts["key"], texts["keyId"], texts["token"], _decoded(texts, "entry"), _decoded(texts, "proof"))


def check_reply(body: bytes, algorithm: str) -> bytes:
    """The JWE of a reply, if it has the form of one for the guest's `algorithm`. Raises InvalidInput."""
    document = strict_json.parse_object(body, limit=MAX_REPLY, where="reply")
    if set(document) != set(_MEMBERS) or not all(isinstance(document[name], str) for name in _MEMBERS):
        raise InvalidInput("a flattened JWE is expected", where="reply")
    protected = str(document["protected"])
    try:
        header = strict_json.parse_object(base64.urlsafe_b64decode(protected + "=" * (-len(protected) % 4)))
    except (binascii.Error, ValueError):
        raise InvalidInput("not base64url", where="reply.protected") from None
    if header.get("alg") != algorithm:
        raise InvalidInput("it is not for the guest's key", where="reply.protected.alg")
    return body


def _decoded(texts: Mapping[str, str], name: str) -> bytes:
    try:
        return base64.b64decode(texts[name], validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput("not standard base64", where=name) from None
