"""Opening the store: SQLite in WAL mode with full synchronisation, or any SQLAlchemy URL."""

from __future__ import annotations

import hashlib
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, insert, select, update

from crds.errors import KekkaiError
from keymgmt.lifecycle.migrations import migrate
from keymgmt.lifecycle.schema import SCHEMA_VERSION, log_leaves, log_state, meta, metadata
from keymgmt.transparency.sequencer import Published

_EMPTY_ROOT = hashlib.sha256(b"").digest()


class StoreIncompatible(KekkaiError):
    """The database was written by another version."""

    reason = "StoreIncompatible"


def open_database(url: str) -> Engine:
    """Connect and create what is missing. Raises StoreIncompatible."""
    sqlite = url.startswith("sqlite")
    options: dict[str, Any] = {"connect_args": {"check_same_thread": False, "timeout": 10}} if sqlite else {}
    engine = create_engine(url, pool_pre_ping=not sqlite, **options)
    if sqlite:
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    with engine.begin() as connection:
        _bring_up_to_date(connection)
        if connection.execute(select(log_state.c.id)).first() is None:
            connection.execute(
                insert(log_state).values(id=1, next_index=0, published_size=0, published_root=_EMPTY_ROOT)
            )
    return engine


def _configure_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # SQLAlchemy, not the driver, begins transactions
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    # Writers take the lock at once: a reader that turned writer could deadlock with another.
    mode = "DEFERRED" if connection.get_execution_options().get("readonly") else "IMMEDIATE"
    connection.exec_driver_sql(f"BEGIN {mode}")


def _bring_up_to_date(connection: Connection) -> None:
    meta.create(connection, checkfirst=True)
    row = connection.execute(select(meta.c.value).where(meta.c.name == "schema")).first()
    wanted = str(SCHEMA_VERSION).encode()
    if row is None:
        metadata.create_all(connection)
        connection.execute(insert(meta).values(name="schema", value=wanted))
        return
    found = bytes(row[0])
    present = int(found) if found.isdigit() and len(found) < 6 else 0
    if not 1 <= present <= SCHEMA_VERSION:
        raise StoreIncompatible(
            f"the store has schema {found.decode(errors='replace')[:16]}, this version needs {SCHEMA_VERSION}",
            where="store",
            fix="run the matching version of the key service",
        )
    if present < SCHEMA_VERSION:
        migrate(connection, present, SCHEMA_VERSION)
        connection.execute(update(meta).where(meta.c.name == "schema").values(value=wanted))
    metadata.create_all(connection)


class SqlLeaves:
    """The store's side of the sequencer (`transparency.sequencer.LeafSource`)."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._reader = engine.execution_options(readonly=True)

    def published(self) -> Published:
        with self._reader.connect() as connection:
            row = connection.execute(select(log_state)).one()
        return Published(row.published_size, bytes(row.published_root), row.next_index)

    def leaves_from(self, index: int, limit: int) -> list[bytes]:
        query = select(log_leaves.c.data).where(log_leaves.c.idx >= index, log_leaves.c.idx < index + limit)
        with self._reader.connect() as connection:
            return [bytes(row[0]) for row in connection.execute(query.order_by(log_leaves.c.idx))]

    def record(self, size: int, root: bytes) -> None:
        with self._engine.begin() as connection:
            connection.execute(update(log_state).values(published_size=size, published_root=root))
