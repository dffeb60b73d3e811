"""The last values of every service's signals, for the external metrics API. In memory only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Key = tuple[str, str]  # namespace, Workload
WANTED = "wanted-replicas"  # beside the signals' own names


@dataclass(frozen=True, slots=True)
class Reading:
    """A value that was true at `at` (seconds since 1970)."""

    value: float
    at: float


@dataclass(slots=True)
class Readings:
    """Written by the controller, read by the API server."""

    _of: dict[Key, Mapping[str, Reading]] = field(default_factory=dict)

    def put(self, key: Key, values: Mapping[str, Reading]) -> None:
        self._of[key] = dict(values)

    def forget(self, key: Key) -> None:
        self._of.pop(key, None)

    def find(self, namespace: str, metric: str) -> list[tuple[str, Reading]]:
        """(Workload, reading) of each service of the namespace that has this signal, by name."""
        return sorted(
            (
                (name, values[metric])
                for (where, name), values in self._of.items()
                if where == namespace and metric in values
            ),
            key=lambda one: one[0],
        )

    def metrics(self) -> list[str]:
        """All names that some service has."""
        return sorted({name for values in self._of.values() for name in values})
