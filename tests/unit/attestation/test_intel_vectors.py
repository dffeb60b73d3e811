"""Real TDX and SGX quotes: each row of the vectors' manifest gives its verdict at its pinned time."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from keymgmt.attestation import REASONS, AttestationRefused
from keymgmt.attestation.collateral.freshness import FreshnessPolicy
from keymgmt.attestation.collateral.intel_pcs import signed_text
from keymgmt.attestation.intel import (
    BUILTIN_ANCHORS,
    IntelCollateral,
    IntelEndorsements,
    SgxPolicy,
    TcbPolicy,
    TdxPolicy,
    parse_quote,
    verify_sgx,
    verify_tdx,
)
from keymgmt.attestation.intel.quote import EnclaveReport, TdReport
from tests.unit.attestation.conftest import SHARED

INTEL = SHARED / "vectors" / "intel"
JUNE_2025 = datetime(2025, 6, 20, tzinfo=UTC)


def quote(name: str) -> bytes:
    data = (INTEL / name).read_bytes()
    return bytes.fromhex(data.decode().strip().removeprefix("0x")) if name.endswith(".hex") else data


def collateral(name: str) -> IntelCollateral:
    return IntelCollateral.parse((INTEL / "phala" / name).read_bytes()).authenticate()


def trustee_collateral() -> IntelCollateral:
    """Put together as a fetcher would: Trustee's TCB info and QE identity with Automata's lists and chains."""

    def pem(name: str) -> str:
        return (
            x509.load_der_x509_certificate((INTEL / "automata" / name).read_bytes()).public_bytes(Encoding.PEM).decode()
        )

    tcb, tcb_signature = signed_text((INTEL / "trustee" / "tcbInfo.json").read_bytes(), "tcbInfo")
    qe, qe_signature = signed_text((INTEL / "trustee" / "enclaveIdentity.json").read_bytes(), "enclaveIdentity")
    document = {
        "pck_crl_issuer_chain": pem("platform.der") + pem("root.der"),
        "root_ca_crl": (INTEL / "automata" / "intel_root_ca_crl.der").read_bytes().hex(),
        "pck_crl": (INTEL / "automata" / "pck_crl.der").read_bytes().hex(),
        "tcb_info_issuer_chain": pem("signing.der") + pem("root.der"),
        "tcb_info": tcb,
        "tcb_info_signature": tcb_signature,
        "qe_identity_issuer_chain": pem("signing.der") + pem("root.der"),
        "qe_identity": qe,
        "qe_identity_signature": qe_signature,
    }
    return IntelCollateral.parse(json.dumps(document).encode()).authenticate()


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(AttestationRefused) as caught:
        call()
    assert caught.value.problem.reason in REASONS
    return caught.value.problem.reason


def test_the_pinned_root_is_intels() -> None:
    root = (INTEL / "intel-sgx-root-ca.der").read_bytes()
    assert {hashlib.sha256(root).hexdigest(): "intel"} == dict(BUILTIN_ANCHORS)


def test_tdx_quote_of_version_4_is_up_to_date_in_june_2025() -> None:
    data = quote("phala/tdx_quote")
    body = parse_quote(data).body
    claims = verify_tdx(data, collateral("tdx_quote_collateral.json"), TdxPolicy(), JUNE_2025, body.report_data)
    told = claims.as_dict()
    assert told["tcb_status"] == "UpToDate"
    assert told["advisories"] == []
    assert told["fmspc"] == "b0c06f000000"
    assert told["mrtd"].startswith("91eb2b44d141d4ec")
    assert told["rtmr0"].startswith("44c0197b39157fdd")
    assert told["rtmr3"] == "00" * 48
    assert told["xfam"] == "e702060000000000"
    assert told["tcb_evaluation_number"] == 17
    submod = claims.as_ear_submod()
    assert submod["ear.status"] == "affirming"
    assert submod["root"] == "intel"


def test_a_year_later_the_revocation_list_has_expired() -> None:
    found = collateral("tdx_quote_collateral.json")
    late = datetime(2026, 6, 20, tzinfo=UTC)
    assert refused(lambda: verify_tdx(quote("phala/tdx_quote"), found, TdxPolicy(), late, None)) == "CrlExpired"


@pytest.mark.parametrize(
    ("when", "reason"),
    [
        (datetime(2025, 6, 18, tzinfo=UTC), "CollateralNotYetValid"),
        (datetime(2025, 7, 19, 12, tzinfo=UTC), "CrlExpired"),
        (datetime(2017, 1, 1, tzinfo=UTC), "CertificateNotYetValid"),
        (datetime(2050, 1, 2, tzinfo=UTC), "CertificateExpired"),
        (datetime.now(UTC), "CrlExpired"),
    ],
)
def test_times_outside_of_the_validity_are_refused(when: datetime, reason: str) -> None:
    found = collateral("tdx_quote_collateral.json")
    assert refused(lambda: verify_tdx(quote("phala/tdx_quote"), found, TdxPolicy(), when, None)) == reason


@pytest.mark.parametrize("name", ["phala/tdx-quote.hex", "phala/quote-from-tappd.hex"])
def test_quotes_below_every_tcb_level(name: str) -> None:
    found = collateral("tdx_quote_collateral.json")
    assert refused(lambda: verify_tdx(quote(name), found, TdxPolicy(), JUNE_2025, None)) == "TcbLevelUnmatched"


def test_quote_of_version_5_with_a_tdx_15_body_is_below_every_tcb_level() -> None:
    data, found = quote("phala/tdx_quote_outdated"), collateral("tdx_quote_outdated_collateral.json")
    parsed = parse_quote(data)
    assert parsed.version == 5
    assert isinstance(parsed.body, TdReport)
    assert parsed.body.mr_service_td == bytes(48)
    when = datetime(2026, 2, 20, tzinfo=UTC)
    assert refused(lambda: verify_tdx(data, found, TdxPolicy(), when, None)) == "TcbLevelUnmatched"


def test_sgx_quote_needs_configuration_and_hardening() -> None:
    data, found = quote("phala/sgx_quote"), collateral("sgx_quote_collateral.json")
    assert refused(lambda: verify_sgx(data, found, SgxPolicy(), JUNE_2025, None)) == "TcbStatusNotAllowed"
    status = frozenset({"ConfigurationAndSWHardeningNeeded"})
    one = SgxPolicy(tcb=TcbPolicy(statuses=status, advisories=frozenset({"INTEL-SA-00289"})))
    assert refused(lambda: verify_sgx(data, found, one, JUNE_2025, None)) == "AdvisoryNotAllowed"
    both = SgxPolicy(tcb=TcbPolicy(statuses=status, advisories=frozenset({"INTEL-SA-00289", "INTEL-SA-00615"})))
    claims = verify_sgx(data, found, both, JUNE_2025, None)
    told = claims.as_dict()
    assert told["tcb_status"] == "ConfigurationAndSWHardeningNeeded"
    assert told["advisories"] == ["INTEL-SA-00289", "INTEL-SA-00615"]
    assert told["mrenclave"].startswith("33d8736db756ed49")
    assert told["quote_version"] == 3
    assert told["pck_ca"] == "processor"
    assert claims.as_ear_submod()["ear.status"] == "warning"
    vector = claims.as_ear_submod()["ear.trustworthiness-vector"]
    assert (vector["hardware"], vector["configuration"]) == (32, 32)


def test_trustee_quote_6_is_out_of_date() -> None:
    data, found, when = quote("trustee/tdx_quote_6.dat"), trustee_collateral(), datetime(2025, 11, 1, tzinfo=UTC)
    assert refused(lambda: verify_tdx(data, found, TdxPolicy(), when, None)) == "TcbStatusNotAllowed"
    lenient = TdxPolicy(tcb=TcbPolicy(statuses=frozenset({"UpToDate", "OutOfDate"}), advisories=None))
    assert verify_tdx(data, found, lenient, when, None).as_dict()["tcb_status"] == "OutOfDate"


def test_trustee_quote_4_is_authentic_but_its_td_can_be_debugged() -> None:
    data = quote("trustee/tdx_quote_4.dat")
    parsed = parse_quote(data)
    _assert_signatures(data)
    expected = json.loads((INTEL / "trustee" / "parse_tdx_claims_expected.json").read_text())["quote"]["body"]
    body = parsed.body
    assert isinstance(body, TdReport)
    assert body.attributes.to_bytes(8, "little").hex() == expected["td_attributes"]
    assert body.xfam.to_bytes(8, "little").hex() == expected["xfam"]
    assert body.tee_tcb_svn.hex() == expected["tcb_svn"]
    for name in ("mr_td", "mr_seam", "mr_config_id", "mr_owner", "mr_owner_config", "report_data"):
        assert getattr(body, name).hex() == expected[name]
    assert [rtmr.hex() for rtmr in body.rtmrs] == [expected[f"rtmr_{index}"] for index in range(4)]
    now = datetime(2025, 11, 1, tzinfo=UTC)
    assert refused(lambda: verify_tdx(data, trustee_collateral(), TdxPolicy(), now, None)) == "DebugAllowed"


def _assert_signatures(data: bytes) -> None:
    """The quote's own cryptography, checked here with nothing but ECDSA: key ← QE report ← PCK ← CA ← root."""
    parsed = parse_quote(data)
    leaf, ca, root = x509.load_pem_x509_certificates(parsed.pck_chain)
    leaf.verify_directly_issued_by(ca)
    ca.verify_directly_issued_by(root)
    pck = leaf.public_key()
    assert isinstance(pck, ec.EllipticCurvePublicKey)
    pck.verify(_der(parsed.qe_signature), parsed.qe_report, ec.ECDSA(hashes.SHA256()))
    bound = hashlib.sha256(parsed.attestation_key + parsed.authentication_data).digest()
    assert parsed.qe_report[320:352] == bound
    x, y = (int.from_bytes(part, "big") for part in (parsed.attestation_key[:32], parsed.attestation_key[32:]))
    key = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    key.verify(_der(parsed.signature), parsed.signed, ec.ECDSA(hashes.SHA256()))


def _der(raw: bytes) -> bytes:
    return encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))


def test_collateral_of_another_platform_is_refused() -> None:
    data, other = quote("phala/tdx_quote"), collateral("tdx_quote_outdated_collateral.json")
    when = datetime(2026, 2, 20, tzinfo=UTC)
    assert refused(lambda: verify_tdx(data, other, TdxPolicy(), when, None)) == "CollateralMismatch"
    at_hand = IntelEndorsements([other, collateral("sgx_quote_collateral.json")])
    assert refused(lambda: verify_tdx(data, at_hand, TdxPolicy(), when, None)) == "CollateralMissing"
    at_hand = IntelEndorsements([other, collateral("tdx_quote_collateral.json")])
    assert verify_tdx(data, at_hand, TdxPolicy(), JUNE_2025, None).platform.tcb.status == "UpToDate"


def test_another_platforms_collateral_under_a_false_name_is_refused_too() -> None:
    """Were our own comparison of FMSPCs fooled, the one under it would still refuse."""

    class Careless:
        def for_platform(self, *_: object) -> IntelCollateral:
            return collateral("tdx_quote_outdated_collateral.json")

    when = datetime(2026, 2, 20, tzinfo=UTC)
    assert (
        refused(lambda: verify_tdx(quote("phala/tdx_quote"), Careless(), TdxPolicy(), when, None))
        == "CollateralMismatch"
    )


def test_an_sgx_quote_is_no_td_and_the_other_way_round() -> None:
    found = collateral("tdx_quote_collateral.json")
    assert refused(lambda: verify_tdx(quote("phala/sgx_quote"), found, TdxPolicy(), JUNE_2025, None)) == "TeeMismatch"
    assert refused(lambda: verify_sgx(quote("phala/tdx_quote"), found, SgxPolicy(), JUNE_2025, None)) == "TeeMismatch"


def test_report_data_must_answer_the_challenge() -> None:
    data, found = quote("phala/tdx_quote"), collateral("tdx_quote_collateral.json")
    assert refused(lambda: verify_tdx(data, found, TdxPolicy(), JUNE_2025, bytes(48))) == "NonceMismatch"


@pytest.mark.parametrize(
    "freshness",
    [FreshnessPolicy(minimum_sequence=18), FreshnessPolicy(not_issued_before=datetime(2025, 6, 20, tzinfo=UTC))],
)
def test_collateral_behind_the_floor_is_a_rollback(freshness: FreshnessPolicy) -> None:
    policy = TdxPolicy(tcb=TcbPolicy(freshness=freshness))
    found = collateral("tdx_quote_collateral.json")
    assert (
        refused(lambda: verify_tdx(quote("phala/tdx_quote"), found, policy, JUNE_2025, None)) == "CollateralRolledBack"
    )


def _accepted_flips(name: str, positions: list[int], verify: Callable[[bytes], object]) -> list[int]:
    data, accepted = quote(name), []
    rng = random.Random(7)
    for position in positions:
        changed = bytearray(data)
        changed[position] ^= 1 << rng.randrange(8)
        try:
            verify(bytes(changed))
        except AttestationRefused:
            continue
        accepted.append(position)
    return accepted


def _flip_cases() -> dict[str, Callable[[bytes], object]]:
    tdx, sgx = collateral("tdx_quote_collateral.json"), collateral("sgx_quote_collateral.json")
    lenient = SgxPolicy(tcb=TcbPolicy(statuses=frozenset({"ConfigurationAndSWHardeningNeeded"}), advisories=None))
    return {
        "phala/tdx_quote": lambda data: verify_tdx(data, tdx, TdxPolicy(), JUNE_2025, None),
        "phala/sgx_quote": lambda data: verify_sgx(data, sgx, lenient, JUNE_2025, None),
    }


@pytest.mark.parametrize("name", ["phala/tdx_quote", "phala/sgx_quote"])
def test_no_flipped_bit_is_accepted(name: str) -> None:
    """Lengths, types, PEM armour and padding too: what no signature covers has only one spelling."""
    data, verify = quote(name), _flip_cases()[name]
    verify(data)
    body_end = parse_quote(data).signed
    structure = list(range(len(body_end), len(body_end) + 4)) + list(range(len(data) - 80, len(data)))
    markers = [index for index in range(len(body_end) + 640, len(data)) if data[index] in b"\n\0-="]
    spread = list(range(0, len(data), 11))
    assert _accepted_flips(name, sorted({*structure, *markers, *spread}), verify) == []


@pytest.mark.campaign
@pytest.mark.parametrize("name", ["phala/tdx_quote", "phala/sgx_quote"])
def test_no_flipped_bit_anywhere_is_accepted(name: str) -> None:
    data = quote(name)
    for _ in range(8):
        assert _accepted_flips(name, list(range(len(data))), _flip_cases()[name]) == []


def test_altered_collateral_is_not_authentic() -> None:
    document = json.loads((INTEL / "phala" / "tdx_quote_collateral.json").read_bytes())
    changed = document["tcb_info"].replace('"svn":5', '"svn":4')
    assert changed != document["tcb_info"]
    for changes, reason in (
        ({"tcb_info": changed}, "CollateralInvalid"),
        ({"qe_identity": document["qe_identity"].replace('"isvsvn":4', '"isvsvn":3')}, "CollateralInvalid"),
        ({"tcb_info_signature": "00" * 64}, "CollateralInvalid"),
        ({"root_ca_crl": document["pck_crl"]}, "CollateralInvalid"),
        ({"pck_crl_issuer_chain": document["tcb_info_issuer_chain"]}, "CollateralInvalid"),
    ):
        piece = IntelCollateral.parse(json.dumps({**document, **changes}).encode())
        assert refused(lambda piece=piece: piece.authenticate()) == reason
        unchecked = refused(
            lambda piece=piece: verify_tdx(quote("phala/tdx_quote"), piece, TdxPolicy(), JUNE_2025, None)
        )
        assert unchecked == "CollateralInvalid"


def test_enclave_fields_of_the_sgx_quote() -> None:
    body = parse_quote(quote("phala/sgx_quote")).body
    assert isinstance(body, EnclaveReport)
    assert body.flags == 0x5
    assert body.mr_signer.hex() != "00" * 32
