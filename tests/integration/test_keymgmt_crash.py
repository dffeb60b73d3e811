"""kill -9 at random moments: no key without its log entry, never more than the policy allows, no orphans."""

import contextlib
import os
import random
import signal
import threading
import time

import httpx
import pytest

from tests.integration.keymgmt_harness import Custodians, Guest, Service, alive, paths, processes_of, types, until

SEED = 20261124
RUNS = 4  # with two replicas and longer: test_keymgmt_crash_replicas.py
LIMIT = 4000


class Fetchers:
    """Guests that keep fetching and remember each key they got (by its unique reply)."""

    def __init__(self, service, token, key, count=6):
        self.delivered = set()
        self.errors = 0
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(service, token, key)) for _ in range(count)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, service, token, key):
        namespace, name = key.split("/")
        with httpx.Client(verify=service.tls, timeout=10) as client:
            while not self._stop.is_set():
                try:
                    reply = client.get(
                        f"{service.url}/kbs/v0/resource/{namespace}/key/{name}",
                        headers={"Authorization": f"Bearer {token}"},
                    )
                except httpx.HTTPError:
                    self.errors += 1
                    time.sleep(0.02)
                    continue
                if reply.status_code == 200:
                    with self._lock:
                        self.delivered.add(reply.json()["tag"] + reply.json()["iv"])


def releases_in(service):
    return sum(1 for entry in service.entries() if entry["type"] == "release")


def test_kill_9_during_releases_neither_hides_nor_multiplies_one(tmp_path):
    rng = random.Random(SEED)
    service = Service(tmp_path, listen={"host": "127.0.0.1", "port": free_port()})
    with service:
        custodians = Custodians()
        made, _ = custodians.set_up(service, maxReleases=LIMIT)
        guest = Guest(service)
        guest.attest()
        with Fetchers(service, guest.token, "team-a/dataset") as fetchers:
            for _ in range(RUNS):
                aim = len(fetchers.delivered) + rng.randint(1, 12)
                until(lambda aim=aim: len(fetchers.delivered) >= aim, 60, "some releases before the kill")
                time.sleep(rng.random() * 0.02)
                workers = processes_of(service.process.pid)
                assert workers
                service.kill()
                until(lambda w=workers: not any(alive(pid) for pid in w), what="the worker dies with its parent")
                service.start()
                guest_again = Guest(service)
                assert guest_again.attest().status_code == 200
        logged = releases_in(service)
        assert RUNS < len(fetchers.delivered) <= logged <= LIMIT
        assert fetchers.errors
        report = service.verify_log()
        assert report.ok, report.faults
        assert report.keys["team-a/dataset"].releases == logged
        key = service.ok("GET", "/v1/keys/team-a/dataset", role="auditor")
        assert (key["releases"], key["keyId"]) == (logged, made["keyId"])


def test_the_last_run_is_given_once_however_many_ask_and_crash(tmp_path):
    rng = random.Random(SEED + 1)
    limit = 25
    service = Service(tmp_path, listen={"host": "127.0.0.1", "port": free_port()})
    with service:
        Custodians().set_up(service, maxReleases=limit)
        guest = Guest(service)
        guest.attest()
        with Fetchers(service, guest.token, "team-a/dataset", count=8) as fetchers:
            for _ in range(2):
                time.sleep(rng.random() * 0.05)
                service.kill()
                service.start()
            until(lambda: releases_in(service) == limit, 60, "all runs are used")
            until(lambda: any(e["type"] == "denial" for e in service.entries()), 20, "one more was refused")
        assert len(fetchers.delivered) <= limit
        assert releases_in(service) == limit
        assert service.verify_log().ok
        refused = service.ok("GET", paths.RELEASES, role="auditor")["entries"][0]
        assert refused.get("reason", "RunCountExhausted") == "RunCountExhausted"


def test_kill_9_during_administration_leaves_whole_keys_and_no_orphans(tmp_path):
    """Creation, import, policy change and destruction, cut off anywhere, are repeated to the end."""
    rng = random.Random(SEED + 2)
    service = Service(tmp_path, listen={"host": "127.0.0.1", "port": free_port()})
    with service:
        custodians = Custodians()
        custodians.register(service)
        for number in range(2):
            key = f"team-a/key-{number}"
            digest = custodians.submit(service, custodians.policy(key)).json()["digest"]
            cut_off(service, rng, custodians.put_key, service, digest, key)
            made = custodians.put_key(service, digest, key)
            new = custodians.submit(service, custodians.policy(key, replaces=digest)).json()["digest"]
            cut_off(service, rng, custodians.put_key, service, new, key)
            changed = custodians.put_key(service, new, key)
            assert (changed["keyId"], changed["policyDigest"]) == (made["keyId"], new)
            guest = Guest(service)
            guest.attest()
            assert guest.fetch(key).status_code == 200
            if number % 2:
                order = custodians.sign(
                    types.DESTROY_ORDER_TYPE,
                    {
                        "apiVersion": "kekkai.dev/destroy-order/v1",
                        "tenant": "tenant-a",
                        "key": key,
                        "keyId": made["keyId"],
                    },
                )
                cut_off(service, rng, service.call, "POST", f"/v1/keys/{key}/destroy", order)
                assert service.ok("POST", f"/v1/keys/{key}/destroy", order)["state"] == "Destroyed"
        service.stop()
        service.start()
        assert service.verify_log().ok
        service.stop()
        assert hsm_keys(service) == 1, "one HSM key for the one key that lives"


def cut_off(service, rng, act, *arguments):
    """Begin an act, kill the service somewhere within it, start it again."""

    def attempt():
        with contextlib.suppress(httpx.HTTPError, AssertionError):
            act(*arguments)

    thread = threading.Thread(target=attempt)
    thread.start()
    time.sleep(rng.random() * 0.06)
    service.kill()
    thread.join()
    service.start()


def hsm_keys(service):
    """Wrapping keys in a stopped service's token, counted in a process of its own."""
    import subprocess
    import sys

    script = (
        "import sys; from pathlib import Path;"
        "from keymgmt.hsm.token import TokenSettings, locate; from keymgmt.hsm.pkcs11_session import Pkcs11Session;"
        "print(len(Pkcs11Session(locate(TokenSettings(), Path(sys.argv[1]))).wrapping_keys()))"
    )
    done = subprocess.run([sys.executable, "-c", script, str(service.data)], capture_output=True, check=True)
    return int(done.stdout)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_or_hung_worker_is_replaced(tmp_path, how):
    with Service(tmp_path, hsm={"requestTimeoutSeconds": 1.0}) as service:
        Custodians().set_up(service)
        guest = Guest(service)
        guest.attest()
        key = guest.open(guest.fetch())
        (worker,) = processes_of(service.process.pid)
        os.kill(worker, how)

        def served():
            reply = guest.fetch()
            assert reply.status_code in (200, 503), reply.text
            return reply.status_code == 200 and guest.open(reply) == key

        until(served, 30, "keys are released again")
        until(lambda: not alive(worker), what="the old worker is gone")
        assert service.ok("GET", paths.STATUS, role="auditor")["worker"]["restarts"] == 1
        assert service.verify_log().ok


def test_the_worker_is_replaced_when_it_grows_old(tmp_path):
    with Service(tmp_path, hsm={"workerLifetimeSeconds": 1.5}) as service:
        Custodians().set_up(service)
        guest = Guest(service)
        guest.attest()
        first = set(processes_of(service.process.pid))

        def replaced():
            assert guest.fetch().status_code == 200
            return not first & set(processes_of(service.process.pid))

        until(replaced, 30, "another worker serves, without a refusal on the way")
        assert service.ok("GET", paths.STATUS, role="auditor")["worker"]["restarts"] == 0


def test_sigterm_ends_everything_in_order(tmp_path):
    service = Service(tmp_path).start()
    (worker,) = processes_of(service.process.pid)
    assert service.stop() == 0
    until(lambda: not alive(worker), what="the worker ends")
    assert not (tmp_path / "ready.json").exists()


def test_without_its_parent_the_worker_ends(tmp_path):
    service = Service(tmp_path).start()
    (worker,) = processes_of(service.process.pid)
    service.kill()
    until(lambda: not alive(worker), what="the worker ends")


def test_when_the_log_cannot_be_written_nothing_is_released(tmp_path):
    with Service(tmp_path) as service:
        Custodians().set_up(service)
        guest = Guest(service)
        guest.attest()
        assert guest.fetch().status_code == 200
        log = service.data / "log"
        log.rename(service.data / "log.away")
        (service.data / "log").write_text("not a folder")
        reply = guest.fetch()
        assert reply.status_code == 503
        assert b"ciphertext" not in reply.content
        assert service.call("GET", paths.READY).status_code == 503
        (service.data / "log").unlink()
        (service.data / "log.away").rename(log)
        assert guest.fetch().status_code == 200
        # The run whose entry was late is in the log all the same.
        assert releases_in(service) == 3
        assert service.verify_log().ok


def free_port():
    """A port that was free a moment ago, so that restarts keep the address."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
