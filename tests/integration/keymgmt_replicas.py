"""Several key services on one PostgreSQL, one log folder and one token."""

import contextlib
import random

import psycopg

from tests.integration.keymgmt_harness import Service, until


class Replicas:
    """Replicas that are started and killed one by one; each has a data folder of its own."""

    def __init__(self, folder, postgresql, count=2, lease=1.0, **overrides):
        self.folder, self.postgresql = folder, postgresql
        self.database, self.url = postgresql.database()
        self.members = [
            Service(
                folder / f"replica-{number}",
                storeUrl=self.url,
                log={"origin": "kekkai.test/log", "folder": str(folder / "log"), "leaseSeconds": lease},
                hsm={"folder": str(folder / "token")},
                **overrides,
            )
            for number in range(count)
        ]
        for member in self.members:
            member.log_folder = folder / "log"

    def __enter__(self):
        # One after the other: the first makes the token.
        for member in self.members:
            member.start()
        return self

    def __exit__(self, *_):
        for member in self.members:
            with contextlib.suppress(Exception):
                member.stop()
            if member.process is not None and member.process.poll() is None:
                member.kill()

    def status(self, member):
        return member.ok("GET", "/v1/status", role="auditor")

    def publishes(self, member):
        return self.status(member)["log"]["publishes"]

    def leader(self):
        """The replica that holds the lease, by its own account."""
        found = []

        def one():
            found[:] = [m for m in self.members if m.process.poll() is None and self.publishes(m)]
            return len(found) == 1

        until(one, 30, "one replica publishes the log")
        return found[0]

    def query(self, statement, *arguments):
        with psycopg.connect(self.postgresql.dsn(self.database)) as connection:
            return connection.execute(statement, arguments).fetchall()

    def any_member(self, rng: random.Random):
        return rng.choice(self.members)
