"""The SNP verifier against a vendor of our own: what no public vector covers, each with its reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from crds.errors import InvalidInput
from keymgmt.attestation import REASONS, AttestationRefused, SnpClaims, SnpPolicy, Tcb, TrustRoots, verify_snp
from local.hardware.snp.authority import Authority
from local.hardware.snp.report import DEFAULT_POLICY, POLICY_DEBUG, POLICY_MIGRATE_MA, ReportFields, sign_report
from tests.unit.attestation.conftest import PINNED, vector

TCB = Tcb(bootloader=10, tee=0, snp=23, microcode=200)
TURIN_TCB = Tcb(fmc=1, bootloader=2, tee=3, snp=4, microcode=77)
CHIP = bytes(range(64))
KEY = ec.generate_private_key(ec.SECP384R1())
START = datetime(2025, 1, 2, tzinfo=UTC)
FIELDS = ReportFields(report_data=b"\x07" * 64, measurement=b"\x11" * 48, tcb=TCB, chip_id=CHIP)


class Bench:
    """A vendor's certificates and the roots that trust it."""

    def __init__(self, authority: Authority, folder: Path) -> None:
        self.authority = authority
        self.folder = authority.export_trust_root(folder / "emulated")
        self.roots = TrustRoots.from_directory(self.folder)

    def vcek(self, tcb: Tcb = TCB, hardware_id: bytes = CHIP, **options: Any) -> bytes:
        certificate = self.authority.issue_vcek(KEY.public_key(), tcb, hardware_id, **{"now": START, **options})
        return certificate.public_bytes(Encoding.DER)

    def vlek(self, **options: Any) -> bytes:
        certificate = self.authority.issue_vlek(KEY.public_key(), TCB, "CN=cloud.example", now=START, **options)
        return certificate.public_bytes(Encoding.DER)

    def verify(self, fields: ReportFields, leaf: bytes, policy: SnpPolicy | None = None, **options: Any) -> SnpClaims:
        arguments = {"roots": self.roots, "now": PINNED, "expected_report_data": None, **options}
        report = arguments.pop("report", None) or sign_report(fields, KEY)
        return verify_snp(report, [leaf], policy=policy or SnpPolicy(), **arguments)

    def refused(self, fields: ReportFields, leaf: bytes, policy: SnpPolicy | None = None, **options: Any) -> str:
        with pytest.raises(AttestationRefused) as caught:
            self.verify(fields, leaf, policy, **options)
        assert caught.value.problem.reason in REASONS
        assert caught.value.problem.what
        return caught.value.problem.reason


@pytest.fixture
def bench(genoa: Authority, tmp_path: Path) -> Bench:
    return Bench(genoa, tmp_path)


@pytest.mark.parametrize("version", [2, 3, 4, 5])
def test_versions_two_to_five_verify(bench: Bench, version: int) -> None:
    claims = bench.verify(replace(FIELDS, version=version), bench.vcek())
    assert (claims.report.version, claims.product, claims.tcb) == (version, "Genoa", TCB)
    assert claims.root == "local:emulated"
    assert (claims.report.launch_mitigations is None) == (version < 5)


@pytest.mark.parametrize("version", [0, 1, 6, 0x10003])
def test_other_versions_are_refused(bench: Bench, version: int) -> None:
    assert bench.refused(replace(FIELDS, version=version), bench.vcek()) == "ReportVersionUnsupported"


@pytest.mark.parametrize("size", [0, 1183, 1185, 4096])
def test_other_lengths_are_refused(bench: Bench, size: int) -> None:
    report = sign_report(FIELDS, KEY).ljust(size, b"\0")[:size]
    with pytest.raises(AttestationRefused) as caught:
        verify_snp(report, [bench.vcek()], bench.roots, SnpPolicy(), PINNED, None)
    assert caught.value.problem.reason == "ReportMalformed"


@pytest.mark.parametrize(("length", "octet_string"), [(8, False), (8, True), (64, True)])
def test_turin_report(turin: Authority, tmp_path: Path, length: int, octet_string: bool) -> None:
    """Turin: fmc comes first in the TCB, and the hardware identity has 8 bytes."""
    bench = Bench(turin, tmp_path)
    chip = bytes(range(1, 9)).ljust(64, b"\0")
    fields = replace(FIELDS, product="Turin", tcb=TURIN_TCB, chip_id=chip)
    leaf = bench.vcek(TURIN_TCB, chip[:length], octet_string=octet_string)
    claims = bench.verify(fields, leaf)
    assert claims.product == "Turin"
    assert claims.as_dict()["tcb"] == {"fmc": 1, "bootloader": 2, "tee": 3, "snp": 4, "microcode": 77}
    other = replace(fields, tcb=replace(TURIN_TCB, fmc=2))
    assert bench.refused(other, leaf) == "TcbMismatch"
    assert bench.refused(fields, leaf, SnpPolicy(minimum_tcb=Tcb(fmc=2))) == "TcbTooOld"
    wrong_chip = replace(fields, chip_id=bytes(range(1, 10)).ljust(64, b"\0"))
    assert bench.refused(wrong_chip, leaf) == "ChipIdMismatch"


def test_vlek_names_its_cloud_provider(bench: Bench) -> None:
    fields = replace(FIELDS, chip_id=bytes(64), key_info=1 << 2)
    claims = bench.verify(fields, bench.vlek())
    assert (claims.signer, claims.as_dict()["csp_id"]) == ("vlek", "CN=cloud.example")
    accepted = SnpPolicy(csp_ids=frozenset({"CN=cloud.example"}))
    assert bench.verify(fields, bench.vlek(), accepted).csp_id == "CN=cloud.example"
    assert bench.refused(fields, bench.vlek(), SnpPolicy(csp_ids=frozenset({"CN=other"}))) == "SignerNotAllowed"
    assert bench.refused(fields, bench.vlek(), SnpPolicy(signers=frozenset({"vcek"}))) == "SignerNotAllowed"


def test_signing_key_kinds(bench: Bench) -> None:
    assert bench.refused(replace(FIELDS, key_info=1 << 2), bench.vcek()) == "SigningKeyMismatch"
    assert bench.refused(FIELDS, bench.vlek()) == "SigningKeyMismatch"
    assert bench.refused(replace(FIELDS, key_info=3 << 2), bench.vcek()) == "SigningKeyMismatch"
    assert bench.refused(replace(FIELDS, key_info=7 << 2), bench.vcek()) == "ReportUnsigned"
    assert bench.refused(replace(FIELDS, key_info=1 << 1), bench.vcek()) == "ReportUnsigned"


def test_signature_algorithm(bench: Bench) -> None:
    report = bytearray(sign_report(FIELDS, KEY))
    report[0x34] = 2
    assert bench.refused(FIELDS, bench.vcek(), report=bytes(report)) == "SignatureAlgorithmUnsupported"


def test_signature_of_another_key_or_none(bench: Bench) -> None:
    stranger = ec.generate_private_key(ec.SECP384R1())
    assert bench.refused(FIELDS, bench.vcek(), report=sign_report(FIELDS, stranger)) == "SignatureInvalid"
    blank = sign_report(FIELDS, KEY)[:0x2A0].ljust(1184, b"\0")
    assert bench.refused(FIELDS, bench.vcek(), report=blank) == "SignatureInvalid"
    padded = bytearray(sign_report(FIELDS, KEY))
    padded[0x2A0 + 60] = 1
    assert bench.refused(FIELDS, bench.vcek(), report=bytes(padded)) == "ReportMalformed"


def test_product_must_agree(bench: Bench) -> None:
    assert bench.refused(replace(FIELDS, cpuid=(0x19, 0x01, 0)), bench.vcek()) == "ProductMismatch"
    assert bench.refused(replace(FIELDS, cpuid=(0x1B, 0x01, 0)), bench.vcek()) == "ProductUnsupported"
    assert bench.refused(replace(FIELDS, cpuid=(0x1A, 0x50, 0)), bench.vcek()) == "ProductUnsupported"
    assert bench.verify(replace(FIELDS, cpuid=(0x19, 0xA0, 2)), bench.vcek()).product == "Genoa"  # Bergamo


@pytest.mark.parametrize("part", ["bootloader", "tee", "snp", "microcode"])
def test_each_tcb_part_counts(bench: Bench, part: str) -> None:
    higher = replace(TCB, **{part: getattr(TCB, part) + 1})
    assert bench.refused(replace(FIELDS, tcb=higher), bench.vcek()) == "TcbMismatch"
    assert bench.verify(replace(FIELDS, tcb=higher), bench.vcek(higher)).tcb == higher
    assert bench.refused(FIELDS, bench.vcek(), SnpPolicy(minimum_tcb=higher)) == "TcbTooOld"
    assert bench.refused(FIELDS, bench.vcek(), SnpPolicy(minimum_tcb_of={"Genoa": higher})) == "TcbTooOld"
    assert bench.refused(FIELDS, bench.vcek(), SnpPolicy(minimum_launch_tcb=higher)) == "TcbTooOld"
    assert bench.verify(FIELDS, bench.vcek(), SnpPolicy(minimum_tcb_of={"Milan": higher})).tcb == TCB
    assert bench.verify(FIELDS, bench.vcek(), SnpPolicy(minimum_tcb=TCB)).tcb == TCB


def test_chip_identity(bench: Bench) -> None:
    masked = replace(FIELDS, chip_id=bytes(64))
    assert bench.refused(FIELDS, bench.vcek(hardware_id=bytes(64))) == "ChipIdMismatch"
    assert bench.refused(masked, bench.vcek()) == "ChipIdMismatch"
    assert bench.verify(masked, bench.vcek(), SnpPolicy(allow_masked_chip_id=True)).signer == "vcek"
    assert bench.refused(FIELDS, bench.vcek(hardware_id=CHIP[:8])) == "CertificateMalformed"  # 8 bytes: Turin only


Expectation = tuple[str, ReportFields, SnpPolicy, SnpPolicy]
APPRAISALS: list[Expectation] = [
    ("DebugAllowed", replace(FIELDS, policy=DEFAULT_POLICY | POLICY_DEBUG), SnpPolicy(), SnpPolicy(allow_debug=True)),
    (
        "MigrationAllowed",
        replace(FIELDS, policy=DEFAULT_POLICY | POLICY_MIGRATE_MA),
        SnpPolicy(),
        SnpPolicy(allow_migration=True),
    ),
    ("SmtAllowed", FIELDS, SnpPolicy(allow_smt=False), SnpPolicy()),
    ("VmplNotAllowed", replace(FIELDS, vmpl=1), SnpPolicy(), SnpPolicy(allowed_vmpls=frozenset({0, 1}))),
    ("ProductNotAllowed", FIELDS, SnpPolicy(products=frozenset({"Turin"})), SnpPolicy()),
    ("ReportVersionUnsupported", FIELDS, SnpPolicy(minimum_report_version=5), SnpPolicy(minimum_report_version=3)),
    ("FirmwareTooOld", FIELDS, SnpPolicy(minimum_firmware=(1, 55, 41)), SnpPolicy(minimum_firmware=(1, 55, 40))),
    ("GuestSvnTooOld", FIELDS, SnpPolicy(minimum_guest_svn=1), SnpPolicy()),
    (
        "GuestPolicyTooWeak",
        FIELDS,
        SnpPolicy(required_guest_policy=frozenset({"ciphertext_hiding"})),
        SnpPolicy(required_guest_policy=frozenset({"smt"})),
    ),
    (
        "GuestPolicyTooWeak",
        replace(FIELDS, platform_info=1),
        SnpPolicy(require_alias_check=True),
        SnpPolicy(),
    ),
    ("AuthorKeyNotAllowed", FIELDS, SnpPolicy(author_keys=frozenset({bytes(48)})), SnpPolicy()),
    ("IdKeyNotAllowed", FIELDS, SnpPolicy(id_keys=frozenset({b"\1" * 48})), SnpPolicy(id_keys=frozenset({bytes(48)}))),
    (
        "MeasurementNotAllowed",
        FIELDS,
        SnpPolicy(measurements=frozenset({b"\x12" * 48})),
        SnpPolicy(measurements=frozenset({b"\x11" * 48})),
    ),
    ("HostDataMismatch", FIELDS, SnpPolicy(host_data=b"\1" * 32), SnpPolicy(host_data=bytes(32))),
]


@pytest.mark.parametrize(("reason", "fields", "strict", "lenient"), APPRAISALS)
def test_policy_demands(bench: Bench, reason: str, fields: ReportFields, strict: SnpPolicy, lenient: SnpPolicy) -> None:
    assert bench.refused(fields, bench.vcek(), strict) == reason
    assert bench.verify(fields, bench.vcek(), lenient).signer == "vcek"


def test_author_key_is_read_only_when_enabled(bench: Bench) -> None:
    enabled = replace(FIELDS, key_info=1)
    assert bench.verify(enabled, bench.vcek(), SnpPolicy(author_keys=frozenset({bytes(48)}))).signer == "vcek"


def test_known_measurement_affirms_executables(bench: Bench) -> None:
    submod = bench.verify(FIELDS, bench.vcek(), SnpPolicy(measurements=frozenset({b"\x11" * 48}))).as_ear_submod()
    assert submod["ear.status"] == "affirming"
    assert submod["ear.trustworthiness-vector"]["executables"] == 2
    assert submod["snp"]["measurement"] == "11" * 48
    assert submod["root"] == submod["snp"]["root"] == "local:emulated"
    unknown = bench.verify(FIELDS, bench.vcek()).as_ear_submod()
    assert unknown["ear.trustworthiness-vector"]["executables"] == 0


def test_validity_of_each_certificate(bench: Bench) -> None:
    assert bench.refused(FIELDS, bench.vcek(days=30)) == "CertificateExpired"
    assert bench.refused(FIELDS, bench.vcek(now=PINNED + timedelta(days=1))) == "CertificateNotYetValid"
    long_after = PINNED + timedelta(days=26 * 365)
    assert bench.refused(FIELDS, bench.vcek(days=40 * 365), now=long_after) == "CertificateExpired"  # the ARK


def test_now_needs_a_zone(bench: Bench) -> None:
    with pytest.raises(InvalidInput):
        bench.verify(FIELDS, bench.vcek(), now=datetime(2025, 8, 1))  # noqa: DTZ001


def test_local_roots_are_trusted_only_where_named(bench: Bench) -> None:
    leaf, ask, ark = bench.vcek(), bench.authority.ask.der, bench.authority.ark.der
    report = sign_report(FIELDS, KEY)
    with pytest.raises(AttestationRefused) as caught:
        verify_snp(report, [leaf, ask, ark], TrustRoots.builtin_amd(), SnpPolicy(), PINNED, None)
    assert caught.value.problem.reason == "RootUntrusted"
    both = TrustRoots.builtin_amd() | bench.roots
    assert verify_snp(report, [leaf], both, SnpPolicy(), PINNED, None).root == "local:emulated"


def test_collateral_is_not_trust(bench: Bench) -> None:
    """A root that lies among the collateral is at hand, and still not trusted."""
    roots = TrustRoots.builtin_amd(bench.folder)
    assert bench.refused(FIELDS, bench.vcek(), roots=roots) == "RootUntrusted"


def test_an_intermediate_cannot_act_as_another(genoa: Authority, bench: Bench) -> None:
    """A VCEK must come from the ASK and a VLEK from the ASVK, both of the product."""
    assert genoa.asvk is not None
    crossed = Authority(genoa.product, genoa.ark, genoa.asvk, genoa.ask)
    leaf = crossed.issue_vcek(KEY.public_key(), TCB, CHIP, now=START).public_bytes(Encoding.DER)
    assert bench.refused(FIELDS, leaf) == "CertificateChainInvalid"
    vlek = crossed.issue_vlek(KEY.public_key(), TCB, "CN=cloud.example", now=START).public_bytes(Encoding.DER)
    fields = replace(FIELDS, chip_id=bytes(64), key_info=1 << 2)
    assert bench.refused(fields, vlek) == "CertificateChainInvalid"


def test_a_root_may_not_sign_leaves_itself(genoa: Authority, bench: Bench) -> None:
    direct = Authority(genoa.product, genoa.ark, genoa.ark)
    leaf = direct.issue_vcek(KEY.public_key(), TCB, CHIP, now=START).public_bytes(Encoding.DER)
    assert bench.refused(FIELDS, leaf) == "CertificateChainInvalid"


def write_crl(folder: Path, crl: x509.CertificateRevocationList, name: str = "ark.crl") -> None:
    (folder / name).write_bytes(crl.public_bytes(Encoding.DER))


def test_revoked_intermediate(bench: Bench) -> None:
    ask = bench.authority.ask.certificate
    write_crl(bench.folder, bench.authority.ark.revocation_list([ask.serial_number], PINNED - timedelta(days=1)))
    assert bench.refused(FIELDS, bench.vcek(), roots=TrustRoots.from_directory(bench.folder)) == "CertificateRevoked"


def test_revoked_leaf_by_its_issuer(bench: Bench) -> None:
    leaf = bench.vcek()
    serial = x509.load_der_x509_certificate(leaf).serial_number
    write_crl(bench.folder, bench.authority.ask.revocation_list([serial], PINNED - timedelta(days=1)))
    roots = TrustRoots.from_directory(bench.folder)
    assert bench.refused(FIELDS, leaf, roots=roots) == "CertificateRevoked"
    assert bench.verify(FIELDS, bench.vcek(), roots=roots).signer == "vcek"  # another serial


def test_revocation_lists_must_be_current_and_authentic(bench: Bench, turin: Authority) -> None:
    demanding = SnpPolicy(require_crl=True)
    assert bench.refused(FIELDS, bench.vcek(), demanding) == "RevocationUnknown"
    ark = bench.authority.ark
    write_crl(bench.folder, ark.revocation_list([], PINNED - timedelta(days=1)))
    current = TrustRoots.from_directory(bench.folder)
    assert bench.verify(FIELDS, bench.vcek(), demanding, roots=current).signer == "vcek"
    later = PINNED + timedelta(days=60)
    assert bench.refused(FIELDS, bench.vcek(), roots=current, now=later) == "RevocationUnknown"
    # A list under the ARK's name that another key signed is no list at all.
    forged = replace(ark, key=turin.ark.key).revocation_list([], PINNED - timedelta(days=1))
    write_crl(bench.folder, forged)
    roots = TrustRoots.from_directory(bench.folder)
    assert bench.refused(FIELDS, bench.vcek(), demanding, roots=roots) == "RevocationUnknown"


def test_a_revocation_list_as_pem(bench: Bench) -> None:
    crl = bench.authority.ark.revocation_list([], PINNED - timedelta(days=1))
    (bench.folder / "crl.pem").write_bytes(crl.public_bytes(Encoding.PEM))
    roots = TrustRoots.from_directory(bench.folder)
    assert bench.verify(FIELDS, bench.vcek(), SnpPolicy(require_crl=True), roots=roots).signer == "vcek"


def test_vcek_from_collateral(bench: Bench) -> None:
    """Hosts that send no certificate: the VCEK is found by chip and TCB, never guessed."""
    report = sign_report(FIELDS, KEY)
    with pytest.raises(AttestationRefused) as caught:
        verify_snp(report, [], bench.roots, SnpPolicy(), PINNED, None)
    assert caught.value.problem.reason == "CertificateMissing"
    store = bench.folder / "vcek" / CHIP.hex()
    store.mkdir(parents=True)
    (store / "other.der").write_bytes(bench.vcek(replace(TCB, snp=22)))
    (store / "vcek.der").write_bytes(bench.vcek())
    roots = TrustRoots.from_directory(bench.folder)
    assert verify_snp(report, [], roots, SnpPolicy(), PINNED, None).tcb == TCB
    foreign = sign_report(replace(FIELDS, chip_id=bytes(64)), KEY)
    with pytest.raises(AttestationRefused) as caught:
        verify_snp(foreign, [], roots, SnpPolicy(), PINNED, None)
    assert caught.value.problem.reason == "CertificateMissing"


def test_two_leaves_are_ambiguous(bench: Bench) -> None:
    report = sign_report(FIELDS, KEY)
    with pytest.raises(AttestationRefused) as caught:
        verify_snp(report, [bench.vcek(), bench.vcek()], bench.roots, SnpPolicy(), PINNED, None)
    assert caught.value.problem.reason == "CertificateMalformed"
    leaf = bench.vcek()
    assert verify_snp(report, [leaf, leaf], bench.roots, SnpPolicy(), PINNED, None).signer == "vcek"


@pytest.mark.parametrize("count", [17, 1000])
def test_certificates_are_bounded(bench: Bench, count: int) -> None:
    report = sign_report(FIELDS, KEY)
    for certificates in ([bench.vcek()] * count, [bench.vcek() + bytes(20_000)]):
        with pytest.raises(AttestationRefused) as caught:
            verify_snp(report, certificates, bench.roots, SnpPolicy(), PINNED, None)
        assert caught.value.problem.reason == "CertificateMalformed"


@pytest.mark.parametrize("junk", [b"", b"\x30\x00", b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"])
def test_junk_certificates(bench: Bench, junk: bytes) -> None:
    assert bench.refused(FIELDS, junk) == "CertificateMalformed"


def test_folders_are_read_strictly(tmp_path: Path, bench: Bench) -> None:
    empty = tmp_path / "empty"
    with pytest.raises(InvalidInput):
        TrustRoots.from_directory(empty)
    empty.mkdir()
    with pytest.raises(InvalidInput):
        TrustRoots.from_directory(empty)
    (bench.folder / "junk.der").write_bytes(b"junk")
    with pytest.raises(InvalidInput) as caught:
        TrustRoots.from_directory(bench.folder)
    assert "junk.der" in caught.value.problem.where


Change = Callable[[bytearray], None]


def test_the_memory_of_chains_never_bypasses_time_or_chip(bench: Bench) -> None:
    leaf = bench.vcek()
    assert bench.verify(FIELDS, leaf).signer == "vcek"
    assert bench.refused(FIELDS, leaf, now=PINNED + timedelta(days=9 * 365)) == "CertificateExpired"
    assert bench.refused(replace(FIELDS, chip_id=b"\1" * 64), leaf) == "ChipIdMismatch"
    assert bench.refused(FIELDS, leaf, roots=TrustRoots.builtin_amd(bench.folder)) == "RootUntrusted"


def test_amd_pins_match_the_published_roots() -> None:
    from tests.unit.attestation.conftest import chain

    for product in ("milan", "genoa", "turin"):
        roots = TrustRoots.builtin_amd()
        parts = chain(product)
        from keymgmt.attestation.certificates import Authority as Parsed
        from keymgmt.attestation.certificates import read_certificate, split_certificates, vouched_for

        ask, ark, asvk = (read_certificate(split_certificates([parts[name]])[0]) for name in ("ask", "ark", "asvk"))
        assert isinstance(ask, Parsed)
        assert isinstance(ark, Parsed)
        assert isinstance(asvk, Parsed)
        assert roots.anchors[ark.spki_sha256] == "amd"
        assert vouched_for(ask, ark)
        assert vouched_for(asvk, ark)
        assert not vouched_for(ark, ask)


def test_no_secret_or_evidence_in_refusals(bench: Bench) -> None:
    with pytest.raises(AttestationRefused) as caught:
        bench.verify(FIELDS, bench.vcek(), expected_report_data=b"\x55" * 64)
    assert "55" * 8 not in str(caught.value)
    assert vector("trustee-test-report.bin")
