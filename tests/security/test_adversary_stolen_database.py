"""Adversary: a thief of the key service's database and log, without its HSM."""

import shutil
import sqlite3

from tests.integration.keymgmt_harness import Custodians, Guest, Service
from tests.security.conftest import make_victim


def test_the_files_hold_no_key(tmp_path):
    with Service(tmp_path / "s") as service:
        secret = make_victim(service).secret()
        service.stop()
        for path in service.data.rglob("*"):
            if path.is_file():
                content = path.read_bytes()
                assert secret not in content, path
                assert secret.hex().encode() not in content.lower(), path


def test_with_an_hsm_of_its_own_the_thief_cannot_even_start_it(tmp_path):
    with Service(tmp_path / "s") as service:
        make_victim(service)
    shutil.rmtree(service.data / "hsm")
    stolen = Service(service.folder).start(wait=False)
    assert stolen.process.wait(60) != 0


def test_with_a_log_of_its_own_the_sealed_keys_stay_shut(tmp_path):
    """The thief writes the stolen rows into a working service that is theirs, policy and all."""
    with Service(tmp_path / "victims") as service:
        victim = make_victim(service)
    rows = {}
    with sqlite3.connect(service.data / "keys.sqlite") as store:
        for table in ("custodian_sets", "tenants", "policies", "keys", "key_versions"):
            rows[table] = store.execute(f"SELECT * FROM {table}").fetchall()
    with Service(tmp_path / "thiefs") as theirs:
        Custodians("thief").set_up(theirs, "thief/dataset")
    with sqlite3.connect(theirs.data / "keys.sqlite") as store:
        for table, stolen in rows.items():
            marks = ",".join("?" * len(stolen[0]))
            store.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", stolen)
        store.execute("UPDATE keys SET releases = 0, policy_releases = 0")
    with Service(theirs.folder) as running:
        guest = Guest(running)
        guest.attest()
        reply = guest.fetch(victim.key)
        assert reply.status_code == 503
        assert b"ciphertext" not in reply.content
