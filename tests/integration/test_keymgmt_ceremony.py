"""A token made in a ceremony: the key service starts only when a quorum puts its PIN together."""

import json
import subprocess
import sys

import pytest
import yaml

from keymgmt.policy import custodian_keys, payload_types, signing
from tests.integration.keymgmt_harness import Custodians, Guest, Service

HOLDERS = ["alice", "bob", "carol"]


def kekkai(*words):
    """In a process of its own: a PKCS#11 library is logged in once a process."""
    command = [sys.executable, "-m", "api.cli.app", "keys", *(str(word) for word in words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder, service not started, share files, passphrase files)"""
    folder = tmp_path_factory.mktemp("ceremony")
    pin = folder / "run" / "pin"
    service = Service(folder / "s", hsm={"pinFile": str(pin)})
    (folder / "config.yaml").write_text(yaml.safe_dump(service.config))
    files = []
    for name in HOLDERS:
        file = folder / f"{name}.pass"
        file.write_text(f"the passphrase of {name}\n")
        files.append(file)
    words = [word for name in HOLDERS for word in ("--holder", name)]
    words += [word for file in files for word in ("--passphrase-file", file)]
    done = kekkai(
        *("ceremony", "begin", "--config", folder / "config.yaml", "--threshold", 2, "--out", folder / "out"),
        *(*words, "-o", "json"),
    )
    assert done.returncode == 0, done.stderr
    return folder, service, [*map(str, json.loads(done.stdout)["shares"])], files


def test_the_service_starts_only_with_a_quorum_and_is_the_one_of_the_transcript(made):
    folder, service, shares, files = made
    pin, transcript = folder / "run" / "pin", folder / "out" / "transcript.json"
    assert not pin.exists()
    refused = service.start(wait=False)
    assert refused.process.wait(60) != 0
    assert "PIN file is gone" in service.stderr.read_text()

    def opened(*chosen):
        words = [word for one in chosen for word in ("--passphrase-file", files[one])]
        paths = [shares[one] for one in chosen]
        return kekkai("ceremony", "open", *paths, "--transcript", transcript, "--pin-out", pin, *words)

    assert "2 shares are needed" in opened(1).stderr
    assert not pin.exists()
    assert opened(0, 2).returncode == 0
    assert pin.stat().st_mode & 0o077 == 0
    with service:
        custodians = Custodians("rite")
        custodians.set_up(service, "rite/dataset")
        guest = Guest(service)
        guest.attest()
        assert len(guest.open(guest.fetch("rite/dataset"))) == 32
        said = json.loads(transcript.read_text())
        assert service.log_key().public_key.hex() == said["logKey"]
        assert service.ok("GET", "/v1/import-key")["kid"] == said["importKey"]["kid"]


def test_the_transcript_is_signed_by_the_holders_and_a_second_ceremony_is_refused(made):
    folder, _, shares, files = made
    transcript = folder / "out" / "transcript.json"
    key = custodian_keys.generate("ml-dsa-65")
    custodian_keys.save(key, folder / "alice.key", None)
    signed = folder / "signed.json"
    done = kekkai("sign", transcript, "--sign-with", folder / "alice.key", "--out", signed)
    assert done.returncode == 0, done.stderr
    envelope = signing.open_document(json.loads(signed.read_text()))
    assert envelope.payload_type == payload_types.CEREMONY_TYPE
    assert len(envelope.signatures) == 1
    words = ["--passphrase-file", files[0], "--passphrase-file", files[1], "--pin-out", folder / "again"]
    assert kekkai("ceremony", "open", *shares[:2], "--transcript", signed, *words).returncode == 0
    again = kekkai(
        *("ceremony", "begin", "--config", folder / "config.yaml", "--holder", "a", "--holder", "b"),
        *("--threshold", 2, "--out", folder / "x"),
    )
    assert "there is a token already" in again.stderr
