"""What the demo expects, and what came."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Expectation:
    """One row of the summary: a thing that must hold, or an attack that must fail."""

    title: str
    expected: str
    kind: str = "works"  # or "refused"
    got: str = ""
    state: str = "waiting"  # waiting, running, held, broken
    seconds: float = 0.0

    @property
    def done(self) -> bool:
        return self.state in {"held", "broken"}


@dataclass(slots=True)
class Report:
    """All expectations in the order in which they are tried."""

    rows: list[Expectation] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return bool(self.rows) and all(row.state == "held" for row in self.rows)

    @property
    def broken(self) -> list[Expectation]:
        return [row for row in self.rows if row.state != "held"]
