"""Adversary: a host that shows a GPU's report over another nonce, or of another machine's GPU."""

import hashlib
import json

import pytest

from keymgmt.attestation import snp_evidence
from tests.integration import test_keymgmt_devices as devices
from tests.integration.keymgmt_harness import paths

service, owner = devices.service, devices.owner


@pytest.fixture
def recorded(service, owner):
    """Additional evidence that a whole, honest machine gave in a session before."""
    guest = devices.MachineGuest(service, devices.machine())
    body = guest.attest_body(guest.auth().json()["nonce"])
    assert guest.client.post(paths.KBS_ATTEST, json=body).status_code == 200
    return body["tee-evidence"]["additional_evidence"]


class ReplayingGuest(devices.MachineGuest):
    """Shows a recording instead of its devices; its CPU reports over that recording honestly."""

    def __init__(self, service, recording):
        super().__init__(service, [])
        self.recording = recording

    def attest_body(self, nonce, evidence=None, jwk=None):
        bound = {"additional-evidence": self.recording, "nonce": nonce, "tee-pubkey": self.jwk}
        data = hashlib.sha384(json.dumps(bound, sort_keys=True, separators=(",", ":")).encode()).digest()
        authority, chip, vcek = devices.platform()
        fields = devices.ReportFields(
            report_data=data.ljust(64, b"\0"), tcb=devices.TCB, chip_id=devices.CHIP_ID, **self.fields
        )
        chain = [("VCEK", vcek), ("ASK", authority.ask.der), ("ARK", authority.ark.der)]
        body = devices.Guest.attest_body(self, nonce, snp_evidence(devices.sign_report(fields, chip), chain))
        body["tee-evidence"]["additional_evidence"] = self.recording
        return body


def test_a_recorded_report_is_refused_even_when_the_cpu_vouches_for_it(service, owner, recorded):
    thief = ReplayingGuest(service, recorded)
    assert thief.attest().status_code == 401
    assert service.entries()[-1]["reason"] in ("NonceMismatch", "DeviceNonceMismatch")


def test_additional_evidence_that_the_cpu_does_not_vouch_for_is_refused(service, owner, recorded):
    guest = devices.MachineGuest(service, devices.machine())
    body = guest.attest_body(guest.auth().json()["nonce"])
    body["tee-evidence"]["additional_evidence"] = recorded
    assert guest.client.post(paths.KBS_ATTEST, json=body).status_code == 401
    assert service.entries()[-1]["reason"] == "NonceMismatch"
