"""The stored format: golden bytes, and every change of context or bytes refused."""

import os

import cbor2
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from crds.errors import KekkaiError
from keymgmt.sealing.format import (
    DataKeyAlgorithm,
    EncryptedDataKey,
    KeyContext,
    SealedKey,
    SealedKeyInvalid,
    additional_data,
)
from keymgmt.sealing.seal import seal, unseal


class MemoryCipher:
    """AES-GCM keys in memory, standing in for the token (its own tests use the real one)."""

    data_key_algorithm = DataKeyAlgorithm.AES_GCM

    def __init__(self):
        self.keys = {}

    def new(self):
        key_id = os.urandom(16)
        self.keys[key_id] = AESGCM.generate_key(256)
        return key_id

    def encrypt_data_key(self, hsm_key_id, data_key, aad):
        iv = os.urandom(12)
        ciphertext = AESGCM(self.keys[hsm_key_id]).encrypt(iv, data_key, aad)
        return EncryptedDataKey(DataKeyAlgorithm.AES_GCM, hsm_key_id, iv, ciphertext)

    def decrypt_data_key(self, encrypted, aad):
        try:
            return AESGCM(self.keys[encrypted.hsm_key_id]).decrypt(encrypted.iv, encrypted.ciphertext, aad)
        except (KeyError, InvalidTag):
            raise SealedKeyInvalid("refused") from None


CIPHER = MemoryCipher()
HSM_KEY = CIPHER.new()
CONTEXT = KeyContext("tenant-a", "team-a/dataset/0123", 1, bytes(32), bytes([1]) * 32, "JP", "AES-256-GCM")

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,30}", fullmatch=True)
digests = st.binary(min_size=32, max_size=32)
contexts = st.builds(
    KeyContext, names, names, st.integers(1, 2**32 - 1), digests, digests, st.just("JP"), st.just("AES-256-GCM")
)


@given(contexts, st.binary(min_size=1, max_size=1024))
def test_round_trip(context, key):
    sealed = seal(key, context, HSM_KEY, CIPHER)
    encoded = sealed.encode()
    assert SealedKey.decode(encoded) == sealed
    assert unseal(SealedKey.decode(encoded), context, CIPHER) == key


@given(contexts)
def test_another_context_opens_nothing(other):
    sealed = seal(b"k" * 32, CONTEXT, HSM_KEY, CIPHER)
    if other == CONTEXT:
        return
    with pytest.raises(SealedKeyInvalid, match="another context"):
        unseal(sealed, other, CIPHER)
    # Even a database that rewrites the stored context to what is expected gains nothing.
    forged = SealedKey(other, sealed.data_key, sealed.iv, sealed.ciphertext)
    with pytest.raises(KekkaiError):
        unseal(SealedKey.decode(forged.encode()), other, CIPHER)


@given(st.data())
def test_any_changed_byte_is_refused(data):
    encoded = seal(b"k" * 32, CONTEXT, HSM_KEY, CIPHER).encode()
    position = data.draw(st.integers(0, len(encoded) - 1))
    flip = data.draw(st.integers(1, 255))
    changed = bytearray(encoded)
    changed[position] ^= flip
    with pytest.raises(KekkaiError):
        unseal(SealedKey.decode(bytes(changed)), CONTEXT, CIPHER)


@given(st.integers(0, 400))
def test_any_truncation_or_suffix_is_refused(cut):
    encoded = seal(b"k" * 32, CONTEXT, HSM_KEY, CIPHER).encode()
    with pytest.raises(SealedKeyInvalid):
        SealedKey.decode(encoded[: min(cut, len(encoded) - 1)])
    with pytest.raises(SealedKeyInvalid):
        SealedKey.decode(encoded + bytes(cut + 1))


def test_the_data_key_of_one_key_does_not_serve_another():
    first = seal(b"a" * 32, CONTEXT, HSM_KEY, CIPHER)
    second = seal(b"b" * 32, CONTEXT, HSM_KEY, CIPHER)
    mixed = SealedKey(CONTEXT, first.data_key, second.iv, second.ciphertext)
    with pytest.raises(SealedKeyInvalid, match="authenticate"):
        unseal(mixed, CONTEXT, CIPHER)


def test_the_hsm_key_id_is_part_of_what_is_authenticated():
    sealed = seal(b"a" * 32, CONTEXT, HSM_KEY, CIPHER)
    other = os.urandom(16)
    CIPHER.keys[other] = CIPHER.keys[HSM_KEY]
    moved = EncryptedDataKey(sealed.data_key.algorithm, other, sealed.data_key.iv, sealed.data_key.ciphertext)
    with pytest.raises(SealedKeyInvalid):
        unseal(SealedKey(CONTEXT, moved, sealed.iv, sealed.ciphertext), CONTEXT, CIPHER)


def test_golden_bytes():
    """The format is final: this test changes only together with the version byte."""
    context = KeyContext("t", "n/k/00", 7, bytes(32), bytes([1]) * 32, "JP", "AES-256-GCM")
    data_key = EncryptedDataKey(DataKeyAlgorithm.AES_GCM, bytes([2]) * 16, bytes([3]) * 12, bytes([4]) * 48)
    encoded = SealedKey(context, data_key, bytes([5]) * 12, bytes([6]) * 48).encode()
    expected = (
        "01a701a70161740266" + b"n/k/00".hex() + "0307045820" + "00" * 32 + "055820" + "01" * 32
        + "06624a50076b" + b"AES-256-GCM".hex() + "0250" + "02" * 16 + "0301044c" + "03" * 12
        + "055830" + "04" * 48 + "064c" + "05" * 12 + "075830" + "06" * 48
    )  # fmt: skip
    assert encoded.hex() == expected
    assert additional_data(context, DataKeyAlgorithm.AES_GCM, bytes([2]) * 16).hex() == (
        b"kekkai/sealed-key\x01".hex() + "830150" + "02" * 16 + expected[6:][: 2 * len(cbor2.dumps(context.as_map()))]
    )


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused(data):
    with pytest.raises(SealedKeyInvalid):
        SealedKey.decode(b"\x01" + data)


@pytest.mark.parametrize(
    "body",
    [
        bytes.fromhex("9f" * 250),
        bytes.fromhex("81" * 250 + "01"),
        bytes.fromhex("bf01a0ff"),
        cbor2.dumps({i: b"" for i in range(1, 9)}),
        cbor2.dumps(cbor2.CBORTag(28, {1: 2})),
        bytes.fromhex("5b7fffffffffffffff"),
        bytes.fromhex("bb00000000ffffffff"),
    ],
)
def test_hostile_cbor_is_refused(body):
    with pytest.raises(SealedKeyInvalid):
        SealedKey.decode(b"\x01" + body)


@pytest.mark.parametrize(
    "change",
    [{"tenant": ""}, {"tenant": "a b"}, {"version": 0}, {"version": True}, {"policy_digest": b"x"}, {"key_id": "é"}],
)
def test_contexts_are_plain(change):
    fields = dict(zip(KeyContext.__slots__, CONTEXT.as_map().values(), strict=True)) | change
    with pytest.raises(SealedKeyInvalid):
        KeyContext(**fields)
