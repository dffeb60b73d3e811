"""Log entries: canonical JSON objects, one line each, without anything secret.

Canonical here means RFC 8785 for the values that entries use (strings, integers, booleans,
lists, objects): sorted keys, no spaces, UTF-8. Each has `v` (1), `type`, `at` (RFC 3339 UTC).
docs/keys.md lists the fields of each type.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from keymgmt.transparency.errors import LogCorrupt

VERSION = 1
MAX_ENTRY = 60_000  # bytes; the format itself allows 65535

CUSTODIANS_SET = "custodians-set"
POLICY_ACCEPTED = "policy-accepted"
KEY_CREATED = "key-created"
KEY_IMPORTED = "key-imported"
KEY_STATE = "key-state"
KEY_POLICY = "key-policy"
KEY_DESTROYED = "key-destroyed"
KEY_ROTATED = "key-rotated"
KEY_REWRAPPED = "key-rewrapped"
KEY_VERSION_DESTROYED = "key-version-destroyed"
RELEASE = "release"
TRANSIT_OPENED = "transit-opened"
DENIAL = "denial"
DENIALS_SUPPRESSED = "denials-suppressed"
TYPES = frozenset(
    {
        CUSTODIANS_SET,
        POLICY_ACCEPTED,
        KEY_CREATED,
        KEY_IMPORTED,
        KEY_STATE,
        KEY_POLICY,
        KEY_DESTROYED,
        KEY_ROTATED,
        KEY_REWRAPPED,
        KEY_VERSION_DESTROYED,
        RELEASE,
        TRANSIT_OPENED,
        DENIAL,
        DENIALS_SUPPRESSED,
    }
)
COUNTED = (RELEASE, TRANSIT_OPENED)  # each uses up one run of the policy


def timestamp(now: datetime) -> str:
    """RFC 3339 in UTC with milliseconds."""
    return now.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def encode_entry(kind: str, now: datetime, fields: Mapping[str, Any]) -> bytes:
    """The bytes of one entry. Raises ValueError for an unknown type or an entry that is too long."""
    if kind not in TYPES:
        raise ValueError(f"unknown entry type {kind}")
    document = {**fields, "v": VERSION, "type": kind, "at": timestamp(now)}
    encoded = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    if len(encoded) > MAX_ENTRY:
        raise ValueError(f"an entry of {len(encoded)} bytes is too long")
    return encoded


def decode_entry(data: bytes) -> dict[str, Any]:
    """Parse an entry. Raises LogCorrupt for anything that `encode_entry` would not have written."""
    try:
        document = json.loads(data)
        canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise LogCorrupt("an entry is not JSON") from None
    if not isinstance(document, dict) or document.get("v") != VERSION or document.get("type") not in TYPES:
        raise LogCorrupt("an entry has an unknown version or type")
    if canonical != data:
        raise LogCorrupt("an entry is not in canonical form")
    return document
