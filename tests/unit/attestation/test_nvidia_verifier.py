"""GPUs and switches of an emulated vendor: each refusal with its own reason."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp

from crds.errors import InvalidInput
from keymgmt.attestation import AttestationRefused
from keymgmt.attestation.nvidia import NvidiaClaims, NvidiaEndorsements, NvidiaPolicy, ReferenceValues, verify_device
from keymgmt.attestation.nvidia.dice import parse_composite_device_id, parse_tcb_info
from tests.unit.attestation.nvidia_vendor import (
    END,
    MEASUREMENTS,
    NONCE,
    NOW,
    Device,
    Vendor,
    certificate,
    composite_device_id,
    delegate,
    ocsp_answer,
    reference_values,
    spki,
    tcb_info,
)

VENDOR = Vendor()
GPU = VENDOR.device()
SWITCH = VENDOR.device("LS10")
LENIENT = NvidiaPolicy(require_reference_values=False)


def check(
    device: Device = GPU,
    report: bytes | None = None,
    *,
    policy: NvidiaPolicy = LENIENT,
    endorsements: NvidiaEndorsements | None = None,
    now: datetime = NOW,
    arch: str = "",
    **options: Any,
) -> NvidiaClaims:
    return verify_device(
        report or device.report(**options),
        device.pem,
        arch or device.architecture,
        endorsements or VENDOR.endorsements(),
        policy,
        now,
        NONCE,
    )


def refusal(*arguments: Any, **options: Any) -> str:
    with pytest.raises(AttestationRefused) as caught:
        check(*arguments, **options)
    return caught.value.problem.reason


@pytest.mark.parametrize("architecture", ["HOPPER", "BLACKWELL", "LS10"])
def test_each_architecture_verifies_under_its_own_root(architecture: str) -> None:
    device = VENDOR.device(architecture)
    claims = check(device)
    assert claims.architecture == architecture
    assert claims.root == "local:emulated"
    assert claims.pdi == device.pdi.hex()
    assert claims.as_ear_submod()["ear.status"] == "affirming"
    assert refusal(device, endorsements=NvidiaEndorsements()) == "RootUntrusted"


def test_measurements_are_compared_with_reference_values() -> None:
    known = VENDOR.endorsements(reference=ReferenceValues.parse(reference_values()))
    claims = check(endorsements=known, policy=NvidiaPolicy())
    said = claims.as_dict()
    assert (said["measres"], said["dbgstat"], said["secboot"]) == ("success", "disabled", True)
    assert claims.as_ear_submod()["ear.trustworthiness-vector"]["executables"] == 2
    changed = {**MEASUREMENTS, 3: hashlib.sha384(b"debug firmware").digest()}
    assert refusal(endorsements=known, policy=NvidiaPolicy(), measurements=changed) == "MeasurementMismatch"
    # A mismatch is refused also where reference values are not demanded.
    assert refusal(endorsements=known, measurements=changed) == "MeasurementMismatch"
    fewer = {index: value for index, value in MEASUREMENTS.items() if index != 3}
    assert refusal(endorsements=known, policy=NvidiaPolicy(), measurements=fewer) == "MeasurementMismatch"


def test_a_disabled_decoder_is_not_measured() -> None:
    known = VENDOR.endorsements(reference=ReferenceValues.parse(reference_values()))
    changed = {**MEASUREMENTS, 36: bytes(48)}
    assert refusal(endorsements=known, measurements=changed) == "MeasurementMismatch"
    assert check(endorsements=known, measurements=changed, replace={11: b"\x55"}).measurements_known


def test_a_gpu_needs_both_manifests_and_a_switch_one() -> None:
    vbios, driver = reference_values()
    for one in (vbios, driver):
        half = VENDOR.endorsements(reference=ReferenceValues.parse([one]))
        assert refusal(endorsements=half, policy=NvidiaPolicy()) == "ReferenceValueMissing"
        assert not check(endorsements=half).measurements_known
    switch = VENDOR.endorsements(reference=ReferenceValues.parse(reference_values(arch="LS10")))
    assert check(SWITCH, endorsements=switch, policy=NvidiaPolicy()).measurements_known
    other = {**MEASUREMENTS, 2: bytes(48)}
    assert refusal(SWITCH, endorsements=switch, measurements=other) == "MeasurementMismatch"


def test_manifests_that_claim_one_index_are_refused() -> None:
    both = reference_values(driver={2: [MEASUREMENTS[2]]}, vbios={2: [MEASUREMENTS[2]]})
    known = VENDOR.endorsements(reference=ReferenceValues.parse(both))
    assert refusal(endorsements=known) == "MeasurementMismatch"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "gpu"}, "kind"),
        ({"arch": "AMPERE"}, "arch"),
        ({"version": ""}, "version"),
        ({"measurements": {}}, "measurements"),
        ({"measurements": {"0": ["00" * 48]}}, "measurements.0"),
        ({"measurements": {"255": ["00" * 48]}}, "measurements.255"),
        ({"measurements": {"07": ["00" * 48]}}, "measurements.07"),
        ({"measurements": {"7": ["zz"]}}, "measurements.7"),
        ({"measurements": {"7": ["00" * 8]}}, "measurements.7"),
        ({"measurements": {"7": []}}, "measurements.7"),
        ({"measurements": {"7": "00" * 48}}, "measurements.7"),
        ({"comment": "x"}, "measurements"),
    ],
)
def test_reference_values_name_the_field_at_fault(change: dict[str, Any], said: str) -> None:
    import json

    good = json.loads(reference_values()[0])
    with pytest.raises(InvalidInput) as caught:
        ReferenceValues.parse([json.dumps({**good, **change}).encode()])
    assert caught.value.problem.where == said


def test_the_same_version_twice_is_refused() -> None:
    with pytest.raises(InvalidInput, match="twice"):
        ReferenceValues.parse(reference_values() + reference_values())


def test_firmware_identity_binds_report_and_certificate() -> None:
    other = hashlib.sha384(b"other firmware").digest()
    assert refusal(replace={20: other}) == "FirmwareIdMismatch"
    assert check(replace={20: b""}).opaque.fwid is None
    strict = replace(LENIENT, require_fwid=True)
    assert refusal(replace={20: b""}, policy=strict) == "FirmwareIdMismatch"
    foreign = VENDOR.device(dice=("2.23.133.5.4.1", composite_device_id(spki(VENDOR.root_key))))
    assert refusal(foreign) == "FirmwareIdMismatch"  # the identity names another device's key
    without = VENDOR.device(dice=None)
    assert refusal(without) == "FirmwareIdMismatch"
    assert check(without, replace={20: b""}).chain.fwid is None


def test_a_device_that_booted_with_debugging_is_refused() -> None:
    for flags in (b"\x10\x00\x00\x01", b"\x20\x00\x00\x01"):
        device = VENDOR.device("BLACKWELL", dice=("2.23.133.5.4.1.1", tcb_info(flags=flags)))
        assert refusal(device) == "DebugAllowed"


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"\x30",
        b"\x30\x81\x05abcde",  # not the shortest length
        b"\x30\x82\x00\x05abcde",
        b"\x30\x84\x00\x00\x00\x00",
        b"\x30\x03\x02\x01\x01\x00",  # something follows
        composite_device_id(bytes(120)).replace(b"\x02\x01\x01", b"\x02\x01\x02"),
        composite_device_id(spki(VENDOR.root_key)).replace(bytes.fromhex("6086480165030402020430"), bytes(11)),
        tcb_info().replace(b"\xa6", b"\xa5"),
        b"\x30\x00",
        b"\x1f\x81\x01\x00",
        b"\x30" * 3000,
    ],
)
def test_malformed_firmware_identities_are_refused(bad: bytes) -> None:
    for parse in (parse_composite_device_id, parse_tcb_info):
        with pytest.raises(AttestationRefused) as caught:
            parse(bad)
        assert caught.value.problem.reason == "CertificateMalformed"


def test_a_switch_must_be_the_one_that_its_certificate_names() -> None:
    assert refusal(SWITCH, replace={22: bytes(7) + b"\x01"}) == "DeviceIdentityMismatch"
    assert refusal(SWITCH, replace={22: bytes(16)}) == "SpdmMalformed"
    assert refusal(SWITCH, replace={22: b""}) == "SpdmMalformed"


def test_policy_of_versions_and_modes() -> None:
    def of(**demands: Any) -> NvidiaPolicy:
        return replace(LENIENT, **demands)

    assert check(policy=of(minimum_driver="550.90.7")).root
    assert refusal(policy=of(minimum_driver="550.91")) == "DriverNotAllowed"
    assert refusal(policy=of(minimum_driver="1"), replace={3: b"beta\0"}) == "DriverNotAllowed"
    assert refusal(policy=of(drivers=frozenset({"570.1"}))) == "DriverNotAllowed"
    assert check(policy=of(minimum_vbios="96.00.9e.ff.ff")).root
    assert refusal(policy=of(minimum_vbios="96.00.a0")) == "DriverNotAllowed"
    assert refusal(policy=of(vbioses=frozenset({"96.00.a5.00.01"}))) == "DriverNotAllowed"
    assert refusal(policy=of(architectures=frozenset({"BLACKWELL"}))) == "DeviceUnsupported"
    assert check(policy=of(modes=frozenset({"SPT"})), replace={36: b"\x00\x00"}).root
    assert refusal(policy=of(modes=frozenset({"SPT"})), replace={36: b"\x01\x00"}) == "DeviceModeNotAllowed"
    assert refusal(policy=of(modes=frozenset({"SPT"}))) == "DeviceModeNotAllowed"  # the driver does not say
    assert check(SWITCH, policy=of(minimum_driver="550", modes=frozenset({"SPT"}))).root  # a switch has neither


def test_time_and_nonce() -> None:
    assert refusal(report=GPU.report(bytes(32))) == "NonceMismatch"
    assert refusal(now=datetime(2023, 1, 1, tzinfo=UTC)) == "CertificateNotYetValid"
    assert refusal(now=datetime(2041, 1, 1, tzinfo=UTC)) == "CertificateExpired"
    short = VENDOR.device(until=datetime(2026, 2, 1, tzinfo=UTC))
    assert refusal(short) == "CertificateExpired"
    with pytest.raises(InvalidInput):
        check(now=NOW.replace(tzinfo=None))


def test_chains_that_are_not_a_devices() -> None:
    device = VENDOR.device()
    leaf, chip, *rest = device.certificates
    extra = replace(device, certificates=[leaf, chip, chip, *rest])
    assert refusal(extra) == "CertificateChainTooLong"
    shuffled = replace(device, certificates=[leaf, *rest[:1], chip, *rest[1:]])
    assert refusal(shuffled) == "CertificateChainInvalid"
    another = VENDOR.device()
    assert refusal(replace(device, certificates=[leaf, *another.certificates[1:]])) == "CertificateChainInvalid"
    assert refusal(replace(device, certificates=[leaf, chip])) == "CertificateChainInvalid"
    assert refusal(VENDOR.device(authority=True)) == "CertificateUsageInvalid"
    # A signing key must not certify another one: that is how one device would speak for many.
    key = ec.generate_private_key(ec.SECP384R1())
    minted = certificate("GH100 A01 GSP FMC LF", key, leaf.subject.rfc4514_string()[3:], device.key, authority=False)
    chained = Device("HOPPER", key, [minted, leaf, *rest])
    assert refusal(chained) == "CertificateUsageInvalid"
    assert refusal(VENDOR.device("TURBO"), arch="HOPPER") == "DeviceUnsupported"
    critical = VENDOR.device(dice=("1.2.3", b"\x05\x00"), critical=True)
    assert refusal(critical) == "CertificateMalformed"


def test_certificates_of_another_kind_are_refused() -> None:
    weak = ec.generate_private_key(ec.SECP256R1())
    device = VENDOR.device()
    chip_name = "GH100 A01 GSP BROM"
    device.certificates[0] = certificate("GH100 A01 GSP FMC LF", weak, chip_name, weak, authority=False)
    assert refusal(device) == "CertificateMalformed"
    assert refusal(replace(GPU, certificates=[])) == "CertificateMissing"


def _answers(device: Device, **last: Any) -> tuple[bytes, ...]:
    """Good answers for family and provisioner, and one for the device's certificate, changed by `last`."""
    _, chip, provisioner, family, root = device.certificates
    last = {"key": VENDOR.provisioner_key, "responder": provisioner, **last}
    return (
        ocsp_answer(family, root, VENDOR.root_key, root),
        ocsp_answer(provisioner, family, VENDOR.family_key, family, algorithm=hashes.SHA256()),
        ocsp_answer(chip, provisioner, last.pop("key"), last.pop("responder"), **last),
    )


def test_revocation_by_issuers_and_their_delegates() -> None:
    required = replace(LENIENT, require_revocation=True)

    def said(*answers: bytes, policy: NvidiaPolicy = required) -> str:
        return refusal(endorsements=VENDOR.endorsements(ocsp_responses=answers), policy=policy)

    good = VENDOR.endorsements(ocsp_responses=_answers(GPU))
    assert check(endorsements=good, policy=required).root
    key, delegated = delegate("Provisioner", VENDOR.provisioner_key)
    by_delegate = VENDOR.endorsements(ocsp_responses=_answers(GPU, key=key, responder=delegated))
    assert check(endorsements=by_delegate, policy=required).root
    revoked = {"status": ocsp.OCSPCertStatus.REVOKED, "reason": x509.ReasonFlags.key_compromise}
    assert said(*_answers(GPU, **revoked)) == "CertificateRevoked"
    assert said(*_answers(GPU, **revoked, key=key, responder=delegated), policy=LENIENT) == "CertificateRevoked"
    held = {**revoked, "reason": x509.ReasonFlags.certificate_hold}
    assert said(*_answers(GPU, **held)) == "CertificateOnHold"
    assert said(*_answers(GPU, status=ocsp.OCSPCertStatus.UNKNOWN)) == "RevocationUnknown"
    assert said(*_answers(GPU)[:2]) == "RevocationUnknown"
    assert said() == "RevocationUnknown"
    assert said(b"not ocsp", policy=LENIENT) == "RevocationUnknown"
    assert said(*_answers(GPU) * 30) == "RevocationUnknown"  # more than are looked at


def test_answers_of_the_unentitled_and_the_late_count_for_nothing() -> None:
    required = replace(LENIENT, require_revocation=True)

    def said(**last: Any) -> str:
        answers = _answers(GPU, **last)
        return refusal(endorsements=VENDOR.endorsements(ocsp_responses=answers), policy=required)

    key, other_usage = delegate("Provisioner", VENDOR.provisioner_key, entitled=False)
    assert said(key=key, responder=other_usage) == "RevocationUnknown"
    key, expired = delegate("Provisioner", VENDOR.provisioner_key, until=datetime(2026, 1, 1, tzinfo=UTC))
    assert said(key=key, responder=expired) == "RevocationUnknown"
    key, forged = delegate("Provisioner", VENDOR.family_key)  # named as the issuer, signed by another
    assert said(key=key, responder=forged) == "RevocationUnknown"
    assert said(key=VENDOR.family_key, responder=VENDOR.family) == "RevocationUnknown"
    assert said(at=datetime(2026, 2, 1, tzinfo=UTC)) == "RevocationUnknown"
    assert said(at=END) == "RevocationUnknown"
    # Of several answers the latest holds, but a revocation is for good.
    before = {"at": datetime(2026, 2, 1, tzinfo=UTC), "key": VENDOR.provisioner_key, "responder": VENDOR.provisioner}
    chip, now_good = GPU.certificates[1], _answers(GPU)

    def also(**answer: Any) -> NvidiaEndorsements:
        older = ocsp_answer(chip, VENDOR.provisioner, **{**before, **answer})
        return VENDOR.endorsements(ocsp_responses=(older, *now_good))

    held = {"status": ocsp.OCSPCertStatus.REVOKED, "reason": x509.ReasonFlags.certificate_hold}
    assert check(endorsements=also(), policy=required).root
    assert check(endorsements=also(**held), policy=required).root
    assert refusal(endorsements=also(status=ocsp.OCSPCertStatus.REVOKED)) == "CertificateRevoked"
    # What has run out still revokes.
    late = {"at": datetime(2026, 2, 1, tzinfo=UTC), "status": ocsp.OCSPCertStatus.REVOKED}
    assert said(**late) == "CertificateRevoked"


def test_claims_leave_out_nothing_that_a_rule_needs() -> None:
    said = check().as_dict()
    assert set(said) >= {"hwmodel", "ueid", "driver_version", "vbios_version", "measres", "dbgstat", "mode", "root"}
    assert said["switch_pdis"] == []
    assert check(SWITCH).as_dict()["gpu_pdis"] == []
