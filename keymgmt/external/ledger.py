"""What a custodian's service has given: one row a release, durable before the key leaves, never twice for one entry."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

from crds.errors import Conflict


class AlreadyServed(Conflict):
    """That log entry was answered before."""

    reason = "AlreadyServed"


class Ledger:
    """A SQLite file. Safe for use from several threads."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._store = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._store.execute("PRAGMA journal_mode=WAL")
        self._store.execute("PRAGMA synchronous=FULL")
        self._store.execute(
            "CREATE TABLE IF NOT EXISTS served (key TEXT NOT NULL, idx INTEGER NOT NULL, at TEXT NOT NULL, "
            "recipient TEXT NOT NULL, PRIMARY KEY (key, idx))"
        )

    def served(self, key: str) -> int:
        """How often a key was given."""
        with self._lock:
            return int(self._store.execute("SELECT count(*) FROM served WHERE key = ?", (key,)).fetchone()[0])

    def record(self, key: str, index: int, at: str, recipient: str, limit: int) -> None:
        """Note a release before it leaves. Raises AlreadyServed, also when `limit` was reached meanwhile."""
        with self._lock:
            done = self._store.execute(
                "INSERT OR IGNORE INTO served SELECT ?, ?, ?, ? WHERE (SELECT count(*) FROM served WHERE key = ?) < ?",
                (key, index, at, recipient, key, limit),
            )
        if done.rowcount != 1:
            raise AlreadyServed("that release was answered before, or the last one just was", where=f"index {index}")

    def close(self) -> None:
        """Close the file."""
        self._store.close()
