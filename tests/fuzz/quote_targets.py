"""Targets of Intel quotes, Nitro documents and collateral: parsers, and verifiers around foreign libraries."""

from __future__ import annotations

import base64
import io
import json
from datetime import UTC, datetime
from typing import Any

import cbor2

from keymgmt.attestation.collateral.bundle import Bundle, read_bundle, write_bundle
from keymgmt.attestation.collateral.intel_pcs import signed_text
from keymgmt.attestation.collateral.names import kind_of
from keymgmt.attestation.collateral.pieces import Piece, validity_of
from keymgmt.attestation.intel import (
    IntelCollateral,
    SgxPolicy,
    TcbPolicy,
    TdxPolicy,
    parse_quote,
    verify_sgx,
    verify_tdx,
)
from keymgmt.attestation.intel.kbs_evidence import event_log_of, quote_of
from keymgmt.attestation.intel.pck import read_pck_chain
from keymgmt.attestation.nitro import NitroPolicy, parse_document, verify_nitro
from keymgmt.attestation.nitro.chain import verify_chain
from keymgmt.attestation.nitro.kbs_evidence import document_of
from tests.fuzz.target import SHARED, Target, of_json
from tests.unit.attestation.intel_vendor import IntelVendor

INTEL = SHARED / "vectors" / "intel"
NITRO = SHARED / "vectors" / "nitro"
JUNE_2025 = datetime(2025, 6, 20, tzinfo=UTC)


def _read(name: str) -> bytes:
    return (INTEL / name).read_bytes()


def _documents() -> tuple[bytes, ...]:
    """The real documents without what their makers put around them."""
    found = []
    for path in sorted(NITRO.glob("*.bin")):
        stream = io.BytesIO(path.read_bytes())
        stream.seek(4)
        cbor2.CBORDecoder(stream, read_size=1).decode()
        found.append(stream.getvalue()[4 : stream.tell()])
    return tuple(found)


def _nitro_chain(data: bytes) -> Any:
    """The certificates of a document end to end, each behind its length."""
    parts, stream = [], io.BytesIO(data)
    while (head := stream.read(2)) and len(parts) < 9:
        parts.append(stream.read(int.from_bytes(head, "big")))
    return verify_chain(parts[-1], tuple(parts[:-1])) if len(parts) > 1 else None


def _piece(name: str, body: bytes) -> Any:
    return validity_of(Piece(name, body, JUNE_2025), lambda _: None)


def targets() -> list[Target]:
    """All parsers of this page's formats."""
    quotes = tuple(_read(name) for name in ("phala/tdx_quote", "phala/tdx_quote_outdated", "phala/sgx_quote"))
    quotes += (_read("trustee/tdx_quote_4.dat"),)
    collateral = tuple(_read(f"phala/{name}_collateral.json") for name in ("tdx_quote", "sgx_quote"))
    tdx, sgx = (IntelCollateral.parse(one).authenticate() for one in collateral)
    any_status = SgxPolicy(tcb=TcbPolicy(statuses=frozenset({"ConfigurationAndSWHardeningNeeded"}), advisories=None))
    vendor, documents = IntelVendor.create(), _documents()
    parsed = [parse_document(one) for one in documents]
    chains = tuple(
        b"".join(len(der).to_bytes(2, "big") + der for der in (*one.bundle, one.certificate)) for one in parsed
    )
    made = parsed[0].time
    pieces = (
        Piece("intel/tdx/B0C06F000000/platform", collateral[0], JUNE_2025),
        Piece("amd/vcek-chain/Milan", (SHARED / "vectors/amd/milan_ask_ark_asvk.pem").read_bytes(), JUNE_2025),
    )
    small = (Piece("amd/vcek-chain/Milan", b"x" * 90, JUNE_2025), Piece("amd/crl/Milan", b"y" * 90, JUNE_2025))
    quote_json = {"quote": base64.b64encode(quotes[0][:240]).decode(), "cc_eventlog": "AAAA"}
    document_json = {"document": base64.b64encode(documents[0][:240]).decode()}
    return [
        Target("intel-quote", parse_quote, quotes),
        Target(
            "intel-quote-json",
            of_json(lambda body: (quote_of(body), event_log_of(body))),
            (json.dumps(quote_json).encode(),),
        ),
        Target("pck-chain", read_pck_chain, tuple(parse_quote(one).pck_chain for one in quotes)),
        Target("tdx", lambda data: verify_tdx(data, tdx, TdxPolicy(), JUNE_2025, None), quotes[:1]),
        Target("sgx", lambda data: verify_sgx(data, sgx, any_status, JUNE_2025, None), quotes[2:3]),
        Target(
            "intel-collateral",
            lambda data: IntelCollateral.parse(data).authenticate(vendor.anchors),
            (vendor.collateral("sgx"),),
        ),
        Target(
            "intel-pcs-reply",
            lambda data: signed_text(data, "tcbInfo"),
            (b'{"tcbInfo":{"id":"TDX","version":3,"tcbLevels":[{}]},"signature":"00"}',),
        ),
        Target("nitro-document", parse_document, documents),
        Target("nitro-document-json", of_json(document_of), (json.dumps(document_json).encode(),)),
        Target("nitro-chain", _nitro_chain, chains),
        Target("nitro", lambda data: verify_nitro(data, NitroPolicy(), made, expected_nonce=None), documents),
        Target("collateral-bundle", read_bundle, (write_bundle(Bundle(JUNE_2025, small)),)),
        Target(
            "collateral-name",
            lambda data: kind_of(data.decode(errors="replace")),
            tuple(one.name.encode() for one in pieces),
        ),
        Target("amd-chain-piece", lambda data: _piece("amd/vcek-chain/Milan", data), (pieces[1].body,)),
        Target("amd-crl-piece", lambda data: _piece("amd/crl/Milan", data), (_read("automata/pck_crl.der"),)),
    ]
