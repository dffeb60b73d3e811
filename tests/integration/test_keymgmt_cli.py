"""`kekkai keys` and `kekkai log` against the real service: a custodian's and an auditor's whole day."""

import hashlib
import io
import json

import pytest
from typer.testing import CliRunner

from api.cli import keys as keys_cli
from api.cli import log as log_cli
from keymgmt.guest.sealed_input import unseal
from tests.integration.keymgmt_harness import TOKENS, Custodians, Guest, Service

DATASET = b"row,value\n" * 20_000


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with Service(tmp_path_factory.mktemp("keys")) as running:
        yield running


@pytest.fixture
def run(service, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KEKKAI_KEYS_URL", service.url)
    monkeypatch.setenv("KEKKAI_KEYS_PATIENCE", "0")
    monkeypatch.setenv("KEKKAI_KEYS_CA", str(service.folder / "tls.crt"))
    monkeypatch.setenv("KEKKAI_LOG_VKEY", str(service.data / "log.vkey"))
    for role, token in TOKENS.items():
        (tmp_path / role).write_text(token + "\n")

    def invoke(*words, app=keys_cli.app, ok=True, raw=False, **more):
        result = CliRunner().invoke(app, [*words] if raw else [*words, "-o", "json"], **more)
        if not ok:
            assert result.exit_code != 0
            return result
        assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
        return result.stdout if raw else json.loads(result.stdout)

    return invoke


def test_a_custodians_day(service, run, tmp_path):
    tenant, key = "cli", "cli/dataset"
    for name, algorithm in (("alice", "ed25519"), ("bob", "ml-dsa-65"), ("carol", "ecdsa-p256")):
        made = run("custodian", "new", "--out", f"{name}.key", "--algorithm", algorithm, "--no-passphrase")
        assert made["keyid"].startswith("sha256:")
        assert (tmp_path / f"{name}.key").stat().st_mode & 0o777 == 0o600
    run("custodian", "register", "alice.key.pub", "bob.key.pub", "carol.key.pub", "--tenant", tenant,
        "--threshold", "2", "--token-file", "registrar")  # fmt: skip
    (tmp_path / "policy.json").write_text(json.dumps(Custodians(tenant).policy(key, maxReleases=3), indent=4))
    first = run("policy", "sign", "policy.json", "--sign-with", "alice.key", "--out", "policy.dsse.json")
    early = run("policy", "submit", "policy.dsse.json", ok=False)
    assert early.exception.problem.reason == "QuorumNotMet"
    second = run("policy", "sign", "policy.dsse.json", "--sign-with", "bob.key", "--out", "policy.dsse.json")
    assert (second["digest"], len(second["signatures"])) == (first["digest"], 2)
    digest = run("policy", "submit", "policy.dsse.json")["digest"]
    assert digest == second["digest"]
    shown = run("policy", "show", digest, "--token-file", "auditor")
    assert shown["maxReleases"] == 3
    assert run("policy", "show", "policy.dsse.json")["digest"] == digest

    Custodians(tenant).put_key(service, digest, key, origin="import")  # the operator's part
    (tmp_path / "data.csv").write_bytes(DATASET)
    sealed = run("seal", "--resource", "cli/key/dataset", "--input", "data.csv", "--out", "data.sealed",
                 "--key-file", "dataset.key")  # fmt: skip
    assert sealed["keyMade"]
    assert (tmp_path / "dataset.key").stat().st_mode & 0o777 == 0o600
    run("import", key, "--tenant", tenant, "--policy-digest", digest, "--key-file", "dataset.key",
        "--sign-with", "carol.key", "--out", "order.json")  # fmt: skip
    run("sign", "order.json", "--sign-with", "bob.key", "--out", "order.json")
    imported = run("import", key, "--order", "order.json")
    assert imported["state"] == "Active"

    guest = Guest(service)
    guest.attest()
    released = guest.open(guest.fetch(key))
    assert released == (tmp_path / "dataset.key").read_bytes()
    opened = b"".join(unseal(io.BytesIO((tmp_path / "data.sealed").read_bytes()), released, "cli/key/dataset"))
    assert hashlib.sha256(opened).digest() == hashlib.sha256(DATASET).digest()

    assert run("show", key, "--token-file", "auditor")["releases"] == 1
    (entry,) = run("releases", key, "--token-file", "auditor")
    assert entry["type"] == "release"
    index = str(entry["index"])
    for source in (str(service.data / "log"), service.url):
        report = run("verify", source, "--save", "seen", "--seen", "seen", app=log_cli.app)
        assert report["ok"]
        assert report["keys"][key]["releasesByPolicy"][digest] == {"count": 1, "max": 3}
        run("prove", source, index, "--out", "x.tlog-proof", app=log_cli.app, raw=True)
        assert run("check", "x.tlog-proof", "x.entry", app=log_cli.app)["key"] == key
    last = run("show", str(service.data / "log"), "--key", key, "--last", "1", app=log_cli.app)
    assert last[0]["type"] == "release"
    text = run("verify", service.url, app=log_cli.app, raw=True)
    assert key in text

    run("destroy", key, "--tenant", tenant, "--key-id", imported["keyId"], "--reason", "done", "--sign-with",
        "alice.key", "--sign-with", "bob.key", "--yes")  # fmt: skip
    assert run("show", key, "--token-file", "auditor")["state"] == "Destroyed"
    assert guest.fetch(key).status_code == 401


def test_custodians_hand_over(service, run):
    for name in ("old", "new"):
        run("custodian", "new", "--out", f"{name}.key", "--no-passphrase")
    first = run("custodian", "register", "old.key.pub", "--tenant", "handover", "--token-file", "registrar")
    refused = run("custodian", "register", "new.key.pub", "--tenant", "handover", "--token-file", "registrar", ok=False)
    assert refused.exception.problem.reason == "CustodianChangeNeedsQuorum"
    second = run("custodian", "register", "new.key.pub", "--tenant", "handover", "--token-file", "registrar",
                 "--replaces", first["custodianSet"], "--sign-with", "old.key")  # fmt: skip
    assert second["custodianSet"] != first["custodianSet"]


def test_passphrases(run, tmp_path):
    (tmp_path / "secret").write_text("correct horse\n")
    (tmp_path / "wrong").write_text("battery staple\n")
    (tmp_path / "policy.json").write_text(json.dumps(Custodians("t").policy("t/k")))
    run("custodian", "new", "--out", "a.key", "--passphrase-file", "secret")
    assert b"ENCRYPTED" in (tmp_path / "a.key").read_bytes()
    words = ("policy", "sign", "policy.json", "--sign-with", "a.key", "--out", "p.json")
    run(*words, "--passphrase-file", "secret")
    run(*words, input="correct horse\n", raw=True)
    refused = run(*words, "--passphrase-file", "wrong", ok=False)
    assert "passphrase" in str(refused.exception)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("custodian", "new", "--out", "exists", "--no-passphrase"), "InvalidInput"),
        (("custodian", "new", "--out", "n", "--algorithm", "rsa", "--no-passphrase"), "InvalidInput"),
        (("policy", "sign", "absent.json", "--sign-with", "k", "--out", "o"), "InvalidInput"),
        (("policy", "show", "exists"), "InvalidInput"),
        (("show", "not-a-key-name"), "InvalidInput"),
        (("show", "a/b"), "Unauthenticated"),
        (("show", "a/b", "--token-file", "operator"), "KeyNotFound"),
        (("releases", "--token-file", "operator"), "Forbidden"),
        (("import", "a/b"), "InvalidInput"),
        (("destroy", "a/b", "--yes"), "InvalidInput"),
        (("show", "a/b", "--url", "https://127.0.0.1:1"), "KeyServiceUnreachable"),
        (("seal", "--resource", "x", "--input", "exists", "--out", "o", "--key-file", "k"), "InvalidInput"),
    ],
)
def test_mistakes_end_in_typed_errors(run, tmp_path, words, reason):
    (tmp_path / "exists").write_text("not json")
    refused = run(*words, ok=False)
    assert refused.exception.problem.reason == reason, refused.exception
    assert not (tmp_path / "o").exists()
    assert not (tmp_path / "k").exists()


def test_another_logs_key_is_refused(service, run):
    vkey = "kekkai.test/log+ae53de1d+AQABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
    refused = run("verify", service.url, "--vkey", vkey, app=log_cli.app, ok=False)
    assert refused.exception.problem.reason == "NoteInvalid"


def test_a_swapped_import_key_is_noticed(service, run):
    from keymgmt.policy.signing import wrap_for_import

    offered = service.ok("GET", "/v1/import-key")
    assert wrap_for_import(offered, b"k" * 32, offered["kid"])[0] == offered["kid"]
    for forged in ({**offered, "kid": "0" * 64}, {**offered, "algorithm": "none"}, {**offered, "publicKey": "x"}):
        with pytest.raises(Exception, match="import key"):
            wrap_for_import(forged, b"k" * 32)
    with pytest.raises(Exception, match="not the expected"):
        wrap_for_import(offered, b"k" * 32, "f" * 64)


def test_the_client_waits_for_a_service_that_restarts(tmp_path):
    """kill -9 and a start a moment later: the command in between succeeds."""
    import threading

    from keymgmt.broker.client import AdminClient
    from tests.integration.test_keymgmt_crash import free_port

    with Service(tmp_path, listen={"host": "127.0.0.1", "port": free_port()}) as service:
        client = AdminClient(service.url, service.folder / "tls.crt", TOKENS["auditor"], patience=30)
        assert client.status()["ready"]
        service.kill()
        found = []
        waiting = threading.Thread(target=lambda: found.append(client.status()))
        waiting.start()
        service.start()
        waiting.join()
        assert found[0]["ready"]
