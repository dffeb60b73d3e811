"""Keys used for an attested guest without leaving the service."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa

from keymgmt.guest.kbs_client import KbsClient
from keymgmt.guest.transit import TransitKey
from keymgmt.guest.tsm import TsmDevice
from local.hardware.snp.platform import SnpPlatform
from tests.integration.keymgmt_harness import MEASUREMENT, Custodians, Guest, Service


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with Service(tmp_path_factory.mktemp("keys")) as running:
        yield running


def prepared(service, name, operations, algorithm="AES-256-GCM", **policy):
    custodians, key = Custodians(name), f"{name}/dataset"
    custodians.register(service)
    document = custodians.policy(key, operations=operations, **policy)
    digest = custodians.submit(service, document).json()["digest"]
    purpose = "data-encryption" if algorithm == "AES-256-GCM" else "signature"
    body = custodians.key_body(digest) | {"algorithm": algorithm, "purpose": purpose}
    service.ok("PUT", f"/v1/keys/{key}", body, "operator")
    return custodians, key, document, digest


def attested(service, **fields):
    guest = Guest(service, **fields)
    assert guest.attest().status_code == 200
    return guest


def use(guest, key, operation, **body):
    fields = {name: base64.b64encode(value).decode() for name, value in body.items()}
    headers = {"Authorization": f"Bearer {guest.token}"} if guest.token else {}
    return guest.client.post(f"/v1/transit/{key}/{operation}", json=fields, headers=headers)


def raw(reply, name):
    assert reply.status_code == 200, reply.text
    return base64.b64decode(reply.json()[name])


class Opened:
    """A JWE inside a reply, in the form that `Guest.open` takes."""

    def __init__(self, document):
        self.document = document

    def json(self):
        return self.document


def test_a_guest_encrypts_and_decrypts_and_the_key_never_leaves(service):
    _, key, *_ = prepared(service, "tra", ["encrypt", "decrypt"], maxReleases=1)
    guest = attested(service)
    ciphertext = raw(use(guest, key, "encrypt", message=b"record", associatedData=b"t7"), "ciphertext")
    reply = use(guest, key, "decrypt", ciphertext=ciphertext, associatedData=b"t7")
    # The answer is for the attested key alone: the HTTP reply holds no plaintext.
    assert b"record" not in reply.content
    assert guest.open(Opened(reply.json()["message"])) == b"record"
    assert use(guest, key, "decrypt", ciphertext=ciphertext).json()["reason"] == "CiphertextInvalid"
    assert guest.fetch(key).status_code == 401
    report = service.verify_log()
    assert report.ok, report.faults
    assert (report.keys[key].transits, report.keys[key].releases) == (1, 0)


def test_one_session_is_one_run_and_runs_are_bounded(service):
    _, key, *_ = prepared(service, "runs", ["encrypt"], maxReleases=2)
    for _ in range(2):
        guest = attested(service)
        for _ in range(3):
            assert use(guest, key, "encrypt", message=b"x").status_code == 200
    assert use(attested(service), key, "encrypt", message=b"x").json()["reason"] == "OperationDenied"
    assert use(guest, key, "encrypt", message=b"x").status_code == 200  # its session still holds


def test_operations_that_the_policy_does_not_name_are_denied(service):
    _, key, *_ = prepared(service, "only", ["encrypt"])
    guest = attested(service)
    ciphertext = raw(use(guest, key, "encrypt", message=b"x"), "ciphertext")
    for operation in ("decrypt", "data-key", "sign"):
        reply = use(guest, key, operation, ciphertext=ciphertext, message=b"x")
        assert (reply.status_code, reply.json()["reason"]) == (403, "OperationDenied"), operation
    denials = [entry for entry in service.entries() if entry["type"] == "denial" and entry.get("key") == key]
    assert {entry["reason"] for entry in denials} == {"OperationNotAllowed"}
    assert use(guest, key, "export").status_code == 404


def test_another_guest_is_denied_and_hears_no_reason(service):
    _, key, *_ = prepared(service, "other", ["encrypt"])
    reply = use(attested(service, measurement=bytes(48)), key, "encrypt", message=b"x")
    assert reply.json()["reason"] == "OperationDenied"
    assert MEASUREMENT.hex() not in reply.text
    assert use(Guest(service), key, "encrypt", message=b"x").status_code == 401
    stranger = attested(service)
    stranger.token = stranger.token[:-8] + "AAAAAAAA"
    assert use(stranger, key, "encrypt", message=b"x").status_code == 401


def test_a_grant_ends_with_the_policy_and_with_the_key(service):
    custodians, key, document, digest = prepared(service, "ends", ["encrypt"])
    guest = attested(service)
    assert use(guest, key, "encrypt", message=b"x").status_code == 200
    service.call("DELETE", f"/v1/keys/{key}", role="operator")
    assert use(guest, key, "encrypt", message=b"x").status_code == 403
    new = document | {"replaces": digest, "operations": ["decrypt"]}
    changed = custodians.submit(service, new).json()["digest"]
    custodians.put_key(service, changed, key)
    assert use(guest, key, "encrypt", message=b"x").status_code == 403


def test_what_a_former_version_encrypted_is_decrypted_under_it(service):
    _, key, *_ = prepared(service, "vers", ["encrypt", "decrypt"])
    guest = attested(service)
    old = raw(use(guest, key, "encrypt", message=b"old"), "ciphertext")
    service.ok("POST", f"/v1/keys/{key}/rotate", role="operator")
    assert use(guest, key, "encrypt", message=b"new").json()["version"] == 2
    reply = use(guest, key, "decrypt", ciphertext=old)
    assert reply.json()["version"] == 1
    assert guest.open(Opened(reply.json()["message"])) == b"old"


def test_data_keys_are_fresh_and_open_again(service):
    _, key, *_ = prepared(service, "data", ["data-key", "decrypt"])
    guest = attested(service)
    seen = set()
    for _ in range(2):
        made = use(guest, key, "data-key", associatedData=b"shard").json()
        plain = guest.open(Opened(made["dataKey"]))
        assert len(plain) == 32
        again = use(guest, key, "decrypt", ciphertext=base64.b64decode(made["ciphertext"]), associatedData=b"shard")
        assert guest.open(Opened(again.json()["message"])) == plain
        seen.add(plain)
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("algorithm", "load"),
    [
        ("ED25519", ed25519.Ed25519PublicKey.from_public_bytes),
        ("ML-DSA-65", mldsa.MLDSA65PublicKey.from_public_bytes),
    ],
)
def test_signatures_verify_with_the_published_half(service, algorithm, load):
    name = algorithm.lower().replace("-", "")
    _, key, *_ = prepared(service, name, ["sign"], algorithm)
    signature = raw(use(attested(service), key, "sign", message=b"m"), "signature")
    public = service.ok("GET", f"/v1/keys/{key}/public-key")
    assert public["algorithm"] == algorithm
    load(base64.b64decode(public["publicKey"])).verify(signature, b"m")
    assert use(attested(service), key, "encrypt", message=b"m").status_code == 403


def test_purpose_and_algorithm_go_together(service):
    custodians, key, _, digest = prepared(service, "pair", ["sign"], "ED25519")
    body = custodians.key_body(digest) | {"algorithm": "ED25519"}
    assert "purpose signature" in service.call("PUT", "/v1/keys/pair/other", body, "operator").json()["what"]
    assert service.call("GET", "/v1/keys/pair/none/public-key").status_code == 404
    _ = key


def test_bad_bodies_name_the_field(service):
    _, key, *_ = prepared(service, "body", ["encrypt"])
    guest = attested(service)
    headers = {"Authorization": f"Bearer {guest.token}"}
    for body in ({}, {"message": 7}, {"message": "@@"}, {"message": "A" * 600_000}):
        reply = guest.client.post(f"/v1/transit/{key}/encrypt", json=body, headers=headers)
        assert reply.status_code == 400, body
        assert reply.json()["where"] == "message"


def test_the_library_for_guests_does_it_all(tmp_path):
    """keymgmt.guest.transit on the emulated report device, over TLS, with the post-quantum hybrid."""
    platform = SnpPlatform(tmp_path / "snp")
    settings = {"localTrustRoots": [str(platform.trust_root)]}
    with Service(tmp_path / "s", attestation=settings) as service, platform.launch("n", tmp_path / "tsm") as launched:
        from local.hardware.snp.platform import launch_measurement

        operations = ["encrypt", "decrypt", "data-key"]
        _, key, *_ = prepared(
            service, "lib", operations, measurement=launch_measurement(""), host_data=bytes(32), maxReleases=1
        )
        client = KbsClient(service.url, ca_file=service.folder / "tls.crt", deadline=30)
        with TransitKey(client, TsmDevice(launched.root), key) as transit:
            stored = transit.encrypt(b"record", b"t")
            assert transit.decrypt(stored, b"t") == b"record"
            assert transit.decrypt(transit.encrypt(b"")) == b""
            data_key, wrapped = transit.data_key()
            assert transit.decrypt(wrapped) == bytes(data_key)
        assert service.verify_log().keys[key].transits == 1
