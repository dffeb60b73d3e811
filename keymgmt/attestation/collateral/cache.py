"""The collateral cache: the newest piece of each name, as files in one folder.

    <folder>/intel/tdx/B0C06F000000/platform.json         the piece, as the vendor sent it
    <folder>/intel/tdx/B0C06F000000/platform.json.about   {"name", "sha256", "fetched"}

AMD's pieces are plain .pem, .der and .crl files, so that the folder also serves as a
`collateralDirs` entry. A piece whose digest does not match its note (a write cut short) counts
as absent. An older issue never replaces a newer one.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Final

from crds.errors import InvalidInput
from keymgmt import strict_json
from keymgmt.attestation.collateral.freshness import Validity
from keymgmt.attestation.collateral.names import kind_of
from keymgmt.attestation.collateral.pieces import MAX_PIECE_BYTES, Piece, validity_of
from keymgmt.attestation.intel.endorsements import BUILTIN_ANCHORS, IntelAnchors
from keymgmt.attestation.refusal import refuse

MAX_PIECES: Final = 16384
_ABOUT: Final = ".about"
_MAX_ABOUT: Final = 4096
_GENERATION: Final = ".generation"


class CollateralCache:
    """A folder of collateral; it is made on the first `put`. One writer at a time, by a file lock."""

    def __init__(self, folder: Path, intel_anchors: IntelAnchors = BUILTIN_ANCHORS) -> None:
        self.folder = folder
        self._anchors = intel_anchors

    def get(self, name: str) -> Piece | None:
        """The piece of that name; None if it is absent or damaged. Raises InvalidInput for a bad name."""
        path = self._path(name)
        try:
            about = strict_json.parse_object(_read(path.with_name(path.name + _ABOUT), _MAX_ABOUT), limit=_MAX_ABOUT)
            piece = Piece(name, _read(path, MAX_PIECE_BYTES), datetime.fromisoformat(str(about.get("fetched"))))
        except (OSError, InvalidInput, ValueError):
            return None
        intact = about.get("name") == name and about.get("sha256") == piece.sha256 and piece.fetched.tzinfo is not None
        return piece if intact else None

    def put(self, piece: Piece) -> bool:
        """Keep the piece if it is authentic and not an older issue; False if that very body is there.

        Raises InvalidInput for a bad name, AttestationRefused for bytes that are not what the
        name says, and CollateralRolledBack for an older issue than the one at hand.
        """
        validity = self.check(piece)
        with self._writing():
            held = self.get(piece.name)
            if held is not None:
                if held.body == piece.body:
                    return False
                self._forbid_rollback(piece, validity, held)
            elif len(self.names()) >= MAX_PIECES:
                raise InvalidInput(f"the cache holds {MAX_PIECES} pieces already", where=str(self.folder))
            path = self._path(piece.name)
            about = {"name": piece.name, "sha256": piece.sha256, "fetched": piece.fetched.isoformat()}
            path.parent.mkdir(parents=True, exist_ok=True)
            _replace(path, piece.body)
            _replace(path.with_name(path.name + _ABOUT), json.dumps(about).encode())
            _replace(self.folder / _GENERATION, os.urandom(8).hex().encode())
        return True

    def check(self, piece: Piece, bundled: dict[str, bytes] | None = None) -> Validity:
        """What `put` demands but for rollback. `bundled` pieces come along and are looked at before the cache."""
        return validity_of(piece, lambda name: self._body(name, bundled or {}), self._anchors)

    def check_not_older(self, piece: Piece, validity: Validity) -> None:
        """Raise CollateralRolledBack if the cache holds a newer issue."""
        held = self.get(piece.name)
        if held is not None and held.body != piece.body:
            self._forbid_rollback(piece, validity, held)

    def names(self) -> list[str]:
        """Names of all pieces, sorted. Files that are no collateral are passed over."""
        found = []
        for path in sorted(self.folder.rglob(f"*{_ABOUT}")):
            name = path.relative_to(self.folder).as_posix().removesuffix(_ABOUT)
            name = name.removesuffix(Path(name).suffix)
            with suppress(InvalidInput):
                if self._path(name).name + _ABOUT == path.name:
                    found.append(name)
        return found

    def pieces(self, under: str = "") -> list[Piece]:
        """All intact pieces whose name begins with `under`, by name."""
        found = (self.get(name) for name in self.names() if name.startswith(under))
        return [piece for piece in found if piece is not None]

    def version(self) -> str:
        """A token that changes with every `put`: cheap to ask for, so that readers notice news."""
        try:
            return (self.folder / _GENERATION).read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            return ""

    def _forbid_rollback(self, piece: Piece, validity: Validity, held: Piece) -> None:
        before = self.check(held)
        if validity.behind(before):
            raise refuse(
                "CollateralRolledBack",
                f"issued {validity.issued.isoformat()} (number {validity.sequence}); the cache holds "
                f"{before.issued.isoformat()} (number {before.sequence})",
                where=piece.name,
                fix="fetch the present issue from the vendor",
            )

    def _body(self, name: str, bundled: dict[str, bytes]) -> bytes | None:
        if name in bundled:
            return bundled[name]
        held = self.get(name)
        return None if held is None else held.body

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}{kind_of(name).suffix}"

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / ".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise InvalidInput(
                f"the collateral folder cannot be written: {error.strerror}", where=str(self.folder)
            ) from None


def _read(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise InvalidInput(f"larger than {limit} bytes", where=str(path))
    return data


def _replace(path: Path, data: bytes) -> None:
    """Write so that a reader sees the old bytes or the new ones, also after a crash."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
