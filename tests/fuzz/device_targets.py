"""Parsers of evidence other than a CPU's report: GPUs and switches, TPM quotes, event logs, results of others."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

from keymgmt.attestation import eventlog
from keymgmt.attestation.azure import parse_hcl_report
from keymgmt.attestation.composite import parse_additional_evidence
from keymgmt.attestation.ear_claims import parse_ear
from keymgmt.attestation.nvidia import ReferenceValues, parse_evidence, parse_opaque, parse_report
from keymgmt.attestation.nvidia.certificates import build_chain
from keymgmt.attestation.nvidia.dice import parse_composite_device_id, parse_tcb_info
from keymgmt.attestation.nvidia.revocation import read_response
from keymgmt.attestation.vtpm import parse_azure_evidence, parse_quote, parse_signature
from tests.fuzz.target import SHARED, Target, of_json
from tests.unit.attestation.nvidia_vendor import Vendor, composite_device_id, ocsp_answer, reference_values, tcb_info

NVIDIA = SHARED / "vectors" / "nvidia"
AZURE = SHARED / "vectors" / "amd" / "azure"
FORMATS = SHARED / "vectors" / "formats"
SHA384 = 0x0C


def _opaque(*, switch: bool) -> Callable[[bytes], object]:
    return lambda data: parse_opaque(data, switch=switch).as_config()


def _event_log(data: bytes) -> None:
    log = eventlog.parse_log(data)
    for event in log.events:
        eventlog.details(event)
    eventlog.boot_claims(log, SHA384)
    eventlog.replay(log, SHA384)


def _ear(document: object) -> None:
    parse_ear(document).status  # noqa: B018 - computed from what was parsed


def targets() -> list[Target]:
    """All of them, with real evidence as seeds where there is any."""
    gpu = bytes.fromhex((NVIDIA / "hopperAttestationReport.txt").read_text())
    sdk = [(NVIDIA / "sdk" / name).read_bytes() for name in ("hopper_evidence.json", "switch_evidence_ls10.json")]
    switch = base64.b64decode(json.loads(sdk[1])[0]["evidence"])
    opaque = tuple(parse_report(report).opaque for report in (gpu, switch))
    chain = (NVIDIA / "hopper_cert_chain_case1.txt").read_bytes()
    vendor = Vendor()
    answer = ocsp_answer(vendor.family, vendor.root, vendor.root_key, vendor.root)
    azure = (AZURE / "evidence-v2.json").read_bytes()
    signed = (AZURE / "tpm-quote.sig").read_bytes()
    signature = b"\x00\x14\x00\x0b" + len(signed).to_bytes(2, "big") + signed
    log = (SHARED / "vectors" / "eventlog" / "CCEL_data_ovmf").read_bytes().rstrip(b"\xff")
    results = tuple(path.read_bytes() for path in sorted(FORMATS.glob("ear-claims*.json")))
    additional = b'{"nvidia": {"device_evidence_list": [{"arch": "LS10", "evidence": "AA==", "certificate": "AA=="}]}}'
    return [
        Target("nvidia-report", parse_report, (gpu, switch)),
        Target("gpu-opaque-data", _opaque(switch=False), (opaque[0],)),
        Target("switch-opaque-data", _opaque(switch=True), (opaque[1],)),
        Target("nvidia-evidence", of_json(parse_evidence), tuple(sdk)),
        Target("nvidia-certificates", build_chain, (chain,)),
        Target("dice-device-id", parse_composite_device_id, (composite_device_id(bytes.fromhex("3076") + bytes(118)),)),
        Target("dice-tcb-info", parse_tcb_info, (tcb_info(),)),
        Target("ocsp-response", read_response, (answer,)),
        Target("reference-values", lambda data: ReferenceValues.parse([data]), tuple(reference_values())),
        Target("additional-evidence", lambda data: parse_additional_evidence(data.decode("latin-1")), (additional,)),
        Target("tpm-quote", parse_quote, ((AZURE / "tpm-quote.msg").read_bytes(),)),
        Target("tpm-signature", parse_signature, (signature,)),
        Target("azure-evidence", of_json(parse_azure_evidence), (azure,)),
        Target("hcl-report", parse_hcl_report, ((AZURE / "hcl-report.bin").read_bytes(),)),
        Target("event-log", _event_log, (log,)),
        Target("attestation-result", of_json(_ear), results),
    ]
