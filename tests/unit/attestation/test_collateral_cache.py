"""The collateral cache and its bundles: authentic, whole, and never a step backwards."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from crds.errors import InvalidInput, KekkaiError
from keymgmt.attestation import TrustRoots
from keymgmt.attestation.collateral.bundle import Bundle, import_bundle, read_bundle, write_bundle
from keymgmt.attestation.collateral.cache import CollateralCache
from keymgmt.attestation.collateral.freshness import FreshnessPolicy, Validity, check_freshness
from keymgmt.attestation.collateral.names import kind_of
from keymgmt.attestation.collateral.pieces import MAX_PIECE_BYTES, Piece
from tests.unit.attestation.conftest import SHARED, vector
from tests.unit.attestation.conftest import chain as amd_chain
from tests.unit.attestation.intel_vendor import FMSPC, NOW, IntelVendor, Levels

TDX = f"intel/tdx/{FMSPC}/platform"
CHAIN = "amd/vcek-chain/Milan"


@pytest.fixture(scope="module")
def vendor() -> IntelVendor:
    return IntelVendor.create()


@pytest.fixture
def cache(tmp_path: Path, vendor: IntelVendor) -> CollateralCache:
    return CollateralCache(tmp_path / "cache", vendor.anchors)


def intel(vendor: IntelVendor, levels: Levels | None = None) -> Piece:
    return Piece(TDX, vendor.collateral("tdx", levels or Levels()), NOW)


def milan() -> Piece:
    parts = amd_chain("milan")
    return Piece(CHAIN, parts["ask"] + parts["ark"], NOW)


def reason_of(call: Callable[[], object]) -> str:
    with pytest.raises(KekkaiError) as caught:
        call()
    return caught.value.problem.reason


def test_put_and_get(cache: CollateralCache, vendor: IntelVendor) -> None:
    assert cache.get(TDX) is None
    assert (cache.names(), cache.version()) == ([], "")
    piece = intel(vendor)
    assert cache.put(piece)
    first = cache.version()
    assert not cache.put(piece)
    assert cache.version() == first
    assert cache.get(TDX) == piece
    assert cache.put(milan())
    assert cache.version() != first
    assert cache.names() == [CHAIN, TDX]
    assert [one.name for one in cache.pieces("intel/")] == [TDX]


def test_the_real_collateral_is_kept_under_its_name(tmp_path: Path) -> None:
    cache = CollateralCache(tmp_path)
    body = (SHARED / "vectors" / "intel" / "phala" / "sgx_quote_collateral.json").read_bytes()
    fetched = datetime(2025, 6, 20, tzinfo=UTC)
    assert reason_of(lambda: cache.put(Piece(TDX, body, fetched))) == "CollateralMismatch"
    assert cache.put(Piece("intel/sgx/00A067110000/processor", body, fetched))


def test_an_older_issue_never_replaces_a_newer_one(cache: CollateralCache, vendor: IntelVendor) -> None:
    cache.put(intel(vendor))
    held = cache.get(TDX)
    for levels in (Levels(evaluation=17), Levels(issued=NOW - timedelta(days=2)), Levels(evaluation=17, issued=NOW)):
        assert reason_of(lambda levels=levels: cache.put(intel(vendor, levels))) == "CollateralRolledBack"
    assert cache.get(TDX) == held
    assert cache.put(intel(vendor, Levels(issued=NOW - timedelta(hours=1))))
    assert cache.put(intel(vendor, Levels(evaluation=19)))


def test_unsigned_pieces_are_not_kept(cache: CollateralCache, vendor: IntelVendor) -> None:
    forged = IntelVendor.create().collateral("tdx", Levels(evaluation=99))
    assert reason_of(lambda: cache.put(Piece(TDX, forged, NOW))) == "RootUntrusted"
    document = json.loads(vendor.collateral())
    document["tcb_info"] = document["tcb_info"].replace('"tcbEvaluationDataNumber":18', '"tcbEvaluationDataNumber":99')
    raised = Piece(TDX, json.dumps(document).encode(), NOW)
    assert reason_of(lambda: cache.put(raised)) == "CollateralInvalid"
    assert cache.names() == []


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"name": "x"}', b"\xff"])
def test_a_damaged_piece_counts_as_absent(cache: CollateralCache, vendor: IntelVendor, damage: bytes) -> None:
    cache.put(intel(vendor))
    note = cache.folder / f"{TDX}.json.about"
    good = note.read_bytes()
    note.write_bytes(damage)
    assert cache.get(TDX) is None
    note.write_bytes(good)
    assert cache.get(TDX) is not None
    with (cache.folder / f"{TDX}.json").open("ab") as file:
        file.write(b" ")
    assert cache.get(TDX) is None
    assert cache.pieces() == []
    assert cache.put(intel(vendor))
    assert cache.get(TDX) is not None


@pytest.mark.parametrize(
    "name",
    [
        "intel/tdx/../../platform",
        "intel/tdx/c0ffee000000/platform",
        "amd/crl/Rome",
        "amd/crl/Milan/x",
        "/amd/crl/Milan",
        "amd//crl",
        "amd/vcek/Milan/" + "a" * 127 + "/" + "0" * 16,
        "x" * 400,
        "intel/tdx/C0FFEE000000/platform\n",
        "",
    ],
)
def test_names_are_checked_before_they_become_paths(cache: CollateralCache, name: str) -> None:
    assert reason_of(lambda: cache.get(name)) == "InvalidInput"
    assert reason_of(lambda: kind_of(name)) == "InvalidInput"


def test_amd_pieces_serve_the_snp_verifier_from_the_same_folder(cache: CollateralCache) -> None:
    cache.put(milan())
    roots = TrustRoots.builtin_amd(cache.folder)
    assert {one.name for one in roots.authorities} == {"SEV-Milan", "ARK-Milan"}


def test_amd_pieces_are_what_they_say(cache: CollateralCache) -> None:
    milan_chain, genoa = amd_chain("milan"), amd_chain("genoa")
    for body, reason in (
        (genoa["ask"] + genoa["ark"], "RootUntrusted"),
        (milan_chain["ask"] + genoa["ark"], "RootUntrusted"),
        (genoa["ask"] + milan_chain["ark"], "CollateralInvalid"),
        (milan_chain["ask"], "CollateralMalformed"),
        (b"nonsense", "CollateralMalformed"),
        (b"", "CollateralMalformed"),
        (b"-----BEGIN" + bytes(MAX_PIECE_BYTES), "CollateralMalformed"),
    ):
        assert reason_of(lambda body=body: cache.put(Piece(CHAIN, body, NOW))) == reason
    vcek = vector("trustee-test-vcek.der")
    chip = vector("trustee-test-report.bin")[0x1A0:0x1E0].hex()
    assert cache.put(Piece(f"amd/vcek/Milan/{chip}/{'0' * 16}", vcek, NOW))
    assert (
        reason_of(lambda: cache.put(Piece(f"amd/vcek/Milan/{'ab' * 64}/{'0' * 16}", vcek, NOW))) == "CollateralMismatch"
    )
    assert reason_of(lambda: cache.put(Piece("amd/crl/Milan", b"x", NOW))) == "CollateralMalformed"


def test_freshness() -> None:
    validity = Validity(NOW - timedelta(days=3), NOW + timedelta(days=3), 5)
    check_freshness(validity, NOW, FreshnessPolicy(timedelta(days=4), 5, NOW - timedelta(days=4)), where="x")
    check_freshness(Validity(NOW, None), NOW + timedelta(days=9999), FreshnessPolicy(), where="x")
    for now, policy, reason in (
        (NOW - timedelta(days=4), FreshnessPolicy(), "CollateralNotYetValid"),
        (NOW + timedelta(days=4), FreshnessPolicy(), "CollateralExpired"),
        (NOW, FreshnessPolicy(max_age=timedelta(days=2)), "CollateralTooOld"),
        (NOW, FreshnessPolicy(minimum_sequence=6), "CollateralRolledBack"),
        (NOW, FreshnessPolicy(not_issued_before=NOW), "CollateralRolledBack"),
    ):
        assert reason_of(lambda now=now, policy=policy: check_freshness(validity, now, policy, where="x")) == reason
    late = NOW + timedelta(days=4)
    assert (
        reason_of(lambda: check_freshness(validity, late, FreshnessPolicy(), where="x", revocation=True))
        == "CrlExpired"
    )


def test_a_bundle_goes_out_and_comes_in(cache: CollateralCache, vendor: IntelVendor, tmp_path: Path) -> None:
    cache.put(intel(vendor))
    cache.put(milan())
    bundle = Bundle(NOW, tuple(cache.pieces()))
    data = write_bundle(bundle)
    assert write_bundle(Bundle(NOW, bundle.pieces[::-1])) == data
    read = read_bundle(data, bundle.digest)
    assert read == bundle
    other = CollateralCache(tmp_path / "other", vendor.anchors)
    assert [(piece.name, new) for piece, _, new in import_bundle(read, other)] == [(CHAIN, True), (TDX, True)]
    assert [new for _, _, new in import_bundle(read, other)] == [False, False]
    assert other.pieces() == cache.pieces()


def test_an_import_is_all_or_nothing(cache: CollateralCache, vendor: IntelVendor) -> None:
    forged = Piece(TDX, IntelVendor.create().collateral(), NOW)
    assert reason_of(lambda: import_bundle(Bundle(NOW, (milan(), forged)), cache)) == "RootUntrusted"
    assert cache.names() == []
    cache.put(intel(vendor))
    old = intel(vendor, Levels(evaluation=17))
    assert reason_of(lambda: import_bundle(Bundle(NOW, (milan(), old)), cache)) == "CollateralRolledBack"
    assert cache.names() == [TDX]


def _edited(data: bytes, edit: Callable[[dict[str, Any]], object]) -> bytes:
    document = json.loads(data)
    edit(document)
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("edit", "where"),
    [
        (lambda d: d.update(format="v2"), "bundle"),
        (lambda d: d.update(more=1), "bundle"),
        (lambda d: d.update(pieces={}), "pieces"),
        (lambda d: d.update(pieces=d["pieces"] * 2), "pieces"),
        (lambda d: d.update(digest="sha256:" + "0" * 64), "digest"),
        (lambda d: d.update(created="2026-01-01T00:00:00"), "created"),
        (lambda d: d["pieces"][0].update(body="AAAA"), "pieces.0.sha256"),
        (lambda d: d["pieces"][0].update(body="!"), "pieces.0.body"),
        (lambda d: d["pieces"][0].update(name="amd/crl/../x"), "name"),
        (lambda d: d["pieces"][0].update(fetched=7), "pieces.0.fetched"),
        (lambda d: d["pieces"][0].pop("sha256"), "pieces.0"),
        (lambda d: d["pieces"].pop(), "digest"),
    ],
)
def test_altered_bundles(vendor: IntelVendor, edit: Callable[[dict[str, Any]], object], where: str) -> None:
    data = write_bundle(Bundle(NOW, (milan(), intel(vendor))))
    with pytest.raises(InvalidInput) as caught:
        read_bundle(_edited(data, edit))
    assert caught.value.problem.where == where


def test_a_digest_from_another_channel_vouches_for_the_bundle(vendor: IntelVendor) -> None:
    data = write_bundle(Bundle(NOW, (milan(),)))
    other = Bundle(NOW, (milan(), intel(vendor)))
    with pytest.raises(InvalidInput, match="digest"):
        read_bundle(data, other.digest)
    assert dataclasses.replace(other, created=NOW + timedelta(days=1)).digest == other.digest
