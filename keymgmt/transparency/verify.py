"""Offline verification: every entry read, the root recomputed, the signature checked, releases counted.

This is what an auditor runs. It trusts only the log's verifier key, and takes the files from
a folder or a URL. What it proves: code that honestly follows the rule "a release is authorised
by its entry" delivered each key at most as often as listed, to the measurements listed.
"""

from __future__ import annotations

import base64
import binascii
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from keymgmt.transparency import entries as kinds
from keymgmt.transparency.errors import LogCorrupt, LogRolledBack, NoteInvalid
from keymgmt.transparency.log import CHECKPOINT
from keymgmt.transparency.merkle import CompactRange, inclusion_proof, leaf_hash, perfect_root, verify_inclusion
from keymgmt.transparency.note import Checkpoint, VerifierKey
from keymgmt.transparency.tiles import TILE_WIDTH, TileNodes, TileReader, read_entries, read_hashes, tile_path

_PROOF_HEADER = "c2sp.org/tlog-proof@v1"


@dataclass
class KeyHistory:
    """What the log says of one key."""

    tenant: str = ""
    state: str = ""
    releases: int = 0
    transits: int = 0  # sessions that had the key used for them; it did not leave the service
    by_policy: Counter[str] = field(default_factory=Counter)
    by_measurement: Counter[str] = field(default_factory=Counter)
    denials: Counter[str] = field(default_factory=Counter)
    policy: str = ""
    version: int = 1
    destroyed_versions: set[int] = field(default_factory=set)


@dataclass
class LogReport:
    """Outcome of a verification. `faults` is empty when all is well."""

    origin: str
    size: int
    root: str
    by_type: Counter[str] = field(default_factory=Counter)
    keys: dict[str, KeyHistory] = field(default_factory=dict)
    policies: dict[str, dict[str, Any]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """No fault was found."""
        return not self.faults

    def exceeded(self, name: str, at_most: int | None, measurements: Collection[str] | None) -> list[str]:
        """How a key went beyond a number of releases or a set of measurements; both None look at nothing."""
        key = self.keys.get(name)
        if key is None:
            return [f"the log knows no key {name}"]
        faults = []
        if at_most is not None and key.releases + key.transits > at_most:
            faults.append(f"{name} was released or used {key.releases + key.transits} times, {at_most} were expected")
        if measurements:
            faults += [f"{name} was released to {m}" for m in sorted(set(key.by_measurement) - set(measurements))]
        return faults

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "origin": self.origin,
            "size": self.size,
            "root": self.root,
            "ok": self.ok,
            "faults": self.faults,
            "entries": dict(self.by_type),
            "keys": {
                name: {
                    "tenant": key.tenant,
                    "state": key.state,
                    "version": key.version,
                    "policy": key.policy,
                    "releases": key.releases,
                    "transits": key.transits,
                    "releasesByPolicy": {
                        digest: {"count": count, "max": self.policies.get(digest, {}).get("maxReleases")}
                        for digest, count in key.by_policy.items()
                    },
                    "releasesByMeasurement": dict(key.by_measurement),
                    "denials": dict(key.denials),
                }
                for name, key in sorted(self.keys.items())
            },
        }


def read_checkpoint(reader: TileReader, key: VerifierKey) -> tuple[Checkpoint, bytes]:
    """The signed checkpoint. Raises LogCorrupt if there is none, NoteInvalid if it is not by `key`."""
    content = reader.read(CHECKPOINT)
    if content is None:
        raise LogCorrupt("the log has no checkpoint", where=CHECKPOINT)
    return Checkpoint.open(content, key), content


def iterate(reader: TileReader, size: int) -> Iterator[bytes]:
    """All entries of a log of `size` leaves. Raises LogCorrupt on a gap."""
    for start in range(0, size, TILE_WIDTH):
        yield from read_entries(reader, start // TILE_WIDTH, min(TILE_WIDTH, size - start))


def verify_log(reader: TileReader, key: VerifierKey, seen: Checkpoint | None = None) -> LogReport:
    """Scan the whole log. `seen` is an earlier checkpoint that it must extend.

    Raises LogCorrupt, LogRolledBack or NoteInvalid when the log itself is broken; broken
    promises within a sound log (such as a release over its limit) are `faults` of the report.
    """
    checkpoint, _ = read_checkpoint(reader, key)
    if seen is not None and seen.size > checkpoint.size:
        raise LogRolledBack(f"the log has {checkpoint.size} entries; {seen.size} were seen before", where=key.name)
    report = LogReport(checkpoint.origin, checkpoint.size, checkpoint.root.hex())
    tree = CompactRange()
    if seen is not None and seen.size == 0 and seen.root != tree.root():
        raise LogCorrupt("the earlier checkpoint's root is not that of an empty tree")
    tiles = _TileCheck(reader)
    for index, data in enumerate(iterate(reader, checkpoint.size)):
        tree.append(leaf_hash(data))
        tiles.add(leaf_hash(data))
        if seen is not None and tree.size == seen.size and tree.root() != seen.root:
            raise LogCorrupt("the log rewrote entries that an earlier checkpoint committed to", where=key.name)
        _account(report, index, kinds.decode_entry(data))
    if tree.root() != checkpoint.root:
        raise LogCorrupt("the entries do not give the checkpoint's root", where=key.name)
    tiles.finish()
    return report


class _TileCheck:
    """Compares every hash tile with the hashes recomputed from the entries."""

    def __init__(self, reader: TileReader) -> None:
        self._reader = reader
        self._rows: list[list[bytes]] = []
        self._full: list[int] = []

    def add(self, carry: bytes) -> None:
        """Take the next leaf hash. Raises LogCorrupt when a completed tile differs."""
        level = 0
        while True:
            if level == len(self._rows):
                self._rows.append([])
                self._full.append(0)
            row = self._rows[level]
            row.append(carry)
            if len(row) < TILE_WIDTH:
                return
            self._compare(level)
            carry = perfect_root(row)
            row.clear()
            self._full[level] += 1
            level += 1

    def finish(self) -> None:
        """Compare the partial tiles at the right edge."""
        for level, row in enumerate(self._rows):
            if row:
                self._compare(level)

    def _compare(self, level: int) -> None:
        row = self._rows[level]
        if read_hashes(self._reader, level, self._full[level], len(row)) != row:
            raise LogCorrupt(
                "a hash tile does not match the entries", where=tile_path(level, self._full[level], len(row))
            )


def _account(report: LogReport, index: int, entry: dict[str, Any]) -> None:
    """Apply one entry to the report and note each broken promise."""
    kind = entry["type"]
    report.by_type[kind] += 1
    if kind == kinds.POLICY_ACCEPTED:
        report.policies[str(entry["digest"])] = entry
        return
    name = entry.get("key")
    if not isinstance(name, str):
        return
    if kind == kinds.DENIAL and name not in report.keys:
        return  # a request for a key that never was
    key = report.keys.setdefault(name, KeyHistory())
    if kind in (kinds.KEY_CREATED, kinds.KEY_STATE, kinds.KEY_IMPORTED, kinds.KEY_DESTROYED):
        key.tenant = str(entry.get("tenant", key.tenant))
        key.state = str(entry.get("state", key.state))
        key.policy = str(entry.get("policy", key.policy))
        if kind == kinds.KEY_IMPORTED:
            key.version = int(entry.get("version", 1))
    elif kind == kinds.KEY_ROTATED:
        _account_rotation(report, index, name, key, entry)
    elif kind == kinds.KEY_VERSION_DESTROYED:
        key.destroyed_versions.add(int(entry.get("version", 0)))
    elif kind == kinds.KEY_POLICY:
        _account_policy_change(report, index, key, entry)
    elif kind in kinds.COUNTED:
        _account_release(report, index, name, key, entry)
    elif kind == kinds.DENIAL:
        key.denials[str(entry.get("reason"))] += 1


def _account_rotation(report: LogReport, index: int, name: str, key: KeyHistory, entry: dict[str, Any]) -> None:
    if key.state != "Active":
        report.faults.append(f"entry {index}: rotation of {name} while it was {key.state or 'unknown'}")
    if entry.get("version") != key.version + 1 or entry.get("previous") != key.version:
        report.faults.append(f"entry {index}: rotation of {name} skips a version")
    key.version = int(entry.get("version", 0))


def _account_policy_change(report: LogReport, index: int, key: KeyHistory, entry: dict[str, Any]) -> None:
    accepted = report.policies.get(str(entry.get("policy")))
    if accepted is None:
        report.faults.append(f"entry {index}: policy changed to one that was never accepted")
    elif accepted.get("replaces") != key.policy:
        report.faults.append(f"entry {index}: the new policy does not replace the one in force")
    key.policy = str(entry.get("policy"))


def _account_release(report: LogReport, index: int, name: str, key: KeyHistory, entry: dict[str, Any]) -> None:
    policy = str(entry.get("policy"))
    if entry["type"] == kinds.RELEASE:
        key.releases += 1
    else:
        key.transits += 1
    key.by_policy[policy] += 1
    key.by_measurement[str(entry.get("measurement"))] += 1
    accepted = report.policies.get(policy)
    if accepted is None:
        report.faults.append(f"entry {index}: release of {name} under a policy that was never accepted")
    elif key.by_policy[policy] > int(accepted.get("maxReleases", 0)):
        report.faults.append(f"entry {index}: release {key.by_policy[policy]} of {name} exceeds the policy's limit")
    if policy != key.policy:
        report.faults.append(f"entry {index}: release of {name} under a policy that is not in force")
    if key.state != "Active":
        report.faults.append(f"entry {index}: release of {name} while it was {key.state or 'unknown'}")
    version = int(entry.get("version", 1))
    if version > key.version or version in key.destroyed_versions:
        report.faults.append(f"entry {index}: release of version {version} of {name}, which there was not")
    if entry.get("count") != key.by_policy[policy]:
        report.faults.append(f"entry {index}: release of {name} has a wrong run count")


def prove(reader: TileReader, key: VerifierKey, index: int) -> bytes:
    """An offline proof that entry `index` is in the log (c2sp.org/tlog-proof@v1)."""

    checkpoint, signed = read_checkpoint(reader, key)
    if not 0 <= index < checkpoint.size:
        raise NoteInvalid(f"the log has entries 0 to {checkpoint.size - 1}", where=f"index {index}")
    proof = inclusion_proof(index, checkpoint.size, TileNodes(reader, checkpoint.size))
    lines = [_PROOF_HEADER, f"index {index}", *(base64.b64encode(item).decode() for item in proof)]
    return ("\n".join(lines) + "\n\n").encode() + signed


def proved_index(proof: bytes) -> int:
    """The index that a proof speaks of. Raises NoteInvalid. `check_proof` tells whether it holds."""
    lines = proof.partition(b"\n\n")[0].decode("utf-8", "replace").split("\n")
    name, _, number = lines[1].partition(" ") if len(lines) > 1 else ("", "", "")
    if lines[0] != _PROOF_HEADER or name != "index" or not number.isascii() or not number.isdigit():
        raise NoteInvalid("malformed tlog-proof")
    return int(number)


def check_proof(proof: bytes, entry: bytes, key: VerifierKey) -> Checkpoint:
    """Verify a proof made by `prove` for the entry's bytes. Raises NoteInvalid. Returns the checkpoint."""

    head, separator, signed = proof.partition(b"\n\n")
    lines = head.decode("utf-8", "replace").split("\n")
    if len(lines) > 1 and lines[1].startswith("extra "):
        del lines[1]  # opaque to the format, and not authenticated
    if not separator or lines[0] != _PROOF_HEADER or len(lines) < 2 or len(lines) > 66:
        raise NoteInvalid("not a tlog-proof")
    number = lines[1].removeprefix("index ")
    try:
        if not number.isascii() or not number.isdigit() or len(number) > 19:
            raise ValueError
        path = [base64.b64decode(line, validate=True) for line in lines[2:]]
    except (ValueError, binascii.Error):
        raise NoteInvalid("malformed tlog-proof") from None
    checkpoint = Checkpoint.open(signed, key)
    if not verify_inclusion(leaf_hash(entry), int(number), checkpoint.size, path, checkpoint.root):
        raise NoteInvalid("the entry is not in the log at that index", where=f"index {number}")
    return checkpoint
