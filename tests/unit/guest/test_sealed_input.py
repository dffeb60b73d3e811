"""Sealed inputs: round trips of every length, and no change of a byte goes unnoticed."""

from __future__ import annotations

import io
import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crds.errors import InvalidInput
from keymgmt.guest.errors import SealedInputInvalid
from keymgmt.guest.sealed_input import MIN_CHUNK, read_header, seal, unseal

KEY = bytes(range(32))
NAME = "aurora-train/key/dataset"
CHUNK = MIN_CHUNK


def sealed(plaintext: bytes, key: bytes = KEY, name: str = NAME, chunk: int = CHUNK) -> bytes:
    return b"".join(seal(io.BytesIO(plaintext), key, name, chunk_bytes=chunk))


def opened(data: bytes, key: bytes = KEY, name: str | None = NAME) -> bytes:
    return b"".join(unseal(io.BytesIO(data), key, name))


class Trickle(io.BytesIO):
    """Gives one to three bytes at a time, as a pipe may."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size or 1, random.Random(self.tell()).randint(1, 3)))


@given(st.binary(max_size=5 * CHUNK), st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_round_trip(plaintext: bytes, multiple: int) -> None:
    for text in (plaintext, bytes(multiple * CHUNK)):
        assert opened(sealed(text)) == text


def test_slow_streams() -> None:
    text = os.urandom(3 * CHUNK + 5)
    data = b"".join(seal(Trickle(text), KEY, NAME, chunk_bytes=CHUNK))
    assert b"".join(unseal(Trickle(data), KEY, NAME)) == text


def test_header_names_the_resource() -> None:
    header = read_header(io.BytesIO(sealed(b"text")))
    assert (header.resource, header.chunk_bytes) == (NAME, CHUNK)
    assert sealed(b"text") != sealed(b"text")  # fresh salt each time


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_any_flipped_bit_is_refused(data: st.DataObject) -> None:
    good = sealed(bytes(200))
    position = data.draw(st.integers(0, len(good) * 8 - 1))
    bad = bytearray(good)
    bad[position // 8] ^= 1 << position % 8
    with pytest.raises(SealedInputInvalid):
        opened(bytes(bad), name=None)


def test_cut_reordered_repeated_or_extended_chunks_are_refused() -> None:
    good = sealed(os.urandom(4 * CHUNK))
    size = CHUNK + 16
    start = len(good) - 4 * size
    head, chunks = good[:start], [good[start + i * size : start + (i + 1) * size] for i in range(4)]
    variants = {
        "cut at a border": [*chunks[:3]],
        "no chunk": [],
        "swapped": [chunks[1], chunks[0], chunks[2], chunks[3]],
        "repeated": [chunks[0], chunks[0], *chunks[1:]],
        "last twice": [*chunks, chunks[3]],
        "first dropped": chunks[1:],
    }
    for variant in variants.values():
        with pytest.raises(SealedInputInvalid):
            opened(head + b"".join(variant))
    with pytest.raises(SealedInputInvalid):
        opened(good + b"x")
    with pytest.raises(SealedInputInvalid):
        opened(good[:-1])


def test_chunks_of_another_input_do_not_fit() -> None:
    first, second = sealed(os.urandom(CHUNK)), sealed(os.urandom(CHUNK))
    size = CHUNK + 16
    with pytest.raises(SealedInputInvalid):
        opened(first[:-size] + second[-size:])


def test_wrong_key_and_wrong_resource() -> None:
    data = sealed(b"text")
    with pytest.raises(SealedInputInvalid):
        opened(data, key=bytes(32))
    with pytest.raises(SealedInputInvalid) as caught:
        opened(data, name="aurora-train/key/other")
    assert caught.value.problem.reason == "SealedForAnotherResource"
    with pytest.raises(SealedInputInvalid):
        opened(data, key=bytes(16))


@pytest.mark.parametrize("name", ["", "a/b", "a/b/c/d", "a/../c", "/a/b", "a/b/" + "c" * 600, "a b/c/d"])
def test_names_are_checked_when_sealing(name: str) -> None:
    with pytest.raises(InvalidInput):
        sealed(b"", name=name)


@pytest.mark.parametrize("chunk", [0, 63, (1 << 20) + 1])
def test_chunk_sizes_are_bounded(chunk: int) -> None:
    with pytest.raises(InvalidInput):
        sealed(b"", chunk=chunk)


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_random_bytes_are_refused(data: bytes) -> None:
    for candidate in (data, b"KEKKAI-SEALED\x01" + data):
        with pytest.raises(SealedInputInvalid):
            opened(candidate, name=None)
