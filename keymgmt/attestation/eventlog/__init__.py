"""Event logs of measured boot: TCG crypto-agile logs of vTPMs and CCEL of TDX guests.

`parse_log` reads the bytes within bounds, `check_replay` compares the log with registers
that hardware signed, `boot_claims` says what was booted, from what a digest covers only. It
must not know quotes, keys, HTTP or where a log came from.
"""

from keymgmt.attestation.eventlog.boot import BootClaims, boot_claims
from keymgmt.attestation.eventlog.details import as_claims, details
from keymgmt.attestation.eventlog.log import Event, EventLog, check_replay, parse_log, replay

__all__ = [
    "BootClaims",
    "Event",
    "EventLog",
    "as_claims",
    "boot_claims",
    "check_replay",
    "details",
    "parse_log",
    "replay",
]
