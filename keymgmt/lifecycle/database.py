"""Opening the store: SQLite in WAL mode with full synchronisation, or PostgreSQL for several replicas."""

from __future__ import annotations

import hashlib
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, insert, make_url, select, update
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from crds.errors import InvalidInput, KekkaiError, Unavailable
from keymgmt.lifecycle.migrations import migrate
from keymgmt.lifecycle.schema import SCHEMA_VERSION, log_head, log_state, meta, metadata

POSTGRESQL = "postgresql"
_EMPTY_ROOT = hashlib.sha256(b"").digest()
_SCHEMA_LOCK = 0x6B656B6B6169  # an advisory lock of ours: one replica at a time brings the schema up to date
# A peer that went away must not hold a lock or a request for ever.
_POSTGRESQL_OPTIONS: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "options": "-c statement_timeout=15000 -c lock_timeout=10000 -c idle_in_transaction_session_timeout=10000"
    " -c application_name=kekkai-keys",
}


class StoreIncompatible(KekkaiError):
    """The database was written by another version."""

    reason = "StoreIncompatible"


class StoreNotDurable(KekkaiError):
    """The database answers a commit before it is safe."""

    reason = "StoreNotDurable"


class StoreUnavailable(Unavailable):
    """The store or the log cannot be written now: nothing is released meanwhile."""

    reason = "StoreUnavailable"


def open_database(url: str) -> Engine:
    """Connect and create what is missing.

    Raises StoreIncompatible, StoreNotDurable, StoreUnavailable if it cannot be reached,
    InvalidInput for another kind of database.
    """
    engine = _engine(url)
    try:
        with engine.begin() as connection:
            if engine.dialect.name == POSTGRESQL:
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_SCHEMA_LOCK})")
                _require_durable(connection)
            _bring_up_to_date(connection)
            if connection.execute(select(log_state.c.id)).first() is None:
                connection.execute(insert(log_state).values(id=1, next_index=0))
            if connection.execute(select(log_head.c.id)).first() is None:
                first = {"published_size": 0, "published_root": _EMPTY_ROOT, "checkpoint": b""}
                connection.execute(insert(log_head).values(id=1, holder="", epoch=0, expires=0, **first))
    except SQLAlchemyError as error:
        engine.dispose()
        # The driver's text may quote the URL, and with it a password.
        raise StoreUnavailable(
            f"the store cannot be opened: {type(error).__name__}", where="storeUrl", fix="is the database running?"
        ) from None
    return engine


def reader_of(engine: Engine) -> Engine:
    """The same store for queries: each sees one moment of it and holds up no change."""
    if engine.dialect.name == POSTGRESQL:
        return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    return engine.execution_options(readonly=True)


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise InvalidInput("not a database URL", where="storeUrl", fix="see docs/keys.md, Configuration") from None
    if parsed.drivername in ("sqlite", "sqlite+pysqlite"):
        engine = create_engine(parsed, connect_args={"check_same_thread": False, "timeout": 10})
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    if parsed.drivername == "postgresql+psycopg":
        # A change locks its row before it reads anything else, so each statement sees all that came before.
        return create_engine(
            parsed,
            isolation_level="READ COMMITTED",
            pool_pre_ping=True,
            pool_size=8,
            max_overflow=8,
            pool_timeout=5,
            connect_args={**_POSTGRESQL_OPTIONS, **_given(dict(parsed.query))},
        )
    raise InvalidInput(
        f"a store of kind {parsed.drivername} is not supported",
        where="storeUrl",
        fix="use postgresql+psycopg://… or leave it out for SQLite",
    )


def _given(query: dict[str, Any]) -> dict[str, Any]:
    """What the URL says itself wins."""
    return {name: query[name] for name in _POSTGRESQL_OPTIONS if name in query}


def _configure_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # SQLAlchemy, not the driver, begins transactions
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    # Writers take the lock at once: a reader that turned writer could deadlock with another.
    mode = "DEFERRED" if connection.get_execution_options().get("readonly") else "IMMEDIATE"
    connection.exec_driver_sql(f"BEGIN {mode}")


def _require_durable(connection: Connection) -> None:
    for setting in ("fsync", "synchronous_commit", "full_page_writes"):
        value = connection.exec_driver_sql(f"SHOW {setting}").scalar()
        if value == "off":
            raise StoreNotDurable(
                f"the database runs with {setting} = {value}: a release could be forgotten by a crash",
                where=f"storeUrl: {setting}",
                fix=f"set {setting} = on in postgresql.conf",
            )


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
