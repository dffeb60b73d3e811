"""The processes of Kekkai: key service, operators, and the runner of emulated confidential machines."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import ssl
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx
import yaml

from crds.labels import OPERATOR_USER
from local.controlplane import ControlPlane
from local.controlplane.ports import HOST, free_ports
from local.hardware.snp.platform import SnpPlatform
from local.stack.install import install

_ROLES = ("operator", "registrar", "auditor")
JURISDICTION = "JP"
LOG_ORIGIN = "keys.local.kekkai.dev/log"
RUNNER_USER = "kekkai-runner"


@dataclass(frozen=True, slots=True)
class Stack:
    """Where the parts of a running stack are."""

    plane: ControlPlane
    keys_url: str
    keys_dir: Path
    hardware_dir: Path

    @property
    def tokens(self) -> Path:
        """Folder of bearer tokens, one file a role."""
        return self.keys_dir / "tokens"

    def token(self, role: str) -> str:
        return (self.tokens / role).read_text().strip()

    @property
    def log_dir(self) -> Path:
        """The transparency log's public files."""
        return self.keys_dir / "data" / "log"

    @property
    def log_vkey(self) -> Path:
        """The log's verifier key."""
        return self.keys_dir / "data" / "log.vkey"

    @classmethod
    def of(cls, plane: ControlPlane) -> Stack:
        """The stack that `start` has put onto this control plane."""
        folder = plane.data_dir
        saved = json.loads((folder / "stack.json").read_text())
        return cls(plane, saved["keysUrl"], folder / "keys", folder / "hardware")


def start(plane: ControlPlane) -> Stack:
    """Install and start everything; returns when all of it answers."""
    port, metrics = free_ports(2)
    stack = Stack(plane, f"https://{HOST}:{port}", plane.data_dir / "keys", plane.data_dir / "hardware")
    config = _key_service_config(stack, port, SnpPlatform(stack.hardware_dir).trust_root)
    python = [sys.executable, "-m"]
    # The key service starts while the kinds are being installed: neither waits for the other.
    plane.supervisor.spawn("key-service", [*python, "keymgmt", "--config", str(config)])
    install(plane)
    plane.supervisor.wait_ready("key-service", lambda: answers(stack))
    (plane.data_dir / "stack.json").write_text(json.dumps({"keysUrl": stack.keys_url, "metricsPort": metrics}))
    operator = plane.kubeconfig_for(
        OPERATOR_USER, ("system:serviceaccounts", f"system:serviceaccounts:{OPERATOR_USER.split(':')[2]}")
    )
    plane.supervisor.spawn(
        "operators",
        [
            *python,
            "operators",
            f"--kubeconfig={operator}",
            f"--keys-url={stack.keys_url}",
            f"--keys-ca={plane.ca_file}",
            f"--keys-token-file={stack.tokens / 'operator'}",
            f"--metrics-port={metrics}",
        ],
    )
    plane.supervisor.spawn(
        "hardware-runner",
        [
            *python,
            "local.hardware.runner",
            f"--kubeconfig={plane.kubeconfig_for(RUNNER_USER)}",
            f"--kbs-url={stack.keys_url}",
            f"--kbs-ca={plane.ca_file}",
            f"--data-dir={stack.hardware_dir}",
        ],
    )
    return stack


def answers(stack: Stack) -> bool:
    """Whether the key service is ready."""
    try:
        return httpx.get(f"{stack.keys_url}/readyz", verify=_trust(stack), timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def _trust(stack: Stack) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(stack.plane.ca_file))


def _key_service_config(stack: Stack, port: int, trust_root: Path) -> Path:
    folder = stack.keys_dir
    stack.tokens.mkdir(parents=True, exist_ok=True, mode=0o700)
    tokens = []
    for role in _ROLES:
        value = secrets.token_urlsafe(32)
        descriptor = os.open(stack.tokens / role, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(value)
        tokens.append({"sha256": hashlib.sha256(value.encode()).hexdigest(), "role": role, "name": f"local {role}"})
    tls = stack.plane.pki.server("key-service", [HOST, "localhost"])
    document = {
        "listen": {"host": HOST, "port": port},
        "tls": {"certificate": str(tls.certificate), "key": str(tls.key)},
        "dataDir": "data",
        "jurisdiction": JURISDICTION,
        "log": {"origin": LOG_ORIGIN},
        "tokens": tokens,
        # The emulated hardware's root is trusted because this line says so; nothing else would.
        "attestation": {"localTrustRoots": [str(trust_root)]},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path
