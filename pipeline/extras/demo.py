"""`foldlog demo`: a year of real grocery shopping, from a producer to the read models."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from ingest.envelope import REJECTED, UNREADABLE
from ingest.errors import FoldlogError
from pipeline.deployment import Deployment
from pipeline.extras import baskets
from pipeline.extras.driven import Pipeline
from pipeline.extras.orders import REPORT as ORDERS
from pipeline.extras.orders import conserved, play
from pipeline.extras.sender import Sender
from pipeline.health.status import status
from pipeline.log.log import Log
from pipeline.settings import Settings
from projections import connect as connect_read_models

Show = Callable[[duckdb.DuckDBPyConnection, str], None]
"""Puts the result of a query on the screen, under a title."""


def demo(
    settings: Settings,
    *,
    limit: int | None,
    keep: bool,
    orders: bool,
    console: Console,
    show: Show,
) -> None:
    """Run the demo and print its report; with `orders` the whole process on fewer baskets.

    Raises `FoldlogError` where it cannot run.
    """
    baskets.transactions()
    marker = settings.data / "demo"
    if not keep:
        _clear(settings.data, marker)
    settings.data.mkdir(parents=True, exist_ok=True)
    marker.touch()
    with Pipeline(settings) as pipeline:
        pipeline.wait_until_ready()
        if orders:
            sent = play(settings, limit, pipeline, console)
        else:
            sent = _send_and_watch(settings, limit, pipeline, console)
    _report(settings, sent, console, show, ORDERS if orders else REPORT)
    if orders:
        console.print(f"\n{conserved(settings)}", soft_wrap=True)


def _clear(data: Path, marker: Path) -> None:
    """Remove the last demo's data directory, and only that."""
    if data.exists() and any(data.iterdir()):
        if not marker.exists():
            raise FoldlogError(
                f"{data} holds what the demo did not make; name another folder with --data,"
                " or continue in it with --keep"
            )
        shutil.rmtree(data)


def _send_and_watch(
    settings: Settings, limit: int | None, pipeline: Pipeline, console: Console
) -> int:
    """Send everything, and show how it goes until all of it is published; how many were sent."""
    deployed = Deployment.open(settings)
    total = baskets.count() if limit is None else min(limit, baskets.count())
    tally = _Tally(deployed.log)
    tally.update()
    already = tally.commands
    sender = Sender(deployed, limit)
    columns = (
        TextColumn("sent {task.fields[sent]:>9,}  committed {task.completed:>9,.0f}"),
        BarColumn(5),
        TextColumn(
            "rejected {task.fields[rejected]:>5,}  {task.fields[rate]:>6,}/s"
            "  lag {task.fields[lag]:>7,}"
        ),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=total, sent=0, rejected=0, rate=0, lag=0)
        started = time.monotonic()
        sender.start()
        try:
            while True:
                pipeline.check()
                if sender.error is not None:
                    raise sender.error
                finished = sender.finished
                tally.update()
                committed = tally.commands - already
                sender.backlog = lag = max(0, sender.sent - committed)
                progress.update(
                    task,
                    completed=committed + sender.before,
                    sent=sender.sent,
                    rejected=tally.rejected,
                    rate=int(committed / (time.monotonic() - started)),
                    lag=lag,
                )
                if finished and lag == 0 and status(settings).unpublished == 0:
                    return sender.sent
                time.sleep(0.1)
        finally:
            sender.stopping = True
            sender.join(timeout=10)


class _Tally:
    """Counts outcomes in the log as it grows, reading each file once."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._next = dict.fromkeys(range(log.partitions), 0)
        self.commands = 0
        self.rejected = 0

    def update(self) -> None:
        for partition, first in self._next.items():
            for rows in self._log.read(partition, first, ["position", "stream_id", "event_type"]):
                self.commands += pc.count_distinct(rows["stream_id"]).as_py()
                turned_down = pc.is_in(rows["event_type"], pa.array([REJECTED, UNREADABLE]))
                self.rejected += pc.sum(turned_down).as_py()
                self._next[partition] = rows["position"][-1].as_py() + 1


def _report(
    settings: Settings, sent: int, console: Console, show: Show, report: Mapping[str, str]
) -> None:
    """A few answers, read from the published file as any analyst would."""
    with connect_read_models(settings.published) as db:
        commands, distinct = db.execute(
            "SELECT count(*), count(DISTINCT command_id) FROM outcomes WHERE command_id IS NOT NULL"
        ).fetchone() or (0, 0)
        console.print(
            f"\nSent {sent:,} commands. The log holds {commands:,} outcomes"
            f" of {distinct:,} commands:"
            f" {'each has exactly one' if commands == distinct else 'they should be equal'}.\n",
            soft_wrap=True,
        )
        for title, sql in report.items():
            show(db.execute(sql), title)
    where = (
        "" if settings.data == Settings.model_fields["data"].default else f"--data {settings.data} "
    )
    console.print(
        f"\nNow ask something yourself:\n\n  foldlog query {where}"
        '"SELECT status, count(*) AS carts, sum(units) AS units FROM carts GROUP BY status"\n',
        soft_wrap=True,
    )


REPORT = {
    "Top products by revenue": """
        SELECT product_id, sum(units_added)::BIGINT AS units, sum(revenue_cents)::BIGINT AS
        revenue_cents
        FROM product_daily GROUP BY product_id ORDER BY revenue_cents DESC, product_id LIMIT 5""",
    "Revenue by month": """
        SELECT strftime(day, '%Y-%m') AS month, sum(revenue_cents)::BIGINT AS revenue_cents
        FROM product_daily GROUP BY month ORDER BY month""",
    "Commands by outcome": """
        SELECT outcome, reason, count(*) AS commands,
            round(100.0 * count(*) / sum(count(*)) OVER (), 2) AS percent
        FROM outcomes GROUP BY outcome, reason ORDER BY commands DESC""",
}
