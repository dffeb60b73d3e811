"""Attested releases per second of the server's CPU time, over HTTPS, everything on.

One real key service with its HSM worker (SoftHSM) and its store; guests on the emulated SNP
processor whose keys are made beforehand and whose connections stay open. A release is
/auth, /attest (fresh evidence) and /resource; it counts once the reply is a key under the
guest's own public key. Server CPU is that of the service and its worker (and of PostgreSQL
if that is the store), from /proc; the guests' CPU is left out. In the same run: the bare
cryptography that no attested release can do without, and how fast the log grows alone.

    python bench/keys.py [--seconds 10] [--guests 32] [--store sqlite|postgresql]
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import ssl
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console
from rich.table import Table

from keymgmt.broker import paths
from keymgmt.lifecycle.database import open_database
from keymgmt.lifecycle.journal import Change, Journal
from keymgmt.lifecycle.log_lease import LogLease
from keymgmt.lifecycle.publication import LogPublication
from keymgmt.transparency import entries
from keymgmt.transparency.log import TransparencyLog
from keymgmt.transparency.note import VerifierKey
from tests.integration.keymgmt_harness import Custodians, Guest, Service, processes_of
from tests.integration.keymgmt_postgresql import PostgreSQL

TICK = os.sysconf("SC_CLK_TCK")
HEADERS = {"Content-Type": "application/json"}


def cpu_seconds(pids: list[int]) -> float:
    """User and system time of processes, their reaped children included."""
    total = 0
    for pid in pids:
        fields = (Path("/proc") / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()
        total += sum(int(value) for value in fields[11:15])
    return total / TICK


@dataclass
class Caller:
    """One guest with its key and its connection."""

    service: Service
    guest: Guest
    connection: http.client.HTTPSConnection = field(init=False)

    def __post_init__(self) -> None:
        host, port = self.service.url.removeprefix("https://").split(":")
        context = ssl.create_default_context(cafile=self.service.folder / "tls.crt")
        self.connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=60)

    def _ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
        encoded = json.dumps(body).encode() if body is not None else None
        self.connection.request(method, path, encoded, HEADERS | headers)
        reply = self.connection.getresponse()
        content = reply.read()
        if reply.status != 200:
            raise RuntimeError(f"{path}: {reply.status} {content[:200]!r}")
        return reply, content

    def release(self) -> bytes:
        """A whole attested release. Returns the wrapped key."""
        hello = {"version": paths.KBS_VERSION, "tee": "snp", "extra-params": {}}
        reply, content = self._ask("POST", paths.KBS_AUTH, hello)
        cookie = reply.headers["set-cookie"].split(";")[0]
        nonce = json.loads(content)["nonce"]
        _, content = self._ask("POST", paths.KBS_ATTEST, self.guest.attest_body(nonce), Cookie=cookie)
        token = json.loads(content)["token"]
        _, content = self._ask("GET", "/kbs/v0/resource/team-a/key/dataset", Authorization=f"Bearer {token}")
        return content


def closed_loop(callers: list[Caller], seconds: float) -> tuple[int, float]:
    """Each guest asks again as soon as it is answered. Returns releases and seconds."""
    counts, started = [0] * len(callers), time.monotonic()

    def run(number: int) -> None:
        while time.monotonic() - started < seconds:
            callers[number].release()
            counts[number] += 1

    _together(run, len(callers))
    return sum(counts), time.monotonic() - started


def open_loop(callers: list[Caller], rate: float, seconds: float) -> list[float]:
    """Guests arrive at random (Poisson), at `rate` a second. Returns latencies from each arrival, in seconds."""
    rng, moment, arrivals = random.Random(1), 0.0, []
    while (moment := moment + rng.expovariate(rate)) < seconds:
        arrivals.append(moment)
    waiting, latencies, lock, started = iter(arrivals), [], threading.Lock(), time.monotonic()

    def run(number: int) -> None:
        while True:
            with lock:
                arrival = next(waiting, None)
            if arrival is None:
                return
            time.sleep(max(0.0, started + arrival - time.monotonic()))
            callers[number].release()
            with lock:
                latencies.append(time.monotonic() - started - arrival)

    _together(run, len(callers))
    return latencies


def _together(run: Callable[[int], None], count: int) -> None:
    failures: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            run(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def bare_cryptography(seconds: float) -> float:
    """Releases per CPU second if each cost only its signatures and key agreement, in one thread of this library.

    A report's P-384 verification, a token's P-256 signature and verification, one ECDH on P-256
    with a fresh key.
    """
    report, token, guest = (ec.generate_private_key(curve()) for curve in (ec.SECP384R1, ec.SECP256R1, ec.SECP256R1))
    message = bytes(672)
    over_report, sha256, sha384 = report.sign(message, ec.ECDSA(hashes.SHA384())), hashes.SHA256(), hashes.SHA384()
    count, started = 0, time.process_time()
    while time.process_time() - started < seconds:
        report.public_key().verify(over_report, message, ec.ECDSA(sha384))
        token.public_key().verify(token.sign(message, ec.ECDSA(sha256)), message, ec.ECDSA(sha256))
        ec.generate_private_key(ec.SECP256R1()).exchange(ec.ECDH(), guest.public_key())
        count += 1
    return count / (time.process_time() - started)


def log_alone(folder: Path, url: str, seconds: float) -> tuple[float, float]:
    """Entries per second, and per CPU second of this process: committed, in tiles, under a signed checkpoint."""
    private = Ed25519PrivateKey.generate()
    key = VerifierKey("bench.kekkai/log", private.public_key().public_bytes_raw())
    engine = open_database(url)
    log = TransparencyLog(folder / "log-alone", key, private.sign)
    publication = LogPublication(engine, lambda: log, LogLease(engine, "bench", 60))
    publication.start()
    journal = Journal(engine, publication)
    journal.start()
    fields = {"key": "team-a/dataset", "evidence": "e" * 64, "session": "s" * 64, "recipient": "r" * 43}

    def act(change: Change) -> int:
        return change.log(entries.DENIAL, fields)

    count, started, cpu = 0, time.monotonic(), time.process_time()
    while time.monotonic() - started < seconds:
        for future in [journal.submit(act) for _ in range(2048)]:
            future.result()
        count += 2048
    elapsed, spent = time.monotonic() - started, time.process_time() - cpu
    assert log.size == count
    journal.close()
    publication.close()
    engine.dispose()
    return count / elapsed, count / spent


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--guests", type=int, default=32)
    parser.add_argument("--store", choices=["sqlite", "postgresql"], default="sqlite")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        overrides: dict[str, Any] = {"limits": {"denialsPerSecond": 20}}
        extra, log_url = [], f"sqlite:///{folder / 'log-alone.sqlite'}"
        if options.store == "postgresql":
            server = stack.enter_context(PostgreSQL())
            overrides |= {
                "storeUrl": server.database()[1],
                "log": {"origin": "kekkai.test/log", "folder": str(folder / "log")},
            }
            extra, log_url = [server.process.pid], server.database()[1]
        bare = bare_cryptography(1.0)
        entries_wall, entries_cpu = log_alone(folder, log_url, options.seconds / 3)
        service = stack.enter_context(Service(folder / "service", **overrides))
        if options.store == "postgresql":
            service.log_folder = folder / "log"
        Custodians().set_up(service, maxReleases=1_000_000)
        callers = [Caller(service, Guest(service)) for _ in range(options.guests)]
        for caller in callers:
            caller.release()
        before = _server_cpu(service, extra)
        releases, elapsed = closed_loop(callers, options.seconds)
        spent = [b - a for a, b in zip(before, _server_cpu(service, extra), strict=True)]
        rate = releases / elapsed
        latencies = sorted(open_loop(callers, rate / 2, options.seconds))
        report = service.verify_log()
        assert report.ok, report.faults
        logged = report.keys["team-a/dataset"].releases
        assert logged == releases + len(latencies) + len(callers), "every release has its entry"
    table = Table(
        title=f"Attested releases over HTTPS, {options.guests} guests, {options.store}, load {os.getloadavg()[0]:.1f}"
    )
    for column in ("figure", "value", "goal"):
        table.add_column(column, justify="left" if column == "figure" else "right")
    for row in (
        ("releases per server CPU second", f"{releases / sum(spent):.0f}", "≥ 250"),
        (
            "CPU a release: service + worker + database",
            " + ".join(f"{1000 * s / releases:.2f}" for s in spent) + " ms",
            "",
        ),
        ("bare cryptography, releases per CPU second", f"{bare:.0f}", ""),
        ("raw rate, guests on the same machine", f"{rate:.0f}/s", ""),
        (f"p50, p99 at half of that ({len(latencies)})", _quantiles(latencies), ""),
        ("log entries", f"{entries_wall:.0f}/s", "≥ 5,000"),
        ("log entries per CPU second", f"{entries_cpu:.0f}", ""),
    ):
        table.add_row(*row)
    Console(width=110).print(table)


def _server_cpu(service: Service, extra: list[int]) -> list[float]:
    assert service.process is not None
    database = [pid for parent in extra for pid in (parent, *processes_of(parent))]
    return [cpu_seconds([service.process.pid]), cpu_seconds(processes_of(service.process.pid)), cpu_seconds(database)]


def _quantiles(latencies: list[float]) -> str:
    p99 = latencies[max(0, int(len(latencies) * 0.99) - 1)]
    return f"{1000 * statistics.median(latencies):.0f}, {1000 * p99:.0f} ms"


if __name__ == "__main__":
    main()
