"""The log's witnesses: each checkpoint is shown to all, and stands once a quorum has cosigned it.

A witness keeps the largest tree it has seen. So a log that was turned back or forked finds no
quorum, as long as two quorums always share an honest witness: `quorum` must be a majority, and
up to 2·quorum - n - 1 witnesses may lie. One witness that says it has seen more proves
nothing; so many that the rest are no quorum stop the log (LogRolledBack).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Protocol

from crds.errors import InvalidInput, KekkaiError, Unavailable
from keymgmt.transparency.cosignature import WitnessKey
from keymgmt.transparency.errors import LogRolledBack, NoteInvalid, WitnessesUnreachable, WitnessRefused
from keymgmt.transparency.merkle import NodeReader, consistency_proof
from keymgmt.transparency.note import Checkpoint, SignatureLine, split_note
from keymgmt.transparency.witness_protocol import AddCheckpoint, Answer, attach, lines_of, size_of

logger = logging.getLogger(__name__)
CLOCK_SKEW = 300  # seconds that a cosignature's time may lie before or after ours


class Transport(Protocol):
    """Asks one witness."""

    def add_checkpoint(self, body: bytes) -> Answer:
        """POST add-checkpoint. Raises Unavailable if there is no answer in time."""


@dataclass
class Witness:
    """One witness: its key, how to reach it, and what we know of it."""

    key: WitnessKey
    transport: Transport
    known: int = 0  # entries of the checkpoint that it last cosigned, as far as we know
    fault: str = ""  # what kept its last cosignature from counting; empty if it counted
    claimed: int = 0  # a size beyond the log's that it says it has seen
    busy: threading.Lock = field(default_factory=threading.Lock)


class Cosigner:
    """Collects cosignatures. `seconds` is how long one checkpoint waits for its quorum.

    `grace_seconds`: for how long after the last quorum checkpoints are published without one;
    0, the default, publishes none. Grace never applies to a start, nor after a roll-back was claimed.
    """

    def __init__(
        self,
        witnesses: Sequence[Witness],
        quorum: int,
        *,
        seconds: float = 5.0,
        grace_seconds: float = 0.0,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises InvalidInput unless the quorum is a majority of distinct witnesses."""
        names = {one.key.name for one in witnesses}
        if len(names) != len(witnesses) or len({one.key.public_key for one in witnesses}) != len(witnesses):
            raise InvalidInput("two witnesses share a name or a key", where="log.witnesses")
        if not len(witnesses) < 2 * quorum or quorum > len(witnesses):
            raise InvalidInput(
                f"a quorum of {quorum} is not a majority of {len(witnesses)} witnesses",
                where="log.witnesses.quorum",
                fix="choose a number above half, so that two quorums share a witness",
            )
        self.witnesses, self.quorum = tuple(witnesses), quorum
        self._seconds, self._grace = seconds, grace_seconds
        self._clock, self._ticks = clock, ticks
        self._last_quorum: float | None = None
        self._pool = ThreadPoolExecutor(len(witnesses), thread_name_prefix="witness")

    def cosign(self, signed: bytes, checkpoint: Checkpoint, node: NodeReader) -> bytes:
        """The checkpoint with a quorum's cosignatures. `node` reads the tree of `checkpoint.size` leaves.

        Raises LogRolledBack if so many witnesses have seen a larger log that no quorum is left,
        WitnessesUnreachable if too few answered and the grace is over.
        """
        lines = self._collect(signed, checkpoint, node)
        if len(lines) >= self.quorum:
            self._last_quorum = self._ticks()
            return attach(signed, lines)
        ahead = [one for one in self.witnesses if one.claimed > checkpoint.size]
        if len(self.witnesses) - len(ahead) < self.quorum:
            raise LogRolledBack(
                f"the log has {checkpoint.size} entries; "
                + ", ".join(f"{one.key.name} has seen {one.claimed}" for one in ahead),
                where=checkpoint.origin,
                fix="the log or its store was restored from an old copy; restore the newest one",
            )
        if not ahead and self._last_quorum is not None and self._ticks() - self._last_quorum < self._grace:
            logger.warning("a checkpoint is published with %d of %d cosignatures", len(lines), self.quorum)
            return attach(signed, lines)
        faults = "; ".join(f"{one.key.name}: {one.fault}" for one in self.witnesses if one.fault)
        raise WitnessesUnreachable(
            f"{len(lines)} of {self.quorum} witnesses cosigned", where=faults[:500], fix="reach the witnesses; retry"
        )

    def _collect(self, signed: bytes, checkpoint: Checkpoint, node: NodeReader) -> list[SignatureLine]:
        """One cosignature each, of those that came before the quorum or the time was reached."""
        reading = threading.Lock()  # the tree's reader has a cache that is not for two threads

        def proof(old: int) -> tuple[bytes, ...]:
            with reading:
                return tuple(consistency_proof(old, checkpoint.size, node))

        pending: set[Future[SignatureLine | None]] = {
            self._pool.submit(self._ask, one, signed, checkpoint, proof) for one in self.witnesses
        }
        lines: list[SignatureLine] = []
        deadline = self._ticks() + self._seconds
        while pending and len(lines) < self.quorum and (left := deadline - self._ticks()) > 0:
            done, pending = wait(pending, timeout=left, return_when=FIRST_COMPLETED)
            lines += [line for future in done if (line := future.result()) is not None]
        return sorted(lines, key=lambda line: line.name)

    def _ask(
        self, one: Witness, signed: bytes, checkpoint: Checkpoint, proof: Callable[[int], tuple[bytes, ...]]
    ) -> SignatureLine | None:
        """A witness's valid cosignature; None if it gave none, and why in its `fault`."""
        if not one.busy.acquire(blocking=False):
            one.fault = "it has not answered the checkpoint before"
            return None
        try:
            line = _exchange(one, signed, checkpoint, proof, self._clock)
        except KekkaiError as error:
            if not isinstance(error, Unavailable):
                logger.error("witness %s: %s", one.key.name, error.problem.what)
            one.fault = error.problem.what
            return None
        finally:
            one.busy.release()
        one.fault, one.claimed, one.known = "", 0, checkpoint.size
        return line


def _exchange(
    one: Witness,
    signed: bytes,
    checkpoint: Checkpoint,
    proof: Callable[[int], tuple[bytes, ...]],
    clock: Callable[[], float],
) -> SignatureLine:
    """Ask, and once more from the size that the witness names. Raises WitnessRefused, Unavailable."""
    old = min(one.known, checkpoint.size)
    for _ in range(2):
        answer = one.transport.add_checkpoint(AddCheckpoint(old, proof(old), signed).encode())
        if answer.status != 409:
            break
        try:
            old = size_of(answer)
        except NoteInvalid as error:
            raise WitnessRefused(error.problem.what, where=one.key.name) from None
        if old > checkpoint.size:
            one.claimed = old
            raise WitnessRefused(f"it claims to have seen {old} entries", where=one.key.name)
    if answer.status >= 500:
        raise Unavailable(f"status {answer.status}", where=one.key.name)
    if answer.status != 200:
        raise WitnessRefused(f"it refused the checkpoint with status {answer.status}", where=one.key.name)
    return _valid_line(one.key, signed, answer, clock())


def _valid_line(key: WitnessKey, signed: bytes, answer: Answer, now: float) -> SignatureLine:
    text, _ = split_note(signed)
    try:
        mine = [line for line in lines_of(answer) if (line.name, line.key_id) == (key.name, key.key_id)]
        if not mine:
            raise NoteInvalid("its answer holds no cosignature by its key")
        at = key.verify(text, mine[0])
    except NoteInvalid as error:
        raise WitnessRefused(error.problem.what, where=key.name) from None
    if abs(at - now) > CLOCK_SKEW:
        raise WitnessRefused(f"its cosignature's time is {at - now:+.0f} s off", where=key.name)
    return mine[0]
