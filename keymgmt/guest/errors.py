"""How the agent fails, each way with its own exit status.

| status | meaning |
|---|---|
| 0 | the result was written |
| 1 | an unexpected fault |
| 2 | wrong usage of the command line |
| 3 | the key service refused: evidence, release policy, run count |
| 4 | the key service could not be reached, or could not decide, before the deadline |
| 5 | the sealed input is corrupt, cut short, or sealed for another resource or key |
| 6 | the command given after `--` failed or wrote too much |
| 7 | this machine offers no evidence device, or it gave no usable report |
| 8 | an input or output file could not be read or written |
"""

from __future__ import annotations

from crds.errors import KekkaiError


class GuestError(KekkaiError):
    """Base: carries the exit status."""

    reason = "GuestFailed"
    exit_code = 1


class KeyRefused(GuestError):
    """The key service said no. `what` is its own text; no retry will help."""

    reason = "KeyRefused"
    exit_code = 3
    http_status = 401


class KeyServiceUnreachable(GuestError):
    """No decision came before the deadline."""

    reason = "KeyServiceUnreachable"
    exit_code = 4
    http_status = 503


class SealedInputInvalid(GuestError):
    """The sealed input does not open under this key for this resource."""

    reason = "SealedInputCorrupt"
    exit_code = 5
    http_status = 400


class CommandFailed(GuestError):
    """The workload's own command failed."""

    reason = "CommandFailed"
    exit_code = 6


class EvidenceUnavailable(GuestError):
    """No evidence can be had from this machine."""

    reason = "EvidenceUnavailable"
    exit_code = 7


class FileFault(GuestError):
    """A file named on the command line cannot be used."""

    reason = "FileFault"
    exit_code = 8
    http_status = 400
