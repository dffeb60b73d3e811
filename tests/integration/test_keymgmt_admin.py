"""Administration: quorum, policy changes, life cycle, import, destruction, roles. A cluster's
administrator holds the operator token here, and can neither weaken nor redirect a key."""

import base64
import os
import shutil
import sqlite3

import pytest

from keymgmt import strict_json
from tests.integration.keymgmt_harness import Custodians, Guest, Service, paths, types


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with Service(tmp_path_factory.mktemp("keys")) as running:
        yield running


def fresh(service, name, count=1, threshold=1, **policy):
    """A tenant of its own with one active key; returns (custodians, key name, key, policy)."""
    custodians = Custodians(name, count, threshold)
    key = f"{name}/dataset"
    made, document = custodians.set_up(service, key, **policy)
    return custodians, key, made, document


def problem(reply, status, reason):
    assert reply.status_code == status, reply.text
    assert reply.json()["reason"] == reason, reply.text
    return reply.json()


def fetch(service, key):
    guest = Guest(service)
    guest.attest()
    return guest, guest.fetch(key)


def test_putting_the_same_key_again_changes_nothing(service):
    custodians, key, made, _ = fresh(service, "idem")
    size = service.ok("GET", paths.STATUS, role="auditor")["log"]["size"]
    assert custodians.put_key(service, made["policyDigest"], key) == made
    assert custodians.put_key(service, made["policyDigest"], key) == made
    assert service.ok("GET", paths.STATUS, role="auditor")["log"]["size"] == size


def test_registering_the_same_custodians_again_changes_nothing(service):
    custodians, *_ = fresh(service, "same")
    assert custodians.register(service) == custodians.register(service)


def test_an_administrator_cannot_edit_the_policy(service):
    custodians, key, made, document = fresh(service, "edit")
    # A digest of nothing, and a weaker policy that the custodians signed for something else.
    unknown = custodians.key_body("sha256:" + "0" * 64)
    reply = service.call("PUT", f"/v1/keys/{key}", unknown, "operator")
    assert made["policyDigest"] in problem(reply, 409, "PolicyChangeNeedsQuorum")["fix"]
    weaker = custodians.submit(service, document | {"maxReleases": 9999}).json()["digest"]
    reply = service.call("PUT", f"/v1/keys/{key}", custodians.key_body(weaker), "operator")
    problem(reply, 409, "PolicyChangeNeedsQuorum")
    assert service.ok("GET", f"/v1/keys/{key}", role="operator")["policyDigest"] == made["policyDigest"]
    assert fetch(service, key)[1].status_code == 200


def test_custodians_can_replace_the_policy_and_nobody_can_go_back(service):
    custodians, key, made, document = fresh(service, "swap")
    guest, reply = fetch(service, key)
    secret = guest.open(reply)
    new = custodians.policy(key, measurement=bytes(48), replaces=made["policyDigest"])
    digest = custodians.submit(service, new).json()["digest"]
    assert fetch(service, key)[1].status_code == 200  # signed is not yet in force
    changed = custodians.put_key(service, digest, key)
    assert (changed["policyDigest"], changed["keyId"]) == (digest, made["keyId"])
    assert changed["releasesUnderPolicy"] == 0
    assert fetch(service, key)[1].status_code == 401
    other = Guest(service, measurement=bytes(48))
    other.attest()
    assert other.open(other.fetch(key)) == secret
    back = service.call("PUT", f"/v1/keys/{key}", custodians.key_body(made["policyDigest"]), "operator")
    problem(back, 409, "PolicyChangeNeedsQuorum")
    assert service.verify_log().ok
    _ = document


def test_m_of_n_custodians(service):
    custodians = Custodians("mofn", count=3, threshold=2)
    custodians.register(service)
    policy = custodians.policy("mofn/dataset")
    assert "2 needed" in problem(custodians.submit(service, policy, 1), 403, "QuorumNotMet")["what"]
    for signers in (2, 3):
        reply = custodians.submit(service, policy | {"maxReleases": signers}, signers)
        assert reply.status_code == 201
        assert len(reply.json()["signers"]) == signers


def test_signatures_of_the_cluster_count_for_nothing(service):
    custodians, key, _, document = fresh(service, "forge")
    stranger = Custodians("forge")
    problem(stranger.submit(service, document | {"maxReleases": 5}), 403, "QuorumNotMet")
    unsigned = custodians.sign(types.POLICY_TYPE, document) | {"signatures": []}
    problem(service.call("POST", paths.POLICIES, unsigned), 400, "EnvelopeInvalid")
    problem(service.call("POST", paths.POLICIES, document), 400, "EnvelopeInvalid")
    _ = key


def test_custodians_are_replaced_only_by_themselves(service):
    custodians, key, made, _ = fresh(service, "heirs", count=2, threshold=2)
    heirs = Custodians("heirs", count=1)
    path = paths.CUSTODIANS.format(tenant="heirs")
    problem(service.call("PUT", path, heirs.roster(), "registrar"), 409, "CustodianChangeNeedsQuorum")
    document = {
        "apiVersion": "kekkai.dev/custodian-set/v1",
        "tenant": "heirs",
        **heirs.roster(),
        "replaces": made["custodianSet"],
    }
    weak = {"envelope": custodians.sign(types.CUSTODIAN_SET_TYPE, document, signers=1)}
    problem(service.call("PUT", path, weak, "registrar"), 403, "QuorumNotMet")
    good = {"envelope": custodians.sign(types.CUSTODIAN_SET_TYPE, document)}
    replaced = service.ok("PUT", path, good, "registrar")["custodianSet"]
    assert replaced != made["custodianSet"]
    # Keys keep the policy that their custodians of the time signed; new policies need the heirs.
    assert fetch(service, key)[1].status_code == 200
    new = custodians.policy(key, replaces=made["policyDigest"], maxReleases=7)
    problem(custodians.submit(service, new), 403, "QuorumNotMet")
    digest = heirs.submit(service, new).json()["digest"]
    changed = custodians.put_key(service, digest, key)
    assert changed["custodianSet"] == replaced
    assert fetch(service, key)[1].status_code == 200


def test_a_database_that_invents_custodians_is_caught(tmp_path):
    """Someone with write access to the store enrols himself; the sealed key knows its custodians."""
    with Service(tmp_path / "tampered") as service:
        custodians, key, made, _ = fresh(service, "victim")
        mallory = Custodians("mallory")
        mallory.register(service)
        service.stop()
        forged = Custodians("victim")
        from keymgmt.policy.custodians import parse_custodian_set

        roster = parse_custodian_set({"tenant": "victim", **forged.roster()})
        with sqlite3.connect(service.data / "keys.sqlite") as store:
            store.execute(
                "insert into custodian_sets (digest, tenant, document) values (?, 'victim', ?)",
                (roster.digest, roster.canonical),
            )
            store.execute("update tenants set custodian_set = ? where tenant = 'victim'", (roster.digest,))
        service.start()
        new = forged.policy(key, replaces=made["policyDigest"], measurement=bytes(48))
        digest = forged.submit(service, new).json()["digest"]
        reply = service.call("PUT", f"/v1/keys/{key}", forged.key_body(digest), "operator")
        assert reply.status_code == 500
        assert reply.json()["reason"] == "StoreTampered"
        # Forcing it into the key's row as well only breaks the key: the seal does not match.
        service.stop()
        with sqlite3.connect(service.data / "keys.sqlite") as store:
            store.execute("update keys set policy_digest = ?, custodian_set = ?", (digest, roster.digest))
        service.start()
        guest = Guest(service, measurement=bytes(48))
        guest.attest()
        reply = guest.fetch(key)
        assert reply.status_code == 503
        assert b"ciphertext" not in reply.content
        _ = custodians


def test_a_name_is_one_tenants_for_ever(service):
    custodians, key, made, _ = fresh(service, "first")
    other = Custodians("second")
    other.register(service)
    digest = other.submit(service, other.policy(key)).json()["digest"]
    reply = service.call("PUT", f"/v1/keys/{key}", other.key_body(digest), "operator")
    problem(reply, 409, "KeyBelongsToAnotherTenant")
    _ = custodians, made


@pytest.mark.parametrize(
    ("change", "status", "reason"),
    [
        ({"policyDigest": "sha256:" + "1" * 64}, 409, "PolicyNotFound"),
        ({"jurisdiction": "US"}, 409, "JurisdictionMismatch"),
        ({"tenant": "somebody"}, 409, "PolicyDoesNotNameKey"),
        ({"algorithm": "DES"}, 400, "PolicyInvalid"),
        ({"origin": "thin air"}, 400, "PolicyInvalid"),
        ({"uid": ""}, 400, "PolicyInvalid"),
        ({"extra": 1}, 400, "PolicyInvalid"),
        ({"policyDigest": 1}, 400, "PolicyInvalid"),
    ],
)
def test_keys_that_cannot_be_made(service, change, status, reason):
    tenant = f"cannot-{reason.lower()}-{next(iter(change)).lower()}"
    custodians, key = Custodians(tenant), f"{tenant}/dataset"
    custodians.register(service)
    reply = custodians.submit(service, custodians.policy(key))
    body = custodians.key_body(reply.json()["digest"]) | change
    problem(service.call("PUT", f"/v1/keys/{key}", body, "operator"), status, reason)
    problem(service.call("GET", f"/v1/keys/{key}", role="operator"), 404, "KeyNotFound")


def test_policies_of_another_jurisdiction_are_refused(service):
    custodians = Custodians("abroad")
    custodians.register(service)
    problem(custodians.submit(service, custodians.policy("abroad/k", jurisdiction="US")), 409, "JurisdictionMismatch")


def test_policies_of_tenants_without_custodians_are_refused(service):
    stranger = Custodians("nobody")
    problem(stranger.submit(service, stranger.policy("nobody/k")), 409, "CustodiansNotRegistered")


def test_suspending_and_resuming(service):
    custodians, key, made, _ = fresh(service, "pause")
    suspended = service.ok("DELETE", f"/v1/keys/{key}", role="operator")
    assert suspended["state"] == "Suspended"
    assert service.ok("DELETE", f"/v1/keys/{key}", role="operator") == suspended
    assert fetch(service, key)[1].status_code == 401
    resumed = custodians.put_key(service, made["policyDigest"], key, uid="uid-2")
    assert (resumed["state"], resumed["uid"]) == ("Active", "uid-2")
    assert fetch(service, key)[1].status_code == 200


def test_import_brings_the_owners_key(service):
    custodians, key, made, _ = fresh(service, "byok", origin="import", count=3, threshold=2)
    assert made["state"] == "PreActivation"
    assert fetch(service, key)[1].status_code == 401
    secret = os.urandom(32)
    order = custodians.import_order(service, secret, key, made["policyDigest"])
    path = f"/v1/keys/{key}/import"
    one = custodians.sign(types.IMPORT_ORDER_TYPE, order, signers=1)
    problem(service.call("POST", path, one), 403, "QuorumNotMet")
    elsewhere = custodians.sign(types.IMPORT_ORDER_TYPE, order | {"key": "byok/other"})
    problem(service.call("POST", path, elsewhere), 409, "OrderDoesNotMatch")
    stale = custodians.sign(types.IMPORT_ORDER_TYPE, order | {"policyDigest": "sha256:" + "2" * 64})
    problem(service.call("POST", path, stale), 409, "OrderDoesNotMatch")
    short = custodians.import_order(service, b"short", key, made["policyDigest"])
    reply = service.call("POST", path, custodians.sign(types.IMPORT_ORDER_TYPE, short))
    problem(reply, 400, "InvalidInput")
    garbage = order | {"wrappedKey": base64.b64encode(bytes(384)).decode()}
    reply = service.call("POST", path, custodians.sign(types.IMPORT_ORDER_TYPE, garbage))
    problem(reply, 503, "HsmError")
    imported = service.ok("POST", path, custodians.sign(types.IMPORT_ORDER_TYPE, order))
    assert imported["state"] == "Active"
    guest, reply = fetch(service, key)
    assert guest.open(reply) == secret
    # The same order again (its reply was lost) changes nothing; another one is refused.
    again = service.ok("POST", path, custodians.sign(types.IMPORT_ORDER_TYPE, order))
    assert again["logIndex"] == imported["logIndex"]
    other = custodians.import_order(service, os.urandom(32), key, made["policyDigest"])
    problem(service.call("POST", path, custodians.sign(types.IMPORT_ORDER_TYPE, other)), 409, "ImportNotExpected")


def destroy_order(custodians, key, made):
    return {
        "apiVersion": "kekkai.dev/destroy-order/v1",
        "tenant": custodians.tenant,
        "key": key,
        "keyId": made["keyId"],
        "reason": "contract ended",
    }


def test_destruction_needs_the_quorum_and_is_for_ever(tmp_path):
    with Service(tmp_path / "destroy") as service:
        custodians, key, made, _ = fresh(service, "gone", count=2, threshold=2)
        path = f"/v1/keys/{key}/destroy"
        order = destroy_order(custodians, key, made)
        problem(service.call("POST", path, custodians.sign(types.DESTROY_ORDER_TYPE, order, 1)), 403, "QuorumNotMet")
        wrong = custodians.sign(types.DESTROY_ORDER_TYPE, order | {"keyId": "gone/dataset/other"})
        problem(service.call("POST", path, wrong), 409, "OrderDoesNotMatch")
        assert fetch(service, key)[1].status_code == 200
        with sqlite3.connect(service.data / "keys.sqlite") as store:
            sealed, hsm_key_id = store.execute("select sealed, hsm_key_id from key_versions").fetchone()
        done = service.ok("POST", path, custodians.sign(types.DESTROY_ORDER_TYPE, order))
        assert done["state"] == "Destroyed"
        assert service.ok("POST", path, custodians.sign(types.DESTROY_ORDER_TYPE, order))["state"] == "Destroyed"
        assert fetch(service, key)[1].status_code == 401
        reply = service.call("PUT", f"/v1/keys/{key}", custodians.key_body(made["policyDigest"]), "operator")
        problem(reply, 409, "KeyDestroyed")
        states = [e.get("state") for e in service.entries() if e["type"] in ("key-state", "key-destroyed")]
        assert states == ["Deactivated", "Destroyed"]
        # An old copy of the database brings the bytes back, and nothing that opens them.
        service.stop()
        with sqlite3.connect(service.data / "keys.sqlite") as store:
            store.execute("update keys set state = 'Active'")
            store.execute(
                "insert into key_versions (key_id, version, hsm_key_id, sealed) values (?, 1, ?, ?)",
                (made["keyId"], hsm_key_id, sealed),
            )
        service.start()
        reply = fetch(service, key)[1]
        assert reply.status_code == 503
        assert b"ciphertext" not in reply.content


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/custodians/roles", {"registrar"}),
        ("GET", "/v1/custodians/roles", {"registrar", "operator", "auditor"}),
        ("PUT", "/v1/keys/roles/k", {"operator"}),
        ("GET", "/v1/keys/roles/k", {"operator", "auditor"}),
        ("DELETE", "/v1/keys/roles/k", {"operator"}),
        ("GET", "/v1/releases", {"auditor"}),
        ("GET", "/v1/status", {"registrar", "operator", "auditor"}),
        ("GET", "/v1/policies/sha256:00", {"registrar", "operator", "auditor"}),
    ],
)
def test_each_route_wants_its_role(service, method, path, allowed):
    assert service.call(method, path, {}).status_code == 401
    bad = service.client.request(method, path, headers={"Authorization": "Bearer wrong"})
    assert bad.status_code == 401
    for role in ("operator", "registrar", "auditor"):
        status = service.call(method, path, {}, role).status_code
        assert (status == 403) == (role not in allowed), (role, status)


@pytest.mark.parametrize("path", ["/v1/keys/UPPER/k", "/v1/keys/a/..%2fb", "/v1/keys/a/.b", f"/v1/keys/{'a' * 64}/k"])
def test_bad_names_are_refused(service, path):
    reply = service.call("GET", path, role="operator")
    assert reply.status_code in (400, 404, 405)


def test_history_is_paged(service):
    _, key, _, _ = fresh(service, "pages")
    guest = Guest(service)
    guest.attest()
    for _ in range(5):
        assert guest.fetch(key).status_code == 200
    seen, before = [], None
    while True:
        query = f"?namespace=pages&name=dataset&limit=2{'' if before is None else f'&before={before}'}"
        page = service.ok("GET", paths.RELEASES + query, role="auditor")
        seen += [entry["count"] for entry in page["entries"]]
        before = page["next"]
        if before is None:
            break
    assert seen == [5, 4, 3, 2, 1]


def test_no_key_bytes_anywhere(tmp_path):
    """The imported key's bytes, raw, hex and base64, are in no file, log, status or reply."""
    with Service(tmp_path / "leaks") as service:
        custodians, key, made, _ = fresh(service, "leaks", origin="import")
        secret = os.urandom(32)
        order = custodians.import_order(service, secret, key, made["policyDigest"])
        service.ok("POST", f"/v1/keys/{key}/import", custodians.sign(types.IMPORT_ORDER_TYPE, order))
        guest, reply = fetch(service, key)
        assert guest.open(reply) == secret
        said = [
            service.call("GET", paths.STATUS, role="auditor").content,
            service.call("GET", paths.RELEASES, role="auditor").content,
            service.call("GET", paths.METRICS).content,
            service.call("GET", f"/v1/keys/{key}", role="auditor").content,
            reply.content,
            strict_json.canonical(service.entries()),
        ]
        files = [path for path in service.folder.rglob("*") if path.is_file()]
        assert any(path.name == "keys.sqlite" for path in files)
        said += [path.read_bytes() for path in files]
        # The HTTP process's memory never held it either.
        memory = process_memory(service.process.pid)
        assert len(memory) > 1 << 20
        for form in (
            secret,
            secret.hex().encode(),
            base64.b64encode(secret).rstrip(b"="),
            base64.urlsafe_b64encode(secret).rstrip(b"="),
        ):
            assert not any(form in text for text in said)
            assert form not in memory


def process_memory(pid):
    """All readable writable memory of a process of ours."""
    found = bytearray()
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb") as memory:
        for line in maps:
            span, access = line.split()[:2]
            if not access.startswith("rw") or "[v" in line:
                continue
            start, end = (int(part, 16) for part in span.split("-"))
            try:
                memory.seek(start)
                found += memory.read(end - start)
            except OSError:
                continue
    return bytes(found)


def test_a_copy_of_the_data_folder_is_told_from_a_running_one(service, tmp_path):
    other = Service(tmp_path / "second", dataDir=str(service.data))
    other.start(wait=False)
    assert other.process.wait(timeout=60) == 1
    assert "AlreadyRunning" in other.stderr.read_text()


def test_a_rolled_back_store_is_refused(tmp_path):
    service = Service(tmp_path / "old", log={"origin": "kekkai.test/log", "anchors": [str(tmp_path / "anchor")]})
    with service:
        _, key, _, _ = fresh(service, "back", maxReleases=1)
        service.stop()
        shutil.copytree(service.data, tmp_path / "backup")
        service.start()
        assert fetch(service, key)[1].status_code == 200
        assert fetch(service, key)[1].status_code == 401
        service.stop()
        newest = tmp_path / "newest"
        shutil.copytree(service.data, newest)

        def refused(reason):
            service.start(wait=False)
            assert service.process.wait(timeout=60) == 1
            assert reason in service.stderr.read_text()[-3000:]

        for part in ("keys.sqlite", "log"):  # the store alone, then the log alone
            _restore(tmp_path / "backup", service.data, part)
            refused("LogRolledBack")
            _restore(newest, service.data, part)
        shutil.rmtree(service.data)
        shutil.copytree(tmp_path / "backup", service.data)  # all of it: only the anchor remembers
        refused("its anchor saw")
        shutil.rmtree(service.data)
        shutil.copytree(newest, service.data)
        with sqlite3.connect(service.data / "keys.sqlite") as store:
            store.execute("update keys set releases = 0, policy_releases = 0")
        refused("StoreTampered")


def _restore(source, target, part):
    for old in target.glob(f"{part}*"):
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    for path in source.glob(f"{part}*"):
        shutil.copytree(path, target / path.name) if path.is_dir() else shutil.copy2(path, target / path.name)
