"""RFC 6962 Merkle trees: hashes, roots and proofs, computed from nodes that a reader supplies.

A `NodeReader` answers `node(level, index)`: the hash of the perfect subtree of 2**level
leaves that starts at leaf index * 2**level. Only perfect subtrees inside the tree are asked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

NodeReader = Callable[[int, int], bytes]
EMPTY_ROOT = hashlib.sha256(b"").digest()
HASH_BYTES = 32


def leaf_hash(data: bytes) -> bytes:
    """SHA-256(0x00 ‖ data)."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 ‖ left ‖ right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def perfect_root(hashes: Sequence[bytes]) -> bytes:
    """Root of a power-of-two row of hashes."""
    row = list(hashes)
    while len(row) > 1:
        row = [node_hash(row[i], row[i + 1]) for i in range(0, len(row), 2)]
    return row[0]


def range_hash(start: int, end: int, node: NodeReader) -> bytes:
    """MTH(D[start:end]) of RFC 6962 section 2.1; `start` is a multiple of the range's left subtree."""
    count = end - start
    if count & (count - 1) == 0:
        return node(count.bit_length() - 1, start // count)
    split = _split(count)
    return node_hash(range_hash(start, start + split, node), range_hash(start + split, end, node))


def tree_root(size: int, node: NodeReader) -> bytes:
    """Root of the first `size` leaves."""
    return range_hash(0, size, node) if size else EMPTY_ROOT


def inclusion_proof(index: int, size: int, node: NodeReader) -> list[bytes]:
    """PATH(index, D[size]) of RFC 6962 section 2.1.1, from the leaf's sibling upwards."""
    if not 0 <= index < size:
        raise ValueError("index outside the tree")
    proof: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        split = start + _split(end - start)
        if index < split:
            proof.append(range_hash(split, end, node))
            end = split
        else:
            proof.append(range_hash(start, split, node))
            start = split
    return proof[::-1]


def consistency_proof(old: int, new: int, node: NodeReader) -> list[bytes]:
    """PROOF(old, D[new]) of RFC 6962 section 2.1.2; empty if old is 0 or equals new."""
    if not 0 <= old <= new:
        raise ValueError("old size outside the tree")
    if old in (0, new):
        return []
    proof: list[bytes] = []
    start, end, whole = 0, new, True
    while old != end:
        split = start + _split(end - start)
        if old <= split:
            proof.append(range_hash(split, end, node))
            end = split
        else:
            proof.append(range_hash(start, split, node))
            start, whole = split, False
    if not whole:
        proof.append(range_hash(start, end, node))
    return proof[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether `leaf` (a leaf hash) is at `index` of the tree (RFC 9162 section 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    position, last, result = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if position & 1 or position == last:
            result = node_hash(sibling, result)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            result = node_hash(result, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and result == root


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether the tree of `new` leaves extends that of `old` (RFC 9162 section 2.1.4.2)."""
    if not 0 <= old <= new:
        return False
    if old == 0 or old == new:
        return not proof and (old_root == (EMPTY_ROOT if old == 0 else new_root))
    path = list(proof)
    if old & (old - 1) == 0:
        path.insert(0, old_root)
    if not path:
        return False
    position, last = old - 1, new - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    first, second = path[0], path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if position & 1 or position == last:
            first, second = node_hash(sibling, first), node_hash(sibling, second)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            second = node_hash(second, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and first == old_root and second == new_root


class CompactRange:
    """The right edge of a growing tree: enough to compute its root in O(log n) memory."""

    def __init__(self) -> None:
        self.size = 0
        self._edge: list[bytes] = []  # roots of the perfect subtrees, largest first

    @classmethod
    def over(cls, size: int, node: NodeReader) -> CompactRange:
        """The edge of a tree's first `size` leaves, from its nodes."""
        found, start = cls(), 0
        for level in range(size.bit_length() - 1, -1, -1):
            if size >> level & 1:
                found._edge.append(node(level, start >> level))
                start += 1 << level
        found.size = size
        return found

    def append(self, leaf: bytes) -> None:
        """Add one leaf hash."""
        self._edge.append(leaf)
        self.size += 1
        carries = self.size
        while not carries & 1:
            right = self._edge.pop()
            self._edge[-1] = node_hash(self._edge[-1], right)
            carries >>= 1

    def extend(self, leaves: Iterable[bytes]) -> None:
        """Add leaf hashes in order."""
        for leaf in leaves:
            self.append(leaf)

    def root(self) -> bytes:
        """Root of all leaves so far."""
        if not self._edge:
            return EMPTY_ROOT
        result = self._edge[-1]
        for left in reversed(self._edge[:-1]):
            result = node_hash(left, result)
        return result


def _split(count: int) -> int:
    """The largest power of two smaller than `count` (> 1)."""
    return 1 << ((count - 1).bit_length() - 1)
