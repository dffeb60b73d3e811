"""What tenant A's people bring: a dataset and its key, a custodian, a signed release policy, init-data.

They work with the `kekkai` command, each step as docs/keys.md shows it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from crds.errors import KekkaiError
from keymgmt.attestation import host_data_of, init_data_digest
from keymgmt.attestation.kbs_evidence import snp_evidence
from keymgmt.guest.errors import KeyRefused
from keymgmt.guest.kbs_client import KbsClient, report_data
from keymgmt.guest.tee_key import TeeKey
from keymgmt.guest.tsm import TsmDevice
from local.demo.world import fill
from local.hardware.snp.launch import launch_measurement
from local.hardware.snp.platform import SnpPlatform
from local.stack import Stack

TENANT, KEY = "aurora", "aurora-train/dataset"
RESOURCE = "aurora-train/key/dataset"
RECORDS = 4000
INIT_DATA = """\
version = "0.1.0"
algorithm = "sha256"

[data]
"aa.toml" = '''
[token_configs.kbs]
url = "{url}"
'''
"policy.json" = '''
{{"tenant": "{tenant}", "namespace": "{namespace}", "keys": ["{resource}"]}}
'''
"""


class CommandFailed(KekkaiError):
    """A `kekkai` command ended with an error."""

    reason = "CommandFailed"


@dataclass(slots=True)
class Materials:
    """Files of the tenant's own, outside what the cloud sees."""

    stack: Stack
    folder: Path
    dataset_sha256: str
    records: int = RECORDS
    policy_digest: str = ""

    @classmethod
    def prepare(cls, stack: Stack) -> Materials:
        """Make the dataset, the custodian, the key and the sealed dataset; register the custodian."""
        folder = stack.plane.data_dir / "tenant-a"
        folder.mkdir(mode=0o700)
        dice = random.Random(20261124)  # noqa: S311 — a dataset, not a secret
        lines = (json.dumps({"id": i, "text": f"sample {dice.getrandbits(64):x}"}) for i in range(RECORDS))
        data = ("\n".join(lines) + "\n").encode()
        (folder / "dataset.jsonl").write_bytes(data)
        made = cls(stack, folder, hashlib.sha256(data).hexdigest())
        made.kekkai("keys", "custodian", "new", "--no-passphrase", "--out", str(folder / "custodian.key"))
        made.kekkai(
            *("keys", "custodian", "register", "--tenant", TENANT, "--threshold", "1"),
            *(str(folder / "custodian.key.pub"), "--token-file", str(stack.tokens / "registrar"), *made._service()),
        )
        made.kekkai(
            *("keys", "seal", "--resource", RESOURCE, "--input", str(folder / "dataset.jsonl")),
            *("--out", str(made.sealed), "--key-file", str(made.key_file)),
        )
        return made

    @property
    def sealed(self) -> Path:
        return self.folder / "dataset.sealed"

    @property
    def key_file(self) -> Path:
        return self.folder / "dataset.key"

    @property
    def key(self) -> bytes:
        """The 32 bytes of the dataset's key."""
        data = self.key_file.read_bytes()
        return data if len(data) == 32 else base64.b64decode(data.split()[-1])

    def init_data(self, tenant: str = TENANT, namespace: str = "aurora-train") -> str:
        """What a machine is told at launch: it differs between tenants, and so does its digest."""
        return INIT_DATA.format(url=self.stack.keys_url, tenant=tenant, namespace=namespace, resource=RESOURCE)

    def sign_and_submit_policy(self) -> str:
        """Fill in the example policy, sign it as custodian, file it; the digest names it."""
        now = datetime.now(UTC)
        text = fill(
            "41-release-policy.json",
            {
                "MEASUREMENT": launch_measurement("").hex(),
                "INIT_DATA_DIGEST": host_data_of(init_data_digest(self.init_data())).hex(),
                "NOT_BEFORE": (now - timedelta(minutes=5)).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "NOT_AFTER": (now + timedelta(days=90)).strftime("%Y-%m-%dT%H:%M:%SZ"),
            },
        )
        policy, signed = self.folder / "policy.json", self.folder / "policy.dsse.json"
        policy.write_text(text)
        custodian = str(self.folder / "custodian.key")
        self.kekkai("keys", "policy", "sign", str(policy), "--sign-with", custodian, "--out", str(signed))
        said = self.kekkai("keys", "policy", "submit", str(signed), *self._service(), "-o", "json")
        self.policy_digest = str(json.loads(said)["digest"])
        return self.policy_digest

    def import_key(self) -> None:
        """Wrap the key to the HSM's import key, sign the order, submit it."""
        self.kekkai(
            *("keys", "import", KEY, "--tenant", TENANT, "--policy-digest", self.policy_digest),
            *("--key-file", str(self.key_file), "--sign-with", str(self.folder / "custodian.key"), *self._service()),
        )

    def gang(
        self,
        name: str,
        pods: int,
        *,
        namespace: str = "aurora-train",
        runtime_class: str = "kata-qemu-snp",
        kernel_params: str = "",
    ) -> dict[str, str]:
        """Values for 50-training-gang.yaml."""
        tenant = namespace.split("-")[0]
        init_data = self.init_data(tenant, namespace)
        return {
            "NAME": name,
            "NAMESPACE": namespace,
            "PODS": str(pods),
            "GPUS": "8" if pods > 1 else "1",
            "RETRIES": "6" if pods > 1 else "0",
            "RUNTIME_CLASS": runtime_class,
            "KERNEL_PARAMS": kernel_params,
            "INIT_DATA": base64.b64encode(init_data.encode()).decode(),
        }

    def batch(self, index: int) -> str:
        return fill("60-batch.yaml", {"INDEX": str(index)})

    def replay_nonce(self) -> str:
        """Attest once, then send the very same evidence again; the reason of the refusal."""
        platform = SnpPlatform(self.stack.hardware_dir)
        init_data = self.init_data()
        root = self.folder / "replay-tsm"
        machine = platform.launch("replay-host", root, host_data=host_data_of(init_data_digest(init_data)))
        client = KbsClient(self.stack.keys_url, ca_file=self.stack.plane.ca_file, deadline=60)
        try:
            challenge, public = client.authenticate("snp"), TeeKey("ec").public_jwk()
            report = TsmDevice(root).report(report_data(challenge, public, ""))
            evidence = snp_evidence(report.report, report.certificates)
            client.attest(challenge, public, evidence, init_data=init_data)
            try:
                client.attest(challenge, public, evidence, init_data=init_data)
            except KeyRefused:
                return self.last_denial("NonceReplayed")
        finally:
            client.close()
            machine.close()
        return "nothing: the second attestation was accepted"

    def entries(self, *options: str) -> list[dict[str, Any]]:
        """Releases and denials as the auditor sees them, newest first."""
        said = self.kekkai(
            *("keys", "releases", *options, "--last", "500", "-o", "json"),
            *("--token-file", str(self.stack.tokens / "auditor"), *self._service()),
        )
        found = json.loads(said)
        entries: list[dict[str, Any]] = found["entries"] if isinstance(found, dict) else found
        return entries

    def releases(self) -> list[dict[str, Any]]:
        """Only the releases of the dataset's key."""
        return [entry for entry in self.entries(KEY) if entry["type"] == "release"]

    def last_denial(self, expected: str) -> str:
        """The newest denial that speaks of `expected`, as reason and details. Raises KeyError if there is none."""
        for entry in self.entries():
            told = f"{entry.get('reason', '')} {json.dumps(entry.get('details', ''))}"
            if entry["type"] == "denial" and expected.lower() in told.lower():
                return str(entry["reason"]) + (f" ({expected} differs)" if expected not in str(entry["reason"]) else "")
        raise KeyError(f"no denial in the log speaks of {expected}")

    def verify_log(self, least: int, most: int) -> str:
        """`kekkai log verify` over the log's folder, offline; counts what it must show."""
        log = str(self.stack.log_dir)
        report = json.loads(self.kekkai("log", "verify", log, "--vkey", str(self.stack.log_vkey), "-o", "json"))
        key = report["keys"][KEY]
        assert report["ok"], f"faults: {report['faults']}"
        assert least <= key["releases"] <= most, f"{key['releases']} releases are logged, expected {least}"
        denials = report["entries"].get("denial", 0)
        assert denials >= 4, f"only {denials} denials are logged"
        return f"{report['size']} entries verified; {key['releases']} releases, {denials} denials"

    def kekkai(self, *words: str) -> str:
        """Run the `kekkai` command; its output. Raises CommandFailed with what it said."""
        command = [sys.executable, "-m", "api.cli.app", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            raise CommandFailed(f"kekkai {' '.join(words[:3])}: {done.stderr.strip()[-600:]}")
        return done.stdout

    def _service(self) -> list[str]:
        return ["--url", self.stack.keys_url, "--ca", str(self.stack.plane.ca_file)]
