"""Adversary: a host that runs firmware with known holes, or reports a newer one than it runs."""

import hashlib
import json

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from keymgmt.attestation import Tcb, snp_evidence
from local.hardware.snp.report import ReportFields, sign_report
from tests.integration.keymgmt_harness import CHIP_ID, TCB, Guest, Service, paths, platform
from tests.security.conftest import make_victim


@pytest.fixture(scope="module")
def strict(tmp_path_factory):
    """A service that demands the TCB which the emulated chip has."""
    folder = tmp_path_factory.mktemp("tcb")
    platform()[0].export_trust_root(folder / "emulated")
    least = {"bootloader": TCB.bootloader, "tee": TCB.tee, "snp": TCB.snp, "microcode": TCB.microcode}
    attestation = {"localTrustRoots": [str(folder / "emulated")], "snp": {"minimumTcb": least}}
    with Service(folder / "s", attestation=attestation) as running:
        yield make_victim(running)


def test_the_demanded_level_is_enough(strict):
    assert len(strict.secret()) == 32


@pytest.mark.parametrize("part", ["bootloader", "snp", "microcode"])
def test_an_older_reported_level_is_refused(strict, part):
    older = Tcb(**{name: getattr(TCB, name) for name in ("bootloader", "tee", "snp", "microcode")} | {part: 1})
    # The certificate of this chip is for its real level: what is reported must be what was certified.
    assert Guest(strict.service, tcb=older).attest().status_code == 401
    assert strict.denied()[-1] in ("TcbMismatch", "TcbTooOld")


def test_an_older_level_with_its_own_certificate_is_refused_too(strict):
    """A host that rolled its firmware back gets an honest certificate for the old level."""
    authority, chip, _ = platform()
    older = Tcb(bootloader=1, tee=0, snp=1, microcode=1)
    vcek = authority.issue_vcek(chip.public_key(), older, CHIP_ID).public_bytes(Encoding.DER)
    guest = Guest(strict.service)
    nonce = guest.auth().json()["nonce"]
    bound = {"additional-evidence": "{}", "nonce": nonce, "tee-pubkey": guest.jwk}
    data = hashlib.sha384(json.dumps(bound, sort_keys=True, separators=(",", ":")).encode()).digest()
    fields = ReportFields(report_data=data.ljust(64, b"\0"), tcb=older, chip_id=CHIP_ID, **guest.fields)
    chain = [("VCEK", vcek), ("ASK", authority.ask.der), ("ARK", authority.ark.der)]
    evidence = snp_evidence(sign_report(fields, chip), chain)
    reply = guest.client.post(paths.KBS_ATTEST, json=guest.attest_body(nonce, evidence=evidence))
    assert reply.status_code == 401
    assert strict.denied()[-1] == "TcbTooOld"
