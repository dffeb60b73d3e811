"""Typed errors, written once and shown alike by admission, REST, CLI and conditions.

Every error says what is wrong (`what`), where (`where`: a field path, a resource, a
header) and what to do about it (`fix`). `reason` is a CamelCase code that programs may
switch on; it is also the `reason` of the condition that reports it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault as data: fit for a JSON reply, a table row or a condition message."""

    reason: str
    what: str
    where: str = ""
    fix: str = ""

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        remedy = f"; {self.fix}" if self.fix else ""
        return f"{place}{self.what}{remedy}"

    def as_dict(self) -> dict[str, str]:
        """The wire form: keys without a value are left out."""
        fields = {"reason": self.reason, "what": self.what, "where": self.where, "fix": self.fix}
        return {key: value for key, value in fields.items() if value}


class KekkaiError(Exception):
    """Base of every error that a user of Kekkai may see.

    Subclasses set `reason` and `http_status`. Arguments must never hold key material:
    they end up in logs, conditions and replies.
    """

    reason = "InternalError"
    http_status = 500

    def __init__(self, what: str, *, where: str = "", fix: str = "", reason: str = "") -> None:
        super().__init__(what)
        self.problem = Problem(reason or type(self).reason, what, where, fix)

    def __str__(self) -> str:
        return str(self.problem)

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors cross process borders (the HSM worker), so they must survive pickling.
        return _rebuild, (type(self), self.problem)


def _rebuild(kind: type[KekkaiError], problem: Problem) -> KekkaiError:
    return kind(problem.what, where=problem.where, fix=problem.fix, reason=problem.reason)


class InvalidInput(KekkaiError):
    """The caller sent something that no retry will make right."""

    reason = "InvalidInput"
    http_status = 400


class Unauthenticated(KekkaiError):
    """The caller did not prove who it is."""

    reason = "Unauthenticated"
    http_status = 401


class Forbidden(KekkaiError):
    """The caller is known and may not do this."""

    reason = "Forbidden"
    http_status = 403


class NotFound(KekkaiError):
    """The named thing does not exist, or the caller may not know that it does."""

    reason = "NotFound"
    http_status = 404


class Conflict(KekkaiError):
    """The request contradicts the present state."""

    reason = "Conflict"
    http_status = 409


class Unavailable(KekkaiError):
    """A part that is needed does not answer now; the caller should retry."""

    reason = "Unavailable"
    http_status = 503
