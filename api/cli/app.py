"""The root of the `kekkai` command: finds each group of commands by name and loads it late.

Loading late keeps `kekkai --help` and shell completion fast: nothing of the key
service or of the local control plane is imported until a command needs it.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from crds.errors import KekkaiError

# command → (module, attribute); the attribute is a typer app (a group) or a function (a command).
COMMANDS = {
    "up": ("api.cli.local", "up", "Start a real control plane on this machine."),
    "down": ("api.cli.local", "down", "Stop a local control plane and remove what it started."),
    "status": ("api.cli.local", "status", "Show the local control planes and their processes."),
    "demo": ("api.cli.demo", "demo", "Run the whole idea end to end on a local control plane."),
    "guest": ("api.cli.guest", "app", "The agent inside a confidential guest: attest, fetch, decrypt."),
    "keys": ("api.cli.keys", "app", "Custodians, release policies, sealing and import of keys."),
    "log": ("api.cli.log", "app", "Read and verify the transparency log of key releases."),
    "plan": ("api.cli.plan", "plan", "Where and when a workload would start, without creating anything."),
    "simulate": ("api.cli.simulate", "simulate", "Replay a trace through the planner: what would a pool do?"),
    "why": ("api.cli.why", "why", "Explain why a workload waits, or where it runs."),
}


class LateGroup(TyperGroup):
    """A group whose members are imported when they are named."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, summary = COMMANDS[cmd_name]
        target = getattr(importlib.import_module(module), attribute)
        if not isinstance(target, typer.Typer):
            single = typer.Typer(add_completion=False)
            single.command(name=cmd_name, context_settings=CONTEXT)(target)
            target = single
        command = typer.main.get_command(target)
        command.name = cmd_name
        command.context_settings.update(CONTEXT)
        command.short_help = command.short_help or summary
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        # The summaries are listed here so that help does not import every command.
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, _, summary) in COMMANDS.items()])


CONTEXT = {"help_option_names": ["-h", "--help"]}
app = typer.Typer(
    cls=LateGroup,
    help="Kekkai: accelerator pools, tenants and keys that know of each other.",
    epilog="Start with: kekkai demo",
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings=CONTEXT,
)


@app.callback()
def root() -> None:
    """Kekkai: accelerator pools, tenants and keys that know of each other."""


def main() -> None:
    """Console entry point. Typed errors end in one clear line and exit status 1."""
    try:
        app(prog_name="kekkai")
    except KekkaiError as error:
        typer.echo(f"kekkai: {error.problem.reason}: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
