"""The real process over TLS with a real SoftHSM: who gets a key, who does not, and what the log says."""

import base64
import hashlib
import http.client
import json
import socket
import ssl

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from joserfc import jwe, jwt
from joserfc.jwk import ECKey, RSAKey

from local.hardware.snp.report import POLICY_DEBUG, POLICY_RESERVED_ONE, POLICY_SMT
from tests.integration.keymgmt_harness import (
    HOST_DATA,
    MEASUREMENT,
    TOKENS,
    Custodians,
    Guest,
    Service,
    paths,
)


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with Service(tmp_path_factory.mktemp("keys")) as running:
        yield running


@pytest.fixture(scope="module")
def owner(service):
    custodians = Custodians()
    custodians.set_up(service)
    return custodians


def reasons(service, since=0):
    entries = service.ok("GET", paths.RELEASES, role="auditor")["entries"]
    return [entry["reason"] for entry in entries if entry["type"] == "denial" and entry["index"] >= since]


def log_size(service):
    return service.ok("GET", paths.STATUS, role="auditor")["log"]["size"]


def test_an_attested_guest_gets_the_key_and_the_log_says_so(service, owner):
    before = log_size(service)
    guest = Guest(service)
    assert guest.attest().status_code == 200
    reply = guest.fetch()
    assert reply.status_code == 200
    key = guest.open(reply)
    assert len(key) == 32
    entry = service.entries()[before]
    assert entry["type"] == "release"
    assert entry["key"] == "team-a/dataset"
    assert entry["measurement"] == MEASUREMENT.hex()
    assert entry["root"] == "local:emulated"
    again = Guest(service)
    again.attest()
    assert again.open(again.fetch(cookie=True)) == key
    assert service.verify_log().ok


def test_the_token_is_an_ear_signed_by_the_hsm(service, owner):
    guest = Guest(service)
    guest.attest()
    keys = service.ok("GET", paths.JWKS)
    claims = jwt.decode(guest.token, ECKey.import_key(keys["keys"][0]), algorithms=["ES256"]).claims
    submod = claims["submods"]["cpu0"]
    assert claims["exp"] - claims["iat"] == 300
    assert submod["ear.status"] == "affirming"
    assert submod["snp"]["measurement"] == MEASUREMENT.hex()
    evidence = submod["ear.veraison.annotated-evidence"]
    assert evidence["runtime_data_claims"]["tee-pubkey"] == guest.jwk
    assert evidence["init_data"] == HOST_DATA.hex()


@pytest.mark.parametrize("kind", ["P-521", "RSA-OAEP-256"])
def test_other_guest_keys(service, owner, kind):
    guest = Guest(service)
    if kind == "P-521":
        private = ECKey.import_key(ec.generate_private_key(ec.SECP521R1()))
        names, algorithm = ("kty", "crv", "x", "y"), "ECDH-ES+A256KW"
    else:
        private = RSAKey.import_key(rsa.generate_private_key(65537, 2048))
        names, algorithm = ("kty", "n", "e"), "RSA-OAEP-256"
    public = private.as_dict(private=False)
    jwk = {name: public[name] for name in names} | {"alg": algorithm}
    nonce = guest.auth().json()["nonce"]
    reply = guest.client.post(paths.KBS_ATTEST, json=guest.attest_body(nonce, jwk=jwk))
    assert reply.status_code == 200
    registry = jwe.JWERegistry(algorithms=[algorithm, "A256GCM"])
    plain = jwe.decrypt_json(guest.fetch(cookie=True).json(), private, registry=registry).plaintext
    assert len(plain) == 32


def test_trustee_wire_details(service):
    guest = Guest(service)
    reply = guest.auth()
    assert reply.json()["extra-params"] == ""
    assert len(base64.b64decode(reply.json()["nonce"], validate=True)) == 32
    cookie = reply.headers["set-cookie"]
    assert cookie.startswith("kbs-session-id=")
    assert len(reply.cookies["kbs-session-id"]) == 32
    offered = guest.auth(**{"extra-params": {"supported-hash-algorithms": ["sha256", "SHA384"]}})
    assert offered.json()["extra-params"] == {"selected-hash-algorithm": "sha384"}


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"version": "0.1.1"}, "version"),
        ({"version": None}, "version"),
        ({"tee": "sample"}, "TEE"),
        ({"tee": "cca"}, "TEE"),
        ({"extra-params": {"supported-hash-algorithms": ["md5"]}}, "hash"),
    ],
)
def test_auth_refuses_what_it_does_not_speak(service, body, detail):
    reply = Guest(service).auth(**body)
    assert reply.status_code == 401
    assert reply.json()["type"].endswith("/RcarAuthFailed")
    assert detail in reply.json()["detail"]


def test_policy_endpoints_take_no_unsigned_policy(service):
    for path in ("/kbs/v0/resource-policy", "/kbs/v0/attestation-policy"):
        reply = service.call("POST", path, {"policy": base64.urlsafe_b64encode(b"default allow = true").decode()})
        assert reply.status_code == 401
        assert "quorum" in reply.json()["detail"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"policy": POLICY_RESERVED_ONE | POLICY_SMT | POLICY_DEBUG}, "DebugAllowed"),
        ({"vmpl": 1}, "VmplNotAllowed"),
        ({"chip_id": bytes(64)}, "ChipIdMismatch"),
    ],
)
def test_guests_that_no_policy_could_want_are_refused_at_attestation(service, owner, change, reason):
    before = log_size(service)
    guest = Guest(service, **change)
    reply = guest.attest()
    assert reply.status_code == 401
    assert reply.json()["type"].endswith("/RcarAttestFailed")
    assert reasons(service, before) == [reason]
    assert guest.fetch(cookie=True).status_code == 401


def test_a_tampered_measurement_gets_a_generic_refusal_and_a_precise_entry(service, owner):
    before = log_size(service)
    guest = Guest(service, measurement=bytes(48))
    assert guest.attest().status_code == 200
    reply = guest.fetch()
    assert reply.status_code == 401
    assert reply.json() == {
        "type": "https://github.com/confidential-containers/kbs/errors/PolicyDeny",
        "detail": "Access denied by policy",
    }
    entry = service.entries()[-1]
    assert entry["reason"] == "RuleNotMet"
    assert any("claims.snp.measurement" in line for line in entry["details"])
    assert reasons(service, before) == ["RuleNotMet"]


def test_another_tenants_guest_is_refused_and_learns_nothing(service, owner):
    """Tenant B runs the same code; its init data differs, and a missing key looks the same."""
    other = Custodians("tenant-b")
    other.set_up(service, key="team-b/model", host_data=bytes(reversed(HOST_DATA)))
    guest = Guest(service, host_data=bytes(reversed(HOST_DATA)))
    guest.attest()
    assert guest.fetch("team-b/model").status_code == 200
    before = log_size(service)
    theirs, absent = guest.fetch("team-a/dataset"), guest.fetch("team-a/absent")
    assert theirs.status_code == absent.status_code == 401
    assert theirs.content == absent.content
    assert reasons(service, before) == ["KeyNotFound", "RuleNotMet"]
    assert guest.fetch("team-a/dataset", kind="secret").content == absent.content


def test_a_replayed_answer_is_refused(service, owner):
    guest = Guest(service)
    nonce = guest.auth().json()["nonce"]
    body = guest.attest_body(nonce)
    assert guest.client.post(paths.KBS_ATTEST, json=body).status_code == 200
    before = log_size(service)
    again = guest.client.post(paths.KBS_ATTEST, json=body)
    assert again.status_code == 401
    assert again.json()["detail"] == "attestation failed: NonceReplayed"
    guest.auth()  # a new session
    assert guest.client.post(paths.KBS_ATTEST, json=body).status_code == 401
    # The new nonce with the old evidence: the hardware signed another nonce.
    fresh = guest.auth().json()["nonce"]
    stale = guest.attest_body(fresh, evidence=body["tee-evidence"]["primary_evidence"])
    assert guest.client.post(paths.KBS_ATTEST, json=stale).status_code == 401
    assert reasons(service, before) == ["NonceMismatch", "NonceMismatch", "NonceReplayed"]


def test_a_refused_answer_uses_the_challenge_up(service, owner):
    guest = Guest(service, vmpl=2)
    nonce = guest.auth().json()["nonce"]
    assert guest.client.post(paths.KBS_ATTEST, json=guest.attest_body(nonce)).status_code == 401
    guest.fields.pop("vmpl")
    reply = guest.client.post(paths.KBS_ATTEST, json=guest.attest_body(nonce))
    assert reply.json()["detail"] == "attestation failed: NonceReplayed"


def test_evidence_bound_to_another_key_is_refused(service, owner):
    """A man in the middle may not put his key into a guest's evidence."""
    victim, thief = Guest(service), Guest(service)
    nonce = victim.auth().json()["nonce"]
    body = victim.attest_body(nonce)
    body["runtime-data"]["tee-pubkey"] = thief.jwk
    reply = victim.client.post(paths.KBS_ATTEST, json=body)
    assert reply.json()["detail"] == "attestation failed: NonceMismatch"


def test_init_data_must_be_what_the_hardware_says(service, owner):
    text = 'version = "0.1.0"\nalgorithm = "sha256"\n[data]\n"a" = "b"\n'
    digest = hashlib.sha256(text.encode()).digest()
    assert Guest(service, init_data=text, host_data=digest).attest().status_code == 200
    refused = Guest(service, init_data=text).attest()
    assert refused.json()["detail"] == "attestation failed: HostDataMismatch"


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_changed_token_is_refused(service, owner, part):
    guest = Guest(service)
    guest.attest()
    pieces = guest.token.split(".")
    middle = len(pieces[part]) // 2
    flipped = "A" if pieces[part][middle] != "A" else "B"
    pieces[part] = pieces[part][:middle] + flipped + pieces[part][middle + 1 :]
    guest.token = ".".join(pieces)
    before = log_size(service)
    reply = guest.fetch()
    assert reply.status_code == 401
    assert reply.json()["type"].endswith("/TokenVerifierError")
    assert reasons(service, before) == ["TokenInvalid"]


@pytest.mark.parametrize("token", [b"x", b"a.b.c", b"e30.e30.", b"\xc3\xa9.a.b", b"\xff", b"A" * 20_000])
def test_arbitrary_tokens_are_refused(service, token):
    headers = {"Authorization": b"Bearer " + token}
    reply = service.client.get("/kbs/v0/resource/team-a/key/dataset", headers=headers)
    assert reply.status_code == 401


def test_without_token_or_session_there_is_nothing(service):
    reply = Guest(service).fetch(cookie=True)
    assert reply.json()["type"].endswith("/TokenNotFound")


@pytest.mark.parametrize(
    "path",
    [
        "/kbs/v0/resource/a/b",
        "/kbs/v0/resource/a/b/c/d",
        "/kbs/v0/resource/.a/key/b",
        "/kbs/v0/resource/a/key/..",
        "/kbs/v0/resource/a/key/%2e%2e",
        "/kbs/v0/resource/a/key/b%2Fc",
        "/kbs/v0/resource/a/key/" + "b" * 300,
        "/kbs/v0/other",
    ],
)
def test_bad_paths_are_404(service, path):
    reply = service.call("GET", path)
    assert reply.status_code in (404, 401) if ".." in path else reply.status_code == 404
    assert reply.status_code != 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"runtime-data":1}',
        b'{"runtime-data":{"nonce":"x","tee-pubkey":{}},"tee-evidence":{}}',
        b"[" * 200_000,
        b'{"a":' * 5000 + b"1" + b"}" * 5000,
        b"\x00\xff",
    ],
)
def test_malformed_attest_bodies_are_refused(service, body):
    guest = Guest(service)
    guest.auth()
    reply = guest.client.post(paths.KBS_ATTEST, content=body)
    assert reply.status_code == 401
    assert reply.json()["type"].endswith("/RcarAttestFailed")


def test_bodies_are_bounded_however_they_come(service):
    big = b"{" + b" " * (1 << 20) + b"}"
    assert service.client.post(paths.KBS_AUTH, content=big).status_code == 413

    def pieces():
        for _ in range(40):
            yield b" " * 65536

    assert service.client.post(paths.KBS_AUTH, content=pieces()).status_code == 413
    assert service.call("GET", paths.HEALTH).status_code == 200


def test_only_tls_1_3_is_spoken(service):
    host, port = service.url.removeprefix("https://").split(":")
    old = service.tls
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection((host, int(port))) as plain, pytest.raises(ssl.SSLError):
        old.wrap_socket(plain, server_hostname=host)
    connection = http.client.HTTPSConnection(host, int(port), context=service.tls)
    connection.request("GET", "/healthz")
    assert connection.sock.version() == "TLSv1.3"


def test_one_session_serves_several_keys_and_each_fetch_uses_a_run(service, owner):
    policy = owner.policy("team-a/second", maxReleases=2)
    digest = owner.submit(service, policy).json()["digest"]
    owner.put_key(service, digest, "team-a/second")
    guest = Guest(service)
    guest.attest()
    assert guest.fetch().status_code == 200
    assert guest.fetch("team-a/second").status_code == 200
    assert guest.fetch("team-a/second").status_code == 200
    before = log_size(service)
    assert guest.fetch("team-a/second").status_code == 401
    assert reasons(service, before) == ["RunCountExhausted"]
    key = service.ok("GET", "/v1/keys/team-a/second", role="auditor")
    assert (key["releases"], key["maxReleases"]) == (2, 2)


@pytest.mark.parametrize(
    ("window", "reason"),
    [
        ({"notBefore": "2099-01-01T00:00:00Z"}, "PolicyNotYetValid"),
        ({"notAfter": "2026-01-02T00:00:00Z"}, "PolicyExpired"),
    ],
)
def test_policies_hold_only_in_their_time(service, owner, window, reason):
    name = f"team-a/{reason.lower()}"
    digest = owner.submit(service, owner.policy(name, **window)).json()["digest"]
    owner.put_key(service, digest, name)
    guest = Guest(service)
    guest.attest()
    before = log_size(service)
    assert guest.fetch(name).status_code == 401
    assert reasons(service, before) == [reason]


def test_readiness_and_status_tell_the_fallbacks(service):
    ready = service.ok("GET", paths.READY)
    assert ready["ready"]
    assert any("SHA-1" in line for line in ready["hsmFallbacks"])
    status = service.ok("GET", paths.STATUS, role="operator")
    assert status["hsm"]["data_key"] == "AES-GCM"
    assert status["worker"]["hardening"]["coreDumps"] == "on"
    assert status["trustAnchors"] == ["amd", "aws", "intel", "local:emulated", "nvidia"]
    metrics = service.call("GET", paths.METRICS).text
    assert "kekkai_keys_releases_total" in metrics
    assert 'reason="RuleNotMet"' in metrics


def test_the_public_log_serves_what_an_auditor_needs(service, owner):
    import httpx

    from keymgmt.transparency.verify import verify_log

    class Url:
        def __init__(self):
            self.client = httpx.Client(base_url=service.url, verify=service.tls)

        def read(self, path):
            reply = self.client.get(f"/log/{path}")
            return reply.content if reply.status_code == 200 else None

    assert verify_log(Url(), service.log_key()).ok
    for path in ("tile/0/../../checkpoint", "tile/x", "tile/0/000.p/0", "tile/../lock", "tile/%2e%2e/lock"):
        host, port = service.url.removeprefix("https://").split(":")
        raw = http.client.HTTPSConnection(host, int(port), context=service.tls)  # sends the path as it is
        raw.request("GET", f"/log/{path}")
        assert raw.getresponse().status == 404


def test_a_flood_of_denials_cannot_flood_the_log(tmp_path, owner):
    """Beyond the burst, denials are counted; the counts are in the log, the refusals go on."""
    limits = {"denialsPerSecond": 0.01, "denialsBurst": 8}
    with Service(tmp_path / "flood", limits=limits) as small:
        guest = Guest(small)
        guest.attest()
        for number in range(30):
            assert guest.fetch(f"team-a/absent-{number}").status_code == 401

        def suppressed():
            return [entry for entry in small.entries() if entry["type"] == "denials-suppressed"]

        from tests.integration.keymgmt_harness import until

        until(suppressed, what="the suppressed denials are logged")
        denials = [entry for entry in small.entries() if entry["type"] == "denial"]
        assert len(denials) <= 9
        assert len(denials) + sum(sum(entry["counts"].values()) for entry in suppressed()) == 30


def test_the_emulated_root_must_be_enabled_explicitly(tmp_path):
    with Service(tmp_path / "strict", attestation={}) as strict:
        reply = Guest(strict).attest()
        assert reply.json()["detail"] == "attestation failed: RootUntrusted"


def test_entries_hold_no_cookie_token_or_nonce(service, owner):
    guest = Guest(service)
    nonce = guest.auth().json()["nonce"]
    cookie = guest.client.cookies["kbs-session-id"]
    guest.token = guest.client.post(paths.KBS_ATTEST, json=guest.attest_body(nonce)).json()["token"]
    guest.fetch()
    everything = json.dumps(service.entries())
    for secret in (nonce, cookie, guest.token, *TOKENS.values()):
        assert secret not in everything
