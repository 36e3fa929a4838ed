"""What policies cost where they have nothing to do, and how soon a reaction has its outcome, in the
log and for readers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic_core import to_json

from ingest.producer import Producer
from ingest.shop import shop
from ingest.shop.cart import AddProduct, CheckOut
from ingest.shop.stock import ReceiveStock
from pipeline.extras.bench.delays import Publishes, quantile, running
from pipeline.extras.bench.load import PARTITIONS, baskets
from pipeline.extras.bench.table import Figure
from pipeline.extras.bench.throughput import decided_rate
from pipeline.health.sent import sent_status
from pipeline.health.status import status
from pipeline.log.log import Log
from pipeline.settings import Settings

COMMANDS = 200_000
ROUNDS = 4

ORDERS_A_SECOND = 25
"""Each is a hop to its order, one to the stock, and one back: a system that is not busy."""

PRODUCTS = 50


def measure(folder: Path, seconds: float) -> list[Figure]:
    """Deciding with policies beside without, then reactions with one worker and with two."""
    figures = [_cost()]
    for workers in (1, 2):
        with running(folder / str(workers), workers) as settings:
            _react(settings, seconds)
        committed = [row.at - sent_at for sent_at, row in _reactions(settings)]
        for share, goal in (50, "≤ 15 ms"), (99, ""):
            figures.append(
                Figure(f"commit to the reaction's commit, workers: {workers}, p{share}",
                       1000 * quantile(committed, share), "ms", goal=goal)
            )  # fmt: skip
    published = _until_published(folder / "published", seconds)
    for share in (50, 99):
        figures.append(
            Figure(f"commit to the published reaction, p{share}", quantile(published, share), "s",
                   "publish period", settings.publish_interval_ms / 1000)
        )  # fmt: skip
    return figures


def _cost() -> Figure:
    """Of commands that no policy reacts to, in turn, so that a noisy machine is fair to both."""
    payloads = [to_json(command) for chunk in baskets(COMMANDS) for command in chunk]
    without = replace(shop, policies=())
    rates: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(ROUNDS):
        for with_policies, domain in ((True, shop), (False, without)):
            rates[with_policies].append(decided_rate(payloads, domain))
    return Figure(
        "deciding, with policies", max(rates[True]), "/s",
        "without", max(rates[False]), "≥ 0.98",
    )  # fmt: skip


def _until_published(data: Path, seconds: float) -> list[float]:
    """Seconds from the commit that holds a send to the published file that has its outcome."""
    with running(data, workers=1) as settings:
        publishes = Publishes(settings)
        _react(settings, seconds)
        files = publishes.all(settings)
    return [
        next(when for when, ends in files if ends.get(row.partition, 0) > row.position) - sent_at
        for sent_at, row in _reactions(settings)
    ]


def _react(settings: Settings, seconds: float) -> None:
    """Send orders, until all that they cause is handled."""
    _order(settings, seconds)
    log = Log.open(settings.events, domain=shop.name)
    while status(settings).lag or sent_status(shop, log).waiting:
        time.sleep(0.1)


def _order(settings: Settings, seconds: float) -> None:
    """Carts that are checked out, to be delivered, at a steady rate."""
    with Producer(settings.reachable_redis, shop) as producer:
        for number in range(PRODUCTS):
            command_id = f"stock-{number}"
            producer.send(
                ReceiveStock(command_id=command_id, product_id=f"p{number}", quantity=1_000_000)
            )
        started = time.monotonic()
        for number in range(int(ORDERS_A_SECOND * seconds)):
            cart_id = f"cart-{number}"
            producer.send(
                AddProduct(
                    command_id=f"add-{number}",
                    cart_id=cart_id,
                    product_id=f"p{number % PRODUCTS}",
                    quantity=1,
                    unit_price_cents=1,
                )
            )
            producer.send(CheckOut(command_id=f"out-{number}", cart_id=cart_id, deliver_to="x"))
            time.sleep(max(0.0, started + number / ORDERS_A_SECOND - time.monotonic()))


@dataclass(frozen=True, slots=True)
class _Row:
    """When its file was written, and where it stands."""

    at: float
    partition: int
    position: int


def _reactions(settings: Settings) -> Iterator[tuple[float, _Row]]:
    """When each send was written, and its outcome.

    By the time stamps of the files, of those that no compaction has merged.
    """
    log = Log.open(settings.events, domain=shop.name)
    written: dict[str, float] = {}
    handled: dict[str, _Row] = {}
    for partition in range(PARTITIONS):
        for file in log.all_files(partition):
            if file.last is not None:
                continue
            at = file.path.stat().st_mtime
            rows = log.read_file(file, ["position", "event_type", "stream_id"])
            for row in rows.to_pylist():
                if row["event_type"] == "CommandSent":
                    written[f"{partition}/{row['position']}"] = at
                handled.setdefault(row["stream_id"], _Row(at, partition, row["position"]))
    return ((at, handled[source]) for source, at in written.items() if source in handled)
