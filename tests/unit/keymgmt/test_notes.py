"""Signed notes and checkpoints: the C2SP example, round trips, and every malformation refused."""

import base64
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from keymgmt.transparency.errors import NoteInvalid
from keymgmt.transparency.note import Checkpoint, VerifierKey, open_note, sign_note

SHARED = Path(os.environ.get("KEKKAI_SHARED", Path(__file__).resolve().parents[3] / ".." / "shared"))
FORMATS = SHARED / "vectors" / "formats"


@pytest.fixture(scope="module")
def private():
    return Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


@pytest.fixture(scope="module")
def key(private):
    return VerifierKey("kekkai.test/log", private.public_key().public_bytes_raw())


def test_the_c2sp_example_verifies():
    key = VerifierKey.parse((FORMATS / "signed-note-example.vkey").read_text())
    assert str(key) == (FORMATS / "signed-note-example.vkey").read_text().strip()
    text = open_note((FORMATS / "signed-note-example.txt").read_bytes(), key)
    assert text == "This is an example message.\n"


def test_any_changed_byte_of_the_example_is_refused():
    key = VerifierKey.parse((FORMATS / "signed-note-example.vkey").read_text())
    note = (FORMATS / "signed-note-example.txt").read_bytes()
    for position in range(len(note)):
        changed = bytearray(note)
        changed[position] ^= 0x04
        with pytest.raises(NoteInvalid):
            open_note(bytes(changed), key)


def test_round_trip_and_foreign_signatures_are_ignored(private, key):
    note = sign_note("hello\n\nworld\n", key, private.sign)
    foreign = "— other.example/witness " + base64.b64encode(bytes(68)).decode() + "\n"
    assert open_note(note + foreign.encode(), key) == "hello\n\nworld\n"


def test_a_signer_with_another_key_is_noticed(key):
    with pytest.raises(NoteInvalid, match="signer"):
        sign_note("x\n", key, Ed25519PrivateKey.generate().sign)


@pytest.mark.parametrize(
    "vkey",
    ["", "a+b", "name+00000000+AAAA", "na me+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k", "n+1+!!"],
)
def test_bad_verifier_keys(vkey):
    with pytest.raises(NoteInvalid):
        VerifierKey.parse(vkey)


@pytest.mark.parametrize(
    "text",
    [
        "kekkai.test/log\n01\n{root}\n",
        "kekkai.test/log\n-1\n{root}\n",
        "kekkai.test/log\n1\nAAAA\n",
        "kekkai.test/other\n1\n{root}\n",
        "kekkai.test/log\n1\n",
    ],
)
def test_malformed_checkpoints_are_refused(private, key, text):
    note = sign_note(text.format(root=base64.b64encode(bytes(32)).decode()), key, private.sign)
    with pytest.raises(NoteInvalid):
        Checkpoint.open(note, key)


@given(st.integers(0, 2**62), st.binary(min_size=32, max_size=32))
def test_checkpoints_round_trip(size, root):
    private = Ed25519PrivateKey.from_private_bytes(bytes(32))
    key = VerifierKey("a.example", private.public_key().public_bytes_raw())
    checkpoint = Checkpoint("a.example", size, root)
    assert Checkpoint.open(checkpoint.sign(key, private.sign), key) == checkpoint


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused_cleanly(data):
    key = VerifierKey("a.example", bytes(range(32)))
    with pytest.raises(NoteInvalid):
        open_note(data, key)
