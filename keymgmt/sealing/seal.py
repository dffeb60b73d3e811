"""Sealing and unsealing a key version. Runs only in the worker process: plaintext passes here."""

from __future__ import annotations

import os
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keymgmt.sealing.format import (
    DATA_KEY_BYTES,
    IV_BYTES,
    MAX_KEY_BYTES,
    DataKeyAlgorithm,
    EncryptedDataKey,
    KeyContext,
    SealedKey,
    SealedKeyInvalid,
    additional_data,
)


class DataKeyCipher(Protocol):
    """The HSM's side: encrypts data keys under non-extractable keys that it holds."""

    @property
    def data_key_algorithm(self) -> DataKeyAlgorithm:
        """What `encrypt_data_key` uses."""

    def encrypt_data_key(self, hsm_key_id: bytes, data_key: bytes, aad: bytes) -> EncryptedDataKey:
        """Encrypt 32 bytes, bound to `aad`."""

    def decrypt_data_key(self, encrypted: EncryptedDataKey, aad: bytes) -> bytes:
        """Inverse. Raises KekkaiError if the key is gone or `aad` differs."""


def seal(key: bytes, context: KeyContext, hsm_key_id: bytes, cipher: DataKeyCipher) -> SealedKey:
    """Seal a key version under a fresh data key. The HSM key must exist."""
    if not 0 < len(key) <= MAX_KEY_BYTES:
        raise SealedKeyInvalid(f"a key has 1 to {MAX_KEY_BYTES} bytes", where="key")
    aad = additional_data(context, cipher.data_key_algorithm, hsm_key_id)
    data_key, iv = os.urandom(DATA_KEY_BYTES), os.urandom(IV_BYTES)
    ciphertext = AESGCM(data_key).encrypt(iv, key, aad)
    return SealedKey(context, cipher.encrypt_data_key(hsm_key_id, data_key, aad), iv, ciphertext)


def unseal(sealed: SealedKey, expected: KeyContext, cipher: DataKeyCipher) -> bytes:
    """The plaintext key, if the sealed context is exactly `expected`. Raises SealedKeyInvalid.

    `expected` comes from the policy and custodian set that were just checked, so a database
    that pairs a key with another policy gets nothing.
    """
    if sealed.context != expected:
        raise SealedKeyInvalid("the sealed key is bound to another context", where=expected.key_id)
    aad = additional_data(sealed.context, sealed.data_key.algorithm, sealed.data_key.hsm_key_id)
    data_key = cipher.decrypt_data_key(sealed.data_key, aad)
    try:
        return AESGCM(data_key).decrypt(sealed.iv, sealed.ciphertext, aad)
    except (InvalidTag, ValueError):
        raise SealedKeyInvalid("the sealed key does not authenticate", where=expected.key_id) from None
