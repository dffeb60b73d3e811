"""JSON from outside, parsed once and strictly: bounded in size and depth, no duplicate members.

Python's parser accepts duplicates (the last wins), NaN and very long integers; two parsers
that disagree on such input are how signed documents get reinterpreted.
"""

from __future__ import annotations

import json
import re
from typing import Any, Never

from crds.errors import InvalidInput

MAX_DEPTH = 16


def parse(data: bytes, *, limit: int = 1 << 20, depth: int = MAX_DEPTH, where: str = "body") -> Any:
    """The document. Raises InvalidInput."""
    if len(data) > limit:
        raise InvalidInput(f"longer than {limit} bytes", where=where)
    bare = _STRING.sub(b"", data)
    if not _depth_within(bare, depth):
        raise InvalidInput(f"nested deeper than {depth} levels", where=where)
    # Evidence holds thousands of small integers: a hook for each costs more than all the rest.
    integer = _integer if _TWENTY_DIGITS in bare.translate(_DIGITS_ALIKE) else None
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_distinct, parse_constant=_refuse, parse_int=integer)
    except UnicodeDecodeError:
        raise InvalidInput("not UTF-8", where=where) from None
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"not valid JSON: {str(error)[:120]}", where=where) from None


def parse_object(data: bytes, *, limit: int = 1 << 20, depth: int = MAX_DEPTH, where: str = "body") -> dict[str, Any]:
    """As `parse`, for a document that must be an object."""
    document = parse(data, limit=limit, depth=depth, where=where)
    if not isinstance(document, dict):
        raise InvalidInput("a JSON object is expected", where=where)
    return document


def canonical(document: Any) -> bytes:
    """Canonical form (RFC 8785) of a document without fractions: sorted members, no spaces, UTF-8.

    RFC 8785 sorts by UTF-16 code units and Python by code points; member names here are
    ASCII, where both agree.
    """
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_DIGITS_ALIKE = bytes(ord("0") if byte in b"0123456789" else byte for byte in range(256))
_TWENTY_DIGITS = b"0" * 20


def _depth_within(bare: bytes, limit: int) -> bool:
    depth = 0
    for bracket in bare.translate(None, _NO_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        if depth > limit:
            return False
    return True


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a member occurs twice")
    return document


def _refuse(constant: str) -> Never:
    raise ValueError(f"{constant} is not JSON")


def _integer(text: str) -> int:
    if len(text) > 20:
        raise ValueError("an integer is out of range")
    return int(text)
