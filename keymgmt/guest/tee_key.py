"""The guest's ephemeral key: the key service encrypts to it, and the report vouches for it.

A hybrid of ML-KEM-768 and X25519 by HPKE unless told otherwise: what is recorded today stays
closed to a quantum computer, and to a flaw in either half alone.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any, Final, Literal, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import mlkem, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap
from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

from keymgmt.guest.errors import KeyRefused
from keymgmt.wrapping.jwe import HPKE_INFO, HPKE_SECRET_BYTES, HPKE_SUITE, kmac_derived
from keymgmt.wrapping.recipients import (
    ECDH_ES_A256KW,
    HPKE_ML_KEM_768_X25519,
    ML_KEM_768_A192KW,
    RSA_OAEP_256,
    b64url,
)

KeyKind = Literal["hybrid", "ml-kem", "ec", "rsa"]
KEY_KINDS: Final[tuple[KeyKind, ...]] = ("hybrid", "ml-kem", "ec", "rsa")
RSA_BITS: Final = 3072
_MEMBERS: Final = ("protected", "encrypted_key", "iv", "ciphertext", "tag")
_MAX_MEMBER: Final = 1 << 19


class _Pair(Protocol):
    """One kind of key pair. `open` raises any of `_FAULTS` for what was not encrypted to it."""

    def public_jwk(self) -> dict[str, Any]: ...

    def open(self, reply: Mapping[str, str]) -> bytes: ...


_FAULTS: Final = (JoseError, ValueError, TypeError, KeyError, InvalidTag, InvalidUnwrap, binascii.Error)


class TeeKey:
    """A key pair that lives as long as this object; the private part is never written anywhere."""

    def __init__(self, kind: KeyKind = "hybrid") -> None:
        makers: dict[KeyKind, type[_Pair]] = {"hybrid": _Hybrid, "ml-kem": _MlKem, "ec": _Ec, "rsa": _Rsa}
        self._pair: _Pair = makers[kind]()

    def public_jwk(self) -> dict[str, Any]:
        """`tee-pubkey` as the KBS protocol has it: kty, alg and the public numbers, no more."""
        return self._pair.public_jwk()

    def decrypt(self, reply: Mapping[str, Any], *, allow_empty: bool = False) -> bytearray:
        """Open a flattened JWE that was encrypted to this key.

        Returns a buffer that the caller should wipe. Raises KeyRefused for anything else.
        """
        members = {name: reply.get(name) for name in _MEMBERS}
        if not all(isinstance(value, str) and len(value) <= _MAX_MEMBER for value in members.values()):
            raise KeyRefused("the reply is not a flattened JWE", reason="KeyReplyInvalid", where="resource")
        try:
            opened = self._pair.open({name: str(value) for name, value in members.items()})
        except _FAULTS:
            raise KeyRefused("the reply does not open under this guest's key", reason="KeyReplyInvalid") from None
        if not opened and not allow_empty:
            raise KeyRefused("the reply holds no key", reason="KeyReplyInvalid", where="resource")
        return bytearray(opened)


class _Hybrid:
    def __init__(self) -> None:
        self._lattice = mlkem.MLKEM768PrivateKey.generate()
        self._curve = x25519.X25519PrivateKey.generate()

    def public_jwk(self) -> dict[str, Any]:
        public = self._lattice.public_key().public_bytes_raw() + self._curve.public_key().public_bytes_raw()
        return {"alg": HPKE_ML_KEM_768_X25519, "kty": "AKP", "pub": b64url(public)}

    def open(self, reply: Mapping[str, str]) -> bytes:
        if _header(reply).get("alg") != HPKE_ML_KEM_768_X25519 or reply["iv"] or reply["tag"]:
            raise ValueError("not the algorithm of this key")
        secret = _bytes(reply["encrypted_key"])
        if len(secret) != HPKE_SECRET_BYTES:
            raise ValueError("not an encapsulated secret")
        private = hpke.MLKEM768X25519PrivateKey(self._lattice, self._curve)
        info = HPKE_INFO + reply["protected"].encode()
        return HPKE_SUITE.decrypt(secret + _bytes(reply["ciphertext"]), private, info=info)


class _MlKem:
    def __init__(self) -> None:
        self._key = mlkem.MLKEM768PrivateKey.generate()

    def public_jwk(self) -> dict[str, Any]:
        public = b64url(self._key.public_key().public_bytes_raw())
        return {"alg": ML_KEM_768_A192KW, "kty": "AKP", "pub": public}

    def open(self, reply: Mapping[str, str]) -> bytes:
        header = _header(reply)
        if header.get("alg") != ML_KEM_768_A192KW or header.get("enc") != "A256GCM":
            raise ValueError("not the algorithm of this key")
        shared = self._key.decapsulate(_bytes(header["ek"]))
        content_key = aes_key_unwrap(kmac_derived(shared), _bytes(reply["encrypted_key"]))
        sealed = _bytes(reply["ciphertext"]) + _bytes(reply["tag"])
        return AESGCM(content_key).decrypt(_bytes(reply["iv"]), sealed, reply["protected"].encode())


class _Jose:
    """The kinds that the JOSE library knows."""

    def __init__(self, key: ECKey | RSAKey, algorithm: str, members: tuple[str, ...]) -> None:
        self._key, self._algorithm, self._public = key, algorithm, members

    def public_jwk(self) -> dict[str, Any]:
        public = self._key.as_dict(private=False)
        return {"alg": self._algorithm, **{name: public[name] for name in self._public}}

    def open(self, reply: Mapping[str, str]) -> bytes:
        flattened: jwe.FlattenedJSONSerialization = {
            "protected": reply["protected"],
            "encrypted_key": reply["encrypted_key"],
            "iv": reply["iv"],
            "ciphertext": reply["ciphertext"],
            "tag": reply["tag"],
        }
        opened = jwe.decrypt_json(flattened, self._key, algorithms=[self._algorithm, "A256GCM"])
        return opened.plaintext or b""


class _Ec(_Jose):
    def __init__(self) -> None:
        super().__init__(ECKey.generate_key("P-256"), ECDH_ES_A256KW, ("crv", "kty", "x", "y"))


class _Rsa(_Jose):
    def __init__(self) -> None:
        super().__init__(RSAKey.generate_key(RSA_BITS), RSA_OAEP_256, ("e", "kty", "n"))


def _header(reply: Mapping[str, str]) -> Mapping[str, Any]:
    header = json.loads(_bytes(reply["protected"]))
    if not isinstance(header, dict):
        raise TypeError("the protected header is no object")
    return header


def _bytes(text: str) -> bytes:
    return base64.b64decode(text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4), validate=True)


def wipe(buffer: bytearray) -> None:
    """Overwrite a key. Best effort: the interpreter may have copied it before."""
    for index in range(len(buffer)):
        buffer[index] = 0
