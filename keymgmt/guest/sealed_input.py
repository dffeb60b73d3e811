"""Sealed inputs: a stream encrypted under a released key, opened chunk by chunk inside the guest.

Format, version 1 (integers big endian):

    magic "KEKKAI-SEALED" (13) ‖ version 1 (1) ‖ chunk size (4) ‖ salt (32) ‖ nonce prefix (7)
    ‖ resource length (2) ‖ resource name (UTF-8, "namespace/key/name")
    then chunks: AES-256-GCM ciphertext and tag (16) of `chunk size` bytes of plaintext each

The last chunk is shorter or equal, and empty only if the whole input is. Chunk i has the nonce
prefix ‖ i (4) ‖ last (1: 0 or 1), which is the STREAM construction (Hoang, Reyhanitabar,
Rogaway, Vizar, CRYPTO 2015): chunks cannot be dropped, swapped, repeated or cut off. As in
Tink's AES-GCM-HKDF streaming, each input has its own key, HKDF-SHA256(key, salt, header), so
that prefixes of different inputs may collide. The header is the additional data of every
chunk, which binds the resource name.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from crds.errors import InvalidInput
from keymgmt.guest.errors import SealedInputInvalid

MAGIC: Final = b"KEKKAI-SEALED"
VERSION: Final = 1
KEY_BYTES: Final = 32
TAG_BYTES: Final = 16
DEFAULT_CHUNK: Final = 64 * 1024
MIN_CHUNK: Final = 64
MAX_CHUNK: Final = 1 << 20
MAX_PLAINTEXT: Final = 1 << 40
MAX_RESOURCE_BYTES: Final = 512
_FIXED: Final = struct.Struct(">13sBI32s7sH")
_SEGMENT = r"[A-Za-z0-9_\-]+[A-Za-z0-9_\-.]*"
RESOURCE: Final = re.compile(rf"{_SEGMENT}/{_SEGMENT}/{_SEGMENT}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Header:
    """What stands in front of the chunks; authenticated by each of them."""

    resource: str
    chunk_bytes: int
    salt: bytes
    prefix: bytes

    def encode(self) -> bytes:
        name = self.resource.encode()
        return _FIXED.pack(MAGIC, VERSION, self.chunk_bytes, self.salt, self.prefix, len(name)) + name


def seal(
    plaintext: BinaryIO, key: bytes | bytearray, resource: str, *, chunk_bytes: int = DEFAULT_CHUNK
) -> Iterator[bytes]:
    """Yield the sealed form of a stream: the header, then each chunk.

    `key` has 32 bytes; `resource` is the key's name, "namespace/key/name". Raises InvalidInput.
    """
    if not RESOURCE.fullmatch(resource) or len(resource) > MAX_RESOURCE_BYTES:
        raise InvalidInput(f"{resource[:80]!r} is not a resource name", where="resource", fix="use namespace/key/name")
    if not MIN_CHUNK <= chunk_bytes <= MAX_CHUNK:
        raise InvalidInput(f"chunk size must be {MIN_CHUNK} to {MAX_CHUNK} bytes", where="chunk_bytes")
    header = Header(resource, chunk_bytes, os.urandom(32), os.urandom(7))
    cipher, associated = _cipher(key, header)
    yield associated
    index, chunk = 0, _read(plaintext, chunk_bytes)
    while True:
        following = _read(plaintext, chunk_bytes) if len(chunk) == chunk_bytes else b""
        last = not following
        if (index + 1) * chunk_bytes > MAX_PLAINTEXT:
            raise InvalidInput(f"the input is larger than {MAX_PLAINTEXT} bytes", where="plaintext")
        yield cipher.encrypt(_nonce(header, index, last), chunk, associated)
        if last:
            return
        index, chunk = index + 1, following


def read_header(sealed: BinaryIO) -> Header:
    """Read and check the header only. It is not authentic until a chunk has been opened."""
    fixed = _read(sealed, _FIXED.size)
    if len(fixed) < _FIXED.size:
        raise SealedInputInvalid("shorter than a header", where="sealed input")
    magic, version, chunk_bytes, salt, prefix, length = _FIXED.unpack(fixed)
    if magic != MAGIC:
        raise SealedInputInvalid("not a sealed input", where="sealed input", fix="seal it by kekkai keys seal")
    if version != VERSION:
        raise SealedInputInvalid(f"format version {version} is not known", where="sealed input")
    if not MIN_CHUNK <= chunk_bytes <= MAX_CHUNK or not 0 < length <= MAX_RESOURCE_BYTES:
        raise SealedInputInvalid("the header exceeds the format's bounds", where="sealed input")
    name = _read(sealed, length)
    resource = name.decode("utf-8", "replace")
    if len(name) != length or not RESOURCE.fullmatch(resource):
        raise SealedInputInvalid("the header does not name a resource", where="sealed input")
    return Header(resource, chunk_bytes, salt, prefix)


def unseal(sealed: BinaryIO, key: bytes | bytearray, resource: str | None = None) -> Iterator[bytes]:
    """Yield the plaintext chunk by chunk, each only after it was authenticated.

    With `resource` the header must name it. An input that was cut short at a chunk's border
    fails at its end, so a consumer must not act on the whole before the iterator is exhausted.
    Raises SealedInputInvalid.
    """
    header = read_header(sealed)
    if resource is not None and header.resource != resource:
        raise SealedInputInvalid(
            f"sealed for {header.resource}, not for {resource}", where="sealed input", reason="SealedForAnotherResource"
        )
    cipher, associated = _cipher(key, header)
    size = header.chunk_bytes + TAG_BYTES
    index, chunk = 0, _read(sealed, size)
    while True:
        following = _read(sealed, size) if len(chunk) == size else b""
        last = not following
        if (index + 1) * header.chunk_bytes > MAX_PLAINTEXT:
            raise SealedInputInvalid(f"larger than {MAX_PLAINTEXT} bytes", where="sealed input")
        try:
            plaintext = cipher.decrypt(_nonce(header, index, last), chunk, associated)
        except (InvalidTag, ValueError):
            raise SealedInputInvalid(
                f"chunk {index} is not authentic: altered, cut short, or sealed under another key",
                where="sealed input",
                fix="seal the input again under the present key",
            ) from None
        if not plaintext and index:
            raise SealedInputInvalid("an empty chunk ends a longer input", where="sealed input")
        yield plaintext
        if last:
            return
        index, chunk = index + 1, following


def _cipher(key: bytes | bytearray, header: Header) -> tuple[AESGCM, bytes]:
    if len(key) != KEY_BYTES:
        raise SealedInputInvalid(f"the key has {len(key)} bytes, not {KEY_BYTES}", where="key")
    associated = header.encode()
    derived = HKDF(hashes.SHA256(), KEY_BYTES, header.salt, b"kekkai sealed input\x01" + associated).derive(key)
    return AESGCM(derived), associated


def _nonce(header: Header, index: int, last: bool) -> bytes:
    return header.prefix + index.to_bytes(4, "big") + bytes((last,))


def _read(stream: BinaryIO, size: int) -> bytes:
    """Exactly `size` bytes, or fewer at the end: raw pipes may give less at once."""
    parts = []
    while size:
        part = stream.read(size)
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
