"""The store's side of the log: committed leaves, the last published checkpoint, and word of both to other replicas."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any, Protocol

import psycopg
from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.exc import SQLAlchemyError

from keymgmt.lifecycle.database import POSTGRESQL, reader_of
from keymgmt.lifecycle.log_lease import Lease, LogLease
from keymgmt.lifecycle.schema import log_head, log_leaves, log_state
from keymgmt.transparency.errors import LogFenced
from keymgmt.transparency.sequencer import Published

_CHANNEL = "kekkai_log"
_HEAD = select(
    log_head.c.published_size,
    log_head.c.published_root,
    log_head.c.checkpoint,
    select(log_state.c.next_index).scalar_subquery().label("next_index"),
)
_NOTIFY = select(func.pg_notify(_CHANNEL, ""))


class SqlLeaves:
    """What `transparency.sequencer.LeafSource` asks for. Writes count only during the term of `lease`."""

    def __init__(self, engine: Engine, terms: LogLease, lease: Lease) -> None:
        self._engine, self._terms, self._lease = engine, terms, lease
        self._reader = reader_of(engine)

    def published(self) -> Published:
        """The last recorded checkpoint and the next index, of one moment."""
        return published(self._reader)

    def leaves_from(self, index: int, limit: int) -> list[bytes]:
        """Committed leaves from `index` on, at most `limit`."""
        query = select(log_leaves.c.data).where(log_leaves.c.idx >= index, log_leaves.c.idx < index + limit)
        with self._reader.connect() as connection:
            return [bytes(row[0]) for row in connection.execute(query.order_by(log_leaves.c.idx))]

    def record(self, size: int, root: bytes, signed: bytes) -> None:
        """Remember a published checkpoint and lengthen the term. Raises LogFenced if the term was ended."""
        with self._engine.begin() as connection:
            held = self._terms.renew(
                connection, self._lease, published_size=size, published_root=root, checkpoint=signed
            )
            if not held:
                raise LogFenced("another replica publishes the log now", where=f"epoch {self._lease.epoch}")
            announce(connection)


def published(reader: Engine) -> Published:
    """The last recorded checkpoint and the next index, of one moment."""
    with reader.connect() as connection:
        row = connection.execute(_HEAD).one()
    return Published(row.published_size, bytes(row.published_root), row.next_index, bytes(row.checkpoint))


def announce(connection: Connection) -> None:
    """When this transaction commits, wake every replica that listens: there are leaves, or a checkpoint."""
    if connection.dialect.name == POSTGRESQL:
        connection.execute(_NOTIFY)


class Bell(Protocol):
    """Wakes the publisher's thread."""

    def wait(self, seconds: float) -> None:
        """Return when something may have happened elsewhere, or after `seconds`."""

    def wake(self) -> None:
        """Have a `wait` in another thread return soon."""

    def close(self) -> None:
        """Forget the connection."""


class Pause:
    """For a store with one process: nothing happens elsewhere."""

    def __init__(self) -> None:
        self._woken = threading.Event()

    def wait(self, seconds: float) -> None:
        self._woken.wait(seconds)
        self._woken.clear()

    def wake(self) -> None:
        self._woken.set()

    def close(self) -> None:
        return


class PostgresBell:
    """LISTEN on a connection of its own, made anew when it breaks. One thread uses it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: psycopg.Connection[Any] | None = None

    def wait(self, seconds: float) -> None:
        try:
            if self._connection is None:
                url = self._engine.url.set(drivername=POSTGRESQL).render_as_string(hide_password=False)
                self._connection = psycopg.connect(url, autocommit=True, connect_timeout=5)
                self._connection.execute(f"LISTEN {_CHANNEL}")
                return  # what came before we listened must be looked for
            for _ in self._connection.notifies(timeout=seconds, stop_after=1):
                pass
        except psycopg.Error:
            self.close()
            time.sleep(min(seconds, 0.5))

    def wake(self) -> None:
        # `wait` ends by itself within its seconds where the store is away.
        with contextlib.suppress(SQLAlchemyError), self._engine.begin() as connection:
            announce(connection)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def bell_for(engine: Engine) -> Bell:
    """How to hear of other replicas on this store."""
    return PostgresBell(engine) if engine.dialect.name == POSTGRESQL else Pause()
