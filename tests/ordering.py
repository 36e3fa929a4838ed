"""Orders of a whole pipeline for tests: carts that are checked out, payments, shipments; and a look
at what all of it has come to, by the Parquet files alone.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from typing import Any

from ingest.errors import FoldlogError
from ingest.producer import Producer
from pipeline.health.status import status
from pipeline.settings import Settings
from tests.chaos import orders as oracle
from tests.running import DEADLINE_S, Up

DOMAIN = "tests.domains.quick_shop:quick_shop"
PRODUCTS = [f"p{number}" for number in range(5)]
ATTEMPTS = count()


def shop_settings(settings: Settings) -> Settings:
    """Two workers over four partitions, in small commits."""
    return settings.model_copy(update={"domain": DOMAIN, "workers": 2, "batch_max": 20})


def baskets(begin: int, carts: int) -> Iterator[dict[str, Any]]:
    """Stock, though not enough of it, and carts with two products each, to be delivered."""
    for product in PRODUCTS:
        yield {"type": "ReceiveStock", "command_id": f"s-{begin}-{product}", "product_id": product,
               "quantity": max(1, carts)}  # fmt: skip
    for number in range(begin, begin + carts):
        cart = {"cart_id": f"cart-{number}"}
        for at in (number, number + 1 + number % 3):
            product = PRODUCTS[at % len(PRODUCTS)]
            yield {"type": "AddProduct", "command_id": f"a-{number}-{at}", **cart,
                   "product_id": product, "quantity": 3, "unit_price_cents": 5}  # fmt: skip
        yield {"type": "CheckOut", "command_id": f"c-{number}", **cart, "deliver_to": "home"}


def progress(settings: Settings) -> dict[str, set[str]]:
    """Order → what has happened to it."""
    found: dict[str, set[str]] = defaultdict(set)
    columns = ["position", "event_type", "aggregate", "aggregate_id"]
    for rows in oracle.rows_of(settings.events, columns).values():
        for row in rows:
            if row["aggregate"] == "order" and not row["event_type"].startswith("Command"):
                found[row["aggregate_id"]].add(row["event_type"])
    return found


def pay_and_ship(settings: Settings, producer: Producer) -> int:
    """What it is time for now, of every other order; how many have not ended."""
    waiting = 0
    for order, happened in progress(settings).items():
        if happened & oracle.ENDS:
            continue
        waiting += 1
        which = f"{order}-{next(ATTEMPTS)}"
        if "OrderPaid" in happened:
            producer.send({"type": "ShipOrder", "command_id": f"ship-{which}", "order_id": order})
        elif "PaymentAwaited" in happened and int(order.partition("-")[2]) % 2:
            producer.send({"type": "PayOrder", "command_id": f"pay-{which}", "order_id": order})
    return waiting


def finish(settings: Settings, pipeline: Up) -> None:
    """Pay and ship until every order has ended, and nothing waits; then stop, and look."""
    deadline = time.monotonic() + DEADLINE_S
    with pipeline.ready() as producer:
        while pay_and_ship(settings, producer) or not _at_rest(settings):
            assert time.monotonic() < deadline, f"orders wait: {status(settings).sent}"
            time.sleep(0.3)
    pipeline.settle()
    assert pipeline.stop() == 0, pipeline.errors()
    logs = oracle.rows_of(settings.events)
    looks = (oracle.positions, oracle.sends, oracle.deadlines, oracle.orders, oracle.stock)
    assert [wrong for look in looks for wrong in look(logs)] == []


def _at_rest(settings: Settings) -> bool:
    with suppress(FoldlogError):
        now = status(settings)
        return now.lag == 0 and not now.sent.waiting and not now.sent.deadlines
    return False
