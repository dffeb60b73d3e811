"""How key and log commands print: tables for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

import typer
from rich.console import Console
from rich.table import Column, Table


class Format(StrEnum):
    """Values of -o."""

    table = "table"
    json = "json"


def show(document: Mapping[str, Any], form: Format, *, title: str = "") -> None:
    """One object: JSON, or a line a field."""
    if form is Format.json:
        typer.echo(json.dumps(document, indent=2, ensure_ascii=False))
        return
    # Digests and keys are there to be copied: on a narrow terminal they are folded, never cut.
    value = Column("value", overflow="fold")
    table = Table("field", value, title=title or None, show_header=False, box=None, title_justify="left")
    for name, field in document.items():
        table.add_row(name, _text(field))
    Console(soft_wrap=True).print(table)


def listing(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], form: Format) -> None:
    """Many objects: a JSON array, or a table of `columns`."""
    if form is Format.json:
        typer.echo(json.dumps(list(rows), indent=2, ensure_ascii=False))
        return
    table = Table(*(Column(name, overflow="fold") for name in columns), box=None)
    for row in rows:
        table.add_row(*(_text(row.get(column, "")) for column in columns))
    Console(soft_wrap=True).print(table)


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_text(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return "; ".join(_text(item) for item in value)
    return "" if value is None else str(value)
