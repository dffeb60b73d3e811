"""Keys that stay with their custodians: the key service decides and logs, the custodian's own service gives."""

import base64
import json
import os
import socket
import ssl
import subprocess
import sys
import time

import httpx
import pytest
import yaml

from keymgmt.external.protocol import ExternalRelease
from tests.integration.keymgmt_harness import Custodians, Guest, Service, make_tls


class CustodianService:
    """`kekkai keys external serve` as a process."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        self.certificate, _ = make_tls(folder)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"https://127.0.0.1:{self.port}"
        self.key = os.urandom(32)
        (folder / "dataset.key").write_bytes(self.key)
        (folder / "dataset.key").chmod(0o600)
        self.process = None

    def start(self, service, policies, **terms):
        (self.folder / "jwks.json").write_text(service.client.get("/.well-known/jwks.json").text)
        (self.folder / "log.vkey").write_text(service.client.get("/log/vkey").text)
        config = {
            "listen": {"host": "127.0.0.1", "port": self.port},
            "tls": {"certificate": "tls.crt", "key": "tls.key"},
            "jwks": "jwks.json",
            "logKey": "log.vkey",
            "ledger": "served.sqlite",
            "keys": [{"key": "hyok/dataset", "file": "dataset.key", "policies": policies, "maxReleases": 3} | terms],
        }
        (self.folder / "config.yaml").write_text(yaml.safe_dump(config))
        words = ["-m", "api.cli.app", "keys", "external", "serve", "--config", str(self.folder / "config.yaml")]
        self.process = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while True:
            try:
                httpx.get(
                    f"{self.url}/healthz", verify=ssl.create_default_context(cafile=self.certificate), trust_env=False
                )
                return self
            except httpx.HTTPError:
                assert time.monotonic() < deadline
                assert self.process.poll() is None
                time.sleep(0.1)

    def stop(self):
        if self.process is not None:
            self.process.terminate()
            self.process.wait(10)
            self.process = None


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A key service, a custodian's own service, and an external key under a policy that names it."""
    folder = tmp_path_factory.mktemp("hyok")
    theirs = CustodianService(folder / "theirs")
    with Service(folder / "ours", external={"allowedHosts": ["127.0.0.1"]}) as service:
        custodians, key = Custodians("hyok"), "hyok/dataset"
        external = {"url": theirs.url, "certificate": theirs.certificate.read_text()}
        made, document = custodians.set_up(service, key, "external", externalKey=external)
        try:
            yield service, theirs.start(service, [made["policyDigest"]]), custodians, document, made
        finally:
            theirs.stop()


def attested(service):
    guest = Guest(service)
    assert guest.attest().status_code == 200
    return guest


def test_the_guest_gets_the_custodians_key_and_the_key_service_never_had_it(world):
    service, theirs, _, _, made = world
    assert (made["state"], made["origin"]) == ("Active", "external")
    guest = attested(service)
    assert guest.open(guest.fetch("hyok/dataset")) == theirs.key
    by_cookie = attested(service)
    assert by_cookie.open(by_cookie.fetch("hyok/dataset", cookie=True)) == theirs.key
    report = service.verify_log()
    assert report.ok, report.faults
    assert report.keys["hyok/dataset"].releases == 2
    stored = b"".join(path.read_bytes() for path in service.data.rglob("*") if path.is_file())
    assert theirs.key not in stored
    assert base64.b64encode(theirs.key) not in stored
    # The custodian's own count ends it, whatever the policy says: the third is the last.
    assert attested(service).fetch("hyok/dataset").status_code == 200
    assert attested(service).fetch("hyok/dataset").status_code == 503


def test_what_does_not_prove_a_release_is_refused_by_the_custodian(world):
    service, theirs, *_ = world
    theirs.stop()
    theirs.folder.joinpath("served.sqlite").unlink()
    theirs.start(service, ["sha256:" + "0" * 64])
    try:
        # A policy that the custodian never agreed to.
        assert attested(service).fetch("hyok/dataset").status_code == 503
        client = httpx.Client(
            base_url=theirs.url, verify=ssl.create_default_context(cafile=theirs.certificate), trust_env=False
        )
        guest = attested(service)
        for change, reason in (
            ({}, "NoteInvalid"),
            ({"key": "hyok/other"}, "NotFound"),
            ({"token": guest.token[:-6] + "AAAAAA"}, "TokenInvalid"),
            ({"token": "x"}, "TokenInvalid"),
        ):
            asked = ExternalRelease("hyok/dataset", "id", guest.token, b"{}", b"c2sp.org/tlog-proof@v1\n").as_dict()
            reply = client.post("/v1/release", json=asked | change)
            assert reply.status_code >= 400, change
            assert reply.json()["reason"] == reason, reply.text
        for body in (b"", b"[]", b"{" * 100_000, b"x" * 400_000):
            assert client.post("/v1/release", content=body).status_code in (400, 413)
    finally:
        theirs.stop()


def test_an_entry_is_answered_once(world):
    """A recorded request, sent again to the custodian, gives nothing: not even to the same guest."""
    service, theirs, _, _, made = world
    theirs.folder.joinpath("served.sqlite").unlink(missing_ok=True)
    theirs.start(service, [made["policyDigest"]])
    try:
        guest = attested(service)
        assert guest.fetch("hyok/dataset").status_code == 200
        entries = service.entries()
        index = max(i for i, entry in enumerate(entries) if entry["type"] == "release")
        from keymgmt.transparency.tiles import TileFiles
        from keymgmt.transparency.verify import iterate, prove

        files = TileFiles(service.data / "log")
        raw = list(iterate(files, len(entries)))[index]
        asked = ExternalRelease("hyok/dataset", made["keyId"], guest.token, raw, prove(files, service.log_key(), index))
        client = httpx.Client(
            base_url=theirs.url, verify=ssl.create_default_context(cafile=theirs.certificate), trust_env=False
        )
        reply = client.post("/v1/release", json=asked.as_dict())
        assert (reply.status_code, reply.json()["reason"]) == (409, "AlreadyServed")
        # Another guest's token over the same entry is of another session.
        stolen = asked.as_dict() | {"token": attested(service).token}
        assert client.post("/v1/release", json=stolen).json()["reason"] == "ReleaseRefused"
    finally:
        theirs.stop()


def test_an_absent_custodian_means_no_key_and_the_run_is_used(world):
    service, theirs, *_ = world
    theirs.stop()
    before = service.verify_log().keys["hyok/dataset"].releases
    assert attested(service).fetch("hyok/dataset").status_code == 503
    assert service.verify_log().keys["hyok/dataset"].releases == before + 1


def test_origin_and_policy_must_fit_and_hosts_must_be_allowed(world):
    service, theirs, custodians, document, made = world
    # The same policy for a key that the service would make itself.
    body = custodians.key_body(made["policyDigest"])
    other = custodians.policy("hyok/second", externalKey=document["externalKey"])
    digest = custodians.submit(service, other).json()["digest"]
    body = custodians.key_body(digest)
    assert service.call("PUT", "/v1/keys/hyok/second", body, "operator").json()["reason"] == "OriginMismatch"
    elsewhere = document["externalKey"] | {"url": "https://metadata.internal/keys"}
    third = custodians.submit(service, custodians.policy("hyok/third", externalKey=elsewhere)).json()["digest"]
    body = custodians.key_body(third, "external")
    assert service.call("PUT", "/v1/keys/hyok/third", body, "operator").json()["reason"] == "ExternalHostNotAllowed"
    bad = custodians.policy("hyok/fourth", externalKey=document["externalKey"], operations=["encrypt"])
    assert "only released" in custodians.submit(service, bad).json()["what"]
    for act in ("rotate", "rewrap"):
        reply = service.call("POST", f"/v1/keys/hyok/dataset/{act}", role="operator")
        assert reply.status_code in (200, 409)
    _ = theirs, json
