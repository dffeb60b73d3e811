"""What can be wrong with a transparency log."""

from __future__ import annotations

from crds.errors import InvalidInput, KekkaiError, Unavailable


class LogCorrupt(KekkaiError):
    """The log's files contradict each other, their signature, or what the store remembers.

    The service refuses to run on such a log: no log, no key.
    """

    reason = "LogCorrupt"
    http_status = 500


class LogRolledBack(LogCorrupt):
    """The log or the store is older than a checkpoint that was already published."""

    reason = "LogRolledBack"


class NoteInvalid(InvalidInput):
    """A signed note or checkpoint is malformed or not signed by the expected key."""

    reason = "NoteInvalid"


class LogFenced(Unavailable):
    """Another replica has become the writer of the log."""

    reason = "LogFenced"


class WitnessesUnreachable(Unavailable):
    """Too few witnesses cosigned a checkpoint; it is not published, and nobody is answered on its strength."""

    reason = "WitnessesUnreachable"


class WitnessRefused(KekkaiError):
    """A witness answered something that an honest one would not, or does not know the log."""

    reason = "WitnessRefused"
    http_status = 502
