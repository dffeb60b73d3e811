"""`kekkai keys list|rotate|rewrap|state`: versions of keys, their HSM keys and states (role operator)."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from api.cli.key_options import Ca, Output, TokenFile, Url, connect, split_name
from api.cli.output import Format, listing, show
from crds.errors import InvalidInput


def list_keys(url: Url, ca: Ca = None, token_file: TokenFile = None, output: Output = Format.table) -> None:
    """List all keys with version, state and releases (role operator or auditor).

    Example: kekkai keys list -o json
    """
    rows = [{**one, "key": f"{one['namespace']}/{one['name']}"} for one in connect(url, ca, token_file).all_keys()]
    listing(rows, ("key", "tenant", "origin", "version", "state", "releases", "rotatesAt"), output)


def rotate(
    url: Url,
    key: Annotated[str, typer.Argument(help="namespace/name of a generated key.")],
    ca: Ca = None,
    token_file: TokenFile = None,
    output: Output = Format.table,
) -> None:
    """Make a key's next version now. What was sealed under former versions stays readable under them.

    Example: kekkai keys rotate aurora-train/dataset
    """
    show(connect(url, ca, token_file).rotate(*split_name(key)), output)


def rewrap(
    url: Url,
    keys: Annotated[list[str] | None, typer.Argument(help="namespace/name, several; or --all.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every key of the service.")] = False,
    ca: Ca = None,
    token_file: TokenFile = None,
    output: Output = Format.table,
) -> None:
    """Replace the HSM keys under tenants' keys while the service runs; the former HSM keys are deleted.

    The tenants' keys stay the same, and releases go on. Copies of the database from before open nothing after.
    Run it again after an interruption: each key is done as a whole.

    Example: kekkai keys rewrap --all
    """
    if bool(keys) == everything:
        raise InvalidInput("which keys?", where="KEYS", fix="name some, or give --all")
    client = connect(url, ca, token_file)
    wanted = keys or [
        f"{one['namespace']}/{one['name']}"
        for one in client.all_keys()
        if one["state"] not in ("Destroyed", "PreActivation")
    ]
    done = []
    with Progress(console=Console(stderr=True), disable=output is Format.json) as progress:
        for key in progress.track(wanted, description="rewrapping"):
            found = client.rewrap(*split_name(key))
            done.append({"key": key, "version": found["version"], "state": found["state"]})
    listing(done, ("key", "version", "state"), output)


def set_state(
    url: Url,
    key: Annotated[str, typer.Argument(help="namespace/name.")],
    state: Annotated[str, typer.Argument(help="Deactivated or Compromised.")],
    cause: Annotated[str, typer.Option(help="Why; it goes into the log.")],
    ca: Ca = None,
    token_file: TokenFile = None,
    output: Output = Format.table,
) -> None:
    """End a key's releases for good: its time is over, or it is compromised (SP 800-57 states).

    Example: kekkai keys state aurora-train/dataset Compromised --cause "seen in a memory dump"
    """
    if state not in ("Deactivated", "Compromised"):
        raise InvalidInput("unknown state", where="STATE", fix="Deactivated or Compromised")
    show(connect(url, ca, token_file).set_state(*split_name(key), state, cause), output)
