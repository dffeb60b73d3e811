"""EAR examples of shared/vectors/formats, read by our code; tokens opened with their verifier's key."""

from __future__ import annotations

import base64
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from keymgmt.attestation import AttestationRefused
from keymgmt.attestation import ear as forms
from keymgmt.attestation.ear_claims import Ear, open_ear, parse_ear
from tests.unit.attestation.conftest import SHARED

FORMATS = SHARED / "vectors" / "formats"
KEY = ECKey.generate_key("P-256")
PUBLIC = KEY.as_dict(private=False)
TRUSTEE_AT = datetime.fromtimestamp(1760426200, UTC)


def example(name: str) -> Any:
    return json.loads((FORMATS / name).read_text())


def refusal(call: Any, *arguments: Any) -> tuple[str, str]:
    with pytest.raises(AttestationRefused) as caught:
        call(*arguments)
    return caught.value.problem.reason, caught.value.problem.where


def test_minimal_result() -> None:
    found = parse_ear(example("ear-claims.json"))
    assert (found.developer, found.build, found.status) == ("Acme Inc.", "rrtrap-v1.0.0", "affirming")
    assert found.issued_at == datetime(2022, 10, 18, 11, 9, 33, tzinfo=UTC)
    assert found.submods["test"].policy_id == "https://veraison.example/policy/1/60a0068d"
    assert set(found.submods["test"].vector.values()) == {0}


def test_result_with_a_vector() -> None:
    found = parse_ear(example("ear-claims-tv-ok.json"))
    assert found.raw_evidence == bytes.fromhex("deadbeef")
    assert found.submods["test"].vector["executables"] == 3
    assert {found.submods["test"].tier(claim) for claim in forms.CLAIMS} == {"affirming"}


def test_result_with_extensions() -> None:
    document = example("ear-claims-extension-ok.json")
    assert parse_ear(document).submods["test"].extensions == {}
    document["submods"]["test"]["ear.veraison.policy-claims"] = {"foo": "bar"}
    assert parse_ear(document).submods["test"].extensions == {"ear.veraison.policy-claims": {"foo": "bar"}}


def test_key_attestation() -> None:
    submod = parse_ear(example("ear-claims-key-attestation-ok.json")).submods["PARSEC_TPM"]
    assert submod.attested_key is not None
    assert submod.attested_key.startswith(bytes.fromhex("3059301306072a8648ce3d0201"))
    where = "submods.PARSEC_TPM.ear.veraison.key-attestation.akpub"
    assert refusal(parse_ear, example("ear-claims-key-attestation-ko.json")) == ("EarMalformed", where)


def test_trustees_result() -> None:
    found = parse_ear(example("example.token.json"))
    cpu = found.submods["cpu0"]
    assert (found.status, cpu.tier("hardware"), cpu.tier("executables")) == (
        "contraindicated",
        "contraindicated",
        "warning",
    )
    assert cpu.tier("file-system") == "none"
    assert cpu.extensions["ear.veraison.annotated-evidence"]["sgx"]["tcb_status"] == "OutOfDate"


def _segment(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(claims: Any) -> str:
    return jwt.encode({"alg": "ES256"}, claims, KEY)


def test_a_token_is_opened_with_its_verifiers_key() -> None:
    claims = example("example.token.json")
    found = open_ear(token(claims), PUBLIC, TRUSTEE_AT)
    assert isinstance(found, Ear)
    assert found.submods["cpu0"].vector["hardware"] == 97
    assert found.expires_at is not None
    assert refusal(open_ear, token(claims), PUBLIC, found.expires_at)[0] == "EarExpired"
    assert refusal(open_ear, token(claims), PUBLIC, found.issued_at - timedelta(seconds=1))[0] == "EarExpired"


def test_tokens_of_others_are_refused() -> None:
    good = token(example("example.token.json"))
    other = ECKey.generate_key("P-256").as_dict(private=False)
    assert refusal(open_ear, good, other, TRUSTEE_AT)[0] == "SignatureInvalid"
    head, body, signature = good.split(".")
    none = _segment(b'{"alg":"none"}')
    for forged in (
        f"{none}.{body}.",
        f"{none}.{body}.{signature}",
        f"{head}.{body}.{signature[:-4]}AAAA",
        f"{head}.{body}",
        "x",
        "",
        "é.é.é",
    ):
        assert refusal(open_ear, forged, PUBLIC, TRUSTEE_AT)[0] == "SignatureInvalid"
    # The public key taken as a shared secret: the classic confusion of algorithms.
    signing_input = _segment(b'{"alg":"HS256"}') + "." + body
    mac = hmac.digest(KEY.as_pem(private=False), signing_input.encode(), "sha256")
    assert refusal(open_ear, f"{signing_input}.{_segment(mac)}", PUBLIC, TRUSTEE_AT)[0] == "SignatureInvalid"
    assert refusal(open_ear, "x" * (1 << 19), PUBLIC, TRUSTEE_AT)[0] == "EarMalformed"
    assert refusal(open_ear, token({"a": 1}), PUBLIC, TRUSTEE_AT)[0] == "EarMalformed"


def changed(submod: Any = None, **change: Any) -> Any:
    document = {**example("ear-claims-tv-ok.json"), **change}
    if submod is not None:
        document["submods"] = {"test": {**document["submods"]["test"], **submod}}
    return document


VECTOR = "ear.trustworthiness-vector"


@pytest.mark.parametrize(
    ("document", "where"),
    [
        (None, "ear"),
        ([], "ear"),
        (changed(eat_profile="tag:example.com,2020:mine"), "eat_profile"),
        (changed(eat_profile=None), "eat_profile"),
        (changed(iat="now"), "iat"),
        (changed(iat=True), "iat"),
        (changed(iat=-1), "iat"),
        (changed(exp=1 << 39), "exp"),
        (changed(submods={}), "submods"),
        (changed(submods={str(number): {} for number in range(65)}), "submods"),
        (changed(submods={"test": 1}), "submods.test"),
        (changed(**{"ear.verifier-id": None}), "ear.verifier-id"),
        (changed(**{"ear.verifier-id": {"developer": "x"}}), "ear.verifier-id.build"),
        (changed(**{"ear.raw-evidence": "*"}), "ear.raw-evidence"),
        (changed({"ear.status": "good"}), "submods.test.ear.status"),
        (changed({"ear.status": ["affirming"]}), "submods.test.ear.status"),
        (changed({"ear.appraisal-policy-id": 7}), "submods.test.ear.appraisal-policy-id"),
        (changed({VECTOR: {"hardware": 128}}), f"submods.test.{VECTOR}.hardware"),
        (changed({VECTOR: {"hardware": True}}), f"submods.test.{VECTOR}.hardware"),
        (changed({VECTOR: {"hardware": "2"}}), f"submods.test.{VECTOR}.hardware"),
        (changed({VECTOR: {"software": 2}}), f"submods.test.{VECTOR}.software"),
        (changed({VECTOR: []}), f"submods.test.{VECTOR}"),
        (
            changed({"ear.veraison.key-attestation": {"akpub": "AAAA"}}),
            "submods.test.ear.veraison.key-attestation.akpub",
        ),
        # A status that is better than what the vector says.
        (changed({VECTOR: {"hardware": 97}}), "submods.test.ear.status"),
        (changed({"ear.status": "none"}), "submods.test.ear.status"),
    ],
)
def test_malformed_results_name_the_member(document: Any, where: str) -> None:
    assert refusal(parse_ear, document) == ("EarMalformed", where)


def test_a_status_worse_than_the_vector_is_the_verifiers_right() -> None:
    assert parse_ear(changed({"ear.status": "contraindicated"})).status == "contraindicated"


@pytest.mark.parametrize(
    ("values", "tier"),
    [
        ((-1, 0, 1), "none"),
        ((2, 31, -2, -32), "affirming"),
        ((32, 95, -33, -96), "warning"),
        ((96, 127, -97, -128), "contraindicated"),
    ],
)
def test_tiers(values: tuple[int, ...], tier: str) -> None:
    assert {forms.tier_of(value) for value in values} == {tier}
    assert {forms.status({"hardware": value}) for value in values} == {tier}


def test_our_own_results_are_read_back() -> None:
    for vector in (forms.snp_vector(debug=True, measurement_known=False), forms.device_vector(measurements_known=True)):
        submod = {"ear.status": forms.status(vector), VECTOR: vector, "ear.appraisal-policy-id": forms.NVIDIA_POLICY_ID}
        assert parse_ear(changed(submod)).submods["test"].vector == vector
