"""Keys used in the worker: what they encrypt opens only under the same key, version, name and associated data."""

import os

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa
from hypothesis import given
from hypothesis import strategies as st

from crds.errors import InvalidInput
from keymgmt.wrapping import transit
from keymgmt.wrapping.transit import CiphertextInvalid

KEY = bytes(range(32))


@given(st.binary(max_size=300), st.binary(max_size=40), st.integers(1, 2**32 - 1))
def test_what_was_encrypted_comes_back(message, associated, version):
    ciphertext = transit.encrypt(KEY, version, "ns/key", message, associated)
    assert transit.version_of(ciphertext) == version
    assert transit.decrypt(KEY, version, "ns/key", ciphertext, associated) == message
    assert len(ciphertext) == len(message) + 53


@pytest.mark.parametrize(
    "change",
    [
        {"key": bytes(32)},
        {"version": 2},
        {"name": "ns/kex"},
        {"name": "other/key"},
        {"associated": b"b"},
        {"associated": b""},
    ],
)
def test_nothing_else_opens_it(change):
    given_ = {"key": KEY, "version": 1, "name": "ns/key", "associated": b"a"}
    ciphertext = transit.encrypt(message=b"secret", **given_)
    with pytest.raises(CiphertextInvalid):
        transit.decrypt(ciphertext=ciphertext, **(given_ | change))


def test_a_name_and_associated_data_cannot_be_shifted_into_each_other():
    ciphertext = transit.encrypt(KEY, 1, "ns/key", b"secret", b"ab")
    with pytest.raises(CiphertextInvalid):
        transit.decrypt(KEY, 1, "ns/keya", ciphertext, b"b")


@given(st.data())
def test_every_changed_bit_is_noticed(data):
    ciphertext = bytearray(transit.encrypt(KEY, 1, "ns/key", b"secret"))
    at = data.draw(st.integers(0, 8 * len(ciphertext) - 1))
    ciphertext[at // 8] ^= 1 << at % 8
    with pytest.raises(CiphertextInvalid):
        transit.decrypt(KEY, 1, "ns/key", bytes(ciphertext))


@pytest.mark.parametrize("junk", [b"", b"\x01" * 52, b"\x02" + bytes(60), bytes(transit.MAX_MESSAGE + 100)])
def test_what_is_no_ciphertext_is_refused(junk):
    with pytest.raises(CiphertextInvalid):
        transit.version_of(junk)


def test_messages_are_bounded():
    with pytest.raises(InvalidInput):
        transit.encrypt(KEY, 1, "ns/key", bytes(transit.MAX_MESSAGE + 1))
    largest = bytes(transit.MAX_MESSAGE)
    assert transit.decrypt(KEY, 1, "k", transit.encrypt(KEY, 1, "k", largest)) == largest


def test_equal_messages_never_look_equal():
    assert len({transit.encrypt(KEY, 1, "k", b"same") for _ in range(50)}) == 50


@pytest.mark.parametrize(
    ("algorithm", "load"),
    [
        ("ED25519", ed25519.Ed25519PublicKey.from_public_bytes),
        ("ML-DSA-65", mldsa.MLDSA65PublicKey.from_public_bytes),
    ],
)
def test_signatures_verify_with_the_public_half(algorithm, load):
    seed = os.urandom(32)
    public = load(transit.public_key(seed, algorithm))
    signature = transit.sign(seed, algorithm, b"message")
    public.verify(signature, b"message")
    with pytest.raises(InvalidSignature):
        public.verify(signature, b"massage")


def test_an_encryption_key_does_not_sign():
    with pytest.raises(InvalidInput):
        transit.sign(KEY, "AES-256-GCM", b"message")
