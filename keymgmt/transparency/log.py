"""The writer of one transparency log: append entries, publish signed checkpoints.

The order of writes makes every crash harmless: first the new tiles and bundles, durable,
then the checkpoint that commits to them. Tiles beyond the checkpoint are leftovers of a
crash; appending the same entries again writes the same bytes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from keymgmt.transparency.errors import LogCorrupt, LogRolledBack, NoteInvalid
from keymgmt.transparency.merkle import EMPTY_ROOT, leaf_hash, perfect_root, tree_root
from keymgmt.transparency.note import Checkpoint, Signer, VerifierKey
from keymgmt.transparency.storage import LogStore
from keymgmt.transparency.tiles import (
    ENTRIES,
    MAX_ENTRY_BYTES,
    TILE_WIDTH,
    TileFiles,
    TileNodes,
    encode_bundle,
    read_entries,
    read_hashes,
    tile_path,
)
from keymgmt.transparency.witnesses import Cosigner

CHECKPOINT = "checkpoint"
logger = logging.getLogger(__name__)


class TransparencyLog:
    """A log folder with its right edge in memory. Not for two writers, nor for two threads."""

    def __init__(
        self,
        root: Path | LogStore,
        key: VerifierKey,
        signer: Signer,
        anchors: Sequence[Path] = (),
        witnesses: Cosigner | None = None,
    ) -> None:
        """Open the storage (a folder by its path) and check that its right edge gives the signed root.

        With `witnesses` no checkpoint is published that their quorum has not cosigned. Raises LogCorrupt.
        """
        self.files: LogStore = TileFiles(root) if isinstance(root, Path) else root
        self._witnesses = witnesses
        self.key = key
        self._signer = signer
        self._anchors = tuple(anchors)
        self._edge: dict[int, list[bytes]] = {}  # level → hashes of its last, partial tile
        self._bundle: list[bytes] = []
        self.checkpoint, self.signed_checkpoint = self._read_checkpoint()
        self._load_edge(self.checkpoint.size)
        root_on_disk = tree_root(self.size, TileNodes(self.files, self.size))
        if root_on_disk != self.checkpoint.root:
            raise LogCorrupt(
                "the tiles do not give the checkpoint's root", where=self.files.location, fix="restore the log"
            )
        self._check_anchors()

    @property
    def size(self) -> int:
        """Leaves that a signed checkpoint commits to."""
        return self.checkpoint.size

    def root_at(self, size: int) -> bytes:
        """Root of the first `size` leaves, from the tiles."""
        return tree_root(size, TileNodes(self.files, self.size))

    def append(self, entries: Sequence[bytes]) -> Checkpoint:
        """Make entries durable, sign a checkpoint over them, publish it. Returns it.

        Raises Unavailable from the signer or for want of witnesses (nothing is published then; call again with the
        same entries), LogCorrupt if a tile would change, OSError if the disk fails.
        """
        if not entries:
            return self.checkpoint
        if any(len(entry) > MAX_ENTRY_BYTES for entry in entries):
            raise LogCorrupt("an entry is longer than 65535 bytes")
        edge = {level: list(hashes) for level, hashes in self._edge.items()}
        bundle = list(self._bundle)
        new_files, full = _grow(self.size, edge, bundle, entries)
        size = self.size + len(entries)
        self.files.write_new(new_files)
        checkpoint = Checkpoint(self.key.name, size, self.root_with(size, edge))
        signed = checkpoint.sign(self.key, self._signer)
        if self._witnesses is not None:
            signed = self._witnesses.cosign(signed, checkpoint, _EdgeNodes(size, edge, self.files))
        self.files.replace(CHECKPOINT, signed)
        self._edge, self._bundle = edge, bundle
        self.checkpoint, self.signed_checkpoint = checkpoint, signed
        self._write_anchors()
        for level, index in full:
            self.files.drop_partials(level, index)
        return checkpoint

    def root_with(self, size: int, edge: dict[int, list[bytes]]) -> bytes:
        """Root of the tree of `size` leaves whose last tiles are `edge`."""
        return tree_root(size, _EdgeNodes(size, edge, self.files))

    def publish_empty(self) -> None:
        """Sign the checkpoint of the empty tree, for a log that was never written."""
        if not self.signed_checkpoint:
            self.signed_checkpoint = self.checkpoint.sign(self.key, self._signer)
            self.files.replace(CHECKPOINT, self.signed_checkpoint)

    def confirm(self) -> None:
        """Show the published checkpoint to the witnesses: to be done at a start, once the log is whole.

        Raises LogRolledBack if they have seen a longer log, WitnessesUnreachable without a quorum.
        """
        if self._witnesses is None or not self.signed_checkpoint:
            return
        bare = self.checkpoint.sign(self.key, self._signer)
        signed = self._witnesses.cosign(bare, self.checkpoint, TileNodes(self.files, self.size))
        self.files.replace(CHECKPOINT, signed)
        self.signed_checkpoint = signed

    def _read_checkpoint(self) -> tuple[Checkpoint, bytes]:
        content = self.files.read(CHECKPOINT)
        if content is None:
            return Checkpoint(self.key.name, 0, EMPTY_ROOT), b""
        try:
            return Checkpoint.open(content, self.key), content
        except NoteInvalid as error:
            raise LogCorrupt(
                f"the checkpoint on disk is not ours: {error.problem.what}",
                where=f"{self.files.location}/{CHECKPOINT}",
                fix="the log's origin and key must never change",
            ) from None

    def _load_edge(self, size: int) -> None:
        level = 0
        while size >> (8 * level):
            tile, width = divmod(size >> (8 * level), TILE_WIDTH)
            self._edge[level] = read_hashes(self.files, level, tile, width) if width else []
            level += 1
        tile, width = divmod(size, TILE_WIDTH)
        self._bundle = read_entries(self.files, tile, width) if width else []
        if [leaf_hash(entry) for entry in self._bundle] != self._edge.get(0, []):
            raise LogCorrupt("the last entries do not match the last tile", fix="restore the log")

    def _check_anchors(self) -> None:
        for anchor in self._anchors:
            if not anchor.exists():
                continue
            try:
                seen = Checkpoint.open(anchor.read_bytes(), self.key)
            except NoteInvalid as error:
                raise LogCorrupt(f"the anchor is unreadable: {error.problem.what}", where=str(anchor)) from None
            if seen.size > self.size:
                raise LogRolledBack(
                    f"the log has {self.size} entries, its anchor saw {seen.size}",
                    where=str(anchor),
                    fix="the data folder was restored from an old copy; restore the newest one",
                )
            if self.root_at(seen.size) != seen.root:
                raise LogCorrupt("the log does not extend the checkpoint in its anchor", where=str(anchor))

    def _write_anchors(self) -> None:
        for anchor in self._anchors:
            TileFiles(anchor.parent).replace(anchor.name, self.signed_checkpoint)


class _EdgeNodes:
    """Nodes of a tree that is not yet on disk whole: the last tile of each level from memory."""

    def __init__(self, size: int, edge: dict[int, list[bytes]], files: LogStore) -> None:
        self._size, self._edge = size, edge
        self._disk = TileNodes(files, size)

    def __call__(self, level: int, index: int) -> bytes:
        tile_level, rest = divmod(level, 8)
        first = index << rest
        if first // TILE_WIDTH == (self._size >> (8 * tile_level)) // TILE_WIDTH:
            offset = first % TILE_WIDTH
            return perfect_root(self._edge[tile_level][offset : offset + (1 << rest)])
        return self._disk(level, index)


def _grow(
    size: int, edge: dict[int, list[bytes]], bundle: list[bytes], entries: Sequence[bytes]
) -> tuple[dict[str, bytes], list[tuple[int | str, int]]]:
    """Files that appending `entries` makes, and the tiles that became full. Changes edge and bundle."""
    files: dict[str, bytes] = {}
    full: list[tuple[int | str, int]] = []
    changed: set[int] = set()
    for entry in entries:
        bundle.append(entry)
        size += 1
        if len(bundle) == TILE_WIDTH:
            index = size // TILE_WIDTH - 1
            files[tile_path(ENTRIES, index)] = encode_bundle(bundle)
            full.append((ENTRIES, index))
            bundle.clear()
        level, carry = 0, leaf_hash(entry)
        while True:
            row = edge.setdefault(level, [])
            row.append(carry)
            changed.add(level)
            if len(row) < TILE_WIDTH:
                break
            index = (size >> (8 * level)) // TILE_WIDTH - 1
            files[tile_path(level, index)] = b"".join(row)
            full.append((level, index))
            carry = perfect_root(row)
            row.clear()
            level += 1
    if bundle:
        files[tile_path(ENTRIES, size // TILE_WIDTH, len(bundle))] = encode_bundle(bundle)
    for level in changed:
        if row := edge[level]:
            files[tile_path(level, (size >> (8 * level)) // TILE_WIDTH, len(row))] = b"".join(row)
    return files, full
