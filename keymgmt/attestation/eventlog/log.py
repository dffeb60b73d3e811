"""A TCG crypto-agile event log (a vTPM's, or CCEL of a TDX guest) as bytes.

Layout: one TCG_PCR_EVENT whose data is TCG_EfiSpecIdEvent (algorithms and digest sizes),
then TCG_PCR_EVENT2 records: register index, type, digests, event data. All integers are
little-endian. The log ends with the bytes, or with eight bytes of 00 or FF, for the buffer
that firmware reserves is larger than what it fills.
Source: TCG "PC Client Platform Firmware Profile" 1.06, 10.2 and 10.4.5.1; UEFI 2.11, 38.4.

Nothing of a log is true in itself: its digests are, once `replay` gave the measured
registers; its event data only as far as a digest covers it (`Event.digest_matches_event`).
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from typing import Final

from keymgmt.attestation.eventlog.event_types import ALGORITHMS, NO_ACTION, name_of
from keymgmt.attestation.refusal import AttestationRefused, refuse

MAX_LOG_BYTES: Final = 1 << 20
MAX_EVENTS: Final = 4096
MAX_EVENT_BYTES: Final = 1 << 18
MAX_ALGORITHMS: Final = 8
MAX_REGISTER: Final = 31
_SIGNATURE: Final = b"Spec ID Event03\0"
_STARTUP_LOCALITY: Final = b"StartupLocality\0"
_HEADER_BYTES: Final = 32  # TCG_PCR_EVENT up to its data
_SPEC_ID_BYTES: Final = 28  # TCG_EfiSpecIdEvent up to the algorithms
_ENDS: Final = (bytes(8), b"\xff" * 8)


@dataclass(frozen=True, slots=True)
class Event:
    """One record. `register`: PCR of a TPM; of CCEL 0 is MRTD and 1 to 4 are RTMR0 to RTMR3."""

    register: int
    kind: int
    digests: tuple[tuple[int, bytes], ...]  # (algorithm, digest)
    data: bytes

    @property
    def type_name(self) -> str:
        return name_of(self.kind)

    def digest(self, algorithm: int) -> bytes | None:
        return next((value for kind, value in self.digests if kind == algorithm), None)

    @property
    def digest_matches_event(self) -> bool:
        """Every digest is that of the event data itself. For some types it is of something else."""
        return self.covers(self.data)

    def covers(self, data: bytes, algorithm: int | None = None) -> bool:
        """Whether every digest, or that of `algorithm`, is the digest of `data`.

        False if there is none or it cannot be computed here. Only the algorithm that was
        replayed proves anything.
        """
        digests = [(kind, value) for kind, value in self.digests if algorithm in (None, kind)]
        for kind, value in digests:
            name = ALGORITHMS[kind].hashlib
            if not name or hashlib.new(name, data, usedforsecurity=False).digest() != value:
                return False
        return bool(digests)


@dataclass(frozen=True, slots=True)
class EventLog:
    """A parsed log: the algorithms that each record has digests of, and the records in order."""

    algorithms: tuple[int, ...]
    events: tuple[Event, ...]


def parse_log(data: bytes) -> EventLog:
    """Read a log. Raises EventLogMalformed."""
    if not _HEADER_BYTES + _SPEC_ID_BYTES < len(data) <= MAX_LOG_BYTES:
        raise malformed(f"a log of {len(data)} bytes", "event_log")
    sizes, offset = _spec_id(data)
    events: list[Event] = []
    while offset < len(data) and data[offset : offset + 8] not in _ENDS:
        if len(events) == MAX_EVENTS:
            raise malformed(f"more than {MAX_EVENTS} events", "event_log")
        event, offset = _event(data, offset, sizes, f"event_log[{len(events)}]")
        events.append(event)
    if any(data[offset:]) and data[offset:].strip(b"\xff"):
        raise malformed("bytes follow the end of the log", "event_log")
    return EventLog(tuple(sizes), tuple(events))


def malformed(what: str, where: str) -> AttestationRefused:
    """The refusal of bytes that do not parse."""
    return refuse("EventLogMalformed", what, where=where)


def _spec_id(data: bytes) -> tuple[dict[int, int], int]:
    """Digest sizes by algorithm, from the first record, and where the next one begins."""
    size = _integer(data, 28, 4)
    body = data[_HEADER_BYTES : _HEADER_BYTES + size]
    if _integer(data, 4, 4) != NO_ACTION or len(body) != size or not body.startswith(_SIGNATURE):
        raise malformed("the first record is not a Spec ID Event03", "event_log")
    count = _integer(body, 24, 4)
    end = _SPEC_ID_BYTES + 4 * count
    if not 1 <= count <= MAX_ALGORITHMS or len(body) <= end or len(body) != end + 1 + body[end]:
        raise malformed("the Spec ID event's algorithms or vendor data do not fill it", "event_log")
    sizes: dict[int, int] = {}
    for offset in range(_SPEC_ID_BYTES, end, 4):
        kind, length = _integer(body, offset, 2), _integer(body, offset + 2, 2)
        if kind not in ALGORITHMS or kind in sizes or length != ALGORITHMS[kind].size:
            raise malformed(f"algorithm {kind:#x} with digests of {length} bytes", "event_log")
        sizes[kind] = length
    return sizes, _HEADER_BYTES + size


def _event(data: bytes, offset: int, sizes: dict[int, int], where: str) -> tuple[Event, int]:
    register, kind, count = (_integer(data, offset + at, 4) for at in (0, 4, 8))
    if offset + 12 > len(data) or register > MAX_REGISTER or count > len(sizes):
        raise malformed("a record is cut short, or its register or digest count is out of range", where)
    offset += 12
    digests: list[tuple[int, bytes]] = []
    for _ in range(count):
        algorithm = _integer(data, offset, 2)
        size = sizes.get(algorithm)
        if size is None or any(algorithm == seen for seen, _ in digests):
            raise malformed(f"algorithm {algorithm:#x} is repeated or was not announced", where)
        digests.append((algorithm, data[offset + 2 : offset + 2 + size]))
        offset += 2 + size
    length, end = _integer(data, offset, 4), offset + 4
    if length > MAX_EVENT_BYTES or end + length > len(data):
        raise malformed(f"event data of {length} bytes exceeds its bounds", where)
    return Event(register, kind, tuple(digests), data[end : end + length]), end + length


@functools.cache
def _zero(size: int) -> bytes:
    return bytes(size)


def replay(log: EventLog, algorithm: int) -> dict[int, bytes]:
    """Register values that the log's digests of `algorithm` give: register → value.

    Registers start at zero and each record extends one: new = H(old ‖ digest). EV_NO_ACTION
    records are not extended; one of them, StartupLocality, says that a TPM was started from
    another locality, in which case PCR 0 begins with that number in its last byte. Raises
    EventLogAlgorithmUnsupported.
    """
    known = ALGORITHMS.get(algorithm)
    if known is None or not known.hashlib or algorithm not in log.algorithms:
        raise refuse("EventLogAlgorithmUnsupported", f"no digests of algorithm {algorithm:#x}", where="event_log")
    registers: dict[int, bytes] = {}
    for event in log.events:
        if event.kind == NO_ACTION:
            if event.data.startswith(_STARTUP_LOCALITY) and len(event.data) == len(_STARTUP_LOCALITY) + 1:
                registers.setdefault(0, event.data[-1:].rjust(known.size, b"\0"))
            continue
        digest = event.digest(algorithm)
        if digest is None:
            raise refuse("EventLogAlgorithmUnsupported", "a record lacks the digest", where="event_log")
        old = registers.get(event.register, _zero(known.size))
        registers[event.register] = hashlib.new(known.hashlib, old + digest, usedforsecurity=False).digest()
    return registers


def check_replay(log: EventLog, algorithm: int, measured: dict[int, bytes]) -> None:
    """Raise EventLogMismatch unless replaying gives each of the measured registers.

    `measured` holds what hardware signed: register → value. A register that the log never
    extends must be zero. The log may extend no register that was not measured.
    """
    replayed = replay(log, algorithm)
    for register in sorted(measured.keys() | replayed.keys()):
        value = measured.get(register)
        if value is None:
            raise refuse("EventLogMismatch", f"register {register} was not measured", where=f"register[{register}]")
        if replayed.get(register, _zero(len(value))) != value:
            raise refuse("EventLogMismatch", f"register {register} differs", where=f"register[{register}]")


def _integer(data: bytes, offset: int, size: int) -> int:
    """Little-endian; bytes beyond the end read as zero, which the caller's bounds then refuse."""
    return int.from_bytes(data[offset : offset + size], "little")
