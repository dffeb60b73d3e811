"""An emulated vendor of GPUs and switches: certificates, reports and OCSP answers of NVIDIA's formats."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from keymgmt.attestation.nvidia import NvidiaEndorsements

START = datetime(2024, 1, 1, tzinfo=UTC)
END = datetime(2040, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 3, 1, tzinfo=UTC)
NONCE = bytes(range(32))
FWID = hashlib.sha384(b"firmware").digest()
SHA384 = ec.ECDSA(hashes.SHA384())
_FWID_DER = bytes.fromhex("303d06096086480165030402020430")


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def composite_device_id(device: bytes, fwid: bytes = FWID) -> bytes:
    return bytes.fromhex("3081ba020101") + device + _FWID_DER + fwid


def tcb_info(fwid: bytes = FWID, flags: bytes = b"\x80\x00\x00\x01") -> bytes:
    """DiceTcbInfo as a Blackwell device has it: vendor, model, two digests, flags."""
    digests = _FWID_DER + fwid + _FWID_DER + bytes(48)
    body = b"\x80\x06NVIDIA" + b"\xa6" + bytes([len(digests)]) + digests
    body += b"\x87" + bytes([1 + len(flags)]) + b"\x00" + flags
    return b"\x30\x81" + bytes([len(body)]) + body


def certificate(
    subject: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    signer: ec.EllipticCurvePrivateKey,
    *,
    authority: bool = True,
    serial: int | None = None,
    dice: tuple[str, bytes] | None = None,
    until: datetime = END,
    critical: bool = False,
) -> x509.Certificate:
    """`dice`: OID and value of the firmware identity."""
    builder = (
        x509.CertificateBuilder(name(issuer), name(subject), key.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(START)
        .not_valid_after(until)
        .add_extension(
            x509.KeyUsage(
                digital_signature=not authority,
                key_cert_sign=authority,
                crl_sign=authority,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    )
    if authority:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    if dice:
        builder = builder.add_extension(
            x509.UnrecognizedExtension(ObjectIdentifier(dice[0]), dice[1]), critical=critical
        )
    return builder.sign(signer, hashes.SHA384())


@dataclass
class Device:
    """One chip with its certificates (signing key first) and the key that signs reports."""

    architecture: str
    key: ec.EllipticCurvePrivateKey
    certificates: list[x509.Certificate]
    fwid: bytes = FWID
    pdi: bytes = b""

    @property
    def pem(self) -> bytes:
        return b"".join(one.public_bytes(Encoding.PEM) for one in self.certificates)

    def report(
        self,
        nonce: bytes = NONCE,
        *,
        measurements: dict[int, bytes] | None = None,
        opaque: list[tuple[int, bytes]] | None = None,
        replace: dict[int, bytes] | None = None,
        header: bytes = b"\x11\xe0\x01\xff",
    ) -> bytes:
        """A signed report. `replace` changes or (with empty bytes) removes opaque fields."""
        fields = dict(opaque if opaque is not None else self.opaque())
        fields |= replace or {}
        data = b"".join(
            kind.to_bytes(2, "little") + len(raw).to_bytes(2, "little") + raw for kind, raw in fields.items() if raw
        )
        record = b"".join(
            bytes([index, 1])
            + (len(value) + 3).to_bytes(2, "little")
            + b"\x01"
            + len(value).to_bytes(2, "little")
            + value
            for index, value in (measurements or MEASUREMENTS).items()
        )
        count = len(measurements or MEASUREMENTS)
        response = b"\x11\x60\x00\x00" + bytes([count]) + len(record).to_bytes(3, "little") + record
        response += hashlib.sha256(nonce).digest() + len(data).to_bytes(2, "little") + data
        signed = header + nonce + b"\x00" + response
        r, s = decode_dss_signature(self.key.sign(signed, SHA384))
        return signed + r.to_bytes(48, "big") + s.to_bytes(48, "big")

    def opaque(self) -> list[tuple[int, bytes]]:
        if self.architecture == "LS10":
            return [(6, b"96.10.55.00.01"), (22, self.pdi), (26, bytes(128))]
        return [(6, bytes.fromhex("009f009601000000")), (3, b"550.90.07\0"), (11, b"\xaa"), (20, self.fwid)]

    def evidence(self, nonce: bytes = NONCE, **options: Any) -> dict[str, str]:
        """Trustee's JSON form of one device."""
        return {
            "arch": self.architecture,
            "evidence": base64.b64encode(self.report(nonce, **options)).decode(),
            "certificate": base64.b64encode(self.pem).decode(),
        }


MEASUREMENTS = {index: hashlib.sha384(bytes([index])).digest() for index in range(1, 65)}


def reference_values(
    *, driver: dict[int, list[bytes]] | None = None, vbios: dict[int, list[bytes]] | None = None, arch: str = "HOPPER"
) -> list[bytes]:
    """Manifests for the driver and firmware that emulated devices state."""
    bios = "96.10.55.00.01" if arch == "LS10" else "96.00.9f.00.01"
    manifests = [("vbios", bios, vbios or {2: [MEASUREMENTS[2]]})]
    if arch != "LS10":
        manifests.append(("driver", "550.90.07", driver or {3: [bytes(48), MEASUREMENTS[3]], 36: [MEASUREMENTS[36]]}))
    return [
        json.dumps(
            {
                "kind": kind,
                "arch": arch,
                "version": version,
                "measurements": {str(at): [one.hex() for one in values] for at, values in golden.items()},
            }
        ).encode()
        for kind, version, golden in manifests
    ]


@dataclass
class Vendor:
    """Root, family and provisioner of one vendor; makes devices and answers for their certificates."""

    root_key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP384R1()))
    family_key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP384R1()))
    provisioner_key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP384R1()))

    def __post_init__(self) -> None:
        self.root = certificate("Root", self.root_key, "Root", self.root_key)
        self.family = certificate("Family", self.family_key, "Root", self.root_key)
        self.provisioner = certificate("Provisioner", self.provisioner_key, "Family", self.family_key)

    @property
    def pin(self) -> str:
        return hashlib.sha256(spki(self.root_key)).hexdigest()

    def endorsements(self, **options: Any) -> NvidiaEndorsements:
        return NvidiaEndorsements(roots={self.pin: "local:emulated"}, **options)

    def device(self, architecture: str = "HOPPER", *, fwid: bytes = FWID, **options: Any) -> Device:
        """A new chip. `options` change the signing certificate."""
        model = {"HOPPER": "GH100 A01 GSP", "BLACKWELL": "GB100 A01 GSP", "LS10": "LS_10 A01 FSP"}.get(
            architecture, "X"
        )
        device_key, key = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
        serial = x509.random_serial_number() & (1 << 63) - 1 | 0x41 << 64
        device = certificate(f"{model} BROM", device_key, "Provisioner", self.provisioner_key, serial=serial)
        if architecture == "BLACKWELL":
            dice = ("2.23.133.5.4.1.1", tcb_info(fwid))
        else:
            dice = ("2.23.133.5.4.1", composite_device_id(spki(device_key), fwid))
        options = {"authority": False, "dice": dice, **options}
        leaf = certificate(f"{model} FMC LF", key, f"{model} BROM", device_key, **options)
        pdi = (serial & (1 << 64) - 1).to_bytes(8, "big")
        return Device(architecture, key, [leaf, device, self.provisioner, self.family, self.root], fwid, pdi)

    def machine(self, gpus: int = 8, switches: int = 4) -> tuple[list[Device], list[dict[int, bytes]]]:
        """GPUs and switches of one machine with the opaque fields by which they name each other."""
        switch_devices = [self.device("LS10") for _ in range(switches)]
        gpu_devices = [self.device("HOPPER") for _ in range(gpus)]
        of_gpu = b"".join(one.pdi[::-1] for one in switch_devices) + bytes(16)
        of_switch = b"".join(one.pdi[::-1] for one in gpu_devices).ljust(64, b"\0") + bytes(64)
        fields = [{21: b"\xaa", 22: of_gpu, 34: b"\x01\x00", 36: b"\x02\x00"} for _ in gpu_devices]
        return [*gpu_devices, *switch_devices], [*fields, *({26: of_switch} for _ in switch_devices)]


def ocsp_answer(
    child: x509.Certificate,
    parent: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    responder: x509.Certificate,
    *,
    status: ocsp.OCSPCertStatus = ocsp.OCSPCertStatus.GOOD,
    reason: x509.ReasonFlags | None = None,
    at: datetime = NOW,
    algorithm: hashes.HashAlgorithm | None = None,
    embed: bool = True,
) -> bytes:
    """An OCSP response for `child`, DER, signed by `key` whose certificate is `responder`."""
    builder = ocsp.OCSPResponseBuilder().add_response(
        cert=child,
        issuer=parent,
        algorithm=algorithm or hashes.SHA1(),
        cert_status=status,
        this_update=at - timedelta(hours=1),
        next_update=at + timedelta(hours=1),
        revocation_time=at - timedelta(hours=2) if status is ocsp.OCSPCertStatus.REVOKED else None,
        revocation_reason=reason,
    )
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, responder)
    if embed:
        builder = builder.certificates([responder])
    return builder.sign(key, hashes.SHA384()).public_bytes(Encoding.DER)


def delegate(
    issuer: str, signer: ec.EllipticCurvePrivateKey, *, until: datetime = END, entitled: bool = True
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """A responder's key and certificate, issued by `issuer` for OCSP (or, not `entitled`, for something else)."""
    key = ec.generate_private_key(ec.SECP384R1())
    usage = ExtendedKeyUsageOID.OCSP_SIGNING if entitled else ExtendedKeyUsageOID.CLIENT_AUTH
    builder = (
        x509.CertificateBuilder(name(issuer), name("Responder"), key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(START)
        .not_valid_after(until)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    )
    return key, builder.sign(signer, hashes.SHA384())
