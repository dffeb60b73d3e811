"""Hostile inputs from good ones: flips, cuts, repeats, splices, wild numbers and nesting."""

from __future__ import annotations

import random

_WILD = [
    b"\x00",
    b"\xff" * 4,
    b"\x7f\xff\xff\xff",
    b"\x80",
    b"9" * 40,
    b"-1",
    b"1e999",
    b"NaN",
    b"\xed\xa0\x80",
    b'"',
    b"\\u0000",
]
_NESTS = [b"[", b'{"a":', b"\x81", b"\xa1\x01", b"("]
_MAX = 1 << 16


def mutate(seed: bytes, other: bytes, dice: random.Random) -> bytes:
    """One to four changes, one after the other; at most 64 KiB."""
    data = bytearray(seed)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(data) + 1)
        match dice.randrange(8):
            case 0 if data:
                data[at % len(data)] ^= 1 << dice.randrange(8)
            case 1:
                del data[at:]
            case 2:
                data[at:at] = dice.choice(_WILD)
            case 3:
                end = min(len(data), at + dice.randint(1, 64))
                data[at:at] = data[at:end] * dice.randint(1, 40)
            case 4:
                data[at:] = other[dice.randrange(len(other) + 1) :]
            case 5:
                data[at:at] = dice.choice(_NESTS) * dice.choice([1, 30, 300, 3000])
            case 6:
                del data[at : at + dice.randint(1, 16)]
            case _:
                data[at : at + 4] = dice.randbytes(4)
    return bytes(data[:_MAX])
