"""The parsers, good inputs to start from, and what they may raise."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from crds import quantities
from keymgmt import strict_json
from keymgmt.attestation import parse_kbs_evidence, snp_evidence
from keymgmt.attestation.certificates import read_certificate
from keymgmt.attestation.init_data import parse_init_data
from keymgmt.attestation.report import parse_report
from keymgmt.broker.appraisal import AttestRequest
from keymgmt.guest.sealed_input import read_header, seal, unseal
from keymgmt.guest.tsm import parse_certificate_table, write_certificate_table
from keymgmt.policy.documents import parse_policy
from keymgmt.policy.dsse import Envelope
from keymgmt.policy.payload_types import POLICY_TYPE
from keymgmt.policy.rule import compile_rule
from keymgmt.sealing.format import DataKeyAlgorithm, EncryptedDataKey, KeyContext, SealedKey
from keymgmt.transparency.entries import decode_entry
from keymgmt.transparency.note import VerifierKey, open_note
from keymgmt.transparency.tiles import decode_bundle
from keymgmt.wrapping.recipients import parse_tee_key
from local.hardware.runner.pod_spec import decode_init_data
from tests.fuzz import device_targets, log_targets, quote_targets
from tests.fuzz.target import SHARED, Target

AMD = SHARED / "vectors" / "amd"
FORMATS = SHARED / "vectors" / "formats"
KEY = bytes(32)
INIT_DATA = 'version = "0.1.0"\nalgorithm = "sha256"\n[data]\n"a" = "b"\n'
POLICY = {
    "apiVersion": "kekkai.dev/release-policy/v1",
    "tenant": "aurora",
    "keys": ["aurora-train/dataset"],
    "rule": "claims.snp.measurement == 'aa' && claims.init_data == 'bb'",
    "maxReleases": 4,
    "notBefore": "2026-01-01T00:00:00Z",
    "notAfter": "2027-01-01T00:00:00Z",
    "jurisdiction": "JP",
    "replaces": None,
}


def _text(parse: Callable[[str], Any]) -> Callable[[bytes], Any]:
    return lambda data: parse(data.decode(errors="replace"))


def _json(parse: Callable[[Any], Any]) -> Callable[[bytes], Any]:
    return lambda data: parse(strict_json.parse(data))


def _sealed() -> bytes:
    out = io.BytesIO()
    for part in seal(io.BytesIO(b"one\ntwo\n" * 50), KEY, "ns/key/name", chunk_bytes=4096):
        out.write(part)
    return out.getvalue()


def _evidence() -> Any:
    report = (AMD / "snp-genoa-v3-report.bin").read_bytes()
    return snp_evidence(report, [("VCEK", (AMD / "snp-genoa-v3-vcek.der").read_bytes())])


def _sealed_key() -> bytes:
    context = KeyContext("aurora", "ns/key/1", 1, bytes(32), bytes(32), "JP", "AES-256-GCM")
    data_key = EncryptedDataKey(DataKeyAlgorithm.AES_GCM, bytes(16), bytes(12), bytes(48))
    return SealedKey(context, data_key, bytes(12), bytes(48)).encode()


def _attest_body() -> bytes:
    body = {
        "init-data": {"format": "toml", "body": INIT_DATA},
        "runtime-data": {"nonce": base64.b64encode(bytes(32)).decode(), "tee-pubkey": _jwk()},
        "tee-evidence": {"primary_evidence": _evidence(), "additional_evidence": ""},
    }
    return json.dumps(body).encode()


def _jwk() -> dict[str, str]:
    numbers = ec.derive_private_key(7, ec.SECP256R1()).public_key().public_numbers()

    def field(value: int) -> str:
        return base64.urlsafe_b64encode(value.to_bytes(32, "big")).rstrip(b"=").decode()

    return {"kty": "EC", "crv": "P-256", "alg": "ECDH-ES+A256KW", "x": field(numbers.x), "y": field(numbers.y)}


def _envelope() -> dict[str, Any]:
    payload = base64.b64encode(json.dumps(POLICY).encode()).decode()
    signature = {"keyid": "alice", "sig": base64.b64encode(bytes(64)).decode()}
    return {"payloadType": POLICY_TYPE, "payload": payload, "signatures": [signature]}


def _policy(document: Any) -> Any:
    return parse_policy(Envelope.parse(document, POLICY_TYPE))


def _note(data: bytes) -> str:
    key = VerifierKey.parse((FORMATS / "signed-note-example.vkey").read_text().strip())
    return open_note(data, key)


def targets() -> list[Target]:
    """All parsers of outside bytes."""
    reports = tuple(path.read_bytes() for path in sorted(AMD.glob("*report.bin")) if path.stat().st_size == 1184)
    certificates = tuple(path.read_bytes() for path in sorted(AMD.glob("*.der")))
    note = (FORMATS / "signed-note-example.txt").read_bytes()
    bundle = b"".join(len(entry).to_bytes(2, "big") + entry for entry in (b'{"v":1}', b"x" * 300, b""))
    entry = json.dumps({"at": "2026-01-01T00:00:00Z", "type": "release", "v": 1}, separators=(",", ":")).encode()
    return [
        Target("snp-report", parse_report, reports),
        Target("certificate", read_certificate, certificates),
        Target(
            "kbs-evidence", _json(lambda body: parse_kbs_evidence("snp", body)), (json.dumps(_evidence()).encode(),)
        ),
        Target("attest-request", lambda data: AttestRequest.parse(data, 1 << 20), (_attest_body(),)),
        Target("init-data", _text(parse_init_data), (INIT_DATA.encode(),)),
        Target("init-data-annotation", _text(decode_init_data), (base64.b64encode(INIT_DATA.encode()),)),
        Target("tee-key", _json(parse_tee_key), (json.dumps(_jwk()).encode(),)),
        Target("dsse", _json(_policy), (json.dumps(_envelope()).encode(),)),
        Target(
            "release-rule",
            _text(compile_rule),
            (POLICY["rule"].encode(), b"claims.tee in ['snp'] && now > timestamp('x')"),
        ),  # type: ignore[union-attr]
        Target("sealed-key", SealedKey.decode, (_sealed_key(),)),
        Target("sealed-input", lambda data: list(unseal(io.BytesIO(data), KEY)), (_sealed(),)),
        Target("sealed-input-header", lambda data: read_header(io.BytesIO(data)), (_sealed()[:200],)),
        Target("certificate-table", parse_certificate_table, (write_certificate_table([("VCEK", certificates[0])]),)),
        Target("strict-json", strict_json.parse, (_attest_body(), b'{"a": [1, 2.5, "x", null, true]}')),
        Target("signed-note", _note, (note,)),
        Target("log-bundle", decode_bundle, (bundle,)),
        Target("log-entry", decode_entry, (entry,)),
        Target("quantity", _text(quantities.whole), (b"1.5Gi", b"500m", b"1e3")),
        *device_targets.targets(),
        *log_targets.targets(),
        *quote_targets.targets(),
    ]
