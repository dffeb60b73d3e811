"""Merkle roots and proofs against the definition of RFC 6962, written out naively."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keymgmt.transparency.merkle import (
    CompactRange,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    perfect_root,
    tree_root,
    verify_consistency,
    verify_inclusion,
)


def mth(leaves):
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + mth(leaves[:k]) + mth(leaves[k:])).digest()


def naive_path(m, leaves):
    if len(leaves) == 1:
        return []
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if m < k:
        return [*naive_path(m, leaves[:k]), mth(leaves[k:])]
    return [*naive_path(m - k, leaves[k:]), mth(leaves[:k])]


def naive_proof(m, leaves, whole):
    if m == len(leaves):
        return [] if whole else [mth(leaves)]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if m <= k:
        return [*naive_proof(m, leaves[:k], whole), mth(leaves[k:])]
    return [*naive_proof(m - k, leaves[k:], False), mth(leaves[:k])]


def nodes(leaves):
    def node(level, index):
        row = leaves[index << level : (index + 1) << level]
        assert len(row) == 1 << level, "asked for a subtree that is not perfect"
        return perfect_root([leaf_hash(leaf) for leaf in row])

    return node


trees = st.lists(st.binary(max_size=4), min_size=1, max_size=70)


@given(trees)
def test_roots_equal_the_definition(leaves):
    compact = CompactRange()
    compact.extend(leaf_hash(leaf) for leaf in leaves)
    assert compact.root() == mth(leaves) == tree_root(len(leaves), nodes(leaves))


def test_the_empty_tree_and_the_rfc_vectors():
    assert CompactRange().root().hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    # certificate-transparency reference tree: roots of its first one and eight leaves
    data = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
    leaves = [bytes.fromhex(item) for item in data]
    assert tree_root(1, nodes(leaves)).hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert tree_root(8, nodes(leaves)).hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


@given(trees, st.data())
def test_inclusion_proofs(leaves, data):
    index = data.draw(st.integers(0, len(leaves) - 1))
    proof = inclusion_proof(index, len(leaves), nodes(leaves))
    assert proof == naive_path(index, leaves)
    leaf, root = leaf_hash(leaves[index]), mth(leaves)
    assert verify_inclusion(leaf, index, len(leaves), proof, root)
    assert not verify_inclusion(leaf_hash(b"something else"), index, len(leaves), proof, root)
    assert not verify_inclusion(leaf, index, len(leaves), [*proof, root], root)
    if proof:
        assert not verify_inclusion(leaf, index, len(leaves), proof[:-1], root)
        broken = [bytes(32), *proof[1:]] if proof[0] != bytes(32) else []
        assert not verify_inclusion(leaf, index, len(leaves), broken, root)


@settings(max_examples=200)
@given(trees, st.data())
def test_consistency_proofs(leaves, data):
    old = data.draw(st.integers(0, len(leaves)))
    proof = consistency_proof(old, len(leaves), nodes(leaves))
    assert proof == (naive_proof(old, leaves, True) if old else [])
    roots = mth(leaves[:old]), mth(leaves)
    assert verify_consistency(old, len(leaves), *roots, proof)
    assert not verify_consistency(old, len(leaves), bytes(32), roots[1], proof)
    if 0 < old < len(leaves):
        assert not verify_consistency(old, len(leaves), roots[0], bytes(32), proof)
        assert not verify_consistency(old, len(leaves), *roots, proof[:-1])


def test_proofs_outside_the_tree_are_refused():
    with pytest.raises(ValueError, match="outside"):
        inclusion_proof(3, 3, nodes([b"a", b"b", b"c"]))
    with pytest.raises(ValueError, match="outside"):
        consistency_proof(4, 3, nodes([b"a", b"b", b"c"]))
    assert not verify_inclusion(bytes(32), 1, 1, [], bytes(32))
