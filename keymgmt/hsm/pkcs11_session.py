"""The PKCS#11 session: wrapping keys, data-key encryption, signatures, import, all inside the token."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

import pkcs11
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass
from pkcs11.exceptions import PKCS11Error
from pkcs11.util.ec import encode_named_curve_parameters

from keymgmt.hsm.mechanisms import Choices, probe
from keymgmt.hsm.protocol import HsmCapabilities, HsmError, HsmKeyGone, ImportKey
from keymgmt.hsm.software_keys import SoftwareKey
from keymgmt.hsm.token import TokenPlace, locked, make_durable
from keymgmt.sealing.format import (
    DATA_KEY_BYTES,
    HSM_KEY_ID_BYTES,
    IV_BYTES,
    TAG_BYTES,
    DataKeyAlgorithm,
    EncryptedDataKey,
)

T = TypeVar("T")
WRAP_LABEL = "kekkai-wrap"
SERVICE_LABEL = "kekkai-service"
EAR_LABEL = "kekkai-ear"
LOG_LABEL = "kekkai-log"
IMPORT_LABEL = "kekkai-import"
IMPORT_BITS = 3072
_NEVER_LEAVES = {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False, Attribute.PRIVATE: True}
_MAX_CACHED_HANDLES = 100_000
_REOPEN_SECONDS = 1.0  # a key that is really gone must not have the token loaded at every request


class Pkcs11Session:
    """Implements `HsmSession`. One login, one thread."""

    def __init__(self, place: TokenPlace, avoid: Iterable[str] = ()) -> None:
        """Log in and probe. `avoid` names mechanisms to treat as absent. Raises HsmError."""
        self._place = place
        self._handles: dict[bytes, Any] = {}
        self._software: dict[str, SoftwareKey] = {}
        try:
            self._library = pkcs11.lib(str(place.library))
            token = self._library.get_token(token_label=place.label)
            self._session = token.open(rw=True, user_pin=place.pin)
        except PKCS11Error as error:
            raise HsmError(
                f"cannot log in to the token: {type(error).__name__}",
                where=f"hsm token {place.label}",
                fix="check hsm.tokenLabel and hsm.pinFile",
            ) from None
        self._missed: dict[bytes, float] = {}  # when a key was not found last
        self._choices: Choices = probe(token.slot, avoid)
        self._capabilities = self._choices.capabilities(str(place.library), place.label)

    @property
    def capabilities(self) -> HsmCapabilities:
        return self._capabilities

    @property
    def data_key_algorithm(self) -> DataKeyAlgorithm:
        return self._choices.data_key

    # -- wrapping keys and data keys -------------------------------------------------------

    def generate_wrapping_key(self) -> bytes:
        key_id = os.urandom(HSM_KEY_ID_BYTES)
        self._handles[key_id] = self._durably("generate key", lambda: self._new_aes(WRAP_LABEL, key_id))
        return key_id

    def wrapping_keys(self) -> list[bytes]:
        if self._place.token_folder is not None:
            self._reopen()
        found = self._guard("list keys", lambda: list(self._session.get_objects(self._wrap_filter())))
        return [bytes(key[Attribute.ID]) for key in found]

    def encrypt_data_key(self, hsm_key_id: bytes, data_key: bytes, aad: bytes) -> EncryptedDataKey:
        if len(data_key) != DATA_KEY_BYTES:
            raise HsmError("a data key has 32 bytes", where="encrypt data key")
        return self._encrypt(self._wrapping_key(hsm_key_id), hsm_key_id, data_key, aad)

    def decrypt_data_key(self, encrypted: EncryptedDataKey, aad: bytes) -> bytes:
        return self._decrypt(self._wrapping_key(encrypted.hsm_key_id), encrypted, aad)

    def destroy(self, hsm_key_id: bytes) -> bool:
        self._handles.pop(hsm_key_id, None)
        found = self._find_wrapping_key(hsm_key_id)
        for key in found:
            self._durably("destroy key", key.destroy)
        return bool(found)

    def _encrypt(self, key: Any, hsm_key_id: bytes, data_key: bytes, aad: bytes) -> EncryptedDataKey:
        if self._choices.data_key is DataKeyAlgorithm.AES_GCM:
            iv = os.urandom(IV_BYTES)
            parameters = pkcs11.GCMParams(iv, aad=aad, tag_bits=8 * TAG_BYTES)
            ciphertext = self._guard(
                "encrypt data key",
                lambda: key.encrypt(data_key, mechanism=Mechanism.AES_GCM, mechanism_param=parameters),
            )
            return EncryptedDataKey(DataKeyAlgorithm.AES_GCM, hsm_key_id, iv, bytes(ciphertext))
        material = data_key + hashlib.sha256(aad).digest()
        return EncryptedDataKey(DataKeyAlgorithm.AES_KWP, hsm_key_id, b"", self._wrap(key, material))

    def _decrypt(self, key: Any, encrypted: EncryptedDataKey, aad: bytes) -> bytes:
        if encrypted.algorithm is DataKeyAlgorithm.AES_GCM:
            parameters = pkcs11.GCMParams(encrypted.iv, aad=aad, tag_bits=8 * TAG_BYTES)
            return bytes(
                self._guard(
                    "decrypt data key",
                    lambda: key.decrypt(encrypted.ciphertext, mechanism=Mechanism.AES_GCM, mechanism_param=parameters),
                )
            )
        material = self._unwrap(key, encrypted.ciphertext)
        data_key, bound_to = material[:DATA_KEY_BYTES], material[DATA_KEY_BYTES:]
        if bound_to != hashlib.sha256(aad).digest():
            raise HsmError("the data key is bound to another context", where="decrypt data key")
        return data_key

    def _wrap(self, key: Any, material: bytes) -> bytes:
        """KWP in the token: the material becomes a session object for the time of the call."""
        template = {
            Attribute.CLASS: ObjectClass.SECRET_KEY,
            Attribute.KEY_TYPE: KeyType.GENERIC_SECRET,
            Attribute.TOKEN: False,
            Attribute.SENSITIVE: False,
            Attribute.EXTRACTABLE: True,
            Attribute.VALUE: material,
        }
        passing = self._guard("hold data key", lambda: self._session.create_object(template))
        try:
            wrapped = self._guard("wrap data key", lambda: key.wrap_key(passing, mechanism=self._choices.kwp))
        finally:
            passing.destroy()
        return bytes(wrapped)

    def _unwrap(self, key: Any, wrapped: bytes) -> bytes:
        passing = self._guard(
            "unwrap data key",
            lambda: key.unwrap_key(
                ObjectClass.SECRET_KEY,
                KeyType.GENERIC_SECRET,
                wrapped,
                mechanism=self._choices.kwp,
                template={Attribute.TOKEN: False, Attribute.SENSITIVE: False, Attribute.EXTRACTABLE: True},
            ),
        )
        try:
            return bytes(self._guard("read data key", lambda: passing[Attribute.VALUE]))
        finally:
            passing.destroy()

    def _wrapping_key(self, hsm_key_id: bytes) -> Any:
        handle = self._handles.get(hsm_key_id)
        if handle is None:
            found = self._find_wrapping_key(hsm_key_id)
            if not found:
                raise HsmKeyGone(
                    "the HSM has no such wrapping key", where=hsm_key_id.hex(), fix="destroyed keys do not return"
                )
            if len(self._handles) >= _MAX_CACHED_HANDLES:
                self._handles.clear()
            handle = self._handles[hsm_key_id] = found[0]
        return handle

    def _find_wrapping_key(self, hsm_key_id: bytes) -> list[Any]:
        def look() -> list[Any]:
            return self._guard("find key", lambda: list(self._session.get_objects(self._wrap_filter(hsm_key_id))))

        found, now = look(), time.monotonic()
        if found or self._place.token_folder is None or now < self._missed.get(hsm_key_id, 0.0) + _REOPEN_SECONDS:
            return found
        if len(self._missed) > _MAX_CACHED_HANDLES:
            self._missed.clear()
        self._missed[hsm_key_id] = now
        self._reopen()
        return look()

    def _reopen(self) -> None:
        """Load the embedded token anew: SoftHSM can miss what another replica's worker wrote after we wrote."""

        def again() -> Any:
            library = pkcs11.lib(str(self._place.library))
            library.reinitialize()
            return library.get_token(token_label=self._place.label).open(rw=True, user_pin=self._place.pin)

        self._handles.clear()
        self._session = self._guard("open the token again", again)

    @staticmethod
    def _wrap_filter(hsm_key_id: bytes | None = None) -> dict[Attribute, Any]:
        template = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.LABEL: WRAP_LABEL}
        return template if hsm_key_id is None else {**template, Attribute.ID: hsm_key_id}

    def _new_aes(self, label: str, key_id: bytes) -> Any:
        kwp = self._choices.data_key is DataKeyAlgorithm.AES_KWP
        template = {
            **_NEVER_LEAVES,
            Attribute.ENCRYPT: not kwp,
            Attribute.DECRYPT: not kwp,
            Attribute.WRAP: kwp,
            Attribute.UNWRAP: kwp,
            Attribute.SIGN: False,
            Attribute.VERIFY: False,
        }
        return self._session.generate_key(KeyType.AES, 256, label=label, id=key_id, store=True, template=template)

    # -- signatures ------------------------------------------------------------------------

    def ear_public_key(self) -> bytes:
        if not self._choices.ecdsa:
            return self._software_key("ear").public_bytes()
        return _octets(bytes(self._pair(EAR_LABEL, self._new_p256)[0][Attribute.EC_POINT]))

    def sign_es256(self, message: bytes) -> bytes:
        if not self._choices.ecdsa:
            return self._software_key("ear").sign(message)
        private = self._pair(EAR_LABEL, self._new_p256)[1]
        digest = hashlib.sha256(message).digest()
        return bytes(self._guard("sign", lambda: private.sign(digest, mechanism=Mechanism.ECDSA)))

    def log_public_key(self) -> bytes:
        if not self._choices.eddsa:
            return self._software_key("log").public_bytes()
        return _octets(bytes(self._pair(LOG_LABEL, self._new_ed25519)[0][Attribute.EC_POINT]))

    def sign_ed25519(self, message: bytes) -> bytes:
        if not self._choices.eddsa:
            return self._software_key("log").sign(message)
        private = self._pair(LOG_LABEL, self._new_ed25519)[1]
        return bytes(self._guard("sign", lambda: private.sign(message, mechanism=Mechanism.EDDSA)))

    def _new_p256(self, label: str) -> None:
        self._new_curve_pair(KeyType.EC, "secp256r1", Mechanism.EC_KEY_PAIR_GEN, label)

    def _new_ed25519(self, label: str) -> None:
        self._new_curve_pair(KeyType.EC_EDWARDS, "1.3.101.112", Mechanism.EC_EDWARDS_KEY_PAIR_GEN, label)

    def _new_curve_pair(self, kind: KeyType, curve: str, mechanism: Mechanism, label: str) -> None:
        domain = self._session.create_domain_parameters(
            kind, {Attribute.EC_PARAMS: encode_named_curve_parameters(curve)}, local=True
        )
        domain.generate_keypair(
            mechanism=mechanism,
            store=True,
            label=label,
            id=os.urandom(HSM_KEY_ID_BYTES),
            private_template={**_NEVER_LEAVES, Attribute.SIGN: True},
        )

    def _pair(self, label: str, make: Callable[[str], None]) -> tuple[Any, Any]:
        name = label.encode()
        if name not in self._handles:
            pair = self._find_pair(label)
            if pair is None:
                # While a worker is being replaced there are two: only one may make the pair.
                with locked(self._place):
                    pair = self._find_pair(label)
                    if pair is None:
                        self._durably("generate key pair", lambda: make(label))
                        pair = self._find_pair(label)
            if pair is None:
                raise HsmError("a new key pair cannot be found", where=label)
            self._handles[name] = pair
        return cast(tuple[Any, Any], self._handles[name])

    def _find_pair(self, label: str) -> tuple[Any, Any] | None:
        halves = []
        for kind in (ObjectClass.PUBLIC_KEY, ObjectClass.PRIVATE_KEY):
            wanted = {Attribute.CLASS: kind, Attribute.LABEL: label}
            found = self._guard("find key pair", lambda w=wanted: list(self._session.get_objects(w)))  # type: ignore[misc]
            if not found:
                return None
            if len(found) > 1:
                raise HsmError("more than one key pair of that label", where=label, fix="remove all but one")
            halves.append(found[0])
        return halves[0], halves[1]

    def _software_key(self, name: str) -> SoftwareKey:
        """The stated fallback: a signing key sealed by the token, held in this process's memory."""
        if name not in self._software:
            if self._place.token_folder is None:
                raise HsmError(f"the token cannot sign as {name} needs", where="hsm", fix="use another module")
            path = self._place.token_folder.parent / f"{name}.sealed"
            self._software[name] = SoftwareKey.load_or_make(path, name, self._service_key(), self)
        return self._software[name]

    def _service_key(self) -> bytes:
        """Id of the AES key that seals the service's own secrets."""
        wanted = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.LABEL: SERVICE_LABEL}
        found = self._guard("find key", lambda: list(self._session.get_objects(wanted)))
        if not found:
            key_id = os.urandom(HSM_KEY_ID_BYTES)
            found = [self._durably("generate key", lambda: self._new_aes(SERVICE_LABEL, key_id))]
        key_id = bytes(found[0][Attribute.ID])
        self._handles[key_id] = found[0]
        return key_id

    def seal_service_secret(self, secret: bytes, aad: bytes) -> EncryptedDataKey:
        """Encrypt 32 bytes of the service's own under a key of the token."""
        return self.encrypt_data_key(self._service_key(), secret, aad)

    def open_service_secret(self, encrypted: EncryptedDataKey, aad: bytes) -> bytes:
        """Inverse of `seal_service_secret`."""
        self._service_key()
        return self.decrypt_data_key(encrypted, aad)

    # -- import ----------------------------------------------------------------------------

    def import_key(self) -> ImportKey:
        public = self._pair(IMPORT_LABEL, self._new_rsa)[0]
        numbers = RSAPublicNumbers(
            int.from_bytes(public[Attribute.PUBLIC_EXPONENT], "big"),
            int.from_bytes(public[Attribute.MODULUS], "big"),
        )
        key = numbers.public_key()
        der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        return ImportKey(hashlib.sha256(der).hexdigest(), self._capabilities.import_wrapping, pem)

    def unwrap_import(self, kid: str, wrapped: bytes) -> bytes:
        if kid != self.import_key().kid:
            raise HsmError("unknown import key", where="kid", fix="get /v1/import-key and wrap again")
        private = self._pair(IMPORT_LABEL, self._new_rsa)[1]
        return bytes(
            self._guard(
                "unwrap import",
                lambda: private.decrypt(wrapped, mechanism=Mechanism.RSA_PKCS_OAEP, mechanism_param=self._choices.oaep),
            )
        )

    def _new_rsa(self, label: str) -> None:
        self._session.generate_keypair(
            KeyType.RSA,
            IMPORT_BITS,
            store=True,
            label=label,
            id=os.urandom(HSM_KEY_ID_BYTES),
            private_template={**_NEVER_LEAVES, Attribute.DECRYPT: True, Attribute.SIGN: False},
        )

    # -- the rest --------------------------------------------------------------------------

    def random(self, count: int) -> bytes:
        mine = os.urandom(count)
        theirs = self._guard("random", lambda: self._session.generate_random(8 * count))
        return bytes(a ^ b for a, b in zip(mine, theirs, strict=True))

    def health(self) -> None:
        self._guard("health", lambda: self._session.generate_random(64))

    def _durably(self, operation: str, act: Callable[[], T]) -> T:
        started = time.time_ns()
        result = self._guard(operation, act)
        if self._place.token_folder is not None:
            make_durable(self._place.token_folder, started)
        return result

    @staticmethod
    def _guard(operation: str, act: Callable[[], T]) -> T:
        """Turn a PKCS#11 error into ours. Its text is dropped: it may quote arguments."""
        try:
            return act()
        except PKCS11Error as error:
            raise HsmError(f"the HSM refused: {type(error).__name__}", where=operation) from None


def _octets(point: bytes) -> bytes:
    """Strip the DER OCTET STRING around a CKA_EC_POINT of at most 127 bytes."""
    if len(point) < 2 or point[0] != 0x04 or point[1] != len(point) - 2:
        raise HsmError("the HSM's public key has an unexpected form", where="CKA_EC_POINT")
    return point[2:]
