"""Tiles of a transparency log as files (c2sp.org/tlog-tiles): names, writing once, reading nodes.

A tile at level L, index N holds up to 256 hashes of the tree's level 8·L. A full tile is
`tile/<L>/<N>`, one with W hashes `tile/<L>/<N>.p/<W>`; entry bundles are `tile/entries/…`.
A file never changes once written: writing other bytes under the same name is corruption.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from keymgmt.transparency.errors import LogCorrupt
from keymgmt.transparency.merkle import HASH_BYTES, perfect_root

TILE_WIDTH = 256
MAX_ENTRY_BYTES = 65535
ENTRIES = "entries"
_PATH = re.compile(
    r"(?:entries|[0-9]|[1-5][0-9]|6[0-3])/(?:x[0-9]{3}/){0,6}[0-9]{3}(?:\.p/(?:[1-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5]))?"
)


def tile_path(level: int | str, index: int, width: int = TILE_WIDTH) -> str:
    """Path under the log's root; `level` is a number or "entries"; `width` < 256 names a partial tile."""
    groups = [f"{index % 1000:03d}"]
    while index >= 1000:
        index //= 1000
        groups.insert(0, f"x{index % 1000:03d}")
    suffix = "" if width == TILE_WIDTH else f".p/{width}"
    return f"tile/{level}/{'/'.join(groups)}{suffix}"


def is_tile_path(path: str) -> bool:
    """Whether `path` (after `tile/`) is well formed; anything else is never looked up on disk."""
    return _PATH.fullmatch(path) is not None


def encode_bundle(entries: list[bytes]) -> bytes:
    """Entries, each after its length in two bytes, big endian."""
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def decode_bundle(bundle: bytes) -> list[bytes]:
    """The entries of a bundle. Raises LogCorrupt when it is cut short."""
    entries, offset = [], 0
    while offset < len(bundle):
        length = int.from_bytes(bundle[offset : offset + 2], "big")
        entry = bundle[offset + 2 : offset + 2 + length]
        if len(entry) != length or offset + 2 > len(bundle):
            raise LogCorrupt("an entry bundle is cut short")
        entries.append(entry)
        offset += 2 + length
    return entries


class TileReader(Protocol):
    """Where tiles come from: a folder or a URL."""

    def read(self, path: str) -> bytes | None:
        """The file's bytes, or None if it does not exist."""


class TileFiles:
    """A log's folder. One writer at a time; readers need no lock."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def location(self) -> str:
        """The folder, for messages."""
        return str(self.root)

    def read(self, path: str) -> bytes | None:
        try:
            return (self.root / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write_new(self, files: Mapping[str, bytes]) -> None:
        """Write each file once, whole and durable. The same bytes again are no change.

        Raises LogCorrupt if a file exists with other bytes.
        """
        touched: set[Path] = set()
        for path, content in files.items():
            present = self.read(path)
            if present is not None:
                if present != content:
                    raise LogCorrupt("a published tile would change", where=path, fix="restore the log")
                continue
            self._replace(self.root / path, content, touched)
        for folder in touched:
            _sync_folder(folder)

    def replace(self, path: str, content: bytes) -> None:
        """Replace one file (the checkpoint) atomically and durably."""
        touched: set[Path] = set()
        self._replace(self.root / path, content, touched)
        for folder in touched:
            _sync_folder(folder)

    def drop_partials(self, level: int | str, index: int) -> None:
        """Remove the partial tiles that a full tile has made useless."""
        shutil.rmtree(self.root / f"{tile_path(level, index)}.p", ignore_errors=True)

    def _replace(self, target: Path, content: bytes, touched: set[Path]) -> None:
        folder = target.parent
        if not folder.is_dir():
            missing = folder
            while not missing.is_dir():
                touched.add(missing.parent)
                missing = missing.parent
            folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{target.name}.{os.getpid()}.tmp"
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        touched.add(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_hashes(reader: TileReader, level: int, index: int, width: int) -> list[bytes]:
    """The first `width` hashes of a tile; a wider or full tile serves as well. Raises LogCorrupt."""
    for candidate in (width, TILE_WIDTH):
        content = reader.read(tile_path(level, index, candidate))
        if content is not None:
            if len(content) != candidate * HASH_BYTES:
                raise LogCorrupt("a tile has the wrong length", where=tile_path(level, index, candidate))
            return [content[i : i + HASH_BYTES] for i in range(0, width * HASH_BYTES, HASH_BYTES)]
    raise LogCorrupt("a tile is missing", where=tile_path(level, index, width), fix="restore the log")


def read_entries(reader: TileReader, index: int, width: int) -> list[bytes]:
    """The first `width` entries of a bundle. Raises LogCorrupt."""
    for candidate in (width, TILE_WIDTH):
        content = reader.read(tile_path(ENTRIES, index, candidate))
        if content is not None:
            entries = decode_bundle(content)
            if len(entries) != candidate:
                raise LogCorrupt("a bundle has the wrong number of entries", where=tile_path(ENTRIES, index, candidate))
            return entries[:width]
    raise LogCorrupt("an entry bundle is missing", where=tile_path(ENTRIES, index, width), fix="restore the log")


class TileNodes:
    """Tree nodes out of tiles, for `merkle`: call it as `node(level, index)`. Caches what it read."""

    def __init__(self, reader: TileReader, size: int) -> None:
        self._reader = reader
        self._size = size
        self._cache: dict[tuple[int, int], list[bytes]] = {}

    def __call__(self, level: int, index: int) -> bytes:
        tile_level, rest = divmod(level, 8)
        first = index << rest
        tile, offset = divmod(first, TILE_WIDTH)
        hashes = self._tile(tile_level, tile)
        return perfect_root(hashes[offset : offset + (1 << rest)])

    def _tile(self, level: int, index: int) -> list[bytes]:
        key = (level, index)
        if key not in self._cache:
            total = self._size >> (8 * level)
            width = min(TILE_WIDTH, total - index * TILE_WIDTH)
            if len(self._cache) > 4096:
                self._cache.clear()
            self._cache[key] = read_hashes(self._reader, level, index, width)
        return self._cache[key]
