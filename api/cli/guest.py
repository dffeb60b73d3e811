"""`kekkai guest`: the agent inside a confidential guest. Exit statuses: see `kekkai guest run --help`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from crds.errors import KekkaiError
from keymgmt.guest.errors import FileFault, GuestError
from keymgmt.wrapping.hardening import harden

app = typer.Typer(
    help="The agent inside a confidential guest: attest, fetch, decrypt.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # a traceback with locals could show a key
)


@app.callback()
def guest() -> None:
    """The agent inside a confidential guest: attest, fetch, decrypt."""


@app.command()
def run(
    kbs_url: Annotated[str, typer.Option(help="Key service, such as https://keys.example:8443.")],
    resource: Annotated[str, typer.Option(help="Key to fetch: namespace/key/name.")],
    sealed_input: Annotated[Path, typer.Option("--input", help="Sealed input to open with it.")],
    output: Annotated[Path, typer.Option(help="Where the result goes, as JSON.")],
    ca: Annotated[Path | None, typer.Option(help="CA certificate of the key service, PEM.")] = None,
    init_data: Annotated[Path | None, typer.Option(help="Init-data TOML this guest was launched with.")] = None,
    deadline: Annotated[float, typer.Option(help="Seconds to keep trying an absent key service.")] = 120.0,
    key_type: Annotated[
        str, typer.Option(help="Ephemeral key: hybrid (ML-KEM-768 with X25519), ml-kem, ec (P-256) or rsa (3072 bits).")
    ] = "hybrid",
    key_version: Annotated[
        int | None, typer.Option(min=1, help="Version of the key that the input was sealed under; the present one.")
    ] = None,
    termination_message: Annotated[Path | None, typer.Option(help="Also write the outcome here, as JSON.")] = None,
    command: Annotated[list[str] | None, typer.Argument(help="Command to feed the plaintext to.")] = None,
) -> None:
    """Prove this guest to the key service, open the sealed input and write a result.

    The result holds the resource, the plaintext's SHA-256, its bytes and records (lines). With a
    command after --, the plaintext is its standard input and what it prints becomes `output`.

    Exit status: 0 done; 2 usage; 3 refused by the key service; 4 key service unreachable before
    the deadline; 5 sealed input corrupt or for another key; 6 the command failed; 7 no evidence
    device; 8 a file cannot be used.
    """
    from keymgmt.guest.agent import GuestTask
    from keymgmt.guest.agent import run as run_task
    from keymgmt.guest.kbs_client import KbsClient
    from keymgmt.guest.tee_key import KEY_KINDS
    from keymgmt.guest.tsm import TsmDevice

    harden()
    os.umask(0o077)
    try:
        if key_type not in KEY_KINDS:
            raise typer.BadParameter(f"give one of {', '.join(KEY_KINDS)}", param_hint="--key-type")
        task = GuestTask(resource, sealed_input, output, init_data, tuple(command or ()), key_type, key_version)
        result = run_task(task, KbsClient(kbs_url, ca_file=ca, deadline=deadline), TsmDevice())
    except KekkaiError as error:
        typer.echo(f"kekkai guest: {error.problem.reason}: {error}", err=True)
        code = error.exit_code if isinstance(error, GuestError) else 2
        _leave_message(termination_message, {"error": error.problem.as_dict(), "exitCode": code})
        sys.exit(code)
    _leave_message(termination_message, result)
    typer.echo(f"{result['resource']}: {result['bytes']} bytes, {result['records']} records, sha256 {result['sha256']}")


@app.command()
def evidence(
    output: Annotated[Path, typer.Option("--out", help="Where the evidence goes, as JSON.")],
    init_data: Annotated[Path | None, typer.Option(help="Init-data TOML this guest was launched with.")] = None,
) -> None:
    """Record this guest's evidence over a nonce of its own, to try release policies on.

    It opens no key: a key service takes evidence over its own nonce only.

    Example: kekkai guest evidence --out evidence.json; then, at the custodians':
    kekkai keys policy test policy.json --evidence evidence.json
    """
    from keymgmt.guest.agent import recorded_evidence, write_result
    from keymgmt.guest.errors import FileFault
    from keymgmt.guest.tsm import TsmDevice

    try:
        try:
            text = None if init_data is None else init_data.read_text()
        except (OSError, ValueError) as error:
            raise FileFault(f"the init data cannot be read: {error}", where=str(init_data)) from None
        write_result(output, recorded_evidence(TsmDevice(), text))
    except KekkaiError as error:
        typer.echo(f"kekkai guest: {error.problem.reason}: {error}", err=True)
        sys.exit(error.exit_code if isinstance(error, GuestError) else 2)


def _leave_message(path: Path | None, document: dict[str, Any]) -> None:
    from keymgmt.guest.agent import write_result

    if path is not None:
        try:
            write_result(path, document)
        except FileFault as error:
            typer.echo(f"kekkai guest: {error}", err=True)


if __name__ == "__main__":
    app()
