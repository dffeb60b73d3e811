"""`kekkai log monitor|witness|witness-key`: watch a log for its owner, and witness it for everybody."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import httpx
import typer
import yaml

from api.cli.output import Format, show
from crds.errors import InvalidInput, Unavailable
from keymgmt.transparency.cosignature import WitnessKey
from keymgmt.transparency.expectations import Expectations
from keymgmt.transparency.monitor import Alarm, Monitor, MonitorState
from keymgmt.transparency.note import VerifierKey
from keymgmt.transparency.tiles import TileFiles, TileReader
from keymgmt.witness import server

ALARM_EXIT = 3


def monitor(
    reader: TileReader,
    key: VerifierKey,
    state_file: Path,
    *,
    expectations: Path | None,
    witnesses: list[str],
    quorum: int,
    compare: list[Path],
    every: float,
    command: str | None,
    webhook: str | None,
) -> None:
    """Follow until interrupted, or once if `every` is 0. Exits with 3 after an alarm when run once."""
    state = MonitorState.decode(state_file.read_bytes()) if state_file.exists() else MonitorState()
    keys = [WitnessKey.parse(Path(one).read_text() if Path(one).exists() else one) for one in witnesses]
    expected = Expectations.parse(yaml.safe_load(expectations.read_text()) if expectations else {}, str(expectations))
    watch = Monitor(key, state, expected, keys, quorum)
    while True:
        try:
            alarms = watch.follow(reader)
            alarms += watch.compare(reader, [_checkpoint_in(one) for one in compare if one.exists()])
        except Unavailable as error:
            if not every:
                raise
            typer.echo(json.dumps({"unreachable": error.problem.what}))
            alarms = []
        TileFiles(state_file.parent).replace(state_file.name, state.encode())
        for alarm in alarms:
            _raise_alarm(alarm, command, webhook)
        if not every:
            if not alarms:
                typer.echo(json.dumps({"ok": True, "size": state.checkpoint(key).size}))
            sys.exit(ALARM_EXIT if alarms else 0)
        time.sleep(every)


def _checkpoint_in(path: Path) -> bytes:
    """A checkpoint as it stands in a file, or the one in another monitor's state."""
    content = path.read_bytes()
    return MonitorState.decode(content).signed if content.startswith(b"{") else content


def _raise_alarm(alarm: Alarm, command: str | None, webhook: str | None) -> None:
    line = json.dumps(alarm.as_dict(), ensure_ascii=False)
    typer.echo(line)
    if command is not None:
        subprocess.run([command], input=line.encode(), check=False, timeout=60)
    if webhook is not None:
        try:
            httpx.post(webhook, content=line, headers={"content-type": "application/json"}, timeout=10, trust_env=False)
        except httpx.HTTPError as error:
            typer.echo(f"the webhook does not answer: {type(error).__name__}", err=True)


def witness(
    config: Annotated[Path, typer.Option(help="YAML or JSON: listen, tls, state, keys, logs.")],
) -> None:
    """Serve a witness (c2sp.org/tlog-witness): cosign each checkpoint that extends the one before.

    Example: kekkai log witness --config witness.yaml
    """
    server.serve(server.load(config))


def witness_key(
    name: Annotated[str, typer.Argument(help="The witness's name, such as witness.example/w1.")],
    out: Annotated[Path, typer.Option(help="File for the private key; it must not exist.")],
    kind: Annotated[str, typer.Option(help="ed25519 or ml-dsa-44.")] = "ml-dsa-44",
    output: Annotated[Format, typer.Option("-o", "--output", help="table or json.")] = Format.table,
) -> None:
    """Make a witness's key; prints the vkey that logs and monitors are given.

    Example: kekkai log witness-key witness.example/w1 --out w1.key
    """
    if not name or "+" in name:
        raise InvalidInput("a witness's name is a URL without its scheme", where="name")
    key = server.new_key(out, name, kind)
    show({"name": key.name, "vkey": str(key), "file": str(out)}, output)
