"""What the worker can do. Each operation takes and returns plain data; plaintext keys never leave.

`Operations.call(name, arguments)` is the whole interface.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from crds.errors import InvalidInput
from keymgmt.hsm.pkcs11_session import Pkcs11Session
from keymgmt.sealing.format import DataKeyAlgorithm, EncryptedDataKey, KeyContext, SealedKey
from keymgmt.sealing.seal import seal, unseal
from keymgmt.wrapping import transit
from keymgmt.wrapping.jwe import encrypt
from keymgmt.wrapping.recipients import parse_tee_key

# Bytes of a key: AES keys, and seeds of signing keys.
KEY_LENGTHS = {"AES-256-GCM": 32, "ED25519": 32, "ML-DSA-65": 32}
_SECRET_AAD = b"kekkai/service-secret\x01"


class Operations:
    """Bound to one HSM session."""

    def __init__(self, session: Pkcs11Session) -> None:
        self._hsm = session
        self._table: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "generate": self._generate,
            "import": self._import,
            "release": self._release,
            "encrypt": self._encrypt,
            "decrypt": self._decrypt,
            "data-key": self._data_key,
            "sign": self._sign,
            "public-key": self._public_key,
            "reseal": self._reseal,
            "destroy": self._destroy,
            "wrapping-keys": self._wrapping_keys,
            "import-key": self._import_key,
            "sign-es256": self._sign_es256,
            "sign-ed25519": self._sign_ed25519,
            "seal-secret": self._seal_secret,
            "open-secret": self._open_secret,
            "health": self._health,
        }

    def call(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Do one operation. Raises KekkaiError."""
        act = self._table.get(name)
        if act is None:
            raise InvalidInput("the worker has no such operation", where=name[:64])
        return act(arguments)

    def _generate(self, arguments: dict[str, Any]) -> dict[str, Any]:
        context = KeyContext.from_map(arguments["context"])
        return self._seal_new(self._hsm.random(_length(context)), context)

    def _import(self, arguments: dict[str, Any]) -> dict[str, Any]:
        context = KeyContext.from_map(arguments["context"])
        key = self._hsm.unwrap_import(arguments["kid"], arguments["wrapped"])
        if len(key) != _length(context):
            raise InvalidInput(
                f"the imported key has {len(key)} bytes, {context.algorithm} needs {_length(context)}",
                where="wrappedKey",
            )
        return self._seal_new(key, context)

    def _release(self, arguments: dict[str, Any]) -> dict[str, Any]:
        recipient = parse_tee_key(arguments["jwk"])
        context = KeyContext.from_map(arguments["context"])
        key = unseal(SealedKey.decode(arguments["sealed"]), context, self._hsm)
        return {"jwe": encrypt(key, recipient)}

    def _opened(self, arguments: dict[str, Any]) -> tuple[bytes, KeyContext]:
        context = KeyContext.from_map(arguments["context"])
        return unseal(SealedKey.decode(arguments["sealed"]), context, self._hsm), context

    def _encrypt(self, arguments: dict[str, Any]) -> dict[str, Any]:
        key, context = self._cipher(arguments)
        message, associated = arguments["message"], arguments["associated"]
        return {"ciphertext": transit.encrypt(key, context.version, arguments["name"], message, associated)}

    def _decrypt(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The plaintext leaves encrypted to the guest's key: nobody else is to see it."""
        recipient = parse_tee_key(arguments["jwk"])
        key, context = self._cipher(arguments)
        ciphertext, associated = arguments["ciphertext"], arguments["associated"]
        message = transit.decrypt(key, context.version, arguments["name"], ciphertext, associated)
        return {"jwe": encrypt(message, recipient)}

    def _data_key(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """A fresh data key, for the guest and, under the tenant's key, for its storage."""
        recipient = parse_tee_key(arguments["jwk"])
        key, context = self._cipher(arguments)
        fresh = self._hsm.random(transit.DATA_KEY_BYTES)
        wrapped = transit.encrypt(key, context.version, arguments["name"], fresh, arguments["associated"])
        return {"jwe": encrypt(fresh, recipient), "ciphertext": wrapped}

    def _cipher(self, arguments: dict[str, Any]) -> tuple[bytes, KeyContext]:
        key, context = self._opened(arguments)
        if context.algorithm != "AES-256-GCM":
            raise InvalidInput(f"a key of algorithm {context.algorithm} does not encrypt", where="algorithm")
        return key, context

    def _sign(self, arguments: dict[str, Any]) -> dict[str, Any]:
        key, context = self._opened(arguments)
        return {"signature": transit.sign(key, context.algorithm, arguments["message"])}

    def _public_key(self, arguments: dict[str, Any]) -> dict[str, Any]:
        key, context = self._opened(arguments)
        return {"public_key": transit.public_key(key, context.algorithm), "algorithm": context.algorithm}

    def _reseal(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Bind a key to a new context under a new HSM key; the caller destroys the old one after."""
        old, new = KeyContext.from_map(arguments["context"]), KeyContext.from_map(arguments["new_context"])
        if (old.tenant, old.key_id, old.version) != (new.tenant, new.key_id, new.version):
            raise InvalidInput("a key cannot be resealed as another key", where="new_context")
        return self._seal_new(unseal(SealedKey.decode(arguments["sealed"]), old, self._hsm), new)

    def _seal_new(self, key: bytes, context: KeyContext) -> dict[str, Any]:
        hsm_key_id = self._hsm.generate_wrapping_key()
        return {"sealed": seal(key, context, hsm_key_id, self._hsm).encode(), "hsm_key_id": hsm_key_id}

    def _destroy(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return {"destroyed": self._hsm.destroy(arguments["hsm_key_id"])}

    def _wrapping_keys(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"ids": self._hsm.wrapping_keys()}

    def _import_key(self, _: dict[str, Any]) -> dict[str, Any]:
        key = self._hsm.import_key()
        return {"kid": key.kid, "algorithm": key.algorithm, "public_key": key.public_key}

    def _sign_es256(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return {"signature": self._hsm.sign_es256(arguments["message"])}

    def _sign_ed25519(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return {"signature": self._hsm.sign_ed25519(arguments["message"])}

    def _seal_secret(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Seal a secret of the service itself (not a tenant's key), such as its session secret."""
        encrypted = self._hsm.seal_service_secret(arguments["secret"], _SECRET_AAD)
        fields = [int(encrypted.algorithm), encrypted.hsm_key_id, encrypted.iv, encrypted.ciphertext]
        return {"sealed": fields}

    def _open_secret(self, arguments: dict[str, Any]) -> dict[str, Any]:
        algorithm, hsm_key_id, iv, ciphertext = arguments["sealed"]
        encrypted = EncryptedDataKey(DataKeyAlgorithm(algorithm), hsm_key_id, iv, ciphertext)
        return {"secret": self._hsm.open_service_secret(encrypted, _SECRET_AAD)}

    def _health(self, _: dict[str, Any]) -> dict[str, Any]:
        self._hsm.health()
        return {}


def _length(context: KeyContext) -> int:
    if context.algorithm not in KEY_LENGTHS:
        raise InvalidInput("unknown key algorithm", where=context.algorithm, fix=f"use one of {', '.join(KEY_LENGTHS)}")
    return KEY_LENGTHS[context.algorithm]
