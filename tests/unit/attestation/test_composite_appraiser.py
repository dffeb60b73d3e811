"""The key service's appraisal of a CPU with its devices: request in, submods and rule claims out."""

from __future__ import annotations

import base64
import json
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ReasonFlags, ocsp

from crds.errors import InvalidInput
from keymgmt.attestation import AttestationRefused, SnpPolicy, Tcb, TrustRoots, composite, snp_evidence
from keymgmt.attestation.vtpm import PcrPolicy, parse_azure_evidence, verify_azure_cvm
from keymgmt.broker.appraisal import Appraised, Appraiser, AttestRequest, rule_claims
from keymgmt.broker.tokens import MAX_TOKEN, TokenKey
from keymgmt.config import Attestation, NvidiaAppraisal
from keymgmt.policy.errors import PolicyInvalid
from keymgmt.policy.rule import compile_rule, evaluate
from local.hardware.snp.authority import Authority
from local.hardware.snp.report import ReportFields, sign_report
from tests.unit.attestation.conftest import vector
from tests.unit.attestation.nvidia_vendor import NOW, START, Vendor, delegate, ocsp_answer, reference_values

CHIP = bytes(range(64))
TCB = Tcb(bootloader=4, tee=0, snp=20, microcode=72)
KEY = ec.generate_private_key(ec.SECP384R1())
VENDOR = Vendor()
NONCE = base64.b64encode(bytes(32)).decode()
TEE_KEY = {"kty": "EC", "crv": "P-256", "alg": "ECDH-ES+A256KW", "x": "eA", "y": "eQ"}


@pytest.fixture(scope="module")
def folders(genoa: Authority, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Roots of the emulated vendors, and the reference values of their devices."""
    base = tmp_path_factory.mktemp("trust")
    genoa.export_trust_root(base / "cpu")
    for name in ("gpu", "reference", "ocsp", "empty"):
        (base / name).mkdir()
    (base / "gpu" / "root.pem").write_bytes(VENDOR.root.public_bytes(Encoding.PEM))
    for number, manifest in enumerate(reference_values() + reference_values(arch="LS10")):
        (base / "reference" / f"{number}.json").write_bytes(manifest)
    return base


def appraiser(folders: Path, **nvidia: Any) -> Appraiser:
    options = {
        "local_trust_roots": (folders / "gpu",),
        "reference_value_dirs": (folders / "reference",),
        **nvidia,
    }
    return Appraiser(Attestation(local_trust_roots=(folders / "cpu",), nvidia=NvidiaAppraisal(**options)))


def request(genoa: Authority, additional: str, *, said: str | None = None) -> AttestRequest:
    """An attest request whose CPU covers `said` (the additional evidence that is sent, unless given)."""

    def body(evidence: Any) -> bytes:
        return json.dumps(
            {
                "runtime-data": {"nonce": NONCE, "tee-pubkey": TEE_KEY},
                "tee-evidence": {"primary_evidence": evidence, "additional_evidence": additional},
            }
        ).encode()

    covered = AttestRequest(NONCE, TEE_KEY, {}, additional if said is None else said, None).report_data()
    fields = ReportFields(report_data=covered.ljust(64, b"\0"), measurement=bytes(48), tcb=TCB, chip_id=CHIP)
    vcek = genoa.issue_vcek(KEY.public_key(), TCB, CHIP, now=START).public_bytes(Encoding.DER)
    chain = [("VCEK", vcek), ("ASK", genoa.ask.der), ("ARK", genoa.ark.der)]
    return AttestRequest.parse(body(snp_evidence(sign_report(fields, KEY), chain)), 1 << 20)


def devices(count: int = 8, switches: int = 4, nonce: bytes | None = None) -> str:
    nonce = composite.device_nonce(NONCE, TEE_KEY)[:32] if nonce is None else nonce
    made = zip(*VENDOR.machine(count, switches), strict=True)
    entries = [device.evidence(nonce, replace=fields) for device, fields in made]
    return json.dumps({"nvidia": {"device_evidence_list": entries}})


def refusal(service: Appraiser, sent: AttestRequest) -> str:
    with pytest.raises(AttestationRefused) as caught:
        service.appraise("snp", sent, NOW)
    return caught.value.problem.reason


def test_a_whole_machine_convinces(genoa: Authority, folders: Path) -> None:
    service = appraiser(folders)
    found = service.appraise("snp", request(genoa, devices()), NOW)
    assert list(found.devices) == [*(f"gpu{at}" for at in range(8)), *(f"switch{at}" for at in range(4))]
    claims = {**composite.rule_claims(found.devices), **rule_claims(found.submod)}
    assert claims["tee"] == "snp"
    assert claims["protected_links"]
    assert {one["measres"] for one in (*claims["gpus"], *claims["switches"])} == {"success"}
    assert {"local:cpu", "local:gpu", "nvidia", "amd"} <= set(service.anchors)
    assert len(token(found)) < MAX_TOKEN


def token(found: Appraised) -> bytes:
    point = ec.generate_private_key(ec.SECP256R1()).public_key()
    raw = point.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    signing_input = TokenKey(raw, "test").unsigned(
        found.submod, found.evidence, TEE_KEY, NONCE, "session", 0, found.devices
    )
    payload = signing_input.split(b".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))
    assert set(claims["submods"]) == {"cpu0", *found.devices}
    return signing_input


def test_the_cpus_report_covers_the_devices_evidence(genoa: Authority, folders: Path) -> None:
    evidence = devices(1, 1)
    assert refusal(appraiser(folders), request(genoa, evidence, said="")) == "NonceMismatch"
    assert refusal(appraiser(folders), request(genoa, "{}", said=evidence)) == "NonceMismatch"


def test_devices_of_another_session_are_refused(genoa: Authority, folders: Path) -> None:
    assert refusal(appraiser(folders), request(genoa, devices(1, 1, nonce=bytes(32)))) == "NonceMismatch"


def test_the_same_gpu_twice_is_refused(genoa: Authority, folders: Path) -> None:
    document = json.loads(devices(2, 1))
    entries = document["nvidia"]["device_evidence_list"]
    entries[1] = entries[0]
    assert refusal(appraiser(folders), request(genoa, json.dumps(document))) == "DeviceDuplicated"


def test_what_the_configuration_demands(genoa: Authority, folders: Path) -> None:
    sent = request(genoa, devices(2, 1))
    assert refusal(appraiser(folders, local_trust_roots=()), sent) == "RootUntrusted"
    assert refusal(appraiser(folders, reference_value_dirs=()), sent) == "ReferenceValueMissing"
    lenient = appraiser(folders, reference_value_dirs=(), require_reference_values=False)
    assert lenient.appraise("snp", sent, NOW).devices["gpu0"]["nvidia"]["measres"] == "none"
    assert refusal(appraiser(folders, minimum_driver="600"), sent) == "DriverNotAllowed"
    assert refusal(appraiser(folders, modes=("SPT",)), sent) == "DeviceModeNotAllowed"
    assert refusal(appraiser(folders, require_revocation=True), sent) == "RevocationUnknown"
    lonely = request(genoa, devices(2, 0))
    assert refusal(appraiser(folders), lonely) == "TopologyMismatch"
    assert len(appraiser(folders, require_topology=False).appraise("snp", lonely, NOW).devices) == 2


def test_revocation_answers_come_from_a_folder(genoa: Authority, folders: Path) -> None:
    key, responder = delegate("Family", VENDOR.family_key)
    held = ocsp_answer(
        VENDOR.provisioner,
        VENDOR.family,
        key,
        responder,
        status=ocsp.OCSPCertStatus.REVOKED,
        reason=ReasonFlags.certificate_hold,
    )
    (folders / "ocsp" / "provisioner.ocsp").write_bytes(held)
    assert (
        refusal(appraiser(folders, ocsp_dirs=(folders / "ocsp",)), request(genoa, devices(1, 1))) == "CertificateOnHold"
    )


def test_folders_are_read_again_while_the_service_runs(genoa: Authority, folders: Path) -> None:
    live = folders / "live"
    live.mkdir()
    service, sent = appraiser(folders, reference_value_dirs=(live,)), request(genoa, devices(2, 1))

    def said(seconds: int) -> str:
        try:
            found = service.appraise("snp", sent, NOW + timedelta(seconds=seconds))
        except AttestationRefused as error:
            return error.problem.reason
        return str(found.devices["gpu0"]["nvidia"]["measres"])

    assert said(0) == "ReferenceValueMissing"
    for path in (folders / "reference").iterdir():
        shutil.copy(path, live / path.name)
    assert said(5) == "ReferenceValueMissing"  # looked a moment ago
    assert said(11) == "success"
    (live / "broken.json").write_text("{")
    assert said(22) == "success"  # what was read before stays
    for path in live.iterdir():
        path.unlink()
    assert said(33) == "ReferenceValueMissing"


def test_a_guest_without_devices_has_none(genoa: Authority, folders: Path) -> None:
    found = appraiser(folders).appraise("snp", request(genoa, "{}"), NOW)
    assert found.devices == {}
    assert composite.rule_claims({"cpu0": found.submod}) == {"gpus": [], "switches": [], "protected_links": False}


def test_azure_evidence_goes_through_the_vtpm(folders: Path) -> None:
    service = Appraiser(Attestation(collateral_dirs=(collateral(folders),)))
    sent = AttestRequest(NONCE, TEE_KEY, json.loads(vector("azure/evidence-v2.json")), "{}", None)
    with pytest.raises(AttestationRefused) as caught:
        service.appraise("az-snp-vtpm", sent, NOW)  # authentic, but the answer to another challenge
    assert (caught.value.problem.reason, caught.value.problem.where) == ("NonceMismatch", "extraData")


def test_a_rule_for_azure_names_the_operating_system(folders: Path) -> None:
    evidence = parse_azure_evidence(json.loads(vector("azure/evidence-genoa.json")))
    roots = TrustRoots.builtin_amd()
    authorities = [vector("genoa_ask_ark_asvk.pem")]
    submod = verify_azure_cvm(evidence, authorities, roots, SnpPolicy(), PcrPolicy(), NOW, None).as_ear_submod()
    claims = {**composite.rule_claims({"cpu0": submod}), **rule_claims(submod)}
    assert (claims["tee"], claims["init_data"]) == ("vtpm", evidence.pcrs[8].hex())
    pcr8, pcr9 = evidence.pcrs[8].hex(), evidence.pcrs[9].hex()
    paravisor = claims["vtpm"]["snp"]["measurement"]

    def allowed(rule: str) -> bool:
        return evaluate(f"{rule} && claims.init_data == '{pcr8}'", {"claims": claims}).allowed

    assert allowed(f"claims.vtpm.pcr9 == '{pcr9}' && claims.vtpm.snp.measurement == '{paravisor}'")
    assert not allowed(f"claims.vtpm.pcr9 == '{'00' * 32}'")
    # The paravisor's measurement is that of any guest: neither is it a claim of SNP, nor does it suffice.
    assert not allowed(f"claims.snp.measurement == '{paravisor}'")
    with pytest.raises(PolicyInvalid):
        compile_rule(f"claims.vtpm.snp.measurement == '{paravisor}' && claims.init_data == '{pcr8}'")


def collateral(folders: Path) -> Path:
    folder = folders / "amd"
    folder.mkdir(exist_ok=True)
    (folder / "milan.pem").write_bytes(vector("milan_ask_ark_asvk.pem"))
    return folder


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"local_trust_roots": ("empty",)}, "no root certificate"),
        ({"local_trust_roots": ("absent",)}, "does not exist"),
        ({"reference_value_dirs": ("absent",)}, "does not exist"),
        ({"reference_value_dirs": ("reference", "reference")}, "two folders"),
        ({"reference_value_dirs": ("bad-reference",)}, "kind is driver or vbios"),
        ({"ocsp_dirs": ("bad-ocsp",)}, "not an OCSP response"),
        ({"local_trust_roots": ("bad-root",)}, "not a certificate"),
    ],
)
def test_a_wrong_folder_is_named_at_start(folders: Path, options: dict[str, Any], said: str) -> None:
    for name, file, data in (
        ("bad-reference", "one.json", b'{"kind": "other"}'),
        ("bad-ocsp", "one.ocsp", b"\x30\x00"),
        ("bad-root", "one.pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
    ):
        (folders / name).mkdir(exist_ok=True)
        (folders / name / file).write_bytes(data)
    with pytest.raises(InvalidInput, match=said):
        appraiser(folders, **{name: tuple(folders / one for one in value) for name, value in options.items()})
