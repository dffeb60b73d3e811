"""`kekkai log`: read and verify the transparency log of key releases, offline or from its URL."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli import log_watch
from api.cli.output import Format, listing, show
from crds.errors import InvalidInput
from keymgmt.broker.client import AdminClient
from keymgmt.transparency.entries import decode_entry
from keymgmt.transparency.note import Checkpoint, VerifierKey
from keymgmt.transparency.tiles import TILE_WIDTH, TileFiles, TileReader, read_entries
from keymgmt.transparency.verify import LogReport, check_proof, prove, read_checkpoint, verify_log

app = typer.Typer(
    help="Read and verify the transparency log of key releases.", no_args_is_help=True, add_completion=False
)

Source = Annotated[str, typer.Argument(help="Folder of the log, or the key service's https URL.")]
Key = Annotated[
    str, typer.Option("--vkey", envvar="KEKKAI_LOG_VKEY", help="The log's verifier key, or a file that holds it.")
]
Ca = Annotated[Path | None, typer.Option(envvar="KEKKAI_KEYS_CA", help="CA certificate, for a URL.")]
Output = Annotated[Format, typer.Option("-o", "--output", help="table or json.")]


@app.command("verify")
def verify(
    source: Source,
    vkey: Key,
    seen: Annotated[Path | None, typer.Option(help="A checkpoint seen earlier, which the log must extend.")] = None,
    save: Annotated[Path | None, typer.Option(help="Keep the checkpoint here, for --seen next time.")] = None,
    key_name: Annotated[str | None, typer.Option("--key", help="Show that this key kept to the bounds below.")] = None,
    at_most: Annotated[int | None, typer.Option(min=0, help="With --key: it was released at most so often.")] = None,
    measurement: Annotated[list[str] | None, typer.Option(help="With --key: only to these; may be repeated.")] = None,
    ca: Ca = None,
    output: Output = Format.table,
) -> None:
    """Scan every entry, recompute the tree, check the signature and count releases per key.

    Example: kekkai log verify https://keys.example:8443 --vkey log.vkey --seen last.checkpoint --save last.checkpoint

    Exit status 1 if the log is broken or shows a broken promise, such as a release over its limit.
    """
    reader, key = _reader(source, ca), _key(vkey)
    earlier = Checkpoint.open(seen.read_bytes(), key) if seen is not None and seen.exists() else None
    report = verify_log(reader, key, earlier)
    if key_name is not None:
        report.faults += report.exceeded(key_name, at_most, measurement)
    elif at_most is not None or measurement:
        raise InvalidInput("--at-most and --measurement need --key", where="--key")
    if output is Format.json:
        show(report.as_dict(), output)
    else:
        _print(report)
    if save is not None and report.ok:
        save.write_bytes(read_checkpoint(reader, key)[1])
    if not report.ok:
        sys.exit(1)


@app.command("show")
def show_entries(
    source: Source,
    vkey: Key,
    key: Annotated[str | None, typer.Option(help="Only entries of this key, namespace/name.")] = None,
    kind: Annotated[str | None, typer.Option("--type", help="Only entries of this type, such as release.")] = None,
    last: Annotated[int, typer.Option(help="At most this many, newest first.")] = 20,
    ca: Ca = None,
    output: Output = Format.table,
) -> None:
    """Show entries, newest first.

    Example: kekkai log show /var/lib/kekkai/log --vkey log.vkey --type denial
    """
    reader = _reader(source, ca)
    checkpoint, _ = read_checkpoint(reader, _key(vkey))
    found: list[dict[str, Any]] = []
    for tile in range((checkpoint.size - 1) // TILE_WIDTH, -1, -1):
        width = min(TILE_WIDTH, checkpoint.size - tile * TILE_WIDTH)
        entries = read_entries(reader, tile, width)
        for offset in range(width - 1, -1, -1):
            entry = decode_entry(entries[offset])
            if key in (None, entry.get("key")) and kind in (None, entry["type"]) and len(found) < last:
                found.append({"index": tile * TILE_WIDTH + offset, **entry})
        if len(found) == last:
            break
    listing(found, ("index", "at", "type", "key", "tenant", "state", "reason", "details", "count"), output)


@app.command("prove")
def prove_entry(
    source: Source,
    vkey: Key,
    index: Annotated[int, typer.Argument(help="Index of the entry.")],
    out: Annotated[Path | None, typer.Option(help="Write the proof here (.tlog-proof); else print it.")] = None,
    ca: Ca = None,
) -> None:
    """Make a proof that an entry is in the log, to be checked offline (c2sp.org/tlog-proof).

    Example: kekkai log prove https://keys.example:8443 42 --vkey log.vkey --out 42.tlog-proof
    """
    reader, key = _reader(source, ca), _key(vkey)
    proof = prove(reader, key, index)
    checkpoint, _ = read_checkpoint(reader, key)
    tile, offset = divmod(index, TILE_WIDTH)
    width = min(TILE_WIDTH, checkpoint.size - tile * TILE_WIDTH)
    entry = read_entries(reader, tile, width)[offset]
    check_proof(proof, entry, key)
    if out is None:
        typer.echo(proof.decode(), nl=False)
        return
    out.write_bytes(proof)
    out.with_suffix(".entry").write_bytes(entry)
    typer.echo(f"{out} and {out.with_suffix('.entry')}: entry {index} of {checkpoint.size}")


@app.command("check")
def check(
    proof: Annotated[Path, typer.Argument(help="Proof file from `log prove`.")],
    entry: Annotated[Path, typer.Argument(help="The entry's bytes.")],
    vkey: Key,
    output: Output = Format.table,
) -> None:
    """Check a proof offline: the entry was in the log when its checkpoint was signed.

    Example: kekkai log check 42.tlog-proof 42.entry --vkey log.vkey
    """
    data = entry.read_bytes()
    checkpoint = check_proof(proof.read_bytes(), data, _key(vkey))
    show({"log": checkpoint.origin, "size": checkpoint.size, **decode_entry(data)}, output)


@app.command("monitor")
def monitor(
    source: Source,
    vkey: Key,
    state: Annotated[Path, typer.Option(help="Where the monitor keeps what it has followed.")],
    expectations: Annotated[Path | None, typer.Option(help="Releases you expect, YAML; others raise an alarm.")] = None,
    witness: Annotated[list[str] | None, typer.Option(help="A witness's vkey or its file; may be repeated.")] = None,
    quorum: Annotated[int, typer.Option(min=0, help="Cosignatures that each checkpoint must have.")] = 0,
    compare: Annotated[
        list[Path] | None, typer.Option(help="Another monitor's state or a checkpoint that another was given.")
    ] = None,
    every: Annotated[float, typer.Option(min=0, help="Seconds between looks; 0 looks once.")] = 0,
    command: Annotated[str | None, typer.Option(help="Program run for each alarm, which is its input.")] = None,
    webhook: Annotated[str | None, typer.Option(help="URL that each alarm is posted to.")] = None,
    ca: Ca = None,
) -> None:
    """Follow the log and raise an alarm on a fork, a roll-back, or a release you did not expect.

    Example: kekkai log monitor https://keys.example:8443 --vkey log.vkey --state mine.state --expectations mine.yaml

    Prints one JSON line an alarm. Run once, it exits with 3 after an alarm.
    """
    log_watch.monitor(
        _reader(source, ca),
        _key(vkey),
        state,
        expectations=expectations,
        witnesses=witness or [],
        quorum=quorum,
        compare=compare or [],
        every=every,
        command=command,
        webhook=webhook,
    )


app.command("witness")(log_watch.witness)
app.command("witness-key")(log_watch.witness_key)


def _print(report: LogReport) -> None:
    document = report.as_dict()
    keys = document.pop("keys")
    show(document, Format.table)
    rows = [{"key": name, **facts} for name, facts in keys.items()]
    columns = ("key", "tenant", "state", "releases", "releasesByPolicy", "releasesByMeasurement", "denials")
    listing(rows, columns, Format.table)


def _reader(source: str, ca: Path | None) -> TileReader:
    if source.startswith("https://"):
        return AdminClient(source.removesuffix("/log").rstrip("/"), ca)
    folder = Path(source)
    if not (folder / "checkpoint").exists():
        raise InvalidInput("no checkpoint in this folder", where=source, fix="give the folder that holds `checkpoint`")
    return TileFiles(folder)


def _key(text: str) -> VerifierKey:
    if "+" not in text or Path(text).exists():
        try:
            text = Path(text).read_text()
        except OSError as error:
            raise InvalidInput(f"cannot be read: {error.strerror}", where=text[:200]) from None
    return VerifierKey.parse(text)
