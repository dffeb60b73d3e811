"""`kekkai keys collateral`: what vendors publish about their platforms, kept at hand and carried offline."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli.key_options import Output
from api.cli.output import Format, listing, show
from crds.errors import InvalidInput, KekkaiError
from keymgmt.attestation.anchors import anchors_with
from keymgmt.attestation.collateral.bundle import MAX_BUNDLE_BYTES, Bundle, import_bundle, read_bundle, write_bundle
from keymgmt.attestation.collateral.cache import CollateralCache
from keymgmt.attestation.collateral.fetch import DEFAULT_SERVICES, Fetcher
from keymgmt.attestation.collateral.freshness import Validity
from keymgmt.attestation.collateral.pieces import Piece
from keymgmt.attestation.intel import BUILTIN_ANCHORS

collateral = typer.Typer(help="Collateral of attestation: chains, TCB levels, revocation lists.", no_args_is_help=True)

CacheDir = Annotated[
    Path,
    typer.Option(
        "--dir", envvar="KEKKAI_COLLATERAL_DIR", help="Cache folder, attestation.collateralCache of the service."
    ),
]
IntelRoots = Annotated[
    list[Path], typer.Option("--intel-root", help="Root certificate to trust beside Intel's, as in intelRoots; repeat.")
]
_COLUMNS = ("name", "issued", "expires", "sequence", "state")


@collateral.command("list")
def list_pieces(
    folder: CacheDir,
    intel_roots: IntelRoots = [],  # noqa: B006 - typer reads the default, nobody changes it
    output: Output = Format.table,
) -> None:
    """Show what is at hand and until when it holds.

    Example: kekkai keys collateral list --dir /var/lib/kekkai/collateral
    """
    cache = _cache(folder, intel_roots)
    now = datetime.now(UTC)
    rows = []
    for piece in cache.pieces():
        try:
            rows.append(_row(piece, cache.check(piece), now))
        except KekkaiError as error:  # altered since it was kept, or its root is no longer trusted
            rows.append({"name": piece.name, "state": f"{error.problem.reason}: {error}"})
    listing(rows, _COLUMNS, output)


@collateral.command("fetch")
def fetch(
    folder: CacheDir,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Such as intel/tdx/B0C06F000000/platform or amd/crl/Milan; all at hand when none is given."
        ),
    ] = None,
    service: Annotated[
        list[str], typer.Option(help=f"Other address of a service, NAME=URL; NAME is {', '.join(DEFAULT_SERVICES)}.")
    ] = [],  # noqa: B006
    timeout: Annotated[float, typer.Option(help="Seconds that one attempt may take.", min=0.1, max=300)] = 20.0,
    intel_roots: IntelRoots = [],  # noqa: B006
    output: Output = Format.table,
) -> None:
    """Get pieces from the vendors, check that they are authentic, and keep them.

    Example: kekkai keys collateral fetch --dir /var/lib/kekkai/collateral intel/tdx/B0C06F000000/platform

    Refusals of the key service name the piece that was missing. AMD's amd/vcek-chain/PRODUCT
    must be at hand before its amd/crl/PRODUCT. Nothing is kept that is older than what is there.
    Without names everything at hand is refreshed: run that daily. The exit status is 1 if a
    piece could not be had; the others are kept.
    """
    cache = _cache(folder, intel_roots)
    fetcher = Fetcher({**DEFAULT_SERVICES, **_services(service)}, timeout=timeout)
    now = datetime.now(UTC)
    rows, failed = [], False
    for name in names or cache.names():
        try:
            piece = fetcher.fetch(name, now)
            validity = cache.check(piece)
            rows.append(_row(piece, validity, now, new=cache.put(piece)))
        except KekkaiError as error:
            failed = True
            rows.append({"name": name, "state": f"{error.problem.reason}: {error}"})
    listing(rows, _COLUMNS, output)
    if failed:
        raise typer.Exit(1)


@collateral.command("export")
def export(
    folder: CacheDir,
    out: Annotated[Path, typer.Option(help="Bundle to write.")],
    under: Annotated[str, typer.Option(help="Only names that begin so, such as intel/ or amd/crl.")] = "",
    intel_roots: IntelRoots = [],  # noqa: B006
    output: Output = Format.table,
) -> None:
    """Write pieces into one file for a place without a network; prints its digest.

    Example: kekkai keys collateral export --dir collateral --out collateral.json

    Tell the digest over another channel, and give it to the import with --digest.
    """
    cache = _cache(folder, intel_roots)
    pieces = tuple(cache.pieces(under))
    if not pieces:
        raise InvalidInput("there is nothing to export", where=str(folder), fix="kekkai keys collateral fetch")
    for piece in pieces:
        cache.check(piece)
    bundle = Bundle(datetime.now(UTC), pieces)
    data = write_bundle(bundle)
    try:
        out.write_bytes(data)
    except OSError as error:
        raise InvalidInput(f"cannot be written: {error.strerror}", where=str(out)) from None
    show({"bundle": str(out), "digest": bundle.digest, "pieces": len(pieces), "bytes": len(data)}, output)


@collateral.command("import")
def import_(
    folder: CacheDir,
    bundle: Annotated[Path, typer.Argument(help="File from `collateral export`.")],
    digest: Annotated[str | None, typer.Option(help="sha256:…, as the export printed it.")] = None,
    intel_roots: IntelRoots = [],  # noqa: B006
    output: Output = Format.table,
) -> None:
    """Check a bundle and keep its pieces: all of them, or none.

    Example: kekkai keys collateral import --dir collateral collateral.json --digest sha256:…

    Each digest and each vendor's signature is checked. A piece older than the one at hand is
    refused: by old collateral a host could hide a vulnerability.
    """
    try:
        with bundle.open("rb") as file:
            data = file.read(MAX_BUNDLE_BYTES + 1)
    except OSError as error:
        raise InvalidInput(f"cannot be read: {error.strerror}", where=str(bundle)) from None
    now = datetime.now(UTC)
    kept = import_bundle(read_bundle(data, digest), _cache(folder, intel_roots))
    listing([_row(piece, validity, now, new=new) for piece, validity, new in kept], _COLUMNS, output)


def _cache(folder: Path, intel_roots: Iterable[Path]) -> CollateralCache:
    return CollateralCache(folder, anchors_with(BUILTIN_ANCHORS, intel_roots))


def _services(given: Iterable[str]) -> dict[str, str]:
    services = {}
    for one in given:
        name, separator, url = one.partition("=")
        if not separator or name not in DEFAULT_SERVICES:
            raise InvalidInput(
                f"{one!r} is not NAME=URL", where="--service", fix=f"NAME: {', '.join(DEFAULT_SERVICES)}"
            )
        services[name] = url
    return services


def _row(piece: Piece, validity: Validity, now: datetime, *, new: bool | None = None) -> dict[str, Any]:
    state = "current"
    if validity.expires is not None and validity.expires < now:
        state = "expired"
    if new is not None:
        state = f"{state}, {'kept' if new else 'was at hand'}"
    return {"name": piece.name, **validity.as_dict(), "sha256": piece.sha256, "state": state}
