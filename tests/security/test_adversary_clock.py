"""Adversary: somebody who sets the clock of the key service's host, back or forth."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keymgmt.lifecycle.database import StoreUnavailable, open_database
from keymgmt.lifecycle.journal import CLOCK_TOLERANCE, Journal
from keymgmt.lifecycle.log_lease import LogLease
from keymgmt.lifecycle.publication import LogPublication
from keymgmt.policy.decision import KeyFacts, decide
from keymgmt.policy.documents import ReleasePolicy
from keymgmt.transparency import entries
from keymgmt.transparency.log import TransparencyLog
from keymgmt.transparency.note import VerifierKey

START = datetime(2026, 11, 24, tzinfo=UTC)
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(32))
LOG_KEY = VerifierKey("kekkai.test/log", PRIVATE.public_key().public_bytes_raw())
SECONDS = timedelta(seconds=1)


class Clock:
    def __init__(self):
        self.now = START

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def journal(tmp_path, clock):
    engine = open_database(f"sqlite:///{tmp_path / 'keys.sqlite'}")
    log = TransparencyLog(tmp_path / "log", LOG_KEY, PRIVATE.sign)
    publication = LogPublication(engine, lambda: log, LogLease(engine, "one", 60))
    publication.start()
    made = Journal(engine, publication, clock)
    made.start()
    yield made
    made.close()
    publication.close()
    engine.dispose()


def stamp(change):
    change.log(entries.DENIALS_SUPPRESSED, {"counts": {}})
    return change.now


def test_a_clock_turned_back_stops_every_decision_until_it_is_right(journal, clock):
    assert journal.submit(stamp).result(30) == START
    clock.now = START - timedelta(days=365)
    with pytest.raises(StoreUnavailable):
        journal.submit(stamp).result(30)
    assert not journal.healthy  # /readyz says so
    clock.now = START + SECONDS
    assert journal.submit(stamp).result(30) == START + SECONDS
    assert journal.healthy


def test_a_restart_does_not_forget(tmp_path, journal, clock):
    journal.submit(stamp).result(30)
    journal.close()
    clock.now = START - timedelta(hours=1)
    engine = open_database(f"sqlite:///{tmp_path / 'keys.sqlite'}")
    log = TransparencyLog(tmp_path / "log", LOG_KEY, PRIVATE.sign)
    publication = LogPublication(engine, lambda: log, LogLease(engine, "two", 60))
    publication.start()
    again = Journal(engine, publication, clock)
    again.start()
    with pytest.raises(StoreUnavailable):
        again.submit(stamp).result(30)
    again.close()
    publication.close()
    engine.dispose()


def test_what_replicas_clocks_may_differ_by_never_turns_the_log_back(journal, clock):
    journal.submit(stamp).result(30)
    clock.now = START - CLOCK_TOLERANCE + SECONDS
    assert journal.submit(stamp).result(30) == START


def test_a_clock_set_forth_ends_policies_early_and_shows_in_the_log(journal, clock):
    """It can open a policy before its time; the entry then carries the false time, and the right clock stops all."""
    policy = ReleasePolicy.model_validate(
        {
            "apiVersion": "kekkai.dev/release-policy/v1",
            "tenant": "aurora",
            "keys": ["aurora/key"],
            "rule": "claims.snp.measurement == 'ab' && claims.init_data == 'cd'",
            "maxReleases": 1,
            "notBefore": "2026-11-24T00:00:00Z",
            "notAfter": "2026-12-24T00:00:00Z",
            "jurisdiction": "JP",
        }
    )
    facts = KeyFacts("aurora", "key", "aurora", "Active", "JP", 0)
    claims = {"snp": {"measurement": "ab"}, "init_data": "cd"}
    assert decide(facts, policy, claims, START).allowed
    clock.now = START + timedelta(days=60)
    assert decide(facts, policy, claims, clock.now).reason == "PolicyExpired"
    told = journal.submit(stamp).result(30)
    assert told == clock.now
    clock.now = START + timedelta(minutes=1)
    with pytest.raises(StoreUnavailable):
        journal.submit(stamp).result(30)
