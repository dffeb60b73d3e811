"""Verifications of evidence per second on one thread, against the bound of the bare cryptography.

The bounds are measured in the same run, interleaved with what they bound: one ECDSA P-384
verification is the least a report costs; with a host not seen before, one RSA-4096
verification of its VCEK and that certificate's parsing come on top. For an NVIDIA device the
bound is one ECDSA P-384 verification for its report, and one for each certificate not seen
before. For TDX and SGX it is dcap-qvl alone with its collateral at hand, for Nitro one ECDSA
P-384 verification. All figures are per second of CPU time.

    python bench/attestation.py [--seconds 2]
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import cbor2
import dcap_qvl
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from rich.console import Console
from rich.table import Table

from keymgmt.attestation import SnpPolicy, TrustRoots, parse_report, verify_snp
from keymgmt.attestation.certificates import Authority, read_certificate, signed_by, split_certificates
from keymgmt.attestation.intel import IntelCollateral, SgxPolicy, TcbPolicy, TdxPolicy, verify_sgx, verify_tdx
from keymgmt.attestation.nitro import NitroPolicy, parse_document, verify_nitro
from keymgmt.attestation.nvidia import DeviceEvidence, NvidiaEndorsements, NvidiaPolicy, parse_evidence, verify_device
from keymgmt.attestation.nvidia import parse_report as parse_spdm
from keymgmt.attestation.nvidia.certificates import Certificate, build_chain
from keymgmt.attestation.nvidia.certificates import read_certificate as read_device_certificate
from keymgmt.attestation.nvidia.certificates import signed_by as device_signed_by

SHARED = Path(os.environ.get("KEKKAI_SHARED", Path(__file__).resolve().parents[2] / "shared"))
VECTORS = SHARED / "vectors"
AMD = VECTORS / "amd"
NVIDIA = SHARED / "vectors" / "nvidia"
NOW = datetime(2025, 8, 1, tzinfo=UTC)
ROUNDS = 8


def rates(work: dict[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Best rate per second of each piece of work; rounds are interleaved so that all meet the same load."""
    best = dict.fromkeys(work, 0.0)
    for _ in range(ROUNDS):
        for name, call in work.items():
            count, start = 0, time.process_time()
            while (spent := time.process_time() - start) < seconds / ROUNDS:
                call()
                count += 1
            best[name] = max(best[name], count / spent)
    return best


def _devices() -> list[DeviceEvidence]:
    """Real GPUs and a switch, each another device."""
    pairs = {
        "hopperAttestationReport.txt": "hopper_cert_chain_case1.txt",
        "hopper_coco_report1.txt": "hopper_coco_certs1.txt",
        "sdk/hopperAttestationReport.txt": "sdk/hopperCertChain.txt",
        "sdk/hopperAttestationReportExpired.txt": "sdk/hopperCertChainExpired.txt",
    }
    found = [
        DeviceEvidence("HOPPER", bytes.fromhex((NVIDIA / report).read_text()), (NVIDIA / chain).read_bytes())
        for report, chain in pairs.items()
    ]
    for name in ("hopper_evidence.json", "hopper_evidence_cert_hold.json", "switch_evidence_ls10.json"):
        found.extend(parse_evidence(json.loads((NVIDIA / "sdk" / name).read_text())))
    return found


def nvidia(seconds: float) -> None:
    """A device seen before; then several, nothing of which was seen before."""
    devices = _devices()
    endorsements, policy = NvidiaEndorsements(), NvidiaPolicy(require_reference_values=False)
    signatures: dict[bytes, tuple[Certificate, bytes]] = {}
    for one in devices:
        parsed, chain = parse_spdm(one.report), build_chain(one.certificates).certificates
        signatures[encode_dss_signature(parsed.r, parsed.s)] = (chain[0], parsed.signed)
        for child, parent in zip(chain, (*chain[1:], chain[-1]), strict=True):
            signatures[child.x509.signature] = (parent, child.signed)
    first, (signing, data) = next(iter(signatures.items()))
    ders = {one: one.x509.public_bytes(Encoding.DER) for one, _ in signatures.values()}

    def bare() -> None:
        signing.key.verify(first, data, ec.ECDSA(hashes.SHA384()))

    def bare_all() -> None:
        for signature, (signer, signed) in signatures.items():
            signer.key.verify(signature, signed, ec.ECDSA(hashes.SHA384()))

    def bare_with_keys() -> None:
        keys = {one: x509.load_der_x509_certificate(der).public_key() for one, der in ders.items()}
        for signature, (signer, signed) in signatures.items():
            key = keys[signer]
            assert isinstance(key, ec.EllipticCurvePublicKey)
            key.verify(signature, signed, ec.ECDSA(hashes.SHA384()))

    def verify(one: DeviceEvidence) -> None:
        verify_device(one.report, one.certificates, one.architecture, endorsements, policy, NOW, None)

    def verify_all() -> None:
        for cache in (build_chain, device_signed_by, read_device_certificate):
            cache.cache_clear()
        for one in devices:
            verify(one)

    work: dict[str, Callable[[], object]] = {"bare": bare, "known": lambda: verify(devices[0])}
    work |= {"bare all": bare_all, "bare with keys": bare_with_keys, "all": verify_all}
    found = rates(work, seconds)
    title = f"{len(devices)} devices, nothing seen before"
    _print(
        "NVIDIA device verifications a second of CPU time",
        found,
        (
            ("known", "bare", "verify_device, device seen before", "ECDSA P-384 verify"),
            ("all", "bare all", title, f"{len(signatures)} such verifications"),
            ("all", "bare with keys", "the same", f"the same, and loading {len(ders)} certificates' keys"),
        ),
    )


def _print(title: str, found: dict[str, float], rows: tuple[tuple[str, str, str, str], ...]) -> None:
    """A table of (work, bound, what, what bounds it), each with its rate and the share of the bound."""
    table = Table(title=title)
    for column in ("what", "per second", "bound", "bound per second", "of the bound"):
        table.add_column(column, justify="left" if column in ("what", "bound") else "right")
    for name, bound, what, said in rows:
        share = found[name] / found[bound]
        table.add_row(what, f"{found[name]:,.0f}", said, f"{found[bound]:,.0f}", f"{share:.0%}")
    Console().print(table)


def intel_work() -> dict[str, Callable[[], object]]:
    """`verify_tdx` and `verify_sgx` on real quotes, and dcap-qvl alone on the same."""
    root = (VECTORS / "intel" / "intel-sgx-root-ca.der").read_bytes()
    at = datetime(2025, 6, 20, tzinfo=UTC)
    status = frozenset({"ConfigurationAndSWHardeningNeeded"})
    sgx_policy, tdx_policy = SgxPolicy(tcb=TcbPolicy(statuses=status, advisories=None)), TdxPolicy()

    def quote_and_collateral(tee: str) -> tuple[bytes, IntelCollateral]:
        folder = VECTORS / "intel" / "phala"
        body = (folder / f"{tee}_quote_collateral.json").read_bytes()
        return (folder / f"{tee}_quote").read_bytes(), IntelCollateral.parse(body).authenticate()

    tdx, tdx_collateral = quote_and_collateral("tdx")
    sgx, sgx_collateral = quote_and_collateral("sgx")
    seconds, native_tdx, native_sgx = int(at.timestamp()), tdx_collateral.native, sgx_collateral.native
    return {
        "bare tdx": lambda: dcap_qvl.verify_with_root_ca(tdx, native_tdx, root, seconds),
        "tdx": lambda: verify_tdx(tdx, tdx_collateral, tdx_policy, at, None),
        "bare sgx": lambda: dcap_qvl.verify_with_root_ca(sgx, native_sgx, root, seconds),
        "sgx": lambda: verify_sgx(sgx, sgx_collateral, sgx_policy, at, None),
    }


def nitro_work() -> dict[str, Callable[[], object]]:
    """`verify_nitro` on a real document whose chain is known, and its signature alone."""
    framed = (VECTORS / "nitro" / "nitro_attestation.bin").read_bytes()
    stream = io.BytesIO(framed)
    stream.seek(4)  # a length by the vector's makers, and their own data after the document
    cbor2.CBORDecoder(stream, read_size=1).decode()
    data = framed[4 : stream.tell()]
    parsed, policy = parse_document(data), NitroPolicy()
    key = x509.load_der_x509_certificate(parsed.certificate).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    r, s = (int.from_bytes(half, "big") for half in (parsed.signature[:48], parsed.signature[48:]))
    signature = encode_dss_signature(r, s)
    return {
        "bare nitro": lambda: key.verify(signature, parsed.signed, ec.ECDSA(hashes.SHA384())),
        "nitro": lambda: verify_nitro(data, policy, parsed.time, expected_nonce=None),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each figure")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", message="Parsed a serial number")
    report, vcek = (AMD / "trustee-test-report.bin").read_bytes(), (AMD / "trustee-test-vcek.der").read_bytes()
    ask, ark, _ = split_certificates([(AMD / "milan_ask_ark_asvk.pem").read_bytes()])
    issuer = read_certificate(ask)
    assert isinstance(issuer, Authority)
    parsed = parse_report(report)
    signature = encode_dss_signature(parsed.r, parsed.s)
    leaf = x509.load_der_x509_certificate(vcek)
    key = leaf.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    roots, policy = TrustRoots.builtin_amd(), SnpPolicy()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "milan.pem").write_bytes((AMD / "milan_ask_ark_asvk.pem").read_bytes())
        stored = TrustRoots.builtin_amd(Path(folder))

    def bare_report() -> None:
        key.verify(signature, parsed.signed, ec.ECDSA(hashes.SHA384()))

    def bare_with_vcek() -> None:
        bare_report()
        assert signed_by(x509.load_der_x509_certificate(vcek), issuer.key)

    def known_host() -> None:
        verify_snp(report, [vcek, ask, ark], roots, policy, NOW, None)

    def new_host() -> None:
        # Forget the VCEK and its chain, but not ASK and ARK, which are collateral here.
        read_certificate.cache_clear()
        verify_snp(report, [vcek], stored | TrustRoots(), policy, NOW, None)

    work = {"bare": bare_report, "known": known_host, "bare+vcek": bare_with_vcek, "new": new_host}
    found = rates(work, arguments.seconds)
    _print(
        "SEV-SNP verifications a second of CPU time",
        found,
        (
            ("known", "bare", "verify_snp, host seen before", "ECDSA P-384 verify"),
            ("new", "bare+vcek", "verify_snp, first sight of a host", "the same, VCEK parse and RSA-4096"),
        ),
    )
    _print(
        "TDX, SGX and Nitro verifications a second of CPU time",
        rates({**intel_work(), **nitro_work()}, arguments.seconds),
        (
            ("tdx", "bare tdx", "verify_tdx, quote of version 4", "dcap-qvl alone"),
            ("sgx", "bare sgx", "verify_sgx, quote of version 3", "dcap-qvl alone"),
            ("nitro", "bare nitro", "verify_nitro, enclave seen before", "ECDSA P-384 verify"),
        ),
    )
    nvidia(arguments.seconds)


if __name__ == "__main__":
    main()
