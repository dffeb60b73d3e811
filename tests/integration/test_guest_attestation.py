"""The real guest agent, as a process, against the real key service, on the emulated SNP platform."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keymgmt.attestation import host_data_of, init_data_digest
from keymgmt.guest.sealed_input import seal
from keymgmt.policy import payload_types
from local.hardware.snp.device import GuestDevice
from local.hardware.snp.launch import REPOSITORY, launch_measurement
from local.hardware.snp.platform import SnpPlatform
from tests.integration.keymgmt_harness import Custodians, Service

KEY_NAME, RESOURCE = "team-a/dataset", "team-a/key/dataset"
KEY = bytes(range(100, 132))
TEXT = b"".join(b'{"record": %d}\n' % number for number in range(2000))
INIT_DATA = 'version = "0.1.0"\nalgorithm = "sha256"\n[data]\n"policy.json" = "{}"\n'
HOST_DATA = host_data_of(init_data_digest(INIT_DATA))


class Bench:
    """A key service that trusts one emulated platform and holds one imported key."""

    def __init__(self, service: Any, platform: SnpPlatform, folder: Path) -> None:
        self.service, self.platform, self.folder = service, platform, folder
        self.sealed = folder / "dataset.sealed"
        self.sealed.write_bytes(b"".join(seal(io.BytesIO(TEXT), KEY, RESOURCE, chunk_bytes=4096)))
        (folder / "init.toml").write_text(INIT_DATA)

    def launch(self, name: str, **options: Any) -> GuestDevice:
        return self.platform.launch("node-1", self.folder / name / "tsm", **{"host_data": HOST_DATA, **options})

    def arguments(self, name: str, *, resource: str = RESOURCE, deadline: float = 30.0) -> list[str]:
        folder = self.folder / name
        return [
            *(sys.executable, "-m", "api.cli.guest", "run", "--kbs-url", self.service.url),
            *("--ca", str(self.service.folder / "tls.crt"), "--resource", resource),
            *("--input", str(self.sealed), "--output", str(folder / "result.json")),
            *("--init-data", str(self.folder / "init.toml"), "--deadline", str(deadline)),
            *("--termination-message", str(folder / "message.json")),
        ]

    def environment(self, name: str) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "KEKKAI_TSM_ROOT": str(self.folder / name / "tsm")}

    def guest(self, name: str, *extra: str, resource: str = RESOURCE, **options: Any) -> tuple[int, dict[str, Any]]:
        """Launch a machine, run the agent in it; exit status and termination message."""
        with self.launch(name, **options):
            done = subprocess.run(
                [*self.arguments(name, resource=resource), *extra],
                env=self.environment(name),
                cwd=REPOSITORY,
                capture_output=True,
                timeout=120,
            )
        for form in (KEY, KEY.hex().encode(), base64.b64encode(KEY)):
            assert form not in done.stdout + done.stderr
        return done.returncode, json.loads((self.folder / name / "message.json").read_text())

    def denials(self) -> list[str]:
        """Reasons of the denials in the log, newest first."""
        entries = self.service.ok("GET", "/v1/releases", role="auditor")["entries"]
        return [entry["reason"] for entry in entries if entry["type"] == "denial"]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("guests")
    platform = SnpPlatform(folder / "hardware")
    trust = {"localTrustRoots": [str(platform.trust_root)]}
    with Service(folder / "keys", attestation=trust) as service:
        custodians = Custodians()
        measurement = launch_measurement()
        key, policy = custodians.set_up(
            service, KEY_NAME, origin="import", measurement=measurement, host_data=HOST_DATA
        )
        order = custodians.import_order(service, KEY, KEY_NAME, key["policyDigest"])
        signed = custodians.sign(payload_types.IMPORT_ORDER_TYPE, order)
        service.ok("POST", f"/v1/keys/{KEY_NAME}/import", signed)
        assert policy["tenant"] == "tenant-a"
        yield Bench(service, platform, folder)


def test_a_proven_guest_opens_the_sealed_input(bench: Bench) -> None:
    code, message = bench.guest("good")
    assert code == 0, message
    expected = {"sha256": hashlib.sha256(TEXT).hexdigest(), "bytes": len(TEXT), "records": 2000}
    assert message == {"resource": RESOURCE, **expected}
    assert json.loads((bench.folder / "good" / "result.json").read_text()) == message


def test_a_command_works_on_the_plaintext(bench: Bench) -> None:
    code, message = bench.guest("command", "--", "tail", "-n", "1")
    assert (code, message["output"]) == (0, '{"record": 1999}\n')


def test_rsa_keys_work_too(bench: Bench) -> None:
    code, _ = bench.guest("rsa", "--key-type", "rsa")
    assert code == 0


@pytest.mark.parametrize(
    ("name", "options", "resource", "reason"),
    [
        ("tampered", {"kernel_params": "init=/bin/sh"}, RESOURCE, "RuleNotMet"),
        ("debug", {"debug": True}, RESOURCE, "DebugAllowed"),
        ("vmpl", {"vmpl": 2}, RESOURCE, "VmplNotAllowed"),
        ("other-init-data", {"host_data": bytes(32)}, RESOURCE, "HostDataMismatch"),
        ("other-key", {}, "team-b/key/dataset", "KeyNotFound"),
    ],
)
def test_all_others_are_refused_with_status_three_and_logged_with_their_reason(
    bench: Bench, name: str, options: dict[str, Any], resource: str, reason: str
) -> None:
    code, message = bench.guest(name, resource=resource, **options)
    assert code == 3, message
    assert message["exitCode"] == 3
    assert message["error"]["what"]
    assert not (bench.folder / name / "result.json").exists()
    assert bench.denials()[0] == reason


def test_another_vendors_hardware_is_refused(bench: Bench, tmp_path: Path) -> None:
    """A second emulated vendor, which this key service was never told to trust."""
    stranger = Bench(bench.service, SnpPlatform(tmp_path / "hardware"), tmp_path)
    code, message = stranger.guest("stranger")
    assert code == 3, message
    assert bench.denials()[0] == "RootUntrusted"


def test_a_sealed_input_that_was_altered_is_status_five(bench: Bench, tmp_path: Path) -> None:
    other = Bench(bench.service, bench.platform, tmp_path)
    data = bytearray(other.sealed.read_bytes())
    data[-20] ^= 1
    other.sealed.write_bytes(data)
    code, message = other.guest("altered")
    assert (code, message["error"]["reason"]) == (5, "SealedInputCorrupt")


def test_guests_survive_a_killed_key_service(bench: Bench) -> None:
    """kill -9 while guests are at it: each waits for the service's return and gets its key."""
    names = [f"survivor-{number}" for number in range(3)]
    machines = [bench.launch(name) for name in names]
    try:
        bench.service.kill()
        guests = [
            subprocess.Popen(
                bench.arguments(name, deadline=90.0),
                env=bench.environment(name),
                cwd=REPOSITORY,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for name in names
        ]
        port = int(bench.service.url.rpartition(":")[2])
        bench.service.config["listen"]["port"] = port
        bench.service.start()
        assert [guest.wait(timeout=120) for guest in guests] == [0, 0, 0]
    finally:
        for machine in machines:
            machine.close()


def test_an_absent_key_service_is_status_four(bench: Bench, tmp_path: Path) -> None:
    with bench.launch("absent"):
        arguments = bench.arguments("absent", deadline=1.0)
        arguments[arguments.index("--kbs-url") + 1] = "https://127.0.0.1:1"
        done = subprocess.run(arguments, env=bench.environment("absent"), cwd=REPOSITORY, capture_output=True)
    assert done.returncode == 4
    assert b"KeyServiceUnreachable" in done.stderr
