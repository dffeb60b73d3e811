"""kill -9 at each step of a release with two replicas on PostgreSQL, seeded.

Whatever dies when: no key was delivered without its entry, no run count is exceeded, the log
verifies. Moments are found by looking at what the processes have made durable, from outside.
"""

import os
import random
import signal
import threading
import time
from collections import Counter

import httpx
import psycopg
import pytest

from keymgmt.lifecycle.releases import session_hash
from keymgmt.transparency.note import Checkpoint
from keymgmt.transparency.tiles import TileFiles
from tests.integration.keymgmt_harness import Custodians, Guest, alive, paths, processes_of, until
from tests.integration.keymgmt_postgresql import PostgreSQL
from tests.integration.keymgmt_replicas import Replicas

SEED = 20261124
FEW = 25  # runs of the key that is used up
PLENTY, SCARCE = "team-a/dataset", "team-a/rare"
MOMENTS = ("at random", "committed, not published", "checkpoint written, not recorded", "checkpoint recorded")
VICTIMS = ("writer", "follower", "both", "worker", "database session")


class Guests:
    """Guests that keep fetching from either replica. Each has a session of its own, which entries name."""

    def __init__(self, replicas, count=4):
        self.replicas = replicas
        self.delivered = Counter()  # (session hash, key) → keys that reached the guest
        self.errors = Counter()
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._sessions = [self._attested(replicas.members[number % 2]) for number in range(count)]
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(count)]

    def _attested(self, service):
        guest = Guest(service)
        assert guest.attest().status_code == 200
        return guest.token, session_hash(guest.client.cookies[paths.KBS_COOKIE])

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def total(self):
        with self._lock:
            return self.delivered.total()

    def renew(self):
        """New sessions: tokens last five minutes, a campaign longer."""
        self._sessions = [self._attested(self.replicas.members[n % 2]) for n in range(len(self._sessions))]

    def _run(self, number):
        rng = random.Random(SEED + number)
        clients = [httpx.Client(verify=member.tls, timeout=10) for member in self.replicas.members]
        while not self._stop.is_set():
            which, key = rng.randrange(2), SCARCE if rng.random() < 0.3 else PLENTY
            (token, session), url = self._sessions[number], self.replicas.members[which].url
            try:
                reply = clients[which].get(
                    f"{url}/kbs/v0/resource/{key.replace('/', '/key/')}", headers={"Authorization": f"Bearer {token}"}
                )
            except httpx.HTTPError as error:
                with self._lock:
                    self.errors[type(error).__name__] += 1
                time.sleep(0.02)
                continue
            with self._lock:
                if reply.status_code == 200:
                    assert reply.json()["ciphertext"]
                    self.delivered[session, key] += 1
                else:
                    self.errors[reply.status_code] += 1
            if reply.status_code == 503:
                time.sleep(0.02)


class Killer:
    """Ends a process at a moment."""

    def __init__(self, replicas, seed):
        self.replicas, self.rng = replicas, random.Random(seed)
        self.files = TileFiles(replicas.folder / "log")
        self.done = Counter()

    def run(self):
        moment, victim = self.rng.choice(MOMENTS), self.rng.choice(VICTIMS)
        leader = self.replicas.leader()
        follower = next(member for member in self.replicas.members if member is not leader)
        self._await(moment)
        if victim == "database session":
            self.replicas.query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()",
                self.replicas.database,
            )
        elif victim == "worker":
            for pid in processes_of(self.rng.choice((leader, follower)).process.pid):
                os.kill(pid, signal.SIGKILL)
        else:
            dead = {"writer": [leader], "follower": [follower], "both": [leader, follower]}[victim]
            workers = [pid for member in dead for pid in processes_of(member.process.pid)]
            for member in dead:
                member.kill()
            until(lambda: not any(alive(pid) for pid in workers), what="workers die with their parents")
            for member in dead:
                member.start(wait=False)
            for member in dead:
                member.wait_ready()
        self.done[moment, victim] += 1

    def _await(self, moment):
        """Return at the moment, or after a while without one: that too is a moment."""
        if moment == "at random":
            time.sleep(self.rng.random() * 0.1)
            return
        deadline = time.monotonic() + 2
        with psycopg.connect(self.replicas.postgresql.dsn(self.replicas.database), autocommit=True) as connection:
            first = None
            while time.monotonic() < deadline:
                given, recorded = connection.execute(
                    "SELECT next_index, published_size FROM log_state, log_head"
                ).fetchone()
                first = recorded if first is None else first
                if moment == "committed, not published" and given > recorded:
                    return
                if moment == "checkpoint recorded" and recorded > first:
                    return
                if moment == "checkpoint written, not recorded" and self._written() > recorded:
                    return

    def _written(self):
        content = self.files.read("checkpoint")
        return Checkpoint.open(content, self.replicas.members[0].log_key()).size


def survive(folder, runs, seed):
    """The whole of it; returns what was delivered and what was killed."""
    with PostgreSQL() as server, Replicas(folder, server) as replicas:
        first, second = replicas.members
        custodians = Custodians()
        custodians.set_up(first, PLENTY, maxReleases=1_000_000)
        digest = custodians.submit(first, custodians.policy(SCARCE, maxReleases=FEW)).json()["digest"]
        custodians.put_key(second, digest, SCARCE)
        killer, renewed = Killer(replicas, seed), time.monotonic()
        with Guests(replicas) as guests:
            for number in range(runs):
                aim = guests.total + killer.rng.randint(1, 6)
                until(lambda aim=aim: guests.total >= aim, 90, "releases go on")
                killer.run()
                if time.monotonic() - renewed > 120:
                    guests.renew()
                    renewed = time.monotonic()
                if number % 25 == 24:
                    check(replicas, guests, final=False)
                    print(number + 1, guests.total, dict(guests.errors), flush=True)
        check(replicas, guests, final=True)
        return guests, killer


def check(replicas, guests, *, final):
    with guests._lock:
        delivered = Counter(guests.delivered)
    member = replicas.members[0]
    report = member.verify_log()
    assert report.ok, report.faults
    logged = Counter((entry["session"], entry["key"]) for entry in member.entries() if entry["type"] == "release")
    for who, count in delivered.items():
        assert count <= logged[who], "a key was delivered without its entry"
    scarce = sum(count for (_, key), count in logged.items() if key == SCARCE)
    assert scarce <= FEW
    if final:
        assert scarce == FEW
        for key in (PLENTY, SCARCE):
            used = sum(count for (_, name), count in logged.items() if name == key)
            assert member.ok("GET", f"/v1/keys/{key}", role="auditor")["releases"] == used
        sizes = replicas.query("SELECT count(*), max(idx) + 1, (SELECT next_index FROM log_state) FROM log_leaves")
        assert len(set(sizes[0])) == 1, "indices without a gap"


def test_kill_9_with_two_replicas_neither_hides_nor_multiplies_a_release(tmp_path):
    guests, killer = survive(tmp_path, 3, SEED)
    assert guests.total
    assert killer.done.total() == 3


@pytest.mark.campaign
def test_500_kills_with_two_replicas(tmp_path):
    guests, killer = survive(tmp_path, int(os.environ.get("KEKKAI_KILLS", "500")), SEED + 1)
    assert guests.errors
    assert {victim for _, victim in killer.done} == set(VICTIMS)
    print(sorted(killer.done.items()))
