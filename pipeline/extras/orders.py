"""`foldlog demo --orders`: the baskets as orders, through the whole process, with payments.

Each cart is checked out to be delivered, so it becomes an order; of each product there is a little
less in stock than all want. A subscriber plays the customers and the warehouse: it pays most orders
whose payment is awaited, and ships those that are paid.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any
from zlib import crc32

from rich.console import Console

from ingest.producer import Producer
from ingest.shop.order import PayOrder, ShipOrder
from pipeline.deployment import Deployment
from pipeline.extras import baskets
from pipeline.extras.driven import Pipeline
from pipeline.feed.subscription import Subscription
from pipeline.health.status import status
from pipeline.settings import Settings
from projections import connect

LIMIT = 20_000
"""Commands of the baskets, where nothing else is said: each of their lines becomes five more."""

IN_STOCK_PERCENT = 97
"""Of what all orders want of a product, rounded up."""

PAID_PERCENT = 90
"""Of the orders; the others are cancelled after half an hour, if the pipeline runs then."""

LOOK_S = 0.2


def pays(order_id: str) -> bool:
    """Whether its customer pays."""
    return crc32(order_id.encode()) % 100 < PAID_PERCENT


class Customers(threading.Thread):
    """Pays and ships, as events tell that it is time to."""

    def __init__(self, deployed: Deployment) -> None:
        super().__init__(name="demo-customers", daemon=True)
        self._deployed = deployed
        types = ["PaymentAwaited", "OrderPaid"]
        self._events = Subscription(deployed.domain, deployed.log, "now", types=types)
        self.error: BaseException | None = None
        """Why it has ended before it was stopped."""

    def run(self) -> None:
        """What the thread does."""
        try:
            redis_url = self._deployed.settings.reachable_redis
            with Producer(redis_url, self._deployed.domain) as producer:
                for happened in self._events:
                    order_id, place = (
                        happened.aggregate_id,
                        f"{happened.partition}-{happened.position}",
                    )
                    if happened.event_type == "OrderPaid":
                        producer.send(ShipOrder(command_id=f"ship-{place}", order_id=order_id))
                    elif crc32(order_id.encode()) % 100 < PAID_PERCENT:
                        producer.send(PayOrder(command_id=f"pay-{place}", order_id=order_id))
        except BaseException as error:
            self.error = error

    def stop(self) -> None:
        """End it."""
        self._events.stop()
        self.join(timeout=10)


def commands(limit: int) -> Iterator[list[dict[str, Any]]]:
    """What comes in: the stock, then the baskets, each to be delivered."""
    wanted: Counter[str] = Counter()
    for chunk in baskets.commands(limit):
        for command in chunk:
            wanted[command.get("product_id", "")] += command.get("quantity", 0)
    del wanted[""]
    yield [
        {
            "type": "ReceiveStock",
            "command_id": f"stock-{product_id}",
            "product_id": product_id,
            "quantity": min(1_000_000, max(1, -(-units * IN_STOCK_PERCENT // 100))),
        }
        for product_id, units in wanted.items()
    ]
    for chunk in baskets.commands(limit):
        for command in chunk:
            if command["type"] == "CheckOut":
                command["deliver_to"] = f"customer of {command['cart_id']}"
        yield chunk


def play(settings: Settings, limit: int | None, pipeline: Pipeline, console: Console) -> int:
    """Send everything, and wait until nothing is left to do; how many commands were sent."""
    deployed = Deployment.open(settings)
    customers = Customers(deployed)
    customers.start()
    try:
        with Producer(settings.reachable_redis, deployed.domain) as producer:
            sent = sum(producer.send_many(chunk) for chunk in commands(limit or LIMIT))
        console.print(f"sent {sent:,} commands; the orders go their way")
        while not _is_done(deployed):
            pipeline.check()
            if customers.error is not None:
                raise customers.error
            time.sleep(LOOK_S)
        return sent
    finally:
        customers.stop()


def _is_done(deployed: Deployment) -> bool:
    """Whether every command and every send is handled and published, and every order waits for
    nothing but a payment that does not come.
    """
    now = status(deployed.settings)
    if now.lag != 0 or now.sent.waiting or now.unpublished != 0:
        return False
    with connect(deployed.settings.published) as db:
        waiting = db.execute("SELECT order_id, waits_for FROM orders_waiting").fetchall()
    return all(waits_for == "payment" and not pays(order_id) for order_id, waits_for in waiting)


CONSERVED = """
    SELECT
        (SELECT sum(quantity) FROM events WHERE event_type = 'StockReceived')::BIGINT AS received,
        (SELECT sum(free) FROM stock)::BIGINT AS free,
        (SELECT sum(held) FROM stock)::BIGINT AS held,
        coalesce((SELECT sum(quantity) FROM events WHERE event_type = 'StockDispatched'), 0)::BIGINT
            AS dispatched
"""

REPORT = {
    "From cart to shipped": "SELECT * EXCLUDE (day) FROM order_funnel ORDER BY day",
    "Orders": """
        SELECT status, count(*) AS orders, sum(value_cents)::BIGINT AS value_cents
        FROM orders GROUP BY status ORDER BY orders DESC""",
    "What policies sent": """
        SELECT command, state, count(*) AS sends FROM sends GROUP BY ALL ORDER BY sends DESC""",
}


def conserved(settings: Settings) -> str:
    """Whether every unit of stock is accounted for, in one line."""
    with connect(settings.published) as db:
        received, free, held, dispatched = db.execute(CONSERVED).fetchone() or (0, 0, 0, 0)
    equal = received == free + held + dispatched
    return (
        f"Stock: {received:,} units received = {free:,} free + {held:,} held for orders"
        f" + {dispatched:,} dispatched: {'conserved to the unit' if equal else 'NOT CONSERVED'}."
    )
