"""Guests with GPUs and switches at the real key service: a key for a whole machine, and for nothing less."""

import hashlib
import json

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from keymgmt.attestation import composite, snp_evidence
from local.hardware.snp.report import ReportFields, sign_report
from tests.integration.keymgmt_harness import (
    CHIP_ID,
    HOST_DATA,
    MEASUREMENT,
    TCB,
    Custodians,
    Guest,
    Service,
    paths,
    platform,
)
from tests.unit.attestation.nvidia_vendor import Vendor, reference_values

KEY = "team-g/dataset"
RULE = (
    f"claims.snp.measurement == '{MEASUREMENT.hex()}' && claims.init_data == '{HOST_DATA.hex()}' && "
    "size(claims.gpus) == 8 && claims.protected_links && claims.gpus.all(gpu, gpu.measres == 'success')"
)
VENDOR = Vendor()


class MachineGuest(Guest):
    """A guest on the emulated chip with emulated GPUs and switches."""

    def __init__(self, service, devices):
        super().__init__(service)
        self.devices = devices

    def attest_body(self, nonce, evidence=None, jwk=None):
        answer = composite.device_nonce(nonce, self.jwk)[:32]
        entries = [device.evidence(answer, replace=fields) for device, fields in self.devices]
        additional = json.dumps({"nvidia": {"device_evidence_list": entries}})
        bound = {"additional-evidence": additional, "nonce": nonce, "tee-pubkey": self.jwk}
        data = hashlib.sha384(json.dumps(bound, sort_keys=True, separators=(",", ":")).encode()).digest()
        authority, chip, vcek = platform()
        fields = ReportFields(report_data=data.ljust(64, b"\0"), tcb=TCB, chip_id=CHIP_ID, **self.fields)
        chain = [("VCEK", vcek), ("ASK", authority.ask.der), ("ARK", authority.ark.der)]
        body = super().attest_body(nonce, snp_evidence(sign_report(fields, chip), chain))
        body["tee-evidence"]["additional_evidence"] = additional
        return body


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    folder = tmp_path_factory.mktemp("devices")
    for name in ("emulated-gpu", "reference", "emulated"):
        (folder / name).mkdir()
    (folder / "emulated-gpu" / "root.pem").write_bytes(VENDOR.root.public_bytes(Encoding.PEM))
    for number, manifest in enumerate(reference_values() + reference_values(arch="LS10")):
        (folder / "reference" / f"{number}.json").write_bytes(manifest)
    authority, _, _ = platform()
    attestation = {
        "localTrustRoots": [str(authority.export_trust_root(folder / "emulated"))],
        "nvidia": {
            "localTrustRoots": [str(folder / "emulated-gpu")],
            "referenceValueDirs": [str(folder / "reference")],
        },
    }
    with Service(folder / "service", attestation=attestation) as running:
        yield running


@pytest.fixture(scope="module")
def owner(service):
    custodians = Custodians()
    custodians.register(service)
    reply = custodians.submit(service, custodians.policy(KEY, rule=RULE))
    assert reply.status_code == 201, reply.text
    custodians.put_key(service, reply.json()["digest"], KEY)
    return custodians


def machine(gpus=8, switches=4):
    return list(zip(*VENDOR.machine(gpus, switches), strict=True))


@pytest.mark.parametrize("cookie", [False, True])
def test_a_whole_machine_gets_its_key(service, owner, cookie):
    guest = MachineGuest(service, machine())
    reply = guest.attest()
    assert reply.status_code == 200, reply.text
    released = guest.fetch(KEY, cookie=cookie)  # twelve devices' claims also fit into the header
    assert released.status_code == 200, released.text
    assert len(guest.open(released)) == 32
    assert (service.entries()[-1]["type"], service.entries()[-1]["key"]) == ("release", KEY)


def test_fewer_gpus_than_the_rule_demands_get_no_key(service, owner):
    guest = MachineGuest(service, machine(4, 4))
    assert guest.attest().status_code == 200
    assert guest.fetch(KEY).status_code == 401
    assert service.entries()[-1]["reason"] == "RuleNotMet"


def test_a_guest_without_devices_gets_no_key(service, owner):
    guest = Guest(service)
    assert guest.attest().status_code == 200
    assert guest.fetch(KEY).status_code == 401
    assert service.entries()[-1]["reason"] == "RuleNotMet"


def test_refused_devices_are_in_the_log_with_their_reason(service, owner):
    whole = machine()
    gpu = (VENDOR.device(), {})
    for devices, reason in (
        ([gpu, gpu], "DeviceDuplicated"),
        (whole[:-1], "TopologyMismatch"),
        ([(Vendor().device(), {})], "RootUntrusted"),
        ([(VENDOR.device(), {20: bytes(48)})], "FirmwareIdMismatch"),
        ([(VENDOR.device(), {3: b"999.99\0"})], "ReferenceValueMissing"),
    ):
        assert MachineGuest(service, devices).attest().status_code == 401
        entry = service.entries()[-1]
        assert (entry["type"], entry["reason"]) == ("denial", reason)


def test_malformed_evidence_of_devices_is_refused(service, owner):
    guest = MachineGuest(service, machine(1, 1))
    body = guest.attest_body(guest.auth().json()["nonce"])
    body["tee-evidence"]["additional_evidence"] = '{"nvidia": 7}'
    assert guest.client.post(paths.KBS_ATTEST, json=body).status_code == 401
    assert service.entries()[-1]["reason"] == "NonceMismatch"  # the CPU's report does not cover it
