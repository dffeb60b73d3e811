"""Shows the demo: a live screen on a terminal, plain lines elsewhere, a table at the end."""

from __future__ import annotations

import time
from collections import Counter
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from local.demo.expectation import Expectation, Report
from local.demo.look import Eye, Snapshot

_MARK = {"waiting": ("·", "dim"), "running": ("▶", "cyan"), "held": ("✓", "green"), "broken": ("✗", "red bold")}
_WORKLOAD_LINES = 9


class View:
    """A context that draws while the scenario runs. `console.is_terminal` decides how."""

    def __init__(self, report: Report, console: Console) -> None:
        self.report = report
        self.console = console
        self.eye: Eye | None = None
        self.note = ""
        self._started = time.monotonic()
        self._live: Live | None = None
        if console.is_terminal:
            self._live = Live(self, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> View:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._live:
            self._live.stop()

    def say(self, text: str) -> None:
        """A line about what happens now."""
        self.note = text
        if not self._live:
            self.console.print(f"{self._clock():>7}  {text}", markup=False, highlight=False, soft_wrap=True)

    def started(self, row: Expectation) -> None:
        self.say(f"… {row.title}")

    def ended(self, row: Expectation) -> None:
        mark, _ = _MARK[row.state]
        self.say(f"{mark} {row.title}: {row.got}")

    def _clock(self) -> str:
        return f"{time.monotonic() - self._started:.1f} s"

    def __rich__(self) -> Group:
        snapshot = self.eye.snapshot if self.eye else Snapshot()
        return Group(
            Text.assemble(("Kekkai demo ", "bold"), (self._clock(), "dim"), "  ", (self.note[:160], "cyan")),
            self._steps(),
            _pools(snapshot),
            _workloads(snapshot),
        )

    def _steps(self) -> Panel:
        table = Table.grid(padding=(0, 1))
        for row in self.report.rows:
            mark, style = _MARK[row.state]
            table.add_row(Text(mark, style=style), Text(row.title, style=style), Text(row.got[:90], style="dim"))
        return Panel(table, title="what must happen, and what must fail", title_align="left", border_style="dim")


def _pools(snapshot: Snapshot) -> Panel:
    table = Table(box=None, pad_edge=False)
    for heading in ("pool", "accelerators", "TEE", "machines", "ready", "max"):
        table.add_column(heading, style="bold" if heading == "pool" else "")
    for pool in snapshot.pools:
        bar = "■" * pool.ready + "□" * (pool.machines - pool.ready)
        table.add_row(
            pool.name, pool.accelerator, pool.tee, f"{pool.machines} {bar}", str(pool.ready), str(pool.maximum)
        )
    return Panel(table, title="pools", title_align="left", border_style="dim")


def _workloads(snapshot: Snapshot) -> Panel:
    counts = Counter(row.state for row in snapshot.workloads)
    table = Table(box=None, pad_edge=False, show_header=False)
    shown = sorted(snapshot.workloads, key=lambda row: ["admitted", "waiting", "finished"].index(row.state))
    for row in shown[:_WORKLOAD_LINES]:
        style = {"admitted": "green", "waiting": "yellow", "finished": "dim"}[row.state]
        table.add_row(f"{row.namespace}/{row.name}", Text(row.state, style=style), Text(row.reason[:100], style="dim"))
    if len(shown) > _WORKLOAD_LINES:
        table.add_row(f"… and {len(shown) - _WORKLOAD_LINES} more", "", "")
    title = "workloads: " + (", ".join(f"{n} {state}" for state, n in sorted(counts.items())) or "none")
    if snapshot.key_state:
        title += f" · key {snapshot.key_state}, {snapshot.releases} releases"
    return Panel(table, title=title, title_align="left", border_style="dim")


def summary(report: Report, console: Console, seconds: float) -> None:
    """The table at the end."""
    table = Table(title=f"Kekkai demo, {seconds:.0f} s", title_justify="left")
    table.add_column("")
    table.add_column("expectation")
    table.add_column("expected")
    table.add_column("came", overflow="fold")
    table.add_column("s", justify="right")
    for row in report.rows:
        mark, style = _MARK[row.state]
        table.add_row(Text(mark, style=style), row.title, row.expected, row.got, f"{row.seconds:.1f}")
    console.print(table)
    held = sum(1 for row in report.rows if row.state == "held")
    verdict = "all expectations held" if report.ok else f"{len(report.broken)} did NOT hold"
    console.print(f"{held} of {len(report.rows)}: {verdict}", style="green bold" if report.ok else "red bold")
