"""Who may publish the log: one row with a holder, an end, and an epoch that grows with every change of hands.

The epoch is the fencing token: what a former holder writes in the store afterwards changes no
row. Time is the database's, so that replicas need no common clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Float, Update, cast, extract, func, select, update
from sqlalchemy.sql.functions import Function

from keymgmt.lifecycle.schema import log_head


@dataclass(frozen=True, slots=True)
class Lease:
    """A term of the log's writer. `epoch` fences: a larger one has replaced it."""

    holder: str
    epoch: int


class LogLease:
    """The lease as one replica sees it. `replica` names it; `seconds` is a term's length without renewal."""

    def __init__(self, engine: Engine, replica: str, seconds: float) -> None:
        self._engine, self._replica, self.seconds = engine, replica, seconds
        self._now = _now(engine.dialect.name)

    def try_take(self) -> Lease | None:
        """Begin a term if the last one ended or was this replica's own. Raises SQLAlchemyError."""
        with self._engine.begin() as connection:
            row = connection.execute(
                select(log_head.c.holder, log_head.c.epoch, (log_head.c.expires <= self._now).label("over"))
                .where(log_head.c.id == 1)
                .with_for_update()
            ).one()
            # The folder lock proves that an earlier process of this very replica is gone.
            if not row.over and row.holder != self._replica:
                return None
            lease = Lease(self._replica, row.epoch + 1)
            connection.execute(
                update(log_head)
                .where(log_head.c.id == 1)
                .values(holder=lease.holder, epoch=lease.epoch, expires=self._now + self.seconds)
            )
        return lease

    def renew(self, connection: Connection, lease: Lease, **values: Any) -> bool:
        """Lengthen a term, and store `values` in the same row; False if another replica has begun one."""
        done = connection.execute(self._held(lease).values(expires=self._now + self.seconds, **values))
        return done.rowcount == 1

    def end(self, lease: Lease) -> None:
        """End a term before its time, so that another replica need not wait. Raises SQLAlchemyError."""
        with self._engine.begin() as connection:
            connection.execute(self._held(lease).values(expires=0))

    @staticmethod
    def _held(lease: Lease) -> Update:
        return update(log_head).where(log_head.c.id == 1, log_head.c.epoch == lease.epoch)


def _now(dialect: str) -> ColumnElement[float]:
    """Unix seconds by the database's clock."""
    if dialect == "sqlite":
        return (func.julianday("now") - 2440587.5) * 86400.0
    moment: Function[Any] = func.clock_timestamp()
    return cast(extract("epoch", moment), Float)
