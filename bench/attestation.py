"""SNP verifications per second on one thread, against the bound of the bare cryptography.

The bounds are measured in the same run, interleaved with what they bound: one ECDSA P-384
verification is the least a report costs; with a host not seen before, one RSA-4096
verification of its VCEK and that certificate's parsing come on top.

    python bench/attestation.py [--seconds 2]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from rich.console import Console
from rich.table import Table

from keymgmt.attestation import SnpPolicy, TrustRoots, parse_report, verify_snp
from keymgmt.attestation.certificates import Authority, read_certificate, signed_by, split_certificates

SHARED = Path(os.environ.get("KEKKAI_SHARED", Path(__file__).resolve().parents[2] / "shared"))
AMD = SHARED / "vectors" / "amd"
NOW = datetime(2025, 8, 1, tzinfo=UTC)
ROUNDS = 8


def rates(work: dict[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Best rate per second of each piece of work; rounds are interleaved so that all meet the same load."""
    best = dict.fromkeys(work, 0.0)
    for _ in range(ROUNDS):
        for name, call in work.items():
            count, start = 0, time.perf_counter()
            while (spent := time.perf_counter() - start) < seconds / ROUNDS:
                call()
                count += 1
            best[name] = max(best[name], count / spent)
    return best


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
    table = Table(title="SEV-SNP verifications a second, one thread")
    for column in ("what", "per second", "bound", "bound per second", "of the bound"):
        table.add_column(column, justify="left" if column in ("what", "bound") else "right")
    for name, bound, title, said in (
        ("known", "bare", "verify_snp, host seen before", "ECDSA P-384 verify"),
        ("new", "bare+vcek", "verify_snp, first sight of a host", "the same, VCEK parse and RSA-4096"),
    ):
        share = found[name] / found[bound]
        table.add_row(title, f"{found[name]:,.0f}", said, f"{found[bound]:,.0f}", f"{share:.0%}")
    Console().print(table)


if __name__ == "__main__":
    main()
