"""The stored bytes of a sealed key: one version byte, then deterministic CBOR (RFC 8949 section 4.2).

    sealed  = 0x01 ‖ CBOR {1: context, 2: HSM key id, 3: data-key algorithm, 4: data-key IV,
                           5: encrypted data key, 6: payload IV, 7: payload ‖ tag}
    context = {1: tenant, 2: key id, 3: version, 4: policy digest, 5: custodian-set digest,
               6: jurisdiction, 7: key algorithm}
    AAD     = "kekkai/sealed-key" ‖ 0x01 ‖ CBOR [data-key algorithm, HSM key id, context]

Map keys are integers below 24, so that every deterministic ordering rule agrees. A decoder
accepts only bytes that the encoder would have written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import cbor2

from crds.errors import InvalidInput

VERSION = 1
MAX_SEALED_BYTES = 4096
MAX_KEY_BYTES = 1024
HSM_KEY_ID_BYTES = 16
IV_BYTES = 12
TAG_BYTES = 16
DATA_KEY_BYTES = 32
_LABEL = b"kekkai/sealed-key" + bytes([VERSION])
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:+-]{0,254}", re.ASCII)


class SealedKeyInvalid(InvalidInput):
    """A sealed key does not decode, does not match its context, or does not authenticate."""

    reason = "SealedKeyInvalid"
    http_status = 500


class DataKeyAlgorithm(IntEnum):
    """How the HSM encrypted the data key."""

    AES_GCM = 1  # CKM_AES_GCM with the AAD
    AES_KWP = 2  # RFC 5649 over data key ‖ SHA-256(AAD): KWP takes no AAD


@dataclass(frozen=True, slots=True)
class KeyContext:
    """What a key version is bound to. Digests are 32 raw bytes (SHA-256)."""

    tenant: str
    key_id: str
    version: int
    policy_digest: bytes
    custodian_set: bytes
    jurisdiction: str
    algorithm: str

    def __post_init__(self) -> None:
        for name in ("tenant", "key_id", "jurisdiction", "algorithm"):
            value = getattr(self, name)
            if type(value) is not str or not _NAME.fullmatch(value):
                raise SealedKeyInvalid("not a plain name", where=f"context.{name}")
        if type(self.version) is not int or not 1 <= self.version < 2**32:
            raise SealedKeyInvalid("out of range", where="context.version")
        for name in ("policy_digest", "custodian_set"):
            value = getattr(self, name)
            if type(value) is not bytes or len(value) != 32:
                raise SealedKeyInvalid("not a SHA-256 digest", where=f"context.{name}")

    def as_map(self) -> dict[int, Any]:
        """The CBOR map."""
        return {
            1: self.tenant,
            2: self.key_id,
            3: self.version,
            4: self.policy_digest,
            5: self.custodian_set,
            6: self.jurisdiction,
            7: self.algorithm,
        }

    @classmethod
    def from_map(cls, document: object) -> KeyContext:
        """Strict inverse of `as_map`. Raises SealedKeyInvalid."""
        if type(document) is not dict or set(document) != set(range(1, 8)):
            raise SealedKeyInvalid("wrong fields", where="context")
        return cls(*(document[i] for i in range(1, 8)))


@dataclass(frozen=True, slots=True)
class EncryptedDataKey:
    """A data key as the HSM encrypted it. `iv` is empty for AES-KWP."""

    algorithm: DataKeyAlgorithm
    hsm_key_id: bytes
    iv: bytes
    ciphertext: bytes


@dataclass(frozen=True, slots=True)
class SealedKey:
    """A sealed key version, decoded."""

    context: KeyContext
    data_key: EncryptedDataKey
    iv: bytes
    ciphertext: bytes

    def encode(self) -> bytes:
        """The stored bytes."""
        return bytes([VERSION]) + cbor2.dumps(
            {
                1: self.context.as_map(),
                2: self.data_key.hsm_key_id,
                3: int(self.data_key.algorithm),
                4: self.data_key.iv,
                5: self.data_key.ciphertext,
                6: self.iv,
                7: self.ciphertext,
            },
            canonical=True,
        )

    @classmethod
    def decode(cls, data: bytes) -> SealedKey:
        """Strict inverse of `encode`. Raises SealedKeyInvalid."""
        if len(data) > MAX_SEALED_BYTES or data[:1] != bytes([VERSION]):
            raise SealedKeyInvalid("unknown format version or too long", where="sealed key")
        try:
            fields = cbor2.loads(data[1:], max_depth=4, allow_indefinite=False, allow_duplicate_keys=False)
        except Exception:  # cbor2 raises many kinds on bytes that are not CBOR
            raise SealedKeyInvalid("not CBOR", where="sealed key") from None
        if type(fields) is not dict or set(fields) != set(range(1, 8)):
            raise SealedKeyInvalid("wrong fields", where="sealed key")
        if any(type(fields[i]) is not bytes for i in (2, 4, 5, 6, 7)) or type(fields[3]) is not int:
            raise SealedKeyInvalid("wrong types", where="sealed key")
        try:
            algorithm = DataKeyAlgorithm(fields[3])
        except ValueError:
            raise SealedKeyInvalid("unknown data-key algorithm", where="sealed key") from None
        data_key = EncryptedDataKey(algorithm, fields[2], fields[4], fields[5])
        sealed = cls(KeyContext.from_map(fields[1]), data_key, fields[6], fields[7])
        sealed._check_lengths()
        if sealed.encode() != data:
            raise SealedKeyInvalid("not in canonical form", where="sealed key")
        return sealed

    def _check_lengths(self) -> None:
        gcm = self.data_key.algorithm is DataKeyAlgorithm.AES_GCM
        wanted = (
            (len(self.data_key.hsm_key_id), HSM_KEY_ID_BYTES),
            (len(self.data_key.iv), IV_BYTES if gcm else 0),
            # AES-GCM: key ‖ tag; AES-KWP of key ‖ digest: 64 bytes and 8 of integrity check
            (len(self.data_key.ciphertext), DATA_KEY_BYTES + TAG_BYTES if gcm else 72),
            (len(self.iv), IV_BYTES),
        )
        if any(got != want for got, want in wanted):
            raise SealedKeyInvalid("a field has the wrong length", where="sealed key")
        if not TAG_BYTES < len(self.ciphertext) <= MAX_KEY_BYTES + TAG_BYTES:
            raise SealedKeyInvalid("the payload has the wrong length", where="sealed key")


def additional_data(context: KeyContext, algorithm: DataKeyAlgorithm, hsm_key_id: bytes) -> bytes:
    """The AAD of both layers: what the ciphertexts are bound to."""
    return _LABEL + cbor2.dumps([int(algorithm), hsm_key_id, context.as_map()], canonical=True)
