"""Azure's confidential VMs of shared/vectors/amd/azure, through their vTPM quotes, at a pinned time."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keymgmt.attestation import AttestationRefused, SnpPolicy, TrustRoots
from keymgmt.attestation.azure import parse_hcl_report
from keymgmt.attestation.vtpm import (
    AzureClaims,
    AzureEvidence,
    PcrPolicy,
    Signature,
    parse_azure_evidence,
    parse_quote,
    verify_azure_cvm,
    verify_quote,
)
from keymgmt.attestation.vtpm.attest import ALG_RSASSA
from keymgmt.attestation.vtpm.azure_cvm import attestation_key
from tests.unit.attestation.conftest import PINNED, vector

ROOTS = TrustRoots.builtin_amd()
NAMES = ["evidence-v0.json", "evidence-v1.json", "evidence-v2.json", "evidence-genoa.json"]
CHALLENGE = b"challenge"
# What the quotes hold as qualifying data: two early clients answered a fixed text.
NONCES = {
    "evidence-v0.json": CHALLENGE,
    "evidence-v1.json": CHALLENGE,
    "evidence-v2.json": bytes.fromhex(
        "982f5c6e45df0ed3f10b6f60b02f0c8390e281300f3805e2279c16168cd6ae9aa398f647caa2338748cd0fd9f5f819ef"
    ),
    "evidence-genoa.json": bytes.fromhex(
        "0218488bae25d2509232bf676f1a66a30d7372add909109b36016ef136f2938ca05475f8b46094de6b64270ea35d950f"
    ),
}


def document(name: str) -> Any:
    return json.loads(vector(f"azure/{name}"))


def evidence(name: str) -> AzureEvidence:
    return parse_azure_evidence(document(name))


def check(
    found: AzureEvidence,
    nonce: bytes | None,
    *,
    pcrs: PcrPolicy | None = None,
    now: datetime = PINNED,
    init_data: bytes | None = None,
    policy: SnpPolicy | None = None,
) -> AzureClaims:
    authorities = [vector("milan_ask_ark_asvk.pem"), vector("genoa_ask_ark_asvk.pem")]
    return verify_azure_cvm(
        found, authorities, ROOTS, policy or SnpPolicy(), pcrs or PcrPolicy(), now, nonce, init_data
    )


def refusal(*arguments: Any, **options: Any) -> str:
    with pytest.raises(AttestationRefused) as caught:
        check(*arguments, **options)
    return caught.value.problem.reason


@pytest.mark.parametrize("name", NAMES)
def test_the_quote_stands_on_the_hardware_report(name: str) -> None:
    claims = check(evidence(name), NONCES[name])
    said = claims.as_dict()
    assert claims.snp.root == "amd"
    assert sum(name.startswith("pcr") for name in said) == 24
    assert said["nonce"] == NONCES[name].hex()
    assert said["secure_boot"] is document_flag(claims)
    submod = claims.as_ear_submod()
    assert submod["ear.status"] == "affirming"
    assert submod["vtpm"]["pcr17"] == "ff" * 32  # the dynamic registers stand at their reset value


def document_flag(claims: AzureClaims) -> bool:
    return bool(claims.runtime_data["vm-configuration"]["secure-boot"])


@pytest.mark.parametrize("name", NAMES)
def test_another_nonce_is_refused(name: str) -> None:
    for nonce in (b"", b"Challenge", NONCES[name] + b"\0", NONCES[name][:-1]):
        assert refusal(evidence(name), nonce) == "NonceMismatch"


def test_version_2_also_states_the_nonce_below_the_hardware_signature() -> None:
    found = evidence("evidence-v2.json")
    stated = parse_hcl_report(found.hcl_report).runtime_data
    assert NONCES["evidence-v2.json"].hex().upper().encode() in stated.upper()
    # A version 1 client answered the quote's challenge only: called version 2, it does not convince.
    assert refusal(replace(evidence("evidence-v1.json"), version=2), CHALLENGE) == "NonceMismatch"


@pytest.mark.parametrize("name", NAMES)
def test_altered_pcrs_quotes_and_signatures_are_refused(name: str) -> None:
    found, nonce = evidence(name), NONCES[name]
    wrong = (bytes(32), *found.pcrs[1:])
    assert refusal(replace(found, pcrs=wrong), nonce) == "PcrDigestMismatch"
    assert refusal(replace(found, pcrs=found.pcrs[:-1]), nonce) == "PcrDigestMismatch"
    assert refusal(replace(found, pcrs=(found.pcrs[1], found.pcrs[0], *found.pcrs[2:])), nonce) == "PcrDigestMismatch"
    assert refusal(replace(found, signature=found.signature[:-1] + b"\0"), nonce) == "SignatureInvalid"
    assert refusal(replace(found, message=found.message[:-1] + b"\0"), nonce) == "SignatureInvalid"


def test_a_quote_of_another_vm_is_refused() -> None:
    first, genoa = evidence("evidence-v1.json"), evidence("evidence-genoa.json")
    foreign = replace(genoa, message=first.message, signature=first.signature, pcrs=first.pcrs)
    assert refusal(foreign, CHALLENGE) == "SignatureInvalid"


def test_runtime_data_with_another_key_is_refused() -> None:
    found = evidence("evidence-v1.json")
    data = bytearray(found.hcl_report)
    at = data.index(b'"n":"') + 10
    data[at] = ord("A") if data[at] != ord("A") else ord("B")
    assert refusal(replace(found, hcl_report=bytes(data)), CHALLENGE) == "NonceMismatch"  # not what AMD's key signed


def test_pcr_policy() -> None:
    found = evidence("evidence-genoa.json")
    nonce, pcr7 = NONCES["evidence-genoa.json"], found.pcrs[7]
    assert check(found, nonce, pcrs=PcrPolicy(accepted={7: frozenset({bytes(32), pcr7})}))
    assert refusal(found, nonce, pcrs=PcrPolicy(accepted={7: frozenset({bytes(32)})})) == "PcrNotAllowed"
    assert refusal(found, nonce, pcrs=PcrPolicy(required=frozenset({24}))) == "PcrSelectionInvalid"


def test_init_data_stands_in_pcr_8() -> None:
    genoa = evidence("evidence-genoa.json")
    assert refusal(genoa, NONCES["evidence-genoa.json"], init_data=bytes(32)) == "PcrNotAllowed"
    # The other VMs were started without init data: PCR 8 was never extended.
    assert refusal(evidence("evidence-v2.json"), NONCES["evidence-v2.json"], init_data=bytes(32)) == "PcrNotAllowed"
    digest = hashlib.sha256(b"init data").digest()
    assert hashlib.sha256(bytes(32) + digest).digest() != genoa.pcrs[8]


def test_the_hardware_report_is_appraised_too() -> None:
    found = evidence("evidence-v1.json")
    assert refusal(found, CHALLENGE, now=datetime(2035, 1, 1, tzinfo=UTC)) == "CertificateExpired"
    assert refusal(found, CHALLENGE, policy=SnpPolicy(products=frozenset({"Genoa"}))) == "ProductNotAllowed"


def test_loose_quotes_of_the_vectors() -> None:
    loose = document("tpm-quote-v1.json")
    message, signature = bytes.fromhex(loose["message"]), bytes.fromhex(loose["signature"])
    pcrs = {index: bytes.fromhex(value) for index, value in enumerate(loose["pcrs"])}
    key = attestation_key(json.loads(parse_hcl_report(vector("azure/hcl-report.bin")).runtime_data))
    signed = Signature(ALG_RSASSA, "sha256", raw=signature)
    assert verify_quote(message, signed, key, pcrs, CHALLENGE, PcrPolicy()).quote.reset_count == 3
    assert signature in vector("azure/quote.bin")  # the same quote in an older serialization
    assert message in vector("azure/quote.bin")
    # Another VM's quote, over some PCRs only; its key is not among the vectors.
    other = vector("azure/tpm-quote.msg")
    assert parse_quote(other).selections[0].pcrs == (0, 1, 2, 3, 4, 5, 6, 7, 14)
    foreign = Signature(ALG_RSASSA, "sha256", raw=vector("azure/tpm-quote.sig"))
    with pytest.raises(AttestationRefused) as caught:
        verify_quote(other, foreign, key, pcrs, CHALLENGE, PcrPolicy())
    assert caught.value.problem.reason == "SignatureInvalid"


@given(st.integers(0, 160 * 8))
@settings(max_examples=50, deadline=None)
def test_every_bit_flip_of_a_quote_is_refused(position: int) -> None:
    found = evidence("evidence-genoa.json")
    flipped = bytearray(found.message)
    at = position % (len(flipped) * 8)
    flipped[at // 8] ^= 1 << at % 8
    assert refusal(replace(found, message=bytes(flipped)), NONCES["evidence-genoa.json"])


def changed(**change: Any) -> dict[str, Any]:
    return {**document("evidence-v1.json"), **change}


def quote(**change: Any) -> dict[str, Any]:
    return changed(tpm_quote={**document("evidence-v1.json")["tpm_quote"], **change})


@pytest.mark.parametrize(
    "bad",
    [
        None,
        [],
        {},
        changed(version=3),
        changed(version=True),
        changed(version="1"),
        changed(hcl_report=None),
        changed(hcl_report="*"),
        changed(hcl_report="A" * (1 << 16)),
        changed(vcek=""),
        changed(tpm_quote=[]),
        quote(pcrs=[]),
        quote(pcrs=["00" * 32] * 33),
        quote(pcrs=["00" * 33]),
        quote(pcrs=[7]),
        quote(message="zz"),
        quote(message=""),
        quote(signature="00" * 513),
        {**document("evidence-v0.json"), "vcek": 1},
        {**document("evidence-v0.json"), "vcek": "é"},
        {**document("evidence-v0.json"), "report": [256]},
        {**document("evidence-v0.json"), "report": ["a"]},
        {**document("evidence-v0.json"), "report": []},
    ],
)
def test_malformed_evidence_is_refused(bad: object) -> None:
    with pytest.raises(AttestationRefused) as caught:
        parse_azure_evidence(bad)
    assert caught.value.problem.reason == "EvidenceMalformed"


def jwk(**change: Any) -> dict[str, Any]:
    modulus = base64.urlsafe_b64encode(b"\xc1" + bytes(254) + b"\x01").rstrip(b"=").decode()
    return {"keys": [{"kid": "HCLAkPub", "kty": "RSA", "e": "AQAB", "n": modulus, **change}]}


@pytest.mark.parametrize(
    "runtime",
    [
        {},
        {"keys": {}},
        {"keys": []},
        {"keys": jwk()["keys"] * 2},
        jwk(kid="HCLEkPub"),
        jwk(kty="EC"),
        jwk(n="AQAB"),
        jwk(n=None),
        jwk(e="AA"),
        jwk(e="*"),
    ],
)
def test_runtime_data_without_a_usable_key_is_refused(runtime: dict[str, Any]) -> None:
    with pytest.raises(AttestationRefused) as caught:
        attestation_key(runtime)
    assert caught.value.problem.reason == "QuoteKeyMissing"
    assert attestation_key(jwk()).key_size == 2048
