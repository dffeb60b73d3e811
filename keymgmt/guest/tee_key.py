"""The guest's ephemeral key: the key service encrypts to it, and the report vouches for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

from keymgmt.guest.errors import KeyRefused

KeyKind = Literal["ec", "rsa"]
ALGORITHMS: Final[dict[KeyKind, str]] = {"ec": "ECDH-ES+A256KW", "rsa": "RSA-OAEP-256"}
RSA_BITS: Final = 3072
_MEMBERS: Final = ("protected", "encrypted_key", "iv", "ciphertext", "tag")


class TeeKey:
    """A key pair that lives as long as this object; the private part is never written anywhere."""

    def __init__(self, kind: KeyKind = "ec") -> None:
        self._algorithm = ALGORITHMS[kind]
        self._key = ECKey.generate_key("P-256") if kind == "ec" else RSAKey.generate_key(RSA_BITS)

    def public_jwk(self) -> dict[str, Any]:
        """`tee-pubkey` as the KBS protocol has it: kty, alg and the public numbers, no more."""
        public = self._key.as_dict(private=False)
        names = ("crv", "kty", "x", "y") if public["kty"] == "EC" else ("e", "kty", "n")
        return {"alg": self._algorithm, **{name: public[name] for name in names}}

    def decrypt(self, reply: Mapping[str, Any]) -> bytearray:
        """Open a flattened JWE that was encrypted to this key with A256GCM.

        Returns a buffer that the caller should wipe. Raises KeyRefused for anything else.
        """
        if not all(isinstance(reply.get(name), str) for name in _MEMBERS):
            raise KeyRefused("the reply is not a flattened JWE", reason="KeyReplyInvalid", where="resource")
        flattened: jwe.FlattenedJSONSerialization = {
            "protected": reply["protected"],
            "encrypted_key": reply["encrypted_key"],
            "iv": reply["iv"],
            "ciphertext": reply["ciphertext"],
            "tag": reply["tag"],
        }
        try:
            opened = jwe.decrypt_json(flattened, self._key, algorithms=[self._algorithm, "A256GCM"])
        except (JoseError, ValueError, TypeError, KeyError):
            raise KeyRefused("the reply does not open under this guest's key", reason="KeyReplyInvalid") from None
        if not opened.plaintext:
            raise KeyRefused("the reply holds no key", reason="KeyReplyInvalid", where="resource")
        return bytearray(opened.plaintext)


def wipe(buffer: bytearray) -> None:
    """Overwrite a key. Best effort: the interpreter may have copied it before."""
    for index in range(len(buffer)):
        buffer[index] = 0
