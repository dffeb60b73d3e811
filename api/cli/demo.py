"""`kekkai demo`: the whole idea, end to end."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave it up and say how to look around.")] = False,
    name: Annotated[str, typer.Option("--name", "-n", help="Name of the control plane.")] = "demo",
    plain: Annotated[bool, typer.Option("--plain", help="Plain lines, also on a terminal.")] = False,
    picture: Annotated[Path | None, typer.Option(help="Save the summary as an SVG picture.")] = None,
) -> None:
    """Two tenants, two pools at zero, a gang with a sealed dataset, a batch over its quota, and what must fail.

    Exits with 1 if any expectation fails.

    Example: kekkai demo --keep
    """
    from local.demo.run import run

    raise typer.Exit(run(name=name, keep=keep, plain=plain, picture=picture))
