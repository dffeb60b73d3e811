"""GPUs and switches beside one CPU: one nonce, each device once, links that fit."""

from __future__ import annotations

import copy
import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from crds.errors import KekkaiError
from keymgmt.attestation import AttestationRefused
from keymgmt.attestation.composite import (
    DevicePolicy,
    DeviceSet,
    device_nonce,
    parse_additional_evidence,
    rule_claims,
    verify_devices,
)
from keymgmt.attestation.nvidia import NvidiaEndorsements, NvidiaPolicy, parse_evidence
from keymgmt.policy.rule import evaluate
from tests.unit.attestation.conftest import SHARED
from tests.unit.attestation.nvidia_vendor import (
    NONCE,
    NOW,
    Device,
    Vendor,
    certificate,
    composite_device_id,
    spki,
)

VENDOR = Vendor()
LENIENT = NvidiaPolicy(require_reference_values=False)
KEY = {"kty": "EC", "crv": "P-256", "x": "eA", "y": "eQ", "alg": "ECDH-ES+A256KW"}


def additional(*entries: dict[str, str]) -> str:
    return json.dumps({"nvidia": {"device_evidence_list": list(entries)}})


def check(text: str, nonce: bytes = NONCE, *, require_topology: bool = True) -> DeviceSet:
    policy = DevicePolicy(LENIENT, require_topology)
    return verify_devices(parse_additional_evidence(text), VENDOR.endorsements(), policy, NOW, nonce)


def refusal(*arguments: Any, **options: Any) -> str:
    with pytest.raises(KekkaiError) as caught:
        check(*arguments, **options)
    return caught.value.problem.reason


def machine(gpus: int = 2, switches: int = 2) -> list[tuple[Device, dict[int, bytes]]]:
    return list(zip(*VENDOR.machine(gpus, switches), strict=True))


def evidence(devices: list[tuple[Device, dict[int, bytes]]]) -> str:
    return additional(*(device.evidence(replace=fields) for device, fields in devices))


def test_devices_answer_the_hash_of_nonce_and_key() -> None:
    canonical = b'{"nonce":"bm9uY2U=","tee-pubkey":{"alg":"ECDH-ES+A256KW","crv":"P-256","kty":"EC","x":"eA","y":"eQ"}}'
    expected = device_nonce("bm9uY2U=", KEY)
    assert expected == hashlib.sha384(canonical).digest()
    gpu = VENDOR.device()
    assert len(check(additional(gpu.evidence(expected[:32])), expected).gpus) == 1
    assert refusal(additional(gpu.evidence()), expected) == "NonceMismatch"


def test_no_devices_are_no_fault() -> None:
    for text in ("", "{}"):
        none = check(text)
        assert none.as_submods() == {}
        assert rule_claims(none.as_submods()) == {"gpus": [], "switches": [], "protected_links": False}


def test_each_device_becomes_a_submod() -> None:
    found = check(additional(VENDOR.device().evidence(), VENDOR.device("BLACKWELL").evidence()))
    submods = found.as_submods()
    assert list(submods) == ["gpu0", "gpu1"]
    assert submods["gpu1"]["nvidia"]["arch"] == "BLACKWELL"
    assert submods["gpu0"]["ear.status"] == "affirming"
    assert submods["gpu0"]["root"] == "local:emulated"
    assert not found.protected_links


def test_the_same_gpu_twice_is_refused() -> None:
    gpu = VENDOR.device()
    assert refusal(additional(gpu.evidence(), gpu.evidence())) == "DeviceDuplicated"
    with pytest.raises(AttestationRefused) as caught:
        check(additional(gpu.evidence(), VENDOR.device().evidence(), gpu.evidence()))
    assert caught.value.problem.where == "nvidia[2]"


def test_a_chip_is_recognised_by_its_key_whatever_firmware_it_runs() -> None:
    device_key, first, second = (ec.generate_private_key(ec.SECP384R1()) for _ in range(3))
    gpu = VENDOR.device()
    chip = certificate("GH100 A01 GSP BROM", device_key, "Provisioner", VENDOR.provisioner_key)
    boots = []
    for key, firmware in ((first, b"one"), (second, b"two")):
        fwid = hashlib.sha384(firmware).digest()
        dice = ("2.23.133.5.4.1", composite_device_id(spki(device_key), fwid))
        leaf = certificate("GH100 A01 GSP FMC LF", key, "GH100 A01 GSP BROM", device_key, authority=False, dice=dice)
        boot = copy.copy(gpu)
        boot.key, boot.fwid, boot.certificates = key, fwid, [leaf, chip, *gpu.certificates[2:]]
        boots.append(boot)
    assert len(check(additional(boots[0].evidence())).gpus) == 1
    assert refusal(additional(boots[0].evidence(), boots[1].evidence())) == "DeviceDuplicated"


def test_one_refused_device_refuses_all() -> None:
    good, other = VENDOR.device(), VENDOR.device()
    assert refusal(additional(good.evidence(), other.evidence(bytes(32)))) == "NonceMismatch"
    stranger = Vendor().device()
    assert refusal(additional(good.evidence(), stranger.evidence())) == "RootUntrusted"


def test_a_machine_whose_devices_name_each_other() -> None:
    found = check(evidence(machine(8, 4)))
    assert found.protected_links
    assert list(found.as_submods()) == [*(f"gpu{at}" for at in range(8)), *(f"switch{at}" for at in range(4))]
    claims = rule_claims(found.as_submods())
    assert claims["protected_links"]
    assert len(claims["gpus"]) == 8
    assert len(claims["switches"]) == 4
    assert all(sorted(gpu["switch_pdis"]) == sorted(one["pdi"] for one in claims["switches"]) for gpu in claims["gpus"])


@pytest.mark.parametrize(
    "choose",
    [
        lambda devices: devices[:2],  # no switch
        lambda devices: devices[:3],  # one switch of two
        lambda devices: devices[1:],  # one GPU of two
        lambda devices: devices[2:],  # switches alone
        lambda devices: [*devices, (VENDOR.device("LS10"), devices[3][1])],  # a switch too many
        lambda devices: [*devices, (VENDOR.device(), {})],  # a GPU that protects nothing
        lambda devices: [*devices[:3], (devices[3][0], machine()[3][1])],  # a switch of other GPUs
    ],
)
def test_devices_that_do_not_fit_together_are_refused(choose: Any) -> None:
    text = evidence(choose(machine()))
    assert refusal(text) == "TopologyMismatch"
    assert not check(text, require_topology=False).protected_links


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[]", "EvidenceMalformed"),
        ("{", "EvidenceMalformed"),
        ('{"nvidia": {}, "nvidia": {}}', "EvidenceMalformed"),
        ('{"tpu": {}}', "TeeUnsupported"),
        ('{"nvidia": {}}', "EvidenceMalformed"),
        ('{"nvidia": {"device_evidence_list": []}}', "EvidenceMalformed"),
        ('{"nvidia": null}', "EvidenceMalformed"),
    ],
)
def test_malformed_additional_evidence(text: str, reason: str) -> None:
    assert refusal(text) == reason


def test_real_evidence_of_two_devices_that_are_not_linked() -> None:
    folder = SHARED / "vectors" / "nvidia" / "sdk"
    gpu, switch = (
        parse_evidence(json.loads((folder / name).read_text()))[0]
        for name in ("hopper_evidence.json", "switch_evidence_ls10.json")
    )
    now = datetime(2025, 8, 1, tzinfo=UTC)
    loose = DevicePolicy(LENIENT, require_topology=False)
    found = verify_devices([gpu, switch], NvidiaEndorsements(), loose, now, None)
    assert list(found.as_submods()) == ["gpu0", "switch0"]
    with pytest.raises(AttestationRefused) as caught:
        verify_devices([gpu, switch], NvidiaEndorsements(), DevicePolicy(LENIENT), now, None)
    assert caught.value.problem.reason == "TopologyMismatch"
    with pytest.raises(AttestationRefused) as caught:
        verify_devices([gpu, switch, gpu], NvidiaEndorsements(), loose, now, None)
    assert caught.value.problem.reason == "DeviceDuplicated"


def test_release_rules_over_devices() -> None:
    rule = (
        "claims.snp.measurement == 'aa' && claims.init_data == 'bb' && size(claims.gpus) == 2 && "
        "claims.protected_links && claims.gpus.all(gpu, gpu.driver_version == '550.90.07')"
    )
    cpu = {"snp": {"measurement": "aa"}, "init_data": "bb"}

    def verdict(submods: dict[str, Any]) -> bool:
        return evaluate(rule, {"claims": {**cpu, **rule_claims(submods)}}).allowed

    submods = check(evidence(machine())).as_submods()
    assert verdict(submods)
    assert not verdict({})
    assert not verdict({name: one for name, one in submods.items() if name != "gpu1"})
