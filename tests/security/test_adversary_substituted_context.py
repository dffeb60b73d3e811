"""Adversary: somebody who writes the key service's database: another policy, custodian set, key, tenant or version."""

import contextlib
import shutil
import sqlite3

import pytest

from tests.integration.keymgmt_harness import Custodians, Guest, Service


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """Two tenants with a key each, the first rotated once; not running. Returns (service, digest)."""
    with Service(tmp_path_factory.mktemp("context") / "s") as service:
        mine, theirs = Custodians("mine"), Custodians("theirs")
        made, document = mine.set_up(service, "mine/dataset")
        theirs.set_up(service, "theirs/dataset", measurement=bytes(48))
        # A second policy of the same tenant, signed but never in force: it would let anything in.
        weaker = document | {"maxReleases": 9, "replaces": made["policyDigest"]}
        weaker["rule"] = weaker["rule"].replace("!claims.snp.debug", "true")
        other = mine.submit(service, weaker).json()["digest"]
        service.ok("POST", "/v1/keys/mine/dataset/rotate", role="operator")
    return service, other


CASES = {
    "another policy of the tenant": "UPDATE keys SET policy_digest = :other WHERE namespace = 'mine'",
    "another tenant's policy": "UPDATE keys SET policy_digest = (SELECT policy_digest FROM keys WHERE namespace = "
    "'theirs') WHERE namespace = 'mine'",
    "another custodian set": "UPDATE keys SET custodian_set = (SELECT custodian_set FROM keys WHERE namespace = "
    "'theirs') WHERE namespace = 'mine'",
    "the policy filed under another set": "UPDATE policies SET custodian_set = (SELECT custodian_set FROM tenants "
    "WHERE tenant = 'theirs') WHERE tenant = 'mine'",
    "another tenant": "UPDATE keys SET tenant = 'theirs' WHERE namespace = 'mine'",
    "another key's sealed bytes": "UPDATE key_versions SET sealed = (SELECT sealed FROM key_versions v WHERE v.key_id "
    "LIKE 'theirs/%') WHERE key_id LIKE 'mine/%' AND version = 2",
    "the former version as the present one": "UPDATE key_versions SET sealed = (SELECT sealed FROM key_versions v "
    "WHERE v.key_id LIKE 'mine/%' AND v.version = 1) WHERE key_id LIKE 'mine/%' AND version = 2",
    "another country": "UPDATE keys SET jurisdiction = 'XX' WHERE namespace = 'mine'",
    "another algorithm": "UPDATE keys SET algorithm = 'ED25519' WHERE namespace = 'mine'",
    "one bit of the sealed bytes": "UPDATE key_versions SET sealed = substr(sealed, 1, length(sealed) - 1) || x'00' "
    "WHERE key_id LIKE 'mine/%' AND version = 2",
    "the policy's own text": 'UPDATE policies SET envelope = replace(envelope, \'"sig": "\', \'"sig": "AAAA\') '
    "WHERE tenant = 'mine'",
    "the custodians' own document": "UPDATE custodian_sets SET document = CAST(replace(CAST(document AS TEXT), "
    "'\"threshold\":1', '\"threshold\":2') AS BLOB) WHERE tenant = 'mine'",
}


@pytest.mark.parametrize("case", CASES)
def test_the_key_does_not_open(stopped, tmp_path, case):
    service, other = stopped
    shutil.copytree(service.folder, tmp_path / "s")
    copy = Service(tmp_path / "s")
    with contextlib.closing(sqlite3.connect(copy.data / "keys.sqlite", isolation_level=None)) as store:
        changed = store.execute(CASES[case], {"other": other} if ":other" in CASES[case] else {})
        assert changed.rowcount > 0
    running = copy.start(wait=False)
    try:
        try:
            running.wait_ready()
        except AssertionError:
            return  # it refuses to start at all
        guest = Guest(running)
        guest.attest()
        reply = guest.fetch("mine/dataset")
        assert reply.status_code in (401, 503)
        assert b"ciphertext" not in reply.content
    finally:
        running.stop()
