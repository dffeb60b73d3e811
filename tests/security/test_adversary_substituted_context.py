"""Adversary: somebody who writes the key service's database: another policy, custodian set, key, tenant or version."""

import contextlib
import sqlite3

import pytest

from tests.integration.keymgmt_harness import Custodians, Guest, Service

# Each case is a tenant of its own, `:me`, so that one start of the service tries them all.
THEIRS = "(SELECT {column} FROM {table} WHERE {name} = 'theirs')"
VERSION = "(SELECT sealed FROM key_versions v WHERE v.key_id LIKE {key} || '/%' AND v.version = 1)"
CASES = {
    "another policy of the tenant": "UPDATE keys SET policy_digest = (SELECT digest FROM policies WHERE tenant = :me "
    "AND digest != policy_digest) WHERE tenant = :me",
    "another tenant's policy": "UPDATE keys SET policy_digest = "
    + THEIRS.format(column="policy_digest", table="keys", name="tenant")
    + " WHERE tenant = :me",
    "another custodian set": "UPDATE keys SET custodian_set = "
    + THEIRS.format(column="custodian_set", table="keys", name="tenant")
    + " WHERE tenant = :me",
    "the policy filed under another set": "UPDATE policies SET custodian_set = "
    + THEIRS.format(column="custodian_set", table="tenants", name="tenant")
    + " WHERE tenant = :me",
    "another tenant": "UPDATE keys SET tenant = 'theirs' WHERE tenant = :me",
    "another key's sealed bytes": "UPDATE key_versions SET sealed = " + VERSION.format(key="'theirs'") + " "
    "WHERE key_id LIKE :me || '/%' AND version = 2",
    "the former version as the present one": "UPDATE key_versions SET sealed = " + VERSION.format(key=":me") + " "
    "WHERE key_id LIKE :me || '/%' AND version = 2",
    "another country": "UPDATE keys SET jurisdiction = 'XX' WHERE tenant = :me",
    "another algorithm": "UPDATE keys SET algorithm = 'ED25519' WHERE tenant = :me",
    "one byte of the sealed bytes": "UPDATE key_versions SET sealed = CAST(substr(sealed, 1, length(sealed) - 1) || "
    "CASE substr(sealed, -1) WHEN x'00' THEN x'01' ELSE x'00' END AS BLOB) WHERE key_id LIKE :me || '/%'",
    "the policy's signature": 'UPDATE policies SET envelope = replace(envelope, \'"sig": "\', \'"sig": "AAAA\') '
    "WHERE tenant = :me",
    "the custodians' own document": "UPDATE custodian_sets SET document = CAST(replace(CAST(document AS TEXT), "
    "'\"threshold\":1', '\"threshold\":2') AS BLOB) WHERE tenant = :me",
}
TENANTS = {case: f"case-{number}" for number, case in enumerate(CASES)}


def prepare(service, name):
    """A tenant with a key of two versions, and a second policy that was signed but never in force."""
    custodians, key = Custodians(name), f"{name}/dataset"
    made, document = custodians.set_up(service, key)
    weaker = document | {"maxReleases": 9, "replaces": made["policyDigest"]}
    weaker["rule"] = weaker["rule"].replace("!claims.snp.debug", "true")
    assert custodians.submit(service, weaker).status_code == 201
    service.ok("POST", f"/v1/keys/{key}/rotate", role="operator")


@pytest.fixture(scope="module")
def tampered(tmp_path_factory):
    """A service whose database was changed in every way at once, one tenant each, and one tenant not at all."""
    with Service(tmp_path_factory.mktemp("context") / "s") as service:
        for name in ("theirs", "untouched", *TENANTS.values()):
            prepare(service, name)
    with contextlib.closing(sqlite3.connect(service.data / "keys.sqlite", isolation_level=None)) as store:
        for case, name in TENANTS.items():
            assert store.execute(CASES[case], {"me": name}).rowcount > 0, case
    with Service(service.folder) as running:
        yield running


def fetched(service, name):
    guest = Guest(service)
    guest.attest()
    return guest, guest.fetch(f"{name}/dataset")


@pytest.mark.parametrize("case", CASES)
def test_the_key_does_not_open(tampered, case):
    _, reply = fetched(tampered, TENANTS[case])
    assert reply.status_code in (401, 503)
    assert b"ciphertext" not in reply.content


def test_the_others_go_on(tampered):
    guest, reply = fetched(tampered, "untouched")
    assert len(guest.open(reply)) == 32
