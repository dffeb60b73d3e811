"""Two replicas that share only the store, the log's folder and the token: sessions, nonces, the log's writer."""

import os
import signal
import threading
import time

import pytest
from sqlalchemy import insert, select

from crds.errors import InvalidInput
from keymgmt.lifecycle.database import StoreIncompatible, StoreUnavailable, open_database
from keymgmt.lifecycle.journal import Journal
from keymgmt.lifecycle.log_lease import LogLease
from keymgmt.lifecycle.releases import open_session
from keymgmt.lifecycle.schema import log_head, log_leaves, meta, sessions
from keymgmt.transparency import entries
from tests.integration.keymgmt_harness import Custodians, Guest, paths, until
from tests.integration.keymgmt_postgresql import PostgreSQL
from tests.integration.keymgmt_replicas import Replicas


@pytest.fixture(scope="module")
def postgresql():
    with PostgreSQL() as server:
        yield server


@pytest.fixture(scope="module")
def replicas(postgresql, tmp_path_factory):
    with Replicas(tmp_path_factory.mktemp("replicas"), postgresql) as both:
        Custodians().set_up(both.members[0])
        yield both


@pytest.fixture
def engine(postgresql):
    made = open_database(postgresql.database()[1])
    yield made
    made.dispose()


def elsewhere(guest, service):
    """The same guest, its session and key, talking to another replica."""
    other = Guest(service)
    other.key, other.token = guest.key, guest.token
    other.client.cookies = guest.client.cookies
    return other


def test_any_replica_answers_any_step(replicas):
    first, second = replicas.members
    guest = Guest(first)
    nonce = guest.auth().json()["nonce"]
    moved = elsewhere(guest, second)
    assert moved.client.post(paths.KBS_ATTEST, json=moved.attest_body(nonce)).status_code == 200
    keys = {moved.open(moved.fetch(cookie=True)), guest.open(guest.fetch(cookie=True))}
    assert len(keys) == 1
    assert first.call("GET", paths.LOG_CHECKPOINT).content == second.call("GET", paths.LOG_CHECKPOINT).content
    assert second.verify_log().ok


def test_keys_made_by_one_replica_are_released_by_another(replicas):
    """Alternating: a worker that wrote to the token itself must still see what the other wrote after."""
    custodians = Custodians("tenant-b")
    custodians.register(replicas.members[0])
    names = [f"team-b/key-{number}" for number in range(4)]
    for number, name in enumerate(names):
        maker = replicas.members[number % 2]
        digest = custodians.submit(maker, custodians.policy(name)).json()["digest"]
        custodians.put_key(maker, digest, name)
    for member in replicas.members:
        guest = Guest(member)
        assert guest.attest().status_code == 200
        assert [guest.fetch(name).status_code for name in names] == [200] * 4


def test_a_nonce_is_answered_once_over_all_replicas(replicas):
    guest = Guest(replicas.members[0])
    body = guest.attest_body(guest.auth().json()["nonce"])
    guests = [elsewhere(guest, replicas.members[number % 2]) for number in range(6)]
    replies = []

    def answer(one):
        replies.append(one.client.post(paths.KBS_ATTEST, json=body))

    threads = [threading.Thread(target=answer, args=(one,)) for one in guests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(reply.status_code for reply in replies) == [200, *[401] * 5]
    assert all("NonceReplayed" in reply.text for reply in replies if reply.status_code == 401)


def test_a_stopped_writer_is_replaced_and_fenced_when_it_wakes(replicas):
    stopped = replicas.leader()
    other = next(member for member in replicas.members if member is not stopped)
    guest = Guest(other)
    assert guest.attest().status_code == 200
    before = replicas.query("SELECT epoch FROM log_head")[0][0]
    os.kill(stopped.process.pid, signal.SIGSTOP)
    try:
        until(lambda: replicas.publishes(other), 15, "the other replica takes over")
        assert guest.fetch().status_code == 200
    finally:
        os.kill(stopped.process.pid, signal.SIGCONT)
    assert elsewhere(guest, stopped).fetch().status_code == 200
    assert replicas.leader() is other
    assert replicas.query("SELECT epoch FROM log_head")[0][0] > before
    assert other.verify_log().ok


def test_a_lost_database_is_said_plainly_and_recovered_from(replicas, postgresql):
    guests = [Guest(member) for member in replicas.members]
    assert all(guest.attest().status_code == 200 for guest in guests)
    postgresql.stop()
    try:
        for guest in guests:
            reply = guest.fetch()
            assert reply.status_code == 503
            assert "StoreUnavailable" in reply.text
            ready = guest.service.call("GET", paths.READY)
            assert ready.status_code == 503
            assert "store" in ready.json()["faults"]
    finally:
        postgresql.start()

    def served():
        return all(guest.fetch().status_code == 200 for guest in guests)

    until(served, 30, "keys are released again")
    assert replicas.members[0].verify_log().ok


def test_a_database_restored_from_an_old_copy_is_refused(replicas, postgresql):
    """Last of the module: it ends the replicas."""
    first, second = replicas.members
    guest = Guest(first)
    assert guest.attest().status_code == 200
    for member in replicas.members:
        member.stop()
    postgresql.copy(replicas.database, "old")
    first.start()
    assert elsewhere(guest, first).fetch().status_code == 200
    first.stop()
    postgresql.rename(replicas.database, "newest")
    postgresql.rename("old", replicas.database)
    second.start(wait=False)
    assert second.process.wait(timeout=60) == 1
    assert "LogRolledBack" in second.stderr.read_text()


def test_a_term_is_one_replicas_until_it_ends_and_its_writes_are_fenced_after(engine):
    one, two = LogLease(engine, "one", 60), LogLease(engine, "two", 60)
    mine = one.try_take()
    assert two.try_take() is None
    with engine.begin() as connection:
        assert one.renew(connection, mine, published_size=1)
        connection.execute(log_head.update().values(expires=0))  # as if a minute had passed
    theirs = two.try_take()
    assert theirs.epoch > mine.epoch
    with engine.begin() as connection:
        assert not one.renew(connection, mine, published_size=99)
        assert connection.execute(select(log_head.c.published_size)).scalar() == 1
    one.end(mine)  # changes nothing
    assert one.try_take() is None
    again = two.try_take()  # after a restart, by the folder that it holds
    assert again.epoch > theirs.epoch
    two.end(again)
    assert one.try_take() is not None


class Unpublished:
    """No log: what is committed is all that counts here."""

    size = 0

    def publish(self, size):
        return


def test_journals_of_several_writers_give_each_index_and_each_session_once(engine):
    engines = [engine, open_database(engine.url.render_as_string(hide_password=False))]
    journals = [Journal(one, Unpublished()) for one in engines]

    def act(number):
        def change(change):
            first = open_session(change, f"{number:064}", 2_000_000_000, None)
            return first, change.log(entries.DENIAL, {"n": number})

        return change

    futures = [journal.submit(act(number)) for number in range(150) for journal in journals]
    for journal in journals:
        journal.start()
    results = [future.result(timeout=60) for future in futures]
    for journal in journals:
        journal.close()
    engines[1].dispose()
    assert sorted(index for _, index in results) == list(range(300))
    assert sum(first for first, _ in results) == 150
    with engine.connect() as connection:
        assert connection.execute(select(log_leaves.c.idx).order_by(log_leaves.c.idx)).scalars().all() == list(
            range(300)
        )
        assert len(connection.execute(select(sessions)).all()) == 150


def test_a_store_of_the_schema_before_is_brought_up_to_date_by_one_of_many(postgresql):
    _, url = postgresql.database()
    made = open_database(url)
    with made.begin() as connection:  # back to schema 2
        connection.exec_driver_sql("ALTER TABLE log_state ADD published_size BIGINT NOT NULL DEFAULT 7")
        connection.exec_driver_sql("ALTER TABLE log_state ADD published_root BYTEA NOT NULL DEFAULT 'r'")
        connection.exec_driver_sql("DROP TABLE log_head")
        connection.execute(meta.update().where(meta.c.name == "schema").values(value=b"2"))
    made.dispose()
    opened = []
    threads = [threading.Thread(target=lambda: opened.append(open_database(url))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 4
    with opened[0].begin() as connection:
        assert connection.execute(select(log_head.c.published_size, log_head.c.epoch)).one() == (7, 0)
        connection.execute(meta.update().where(meta.c.name == "schema").values(value=b"99"))
    with pytest.raises(StoreIncompatible):
        open_database(url)
    for one in opened:
        one.dispose()


def test_a_store_that_cannot_be_opened_is_named_without_its_password(tmp_path):
    with pytest.raises(StoreUnavailable) as refused:
        open_database(f"postgresql+psycopg://kekkai:hunter2@/keys?host={tmp_path}")
    assert "hunter2" not in str(refused.value)
    with pytest.raises(InvalidInput):
        open_database("mysql://root@localhost/keys")


def test_a_full_disk_stops_changes_and_frees_them_again(tmp_path):
    made = open_database(f"sqlite:///{tmp_path / 'keys.sqlite'}")
    journal = Journal(made, Unpublished())
    journal.start()

    def write(change):
        change.connection.execute(insert(meta).values(name=f"fill-{time.monotonic_ns()}", value=bytes(200_000)))

    def limit(pages):
        return lambda change: change.connection.exec_driver_sql(f"PRAGMA max_page_count={pages}").scalar()

    try:
        journal.submit(limit(1)).result()  # no page more than there are now
        with pytest.raises(StoreUnavailable):
            journal.submit(write).result()
        assert not journal.healthy
        journal.submit(limit(100_000)).result()
        journal.submit(write).result()
        assert journal.healthy
    finally:
        journal.close()
        made.dispose()
