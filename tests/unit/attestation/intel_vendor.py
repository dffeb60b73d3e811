"""An Intel of our own: root, PCK and TCB signing certificates, revocation lists, collateral and quotes.

What no public vector covers (each TCB status, advisories, revocation, TDX 1.5 bodies, a chosen
REPORT_DATA) is made here in Intel's formats, from the specifications that the verifier cites.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, ObjectIdentifier

NOW = datetime(2026, 6, 1, tzinfo=UTC)
FMSPC = "C0FFEE000000"
QE_VENDOR = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
QE_SIGNER = bytes.fromhex("dc9e2a7c6f948f17474e34a7fc43ed030f7c1563f1babddf6340c82e0e54a8c5")
SGX_EXTENSION = "1.2.840.113741.1.13.1"
CPU_SVN = bytes((3, 3, 2, 2, 4, 1, 0, 5)) + bytes(8)
PCE_SVN = 11
TEE_TCB_SVN = bytes((5, 1, 2)) + bytes(13)  # second byte: major version of the TDX module
REPORT_DATA = hashlib.sha384(b"challenge").digest()


def _tlv(tag: int, body: bytes) -> bytes:
    size = len(body)
    head = bytes((size,)) if size < 128 else bytes((0x82,)) + size.to_bytes(2, "big")
    return bytes((tag,)) + head + body


def _integer(value: int) -> bytes:
    return _tlv(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _oid(dotted: str) -> bytes:
    first, second, *rest = (int(arc) for arc in dotted.split("."))
    body = bytearray((first * 40 + second,))
    for arc in rest:
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.append(arc & 0x7F | 0x80)
        body += bytes(reversed(groups))
    return _tlv(0x06, bytes(body))


def _entry(suffix: str, value: bytes) -> bytes:
    return _tlv(0x30, _oid(f"{SGX_EXTENSION}.{suffix}") + value)


def sgx_extension(fmspc: bytes, *, smt: bool) -> bytes:
    """The extension of a PCK certificate: PPID, TCB, PCE id, FMSPC, type, instance, configuration."""
    levels = b"".join(_entry(f"2.{index + 1}", _integer(svn)) for index, svn in enumerate(CPU_SVN))
    tcb = levels + _entry("2.17", _integer(PCE_SVN)) + _entry("2.18", _tlv(0x04, CPU_SVN))
    flags = b"".join(
        _entry(f"7.{index}", _tlv(0x01, b"\xff" if on else b"\0")) for index, on in enumerate((True, True, smt), 1)
    )
    return _tlv(
        0x30,
        _entry("1", _tlv(0x04, bytes(range(16))))
        + _entry("2", _tlv(0x30, tcb))
        + _entry("3", _tlv(0x04, bytes(2)))
        + _entry("4", _tlv(0x04, fmspc))
        + _entry("5", _tlv(0x0A, b"\x01"))
        + _entry("6", _tlv(0x04, bytes(range(16, 32))))
        + _entry("7", _tlv(0x30, flags)),
    )


@dataclass
class Holder:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)


def issue(
    common_name: str,
    issuer: Holder | None,
    *,
    ca: bool,
    extension: bytes | None = None,
    lifetime: tuple[datetime, datetime] = (NOW - timedelta(days=400), NOW + timedelta(days=2000)),
) -> Holder:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(common_name)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.certificate.subject if issuer else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(lifetime[0])
        .not_valid_after(lifetime[1])
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(_usage(ca), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    signer = issuer.key if issuer else key
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
    )
    if extension is not None:
        oid = ObjectIdentifier(SGX_EXTENSION)
        builder = builder.add_extension(x509.UnrecognizedExtension(oid, extension), critical=False)
    return Holder(builder.sign(signer, hashes.SHA256()), key)


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Intel Corporation"),
            x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
        ]
    )


def _usage(ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False)


def sign(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    """Raw r ‖ s, P-256 with SHA-256."""
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def point(key: ec.EllipticCurvePrivateKey) -> bytes:
    numbers = key.public_key().public_numbers()
    return numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")


@dataclass(frozen=True)
class Levels:
    """What the vendor says of the platform's TCB."""

    status: str = "UpToDate"
    advisories: tuple[str, ...] = ()
    minimum: bytes = CPU_SVN  # SVNs that the one level demands
    qe_status: str = "UpToDate"
    evaluation: int = 18
    issued: datetime = NOW - timedelta(days=1)
    expires: datetime = NOW + timedelta(days=29)
    fmspc: str = FMSPC


@dataclass
class IntelVendor:
    """The vendor's keys and certificates. `create` makes one; `with_smt` chooses the platform's setting."""

    root: Holder
    pck_ca: Holder
    tcb_signer: Holder
    pck: Holder
    revoked: Mapping[str, Sequence[int]] = field(default_factory=dict)  # "root" | "pck" → serial numbers

    @classmethod
    def create(cls, *, smt: bool = False, fmspc: str = FMSPC) -> IntelVendor:
        root = issue("Intel SGX Root CA", None, ca=True)
        pck_ca = issue("Intel SGX PCK Platform CA", root, ca=True)
        extension = sgx_extension(bytes.fromhex(fmspc), smt=smt)
        pck = issue("Intel SGX PCK Certificate", pck_ca, ca=False, extension=extension)
        return cls(root, pck_ca, issue("Intel SGX TCB Signing", root, ca=False), pck)

    def revoking(self, **serials: Sequence[int]) -> IntelVendor:
        return replace(self, revoked=serials)

    @property
    def anchors(self) -> dict[str, str]:
        return {hashlib.sha256(self.root_der).hexdigest(): "local:test"}

    @property
    def root_der(self) -> bytes:
        return self.root.certificate.public_bytes(Encoding.DER)

    def collateral(self, tee: str = "tdx", levels: Levels = Levels(), **changes: Any) -> bytes:
        """QuoteCollateralV3 as JSON; `changes` replace members after signing."""
        tcb_info = json.dumps(_tcb_info(tee, levels), separators=(",", ":"))
        identity = json.dumps(_qe_identity(tee, levels), separators=(",", ":"))
        signer = (self.tcb_signer.pem + self.root.pem).decode()
        document = {
            "pck_crl_issuer_chain": (self.pck_ca.pem + self.root.pem).decode(),
            "root_ca_crl": self.crl(self.root, self.revoked.get("root", ()), levels).hex(),
            "pck_crl": self.crl(self.pck_ca, self.revoked.get("pck", ()), levels).hex(),
            "tcb_info_issuer_chain": signer,
            "tcb_info": tcb_info,
            "tcb_info_signature": sign(self.tcb_signer.key, tcb_info.encode()).hex(),
            "qe_identity_issuer_chain": signer,
            "qe_identity": identity,
            "qe_identity_signature": sign(self.tcb_signer.key, identity.encode()).hex(),
        }
        return json.dumps({**document, **changes}).encode()

    def crl(self, issuer: Holder, serials: Iterable[int], levels: Levels) -> bytes:
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(issuer.certificate.subject)
            .last_update(levels.issued)
            .next_update(levels.expires + timedelta(days=100))
            .add_extension(x509.CRLNumber(1), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), critical=False)
        )
        for serial in serials:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(levels.issued).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(issuer.key, hashes.SHA256()).public_bytes(Encoding.DER)

    def quote(self, body: bytes, version: int = 4, *, qe_isv_svn: int = 6, pck: Holder | None = None) -> bytes:
        """A quote over a TD body (584 or 648 bytes) or an enclave's (384 bytes)."""
        tee = 0 if len(body) == 384 else 0x81
        header = version.to_bytes(2, "little") + (2).to_bytes(2, "little") + tee.to_bytes(4, "little")
        header += bytes(4) + QE_VENDOR + bytes(20)
        if version == 5:
            header += {384: 1, 584: 2, 648: 3}[len(body)].to_bytes(2, "little") + len(body).to_bytes(4, "little")
        attestation_key = ec.generate_private_key(ec.SECP256R1())
        authentication = bytes(range(32))
        bound = hashlib.sha256(point(attestation_key) + authentication).digest()
        qe_report = enclave_body(
            report_data=bound, mr_signer=QE_SIGNER, prod_id=2 if tee else 1, isv_svn=qe_isv_svn, flags=0x11
        )
        holder = pck or self.pck
        chain = holder.pem + self.pck_ca.pem + self.root.pem
        certified = qe_report + sign(holder.key, qe_report) + len(authentication).to_bytes(2, "little") + authentication
        certified += (5).to_bytes(2, "little") + len(chain).to_bytes(4, "little") + chain
        signed = header + body
        data = sign(attestation_key, signed) + point(attestation_key)
        if version == 3:
            data += certified
        else:
            data += (6).to_bytes(2, "little") + len(certified).to_bytes(4, "little") + certified
        return signed + len(data).to_bytes(4, "little") + data


def td_body(
    *,
    attributes: int = 1 << 28,
    xfam: int = 0xE7,
    report_data: bytes = REPORT_DATA,
    config_id: bytes = b"",
    service_td: bytes | None = None,
    mr_td: bytes = b"\x11" * 48,
    rtmrs: Sequence[bytes] = tuple(bytes((0x30 + index,)) * 48 for index in range(4)),
) -> bytes:
    """A TD report body: 584 bytes, or 648 with `service_td` (MRSERVICETD; b"" for none)."""
    body = TEE_TCB_SVN + b"\x22" * 48 + bytes(48) + bytes(8)
    body += attributes.to_bytes(8, "little") + xfam.to_bytes(8, "little")
    body += mr_td + config_id.ljust(48, b"\0") + bytes(48) + bytes(48)
    body += b"".join(rtmrs) + report_data.ljust(64, b"\0")
    return body if service_td is None else body + TEE_TCB_SVN + service_td.ljust(48, b"\0")


def enclave_body(
    *,
    flags: int = 0x5,
    xfrm: int = 0xE7,
    report_data: bytes = REPORT_DATA,
    mr_enclave: bytes = b"\x44" * 32,
    mr_signer: bytes = b"\x55" * 32,
    prod_id: int = 7,
    isv_svn: int = 3,
    config_id: bytes = b"",
) -> bytes:
    """An enclave report body, 384 bytes."""
    body = CPU_SVN + bytes(16) + bytes(16)
    body += flags.to_bytes(8, "little") + xfrm.to_bytes(8, "little")
    body += mr_enclave + bytes(32) + mr_signer + bytes(32) + config_id.ljust(64, b"\0")
    body += prod_id.to_bytes(2, "little") + isv_svn.to_bytes(2, "little") + bytes(2)
    return body + bytes(42) + bytes(16) + report_data.ljust(64, b"\0")


def _tcb_info(tee: str, levels: Levels) -> dict[str, Any]:
    tcb: dict[str, Any] = {"sgxtcbcomponents": [{"svn": svn} for svn in levels.minimum], "pcesvn": PCE_SVN}
    if tee == "tdx":
        tcb["tdxtcbcomponents"] = [{"svn": svn} for svn in (5, 0, 2)] + [{"svn": 0}] * 13
    level = {
        "tcb": tcb,
        "tcbDate": "2026-01-01T00:00:00Z",
        "tcbStatus": levels.status,
        **({"advisoryIDs": list(levels.advisories)} if levels.advisories else {}),
    }
    module = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
    module_level = {"tcb": {"isvsvn": 5}, "tcbDate": "2026-01-01T00:00:00Z", "tcbStatus": "UpToDate"}
    document: dict[str, Any] = {
        "id": tee.upper(),
        "version": 3,
        **_dates(levels),
        "fmspc": levels.fmspc,
        "pceId": "0000",
        "tcbType": 0,
        "tcbEvaluationDataNumber": levels.evaluation,
    }
    if tee == "tdx":
        document["tdxModule"] = module
        document["tdxModuleIdentities"] = [{"id": "TDX_01", **module, "tcbLevels": [module_level]}]
    return {**document, "tcbLevels": [level]}


def _qe_identity(tee: str, levels: Levels) -> dict[str, Any]:
    level = {"tcb": {"isvsvn": 4}, "tcbDate": "2026-01-01T00:00:00Z", "tcbStatus": levels.qe_status}
    return {
        "id": "TD_QE" if tee == "tdx" else "QE",
        "version": 2,
        **_dates(levels),
        "tcbEvaluationDataNumber": levels.evaluation,
        "miscselect": "00000000",
        "miscselectMask": "FFFFFFFF",
        "attributes": "11000000000000000000000000000000",
        "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
        "mrsigner": QE_SIGNER.hex().upper(),
        "isvprodid": 2 if tee == "tdx" else 1,
        "tcbLevels": [level],
    }


def _dates(levels: Levels) -> dict[str, str]:
    form = "%Y-%m-%dT%H:%M:%SZ"
    return {"issueDate": levels.issued.strftime(form), "nextUpdate": levels.expires.strftime(form)}
