"""Group commit: many changes in one transaction, their log leaves published, then everyone answered.

A change is a function of a `Change`. If it raises, only it is undone; it may run twice before
it is answered, so it must act only through the `Change`. Its caller is answered after the
commit AND after a signed checkpoint covers its leaves. A crash at any point leaves either
nothing, or a committed leaf that the next start publishes.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, Protocol, TypeVar

from sqlalchemy import Connection, Engine, bindparam, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from crds.errors import KekkaiError, Unavailable
from keymgmt.lifecycle.database import StoreUnavailable
from keymgmt.lifecycle.log_leaves import announce
from keymgmt.lifecycle.schema import log_leaves, log_state
from keymgmt.transparency.entries import decode_entry, encode_entry
from keymgmt.transparency.errors import LogRolledBack

logger = logging.getLogger(__name__)
T = TypeVar("T")
_NEXT_INDEX = select(log_state.c.next_index).with_for_update()
_SET_NEXT_INDEX = update(log_state).values(next_index=bindparam("following"))
_ADD_LEAVES = insert(log_leaves)
_LEAF = select(log_leaves.c.data).where(log_leaves.c.idx == bindparam("idx"))
CLOCK_TOLERANCE = timedelta(seconds=30)  # how far clocks of replicas may differ
MAX_BATCH = 256
MAX_QUEUE = 4096


class Publisher(Protocol):
    """Makes committed entries part of the log."""

    @property
    def size(self) -> int:
        """Entries that the newest checkpoint known here commits to."""

    def publish(self, size: int) -> None:
        """Return once a signed checkpoint covers the first `size` entries. Raises KekkaiError, OSError."""


class ClockWentBack(Unavailable):
    """The service's clock is behind what the log already says: nothing is decided by such a clock."""

    reason = "ClockWentBack"


@dataclass(slots=True)
class Change:
    """What a change may use: the connection, the time, and the log."""

    connection: Connection
    now: datetime
    next_index: int
    leaves: list[dict[str, Any]] = field(default_factory=list)
    # What was read and checked in this transaction and cannot change within it.
    seen: dict[str, Any] = field(default_factory=dict)

    def log(self, kind: str, fields: Mapping[str, Any], key: tuple[str, str] = ("", "")) -> int:
        """Append a leaf; returns its index. `key` is (namespace, name) for later look-ups."""
        index = self.next_index
        data = encode_entry(kind, self.now, fields)
        self.leaves.append({"idx": index, "kind": kind, "namespace": key[0], "name": key[1], "data": data})
        self.next_index += 1
        return index


@dataclass(slots=True)
class _Job(Generic[T]):
    act: Callable[[Change], T]
    future: Future[T]
    result: T | None = None


class Journal:
    """One thread that commits. `clock` is injected for tests."""

    def __init__(
        self, engine: Engine, publisher: Publisher, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._engine, self._publisher, self._clock = engine, publisher, clock
        self._queue: queue.Queue[_Job[Any] | None] = queue.Queue(MAX_QUEUE)
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._closed = False
        self.healthy = True
        self.batches = 0

    def start(self) -> None:
        """Begin committing."""
        self._thread.start()

    def submit(self, act: Callable[[Change], T]) -> Future[T]:
        """Queue a change. The future raises what `act` raised, or StoreUnavailable."""
        if self._closed:
            raise StoreUnavailable("the service is stopping")
        job: _Job[T] = _Job(act, Future())
        try:
            self._queue.put_nowait(job)
        except queue.Full:
            raise StoreUnavailable("too many changes are waiting", fix="retry later") from None
        return job.future

    def close(self) -> None:
        """Commit what is queued, then stop."""
        self._closed = True
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join(timeout=30)

    def _run(self) -> None:
        stopping = False
        while not stopping:
            batch: list[_Job[Any]] = []
            item = self._queue.get()
            while item is not None:
                batch.append(item)
                if len(batch) == MAX_BATCH:
                    break
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
            stopping = item is None
            if batch:
                self._commit(batch)

    def _commit(self, batch: list[_Job[Any]]) -> None:
        self.batches += 1
        try:
            done, committed = self._transact(batch)
            # Also waits for the leaves of an earlier batch whose publication failed.
            self._publisher.publish(committed)
            self.healthy = True
        except (SQLAlchemyError, OSError, KekkaiError) as error:
            self.healthy = False
            told = str(error) if isinstance(error, ClockWentBack) else type(error).__name__
            logger.error("the journal cannot commit: %s", told)
            for job in batch:
                if not job.future.done():
                    job.future.set_exception(
                        StoreUnavailable("the change could not be committed and logged", fix="retry later")
                    )
            return
        for job in done:
            job.future.set_result(job.result)

    def _transact(self, batch: list[_Job[Any]]) -> tuple[list[_Job[Any]], int]:
        """Run the batch without savepoints; if a change raises, once more with one for each."""
        try:
            return self._attempt(batch, careful=False)
        except _Refused:
            return self._attempt(batch, careful=True)

    def _attempt(self, batch: list[_Job[Any]], *, careful: bool) -> tuple[list[_Job[Any]], int]:
        """The jobs that succeeded, and how many entries must be published before they are answered."""
        done = []
        with self._engine.begin() as connection:
            row = connection.execute(_NEXT_INDEX).one()
            if row.next_index < self._publisher.size:
                raise LogRolledBack("the store was turned back: it would give out an index again", where="store")
            change = Change(connection, self._now(connection, row.next_index), row.next_index)
            for job in batch:
                if self._run_one(job, change, careful=careful):
                    done.append(job)
            if change.leaves:
                connection.execute(_ADD_LEAVES, change.leaves)
                connection.execute(_SET_NEXT_INDEX, {"following": change.next_index})
                announce(connection)
        return done, change.next_index if change.leaves or not self.healthy else 0

    def _now(self, connection: Connection, next_index: int) -> datetime:
        """The time of a change: never before the last entry's. Raises ClockWentBack.

        A clock that was turned back would bring a policy that has ended into force again.
        """
        now = self._clock()
        last = connection.execute(_LEAF, {"idx": next_index - 1}).scalar()
        if last is None:
            return now
        logged = datetime.fromisoformat(decode_entry(bytes(last))["at"])
        if now < logged - CLOCK_TOLERANCE:
            raise ClockWentBack(
                f"the clock is {(logged - now).total_seconds():.0f} s behind the last log entry",
                where="clock",
                fix="set the clock right; the service goes on by itself",
            )
        return max(now, logged)

    @staticmethod
    def _run_one(job: _Job[Any], change: Change, *, careful: bool) -> bool:
        before, kept = change.next_index, len(change.leaves)
        savepoint = change.connection.begin_nested() if careful else None
        try:
            job.result = job.act(change)
        except SQLAlchemyError:
            raise
        except Exception as error:
            if savepoint is None:
                raise _Refused from error
            savepoint.rollback()
            change.next_index = before
            del change.leaves[kept:]
            job.future.set_exception(error)
            return False
        if savepoint is not None:
            savepoint.commit()
        return True


class _Refused(Exception):
    """A change raised: undo the batch and run it again, change by change."""
