"""A real key service process over TLS with a real SoftHSM, custodians, and guests on emulated SNP."""

import base64
import contextlib
import hashlib
import ipaddress
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import httpx
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
)
from cryptography.x509.oid import NameOID
from joserfc import jwe
from joserfc.jwk import ECKey

from keymgmt import strict_json
from keymgmt.attestation import Tcb, snp_evidence
from keymgmt.broker import paths
from keymgmt.policy import payload_types as types
from keymgmt.policy.custodians import digest_of
from keymgmt.policy.dsse import Envelope
from local.hardware.snp.authority import Authority
from local.hardware.snp.report import ReportFields, sign_report

TOKENS = {role: f"{role}-token-for-tests" for role in ("operator", "registrar", "auditor")}
MEASUREMENT = bytes(range(48))
HOST_DATA = bytes(range(32))
TCB = Tcb(bootloader=9, tee=0, snp=23, microcode=72)
CHIP_ID = bytes([7]) * 64


@cache
def platform():
    """The emulated vendor, one chip and its certificate; made once a test run (RSA keys are slow)."""
    authority = Authority.create("Genoa", bits=3072)
    chip = ec.generate_private_key(ec.SECP384R1())
    vcek = authority.issue_vcek(chip.public_key(), TCB, CHIP_ID)
    return authority, chip, vcek.public_bytes(Encoding.DER)


def make_tls(folder):
    """A self-signed server certificate for 127.0.0.1; returns (certificate, key) paths."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "key-service")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    (folder / "tls.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "tls.key").write_bytes(pem)
    return folder / "tls.crt", folder / "tls.key"


class Service:
    """The process `python -m keymgmt` with a folder of its own."""

    def __init__(self, folder, **overrides):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        certificate, key = make_tls(self.folder)
        platform()[0].export_trust_root(self.folder / "emulated")
        self.config = {
            "listen": {"host": "127.0.0.1", "port": 0},
            "tls": {"certificate": str(certificate), "key": str(key)},
            "dataDir": str(self.folder / "data"),
            "jurisdiction": "JP",
            "log": {"origin": "kekkai.test/log"},
            "tokens": [
                {"role": role, "sha256": hashlib.sha256(token.encode()).hexdigest()} for role, token in TOKENS.items()
            ],
            "attestation": {"localTrustRoots": [str(self.folder / "emulated")]},
            "readyFile": str(self.folder / "ready.json"),
        } | overrides
        self.process = None
        self.url = ""
        self.log_folder = self.folder / "data" / "log"
        self.stderr = self.folder / "stderr.log"
        self._client = None

    @property
    def data(self):
        return self.folder / "data"

    def start(self, wait=True):
        config_file = self.folder / "config.yaml"
        config_file.write_text(yaml.safe_dump(self.config))
        ready = Path(self.config["readyFile"])
        ready.unlink(missing_ok=True)
        with self.stderr.open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "keymgmt", "--config", str(config_file)], stderr=errors, stdout=errors
            )
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self, seconds=180):
        ready, deadline = Path(self.config["readyFile"]), time.monotonic() + seconds
        while not ready.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the service did not start:\n{self.stderr.read_text()[-4000:]}")
            time.sleep(0.01)
        self.url = json.loads(ready.read_text())["url"]
        if self._client is not None:
            self._client.close()
        self._client = None

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(timeout=30)
        return self.process.returncode if self.process is not None else None

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.stop()
        if self.process.poll() is None:
            self.kill()

    @property
    def tls(self):
        return ssl.create_default_context(cafile=self.folder / "tls.crt")

    @property
    def client(self):
        if self._client is None:
            self._client = httpx.Client(base_url=self.url, verify=self.tls, timeout=30)
        return self._client

    def call(self, method, path, body=None, role=None):
        headers = {"Authorization": f"Bearer {TOKENS[role]}"} if role else {}
        return self.client.request(method, path, json=body, headers=headers)

    def ok(self, method, path, body=None, role=None):
        reply = self.call(method, path, body, role)
        assert reply.status_code in (200, 201), f"{method} {path}: {reply.status_code} {reply.text}"
        return reply.json()

    def log_key(self):
        from keymgmt.transparency.note import VerifierKey

        return VerifierKey.parse((self.data / "log.vkey").read_text())

    def verify_log(self):
        from keymgmt.transparency.tiles import TileFiles
        from keymgmt.transparency.verify import verify_log

        return verify_log(TileFiles(self.log_folder), self.log_key())

    def entries(self):
        from keymgmt.transparency.entries import decode_entry
        from keymgmt.transparency.tiles import TileFiles
        from keymgmt.transparency.verify import iterate, read_checkpoint

        files = TileFiles(self.log_folder)
        checkpoint, _ = read_checkpoint(files, self.log_key())
        return [decode_entry(entry) for entry in iterate(files, checkpoint.size)]


class Custodians:
    """N Ed25519 custodians of a tenant, M of whom must agree."""

    def __init__(self, tenant="tenant-a", count=1, threshold=1):
        self.tenant, self.threshold = tenant, threshold
        self.keys = {f"custodian-{i}": ed25519.Ed25519PrivateKey.generate() for i in range(count)}

    def roster(self):
        def spki(key):
            return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

        custodians = [
            {"keyid": keyid, "algorithm": "ed25519", "publicKey": base64.b64encode(spki(key)).decode()}
            for keyid, key in self.keys.items()
        ]
        return {"threshold": self.threshold, "custodians": custodians}

    def sign(self, payload_type, document, signers=None):
        envelope = Envelope(payload_type, strict_json.canonical(document), ())
        for keyid in list(self.keys)[: self.threshold if signers is None else signers]:
            envelope = envelope.with_signature(keyid, self.keys[keyid])
        return envelope.as_dict()

    def policy(self, key="team-a/dataset", measurement=MEASUREMENT, host_data=HOST_DATA, **changes):
        rule = f'claims.snp.measurement == "{measurement.hex()}" && claims.init_data == "{host_data.hex()}"'
        return {
            "apiVersion": "kekkai.dev/release-policy/v1",
            "tenant": self.tenant,
            "keys": [key],
            "rule": rule + " && !claims.snp.debug && claims.snp.vmpl == 0",
            "maxReleases": 1000,
            "notBefore": "2026-01-01T00:00:00Z",
            "notAfter": "2100-01-01T00:00:00Z",
            "jurisdiction": "JP",
            "replaces": None,
        } | changes

    def register(self, service):
        return service.ok("PUT", paths.CUSTODIANS.format(tenant=self.tenant), self.roster(), "registrar")

    def submit(self, service, policy, signers=None):
        return service.call("POST", paths.POLICIES, self.sign(types.POLICY_TYPE, policy, signers))

    def set_up(self, service, key="team-a/dataset", origin="generate", **policy):
        """Register, submit a policy, make the key. Returns the key and the policy."""
        self.register(service)
        document = self.policy(key, **policy)
        reply = self.submit(service, document)
        assert reply.status_code == 201, reply.text
        assert reply.json()["digest"] == digest_of(strict_json.canonical(document))
        return self.put_key(service, reply.json()["digest"], key, origin), document

    def put_key(self, service, digest, key="team-a/dataset", origin="generate", uid="uid-1"):
        return service.ok("PUT", f"/v1/keys/{key}", self.key_body(digest, origin, uid), "operator")

    def key_body(self, digest, origin="generate", uid="uid-1", **changes):
        return {
            "tenant": self.tenant,
            "uid": uid,
            "purpose": "dataset",
            "algorithm": "AES-256-GCM",
            "origin": origin,
            "policyDigest": digest,
            "jurisdiction": "JP",
        } | changes

    def import_order(self, service, key_bytes, key="team-a/dataset", policy_digest=""):
        wrapping = service.ok("GET", paths.IMPORT_KEY)
        oaep = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)
        wrapped = load_pem_public_key(wrapping["publicKey"].encode()).encrypt(key_bytes, oaep)
        return {
            "apiVersion": "kekkai.dev/import-order/v1",
            "tenant": self.tenant,
            "key": key,
            "policyDigest": policy_digest,
            "kid": wrapping["kid"],
            "wrappedKey": base64.b64encode(wrapped).decode(),
        }


class Guest:
    """A guest on the emulated chip that speaks KBS 0.4.0 with its own TLS client."""

    def __init__(self, service, measurement=MEASUREMENT, host_data=HOST_DATA, init_data=None, **report):
        self.service = service
        self.client = httpx.Client(base_url=service.url, verify=service.tls, timeout=30)
        self.fields = {"measurement": measurement, "host_data": host_data, **report}
        self.init_data = init_data
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.token = ""

    @property
    def jwk(self):
        public = ECKey.import_key(self.key.public_key()).as_dict()
        return {name: public[name] for name in ("kty", "crv", "x", "y")} | {"alg": "ECDH-ES+A256KW"}

    def auth(self, **changes):
        body = {"version": "0.4.0", "tee": "snp", "extra-params": {}} | changes
        return self.client.post(paths.KBS_AUTH, json=body)

    def evidence(self, nonce, jwk=None):
        authority, chip, vcek = platform()
        bound = {"additional-evidence": "{}", "nonce": nonce, "tee-pubkey": jwk or self.jwk}
        canonical = json.dumps(bound, sort_keys=True, separators=(",", ":")).encode()
        data = hashlib.sha384(canonical).digest().ljust(64, b"\0")
        defaults = {"tcb": TCB, "chip_id": CHIP_ID}
        report = sign_report(ReportFields(report_data=data, **(defaults | self.fields)), chip)
        return snp_evidence(report, [("VCEK", vcek), ("ASK", authority.ask.der), ("ARK", authority.ark.der)])

    def attest_body(self, nonce, evidence=None, jwk=None):
        body = {
            "runtime-data": {"nonce": nonce, "tee-pubkey": jwk or self.jwk},
            "tee-evidence": {
                "primary_evidence": evidence or self.evidence(nonce, jwk),
                "additional_evidence": "{}",
            },
        }
        return body if self.init_data is None else {**body, "init-data": {"format": "toml", "body": self.init_data}}

    def attest(self):
        nonce = self.auth().json()["nonce"]
        reply = self.client.post(paths.KBS_ATTEST, json=self.attest_body(nonce))
        if reply.status_code == 200:
            self.token = reply.json()["token"]
        return reply

    def fetch(self, key="team-a/dataset", cookie=False, kind="key"):
        namespace, name = key.split("/", 1)
        headers = {} if cookie else {"Authorization": f"Bearer {self.token}"}
        return self.client.get(f"/kbs/v0/resource/{namespace}/{kind}/{name}", headers=headers)

    def open(self, reply):
        registry = jwe.JWERegistry(algorithms=["ECDH-ES+A256KW", "A256GCM"])
        return jwe.decrypt_json(reply.json(), ECKey.import_key(self.key), registry=registry).plaintext


def processes_of(parent):
    """Pids of the live children of a process."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                stat = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                if int(stat[1]) == parent and stat[0] != "Z":
                    found.append(int(entry.name))
    return found


def alive(pid):
    """Whether a process exists and is not a zombie."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def until(condition, seconds=20, what="condition"):
    """Poll until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not reached in time: {what}"
        time.sleep(0.02)


__all__ = [name for name in dir() if not name.startswith("_")]
_ = os
