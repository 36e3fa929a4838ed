"""`foldlog status` for people: a screen of 80 columns, and the same again and again."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ingest.strays import warning
from pipeline.cli.signals import stop_at_signals
from pipeline.engine.programs import Program
from pipeline.health.status import Status, status
from pipeline.settings import Settings

MIB = 1024 * 1024


def as_screen(now: Status, before: Status | None = None, seconds: float = 0) -> RenderableType:
    """The state, and rates since an earlier state of so many seconds ago."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("partition", justify="right")
    table.add_column("last stream id")
    for name in ("position", "published", "lag"):
        table.add_column(name, justify="right")
    for p in now.partitions:
        lag = "?" if p.lag is None else f"{p.lag:,}"
        table.add_row(
            str(p.partition), p.last_stream_id, f"{p.position:,}", f"{p.published_position:,}", lag
        )
    return Group(table, "", *(Text.from_markup(line) for line in _lines(now, before, seconds)))


def _lines(now: Status, before: Status | None, seconds: float) -> list[str]:
    lines = [_program(program, len(now.partitions)) for program in now.programs]
    lines += [f"{name:11}  [red]does not run[/]" for name in now.missing]
    if not now.running:
        lines.append("pipeline     [red]does not run[/]")
    if before is not None:
        committed = now.rows - before.rows
        published = committed - (now.unpublished - before.unpublished)
        lines.append(
            f"rates        {committed / seconds:,.0f} rows/s to the log,"
            f" {published / seconds:,.0f} published"
        )
    if now.published_age_s is None:
        lines.append("read models  nothing is published yet")
    else:
        behind = (
            f"{now.unpublished:,} rows behind the log, freshness {now.freshness_s:.1f} s"
            if now.unpublished
            else "up to date"
        )
        lines.append(f"read models  published {now.published_age_s:.1f} s ago, {behind}")
    kept = f"; {now.kept_files:,} more, {now.kept_bytes / MIB:,.1f} MiB, are kept for readers"
    lines.append(
        f"log          {now.rows:,} rows in {now.files:,} files{kept if now.kept_files else ''}"
    )
    if sent := now.sent.waiting:
        lines.append(f"sends        {sent:,} wait for their receivers")
    if now.sent.next_due_at is not None:
        due = f"{now.sent.next_due_at:%Y-%m-%d %H:%M:%S}"
        lines.append(f"deadlines    {now.sent.deadlines:,} wait, the next one until {due}")
    if now.sent.failed:
        lines.append(f"sends        [red]{now.sent.failed:,} were rejected within a day[/]")
    if now.redis_error is not None:
        lines.append(f"Redis        [red]{escape(now.redis_error)}[/]")
    elif now.redis_memory_bytes is not None:
        lines.append(f"Redis        {now.redis_memory_bytes / MIB:,.1f} MiB")
    lines += [f"stray        [yellow]{escape(warning(*stray))}[/]" for stray in now.strays.items()]
    lines += [f"halted       [red]{escape(reason)}[/]" for reason in now.halted]
    lines += [f"repaired     {escape(repair)}" for repair in now.repairs]
    lines += [f"{e['time'][:19]}  [yellow]{escape(e['message'])}[/]" for e in now.errors]
    return lines


def _program(program: Program, partitions: int) -> str:
    since = datetime.fromtimestamp(program.since, UTC)
    return (
        f"{program.name:11}  [green]{program.holds(partitions)}[/],"
        f" since {since:%Y-%m-%d %H:%M:%S}, process {program.process}"
    )


def watch(settings: Settings, every_s: float, timeout_s: float) -> None:
    """Show the state until Ctrl-C; without a terminal, one screen after another."""
    console = Console()
    before, at = None, 0.0
    stopped = threading.Event()
    stop_at_signals(stopped.set)
    with Live(console=console, auto_refresh=False) as live:
        while not stopped.is_set():
            now, then = status(settings, timeout_s), time.monotonic()
            screen = as_screen(now, before, then - at)
            if console.is_terminal:
                live.update(screen, refresh=True)
            else:
                console.print(screen)
            before, at = now, then
            stopped.wait(every_s)
