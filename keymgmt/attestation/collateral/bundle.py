"""Offline bundles: collateral for places without a network, as one JSON file.

    {"format": "kekkai.dev/collateral-bundle/v1", "created": "<RFC 3339>", "digest": "sha256:…",
     "pieces": [{"name", "fetched", "sha256", "body": "<base64>"}, …]}

`digest` is over the canonical list of (name, sha256), so that one line, read out over another
channel, vouches for the whole. An import is all or nothing: every piece is authenticated and
compared with the cache before the first is written.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from crds.errors import InvalidInput
from keymgmt import strict_json
from keymgmt.attestation.collateral.cache import CollateralCache
from keymgmt.attestation.collateral.freshness import Validity
from keymgmt.attestation.collateral.names import kind_of
from keymgmt.attestation.collateral.pieces import MAX_PIECE_BYTES, Piece

FORMAT: Final = "kekkai.dev/collateral-bundle/v1"
MAX_BUNDLE_BYTES: Final = 64 << 20
MAX_BUNDLE_PIECES: Final = 4096
_PIECE: Final = {"name", "fetched", "sha256", "body"}


@dataclass(frozen=True, slots=True)
class Bundle:
    """Pieces by name, and the digest over their names and bodies (`sha256:<hex>`)."""

    created: datetime
    pieces: tuple[Piece, ...]

    @property
    def digest(self) -> str:
        return digest_of(self.pieces)


def digest_of(pieces: Sequence[Piece]) -> str:
    """SHA-256 over the canonical JSON list of [name, sha256], sorted by name."""
    listed = [[piece.name, piece.sha256] for piece in sorted(pieces, key=lambda one: one.name)]
    return f"sha256:{hashlib.sha256(strict_json.canonical(listed)).hexdigest()}"


def write_bundle(bundle: Bundle) -> bytes:
    """The file. Equal contents give equal bytes. Raises InvalidInput beyond the bounds."""
    if len(bundle.pieces) > MAX_BUNDLE_PIECES:
        raise InvalidInput(f"a bundle has at most {MAX_BUNDLE_PIECES} pieces", where="pieces", fix="export in parts")
    pieces = [
        {
            "name": piece.name,
            "fetched": piece.fetched.isoformat(),
            "sha256": piece.sha256,
            "body": base64.b64encode(piece.body).decode(),
        }
        for piece in sorted(bundle.pieces, key=lambda one: one.name)
    ]
    document = {
        "format": FORMAT,
        "created": bundle.created.isoformat(),
        "digest": bundle.digest,
        "pieces": pieces,
    }
    data = strict_json.canonical(document) + b"\n"
    if len(data) > MAX_BUNDLE_BYTES:
        raise InvalidInput("a bundle has at most 64 MiB", where="pieces", fix="export in parts")
    return data


def read_bundle(data: bytes, expected_digest: str | None = None) -> Bundle:
    """Parse and check every digest. Raises InvalidInput naming the member at fault.

    `expected_digest` came over another channel. What the pieces are is not looked at here.
    """
    document = strict_json.parse_object(data, limit=MAX_BUNDLE_BYTES, depth=4, where="bundle")
    if set(document) != {"format", "created", "digest", "pieces"} or document["format"] != FORMAT:
        raise InvalidInput(f"not a bundle of format {FORMAT}", where="bundle")
    listed = document["pieces"]
    if not isinstance(listed, list) or len(listed) > MAX_BUNDLE_PIECES:
        raise InvalidInput(f"expected at most {MAX_BUNDLE_PIECES} pieces", where="pieces")
    pieces = tuple(_piece(one, f"pieces.{index}") for index, one in enumerate(listed))
    if len({piece.name for piece in pieces}) != len(pieces):
        raise InvalidInput("a name occurs twice", where="pieces")
    bundle = Bundle(_time(document["created"], "created"), pieces)
    if not _equal(document["digest"], bundle.digest):
        raise InvalidInput("the digest is not that of the pieces", where="digest", fix="copy the file again")
    if expected_digest is not None and not _equal(expected_digest, bundle.digest):
        raise InvalidInput(f"the bundle's digest is {bundle.digest}", where="digest", fix="get the bundle again")
    return bundle


def import_bundle(bundle: Bundle, cache: CollateralCache) -> list[tuple[Piece, Validity, bool]]:
    """Keep all pieces, or none: (piece, validity, whether it was news), by name.

    Raises InvalidInput or AttestationRefused for the first piece that is not authentic, or is
    an older issue than the cache's.
    """
    bodies = {piece.name: piece.body for piece in bundle.pieces}
    checked = []
    for piece in bundle.pieces:
        validity = cache.check(piece, bodies)
        cache.check_not_older(piece, validity)
        checked.append((piece, validity))
    # Issuers before what they issued, since `put` checks each piece by what the cache holds then.
    checked.sort(key=lambda one: ("-chain/" not in one[0].name, one[0].name))
    return [(piece, validity, cache.put(piece)) for piece, validity in checked]


def _piece(value: Any, where: str) -> Piece:
    if not isinstance(value, dict) or set(value) != _PIECE:
        raise InvalidInput("expected an object of name, fetched, sha256 and body", where=where)
    name, body = value["name"], value["body"]
    if not isinstance(name, str) or not isinstance(body, str):
        raise InvalidInput("name and body are texts", where=where)
    kind_of(name)
    if len(body) > 4 * MAX_PIECE_BYTES // 3 + 4:
        raise InvalidInput("a piece has at most 1 MiB", where=f"{where}.body")
    try:
        piece = Piece(name, base64.b64decode(body, validate=True), _time(value["fetched"], f"{where}.fetched"))
    except (binascii.Error, ValueError):
        raise InvalidInput("not valid base64", where=f"{where}.body") from None
    if not _equal(value["sha256"], piece.sha256):
        raise InvalidInput("the body does not have this digest", where=f"{where}.sha256", fix="copy the file again")
    return piece


def _time(value: object, where: str) -> datetime:
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise InvalidInput("expected a time with its zone, RFC 3339", where=where)
    return time


def _equal(stated: object, found: str) -> bool:
    return isinstance(stated, str) and hmac.compare_digest(stated.encode(errors="replace"), found.encode())
