"""Wherever a worker dies while orders go their way: each ends in one way, stock is conserved
to the unit, and no send is lost or handled twice.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from itertools import count

import pytest

from ingest import crash
from ingest.producer import Producer
from pipeline.settings import Settings
from tests.ordering import baskets, finish, pay_and_ship, progress, shop_settings
from tests.processes import Program
from tests.running import DEADLINE_S, Up, wait_for
from tests.test_crash_points import ALL

CARTS = 12

LIVES = [
    [name for name in ALL if name.startswith(begins)]
    for begins in (("follow", "settle"), ("commit",), ("snapshot", "read", "trim"))
]
"""A sender and a receiver at each death: the other worker goes on."""

TIMES = {"settle": 1, "snapshot": 1}

MORE_STOCK = count(1_000_000)


@pytest.fixture
def shop(announced: Settings) -> Settings:
    return shop_settings(announced).model_copy(update={"snapshot_rows": 25})


def work(settings: Settings, share: str, dies_at: str | None = None) -> Program:
    environment = settings.as_environment()
    if dies_at:
        environment |= {crash.VARIABLE: dies_at}
    return Program("pipeline.operate.work", share, environment=environment)


@pytest.mark.parametrize("life", LIVES, ids=lambda life: f"{life[0]} and {len(life) - 1} more")
def test_a_worker_that_dies_at_this_point_while_the_other_goes_on(
    shop: Settings, up: Callable[..., Up], life: list[str]
) -> None:
    with Producer(shop.reachable_redis) as producer:
        for number, point in enumerate(life):
            producer.send_many(baskets(number * CARTS, CARTS))
            times = TIMES.get(point.partition(".")[0], 3)
            mine, other = f"{number % 2}/2", f"{1 - number % 2}/2"
            dying, going_on = work(shop, mine, f"{point}:{times}"), work(shop, other)
            try:
                wait_for(lambda dying=dying: has_died(dying, shop, producer), point)
            finally:
                dying.kill()
                going_on.kill()
            assert dying.wait(DEADLINE_S) == crash.EXIT_CODE, point
            going_on.wait(DEADLINE_S)
    finish(shop, up(shop))
    assert len(progress(shop)) == CARTS * len(life)
    assert not [path for path in shop.events.rglob("*.tmp") if path.parent.name != "_schemas"]


def has_died(dying: Program, settings: Settings, producer: Producer) -> bool:
    """A slow worker may take all that there is in a batch or two, so there is always more."""
    if not pay_and_ship(settings, producer):
        producer.send_many(baskets(next(MORE_STOCK), 0))
    return dying.poll() is not None


def test_two_writers_of_each_partition_lose_to_each_other_and_nothing_else_is_lost(
    shop: Settings, up: Callable[..., Up]
) -> None:
    """One sleeps while the other takes over, wakes, and believes in what it had read."""
    two = [work(shop, "0/2"), work(shop, "1/2")]
    other = None
    try:
        with Producer(shop.reachable_redis) as producer:
            producer.send_many(baskets(0, CARTS))
            wait_for(lambda: len(progress(shop)) > 3, "the first orders")
            for sleeper in two:
                sleeper.send_signal(signal.SIGSTOP)
            producer.send_many(baskets(CARTS, CARTS))
            other = work(shop, "0/1")
            wait_for(lambda: len(progress(shop)) == 2 * CARTS, "the one that took over")
            pay_and_ship(shop, producer)
            for sleeper in two:
                sleeper.send_signal(signal.SIGCONT)
            producer.send_many(baskets(2 * CARTS, CARTS))
            wait_for(lambda: len(progress(shop)) == 3 * CARTS, "all orders")
            wait_for(shop.errors.exists, "a warning")
            wait_for(lambda: "so has taken it over" in shop.errors.read_text(), "both to lose")
    finally:
        for worker in (*two, other):
            if worker is not None:
                worker.kill()
                worker.wait(DEADLINE_S)
    finish(shop, up(shop))
