"""HSM keys that nothing in the store refers to, found while replicas go on making new ones. Pure.

A key is made in the HSM before the store refers to it, and removed there after: a crash in
between leaves one that must go, since it may open an old copy of the store. A key that
another replica has just made looks the same, so only patience tells them apart.
"""

from __future__ import annotations

from collections.abc import Collection

PATIENCE_SECONDS = 3600.0  # far longer than any replica takes from making a key to filing it


class Orphans:
    """Not thread-safe. Times are seconds of one monotonic clock."""

    def __init__(self, patience: float = PATIENCE_SECONDS) -> None:
        self._patience = patience
        self._since: dict[bytes, float] = {}

    def look(self, present: Collection[bytes], needed: Collection[bytes], now: float) -> list[bytes]:
        """Keys of `present` that were not `needed` at any look for the whole patience, in order.

        `needed` must be read after `present`: what was filed meanwhile is needed.
        """
        unneeded = set(present).difference(needed)
        self._since = {key: self._since.get(key, now) for key in unneeded}
        return sorted(key for key, since in self._since.items() if now - since >= self._patience)
