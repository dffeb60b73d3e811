"""Committed entries reach the log: by this replica while it holds the lease, else by the one that does.

Callers wait in `publish`. One thread renews the lease, publishes what other replicas committed,
and takes over when the holder's term has ended.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from crds.errors import KekkaiError
from keymgmt.lifecycle.database import StoreUnavailable, reader_of
from keymgmt.lifecycle.log_lease import Lease, LogLease
from keymgmt.lifecycle.log_leaves import Bell, SqlLeaves, bell_for, published
from keymgmt.transparency.errors import LogFenced, LogRolledBack
from keymgmt.transparency.log import TransparencyLog
from keymgmt.transparency.sequencer import Published, Sequencer

logger = logging.getLogger(__name__)
WAIT_SECONDS = 20.0
_POLL_SECONDS = 0.5  # should a notification be lost


class LogPublication:
    """Construct, `start`, then `publish` from any thread, `close`.

    `open_log` opens the log's storage anew, as another replica may have left it; it checks
    what it finds and raises LogCorrupt or LogRolledBack.
    """

    def __init__(self, engine: Engine, open_log: Callable[[], TransparencyLog], terms: LogLease) -> None:
        self._engine, self._open_log, self._terms = engine, open_log, terms
        self._reader = reader_of(engine)
        self._bell: Bell = bell_for(engine)
        self._writing = threading.Lock()  # the sequencer is not for two threads
        self._news = threading.Condition()
        self._sequencer: Sequencer | None = None
        self._lease: Lease | None = None
        self._renewed = 0.0
        self._rests_until = 0.0
        self._known = Published(0, b"", 0)
        self._closing = False
        self.fault = ""  # reason code of what keeps this replica from writing or following; empty if nothing
        self._thread = threading.Thread(target=self._run, name="log-publication", daemon=True)

    @property
    def size(self) -> int:
        """Entries that the newest checkpoint known here commits to. It never shrinks."""
        return self._known.size

    @property
    def checkpoint(self) -> bytes:
        """The newest signed checkpoint known here."""
        return self._known.signed

    @property
    def leads(self) -> bool:
        """Whether this replica publishes the log now."""
        return self._sequencer is not None

    @property
    def epoch(self) -> int:
        """The term of this replica as the log's writer; 0 if it has none."""
        return self._lease.epoch if self._lease is not None else 0

    def start(self) -> None:
        """Compare log and store, take the lease if it is free. Raises LogRolledBack, LogCorrupt, SQLAlchemyError."""
        if not self._try_lead():
            lease = Lease("", 0)
            self._learn(Sequencer(self._open_log(), SqlLeaves(self._engine, self._terms, lease)).check())
        self._thread.start()

    def close(self) -> None:
        """Stop; hand the lease to whoever waits for it."""
        self._closing = True
        if self._thread.is_alive():
            self._bell.wake()
            self._thread.join(timeout=10)
        self._bell.close()
        if self._lease is not None:
            try:
                self._terms.end(self._lease)
            except SQLAlchemyError:
                logger.warning("the lease of the log was not given back; it ends by itself")

    def publish(self, size: int) -> None:
        """Return once a signed checkpoint covers the first `size` entries.

        Raises StoreUnavailable after 20 seconds, LogRolledBack if the store turned back, and
        what writing the log raises.
        """
        deadline = time.monotonic() + WAIT_SECONDS
        while self._known.size < size:
            if self._write():
                continue
            with self._news:
                if self._known.size < size:
                    self._news.wait(_POLL_SECONDS)
            if self._known.size < size and time.monotonic() > deadline:
                raise StoreUnavailable("no replica published the log in time", fix="retry later")

    def _write(self) -> bool:
        """Publish what is committed if this replica holds the lease; False if it does not."""
        with self._writing:
            sequencer, started = self._sequencer, time.monotonic()
            if sequencer is None:
                return False
            try:
                if started - self._renewed > self._terms.seconds:
                    if self.fault:
                        # Another replica may reach the log's storage or an HSM where this one does not.
                        self._rests_until = started + self._terms.seconds
                        raise LogFenced("this replica could not publish the log for a whole term")
                    self._renew()
                sequencer.integrate()
                if sequencer.size != self._known.size:
                    self._renewed = started  # recording a checkpoint lengthened the term
                    self._learn(_state_of(sequencer))
                elif started - self._renewed > self._terms.seconds / 3:
                    self._renew()
            except LogFenced as error:
                logger.warning("%s", error.problem.what, extra={"epoch": self.epoch})
                self._sequencer, self._lease = None, None
                return False
        return True

    def _renew(self) -> None:
        assert self._lease is not None
        started = time.monotonic()
        with self._engine.begin() as connection:
            if not self._terms.renew(connection, self._lease):
                raise LogFenced("another replica publishes the log now", where=f"epoch {self._lease.epoch}")
        self._renewed = started

    def _try_lead(self) -> bool:
        started = time.monotonic()
        if started < self._rests_until or (lease := self._terms.try_take()) is None:
            return False
        try:
            sequencer = Sequencer(self._open_log(), SqlLeaves(self._engine, self._terms, lease))
            sequencer.recover()
        except BaseException:
            self._rests_until = started + self._terms.seconds
            self._terms.end(lease)
            raise
        with self._writing:
            self._lease, self._sequencer, self._renewed = lease, sequencer, started
            self._learn(_state_of(sequencer))
        logger.info("this replica publishes the log", extra={"epoch": lease.epoch})
        return True

    def _learn(self, known: Published) -> None:
        if known.size < self._known.size:
            raise LogRolledBack(
                f"the store's checkpoint has {known.size} entries, one of {self._known.size} was seen",
                where="store",
                fix="the database was restored from an old copy; restore the newest one and start the replicas anew",
            )
        with self._news:
            self._known = known
            self._news.notify_all()

    def _run(self) -> None:
        while not self._closing:
            self._bell.wait(min(1.0, self._terms.seconds / 4))
            try:
                self._turn()
                self.fault = ""
            except KekkaiError as error:
                self._report(error.problem.reason)
            except (SQLAlchemyError, OSError) as error:
                self._report(type(error).__name__)

    def _turn(self) -> None:
        if self._sequencer is not None:
            if self._write():
                return
        else:
            self._learn(published(self._reader))
        if not self._closing:
            self._try_lead()

    def _report(self, reason: str) -> None:
        if reason != self.fault:
            logger.error("the log is not being published: %s", reason)
        self.fault = reason


def _state_of(sequencer: Sequencer) -> Published:
    log = sequencer.log
    return Published(log.size, log.checkpoint.root, log.size, log.signed_checkpoint)
