"""Versions of keys: rotation, former versions, new HSM keys under them, states, an old store brought up to date."""

import os
import shutil
import sqlite3
from datetime import UTC, datetime, timedelta

import pytest

from keymgmt.policy import payload_types as types
from tests.integration.keymgmt_harness import Custodians, Guest, Service


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with Service(tmp_path_factory.mktemp("keys")) as running:
        yield running


def fetched(service, key, kind="key"):
    guest = Guest(service)
    assert guest.attest().status_code == 200
    reply = guest.fetch(key, kind=kind)
    return guest.open(reply) if reply.status_code == 200 else reply


def post(service, key, act, body=None, role="operator"):
    return service.call("POST", f"/v1/keys/{key}/{act}", body, role)


def test_a_rotated_key_gives_its_new_version_and_the_former_by_number(service):
    custodians, key = Custodians("rota"), "rota/dataset"
    custodians.set_up(service, key, maxReleases=4)
    first = fetched(service, key)
    assert post(service, key, "rotate").json()["version"] == 2
    second = fetched(service, key)
    assert second != first
    assert fetched(service, key, "key.1") == first
    assert fetched(service, key, "key.2") == second
    # All versions draw on one run count.
    assert fetched(service, key, "key.1").status_code == 401
    report = service.verify_log()
    assert report.ok, report.faults
    assert (report.keys[key].version, report.keys[key].releases) == (2, 4)
    used = [entry for entry in service.entries() if entry["type"] == "release" and entry["key"] == key]
    assert [(entry["version"], entry["versionState"]) for entry in used] == [
        (1, "Active"),
        (2, "Active"),
        (1, "Deactivated"),
        (2, "Active"),
    ]


def test_versions_that_are_not_there_are_refused(service):
    custodians, key = Custodians("none"), "none/dataset"
    custodians.set_up(service, key)
    for kind in ("key.2", "key.0", "key.01", "key.-1", "key.1.1", "key.99999999999", "keys.1"):
        assert fetched(service, key, kind).status_code in (401, 404), kind


def test_rotation_needs_the_operator_and_an_active_generated_key(service):
    custodians, key = Custodians("rule"), "rule/dataset"
    made, _ = custodians.set_up(service, key)
    for role in (None, "auditor", "registrar"):
        assert post(service, key, "rotate", role=role).status_code in (401, 403)
    service.call("DELETE", f"/v1/keys/{key}", role="operator")
    assert post(service, key, "rotate").json()["reason"] == "KeyNotActive"
    assert post(service, "rule/none", "rotate").json()["reason"] == "KeyNotFound"
    _ = made


def test_a_schedule_rotates_by_itself(tmp_path):
    custodians, key = Custodians("plan"), "plan/dataset"
    with Service(tmp_path / "s") as service:
        made, _ = custodians.set_up(service, key)
        body = custodians.key_body(made["policyDigest"]) | {"rotationDays": 1, "graceDays": 7}
        scheduled = service.ok("PUT", f"/v1/keys/{key}", body, "operator")
        assert scheduled["rotationDays"] == 1
        first = fetched(service, key)
    # As if a day had passed: the store says that it is due.
    store = sqlite3.connect(service.data / "keys.sqlite")
    past = (datetime.now(UTC) - timedelta(minutes=1)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    store.execute("UPDATE keys SET rotates_at = ?", (past,))
    store.commit()
    store.close()
    with Service(service.folder) as service:
        from tests.integration.keymgmt_harness import until

        until(lambda: service.ok("GET", f"/v1/keys/{key}", role="operator")["version"] == 2, what="the rotation")
        assert service.ok("GET", f"/v1/keys/{key}", role="operator")["rotatesAt"] > past
        assert fetched(service, key, "key.1") == first
        # Within its grace the former version is still active.
        entry = [entry for entry in service.entries() if entry["type"] == "release"][-1]
        assert (entry["version"], entry["versionState"]) == (1, "Active")
        (rotated,) = [entry for entry in service.entries() if entry["type"] == "key-rotated"]
        assert rotated["cause"] == "schedule"


def test_an_imported_key_is_rotated_by_its_custodians_alone(service):
    custodians, key = Custodians("byok", count=2, threshold=2), "byok/dataset"
    made, _ = custodians.set_up(service, key, origin="import")
    secrets = [os.urandom(32), os.urandom(32)]

    def bring(version, signers=None):
        order = custodians.import_order(service, secrets[version - 1], key, made["policyDigest"])
        order |= {"version": version} if version > 1 else {}
        return service.call("POST", f"/v1/keys/{key}/import", custodians.sign(types.IMPORT_ORDER_TYPE, order, signers))

    assert bring(1).status_code == 200
    assert post(service, key, "rotate").json()["reason"] == "ImportNeeded"
    assert bring(2, signers=1).json()["reason"] == "QuorumNotMet"
    order = custodians.import_order(service, secrets[1], key, made["policyDigest"]) | {"version": 3}
    skipping = service.call("POST", f"/v1/keys/{key}/import", custodians.sign(types.IMPORT_ORDER_TYPE, order))
    assert skipping.json()["reason"] == "OrderDoesNotMatch"
    assert bring(2).json()["version"] == 2
    assert fetched(service, key) == secrets[1]
    assert fetched(service, key, "key.1") == secrets[0]


def test_a_replacement_policy_holds_for_all_versions(service):
    custodians, key = Custodians("poli"), "poli/dataset"
    made, _ = custodians.set_up(service, key)
    first = fetched(service, key)
    post(service, key, "rotate")
    new = custodians.policy(key, measurement=bytes(48), replaces=made["policyDigest"])
    custodians.put_key(service, custodians.submit(service, new).json()["digest"], key)
    for kind in ("key", "key.1"):
        assert fetched(service, key, kind).status_code == 401
    other = Guest(service, measurement=bytes(48))
    other.attest()
    assert other.open(other.fetch(key, kind="key.1")) == first


def test_rewrapping_replaces_the_hsm_keys_and_an_old_database_opens_nothing(tmp_path):
    custodians, key = Custodians("wrap"), "wrap/dataset"
    with Service(tmp_path / "s") as service:
        custodians.set_up(service, key)
        first = fetched(service, key)
        post(service, key, "rotate")
        held = sqlite3.connect(service.data / "keys.sqlite").execute("SELECT sealed FROM key_versions").fetchall()
        assert post(service, key, "rewrap").status_code == 200
        assert fetched(service, key, "key.1") == first
        report = service.verify_log()
        assert report.ok, report.faults
    with sqlite3.connect(service.data / "keys.sqlite") as store:
        now = store.execute("SELECT sealed FROM key_versions ORDER BY version").fetchall()
        assert not set(now) & set(held)
        store.execute("UPDATE key_versions SET sealed = ? WHERE version = 1", held[0])
    with Service(service.folder) as service:
        assert fetched(service, key, "key.1").status_code == 503


def test_one_former_version_is_destroyed_by_the_quorum(service):
    custodians, key = Custodians("dest"), "dest/dataset"
    made, _ = custodians.set_up(service, key)
    post(service, key, "rotate")
    order = {"apiVersion": "kekkai.dev/destroy-order/v1", "tenant": "dest", "key": key, "keyId": made["keyId"]}

    def destroy(version):
        return service.call(
            "POST", f"/v1/keys/{key}/destroy", custodians.sign(types.DESTROY_ORDER_TYPE, order | {"version": version})
        )

    assert destroy(2).status_code == 409
    assert destroy(9).json()["reason"] == "VersionNotFound"
    assert destroy(1).status_code == 200
    assert fetched(service, key, "key.1").status_code == 401
    assert len(fetched(service, key)) == 32
    assert service.verify_log().ok


@pytest.mark.parametrize("state", ["Deactivated", "Compromised"])
def test_a_key_that_has_ended_is_released_no_more(service, state):
    name = state.lower()
    custodians, key = Custodians(name), f"{name}/dataset"
    made, _ = custodians.set_up(service, key)
    assert post(service, key, "state", {"state": "Destroyed", "cause": "x"}).status_code == 400
    assert post(service, key, "state", {"state": state, "cause": "test"}, "auditor").status_code == 403
    assert post(service, key, "state", {"state": state, "cause": "test"}).json()["state"] == state
    assert fetched(service, key).status_code == 401
    assert custodians.put_key(service, made["policyDigest"], key)["state"] == state
    assert service.verify_log().ok


def test_all_keys_are_listed_page_by_page(service):
    everything = service.ok("GET", "/v1/keys", role="auditor")["items"]
    names = [f"{one['namespace']}/{one['name']}" for one in everything]
    paged, after = [], ""
    while after is not None:
        page = service.ok("GET", f"/v1/keys?limit=2&after={after}", role="operator")
        paged += [f"{one['namespace']}/{one['name']}" for one in page["items"]]
        after = page["next"]
    assert paged == names
    assert service.call("GET", "/v1/keys", role="registrar").status_code == 403


def test_a_store_of_the_first_schema_is_brought_up_to_date(tmp_path):
    custodians, key = Custodians("past"), "past/dataset"
    with Service(tmp_path / "s") as service:
        custodians.set_up(service, key)
        first = fetched(service, key)
    path = service.data / "keys.sqlite"
    shutil.copy(path, tmp_path / "copy")
    with sqlite3.connect(path) as store:
        store.execute("DROP INDEX keys_by_rotation")
        for table, column in (
            ("keys", "rotation_days"),
            ("keys", "grace_days"),
            ("keys", "rotates_at"),
            ("key_versions", "created_at"),
            ("key_versions", "deactivates_at"),
        ):
            store.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        store.execute("ALTER TABLE log_state ADD COLUMN published_size BIGINT NOT NULL DEFAULT 0")
        store.execute("ALTER TABLE log_state ADD COLUMN published_root BLOB NOT NULL DEFAULT x''")
        store.execute(
            "UPDATE log_state SET (published_size, published_root) = "
            "(SELECT published_size, published_root FROM log_head)"
        )
        store.execute("DROP TABLE log_head")
        store.execute("DROP TABLE grants")
        store.execute("UPDATE meta SET value = ? WHERE name = 'schema'", (b"1",))
    with Service(service.folder) as service:
        assert fetched(service, key) == first
        assert post(service, key, "rotate").json()["version"] == 2
    with sqlite3.connect(path) as store:
        store.execute("UPDATE meta SET value = ? WHERE name = 'schema'", (b"999",))
    refused = Service(service.folder).start(wait=False)
    assert refused.process.wait(timeout=60) != 0
    assert "StoreIncompatible" in refused.stderr.read_text()
