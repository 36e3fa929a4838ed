"""A scenario is the real path of deciding: what it says happened is what would stand in the log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple

import pytest
from pydantic import Field

from ingest import Aggregate, Command, Domain, Identifier, Later, Of, event
from ingest.errors import DomainFailed
from ingest.policy import Policy
from ingest.shop import TO_PAY, shop
from ingest.shop.cart import AddProduct, CheckedOut, CheckOut, Item
from ingest.shop.order import (
    ItemGivenBack,
    ItemHeld,
    Order,
    OrderCancelled,
    OrderPaid,
    OrderPlaced,
    OrderShipped,
    PaymentAwaited,
    PayOrder,
    ShipOrder,
)
from ingest.shop.stock import (
    ReceiveStock,
    ReserveStock,
    Stock,
    StockDispatched,
    StockRefused,
    StockReleased,
    StockReserved,
)
from ingest.wire import Wire
from pipeline.decide.sends import HOPS_MAX
from pipeline.scenario import Scenario
from tests.domains.transfers import Account, Deposit, Deposited, FellAsleep, transfers

TEA, CAKE = Item("tea", 2), Item("cake", 1)
LATE = OrderCancelled("it was not paid in time", (TEA,))

pay = PayOrder(order_id="7")
ship = ShipOrder(order_id="7")
check_out = CheckOut(cart_id="7", deliver_to="ada")


def received(item: Item) -> ReceiveStock:
    return ReceiveStock(product_id=item.product_id, quantity=item.quantity)


def a_cart_of(*items: Item) -> list[AddProduct]:
    return [
        AddProduct(
            cart_id="7", product_id=item.product_id, quantity=item.quantity, unit_price_cents=100
        )
        for item in items
    ]


@pytest.fixture
def awaited() -> Scenario:
    """An order of tea waits to be paid."""
    return Scenario(shop).given(received(TEA), *a_cart_of(TEA), check_out)


def test_a_cart_that_is_checked_out_is_held_paid_and_shipped() -> None:
    placed = Scenario(shop).given(received(TEA), *a_cart_of(TEA)).when(check_out)
    held = placed.then(
        CheckedOut("ada", (TEA,)),
        OrderPlaced("ada", (TEA,), 200),
        StockReserved("7", 2),
        ItemHeld("tea"),
        PaymentAwaited(),
    )
    shipped = held.when(pay).then(OrderPaid()).when(ship)
    end = shipped.then(OrderShipped((TEA,)), StockDispatched("7", 2))
    assert end.state("stock", "tea") == Stock(free=0, held=0)
    assert end.state("order", "7").status == "shipped"
    assert end.state("order", "8") == Order()


def test_without_stock_the_order_is_cancelled() -> None:
    Scenario(shop).given(*a_cart_of(TEA)).when(check_out).then(
        CheckedOut("ada", (TEA,)),
        OrderPlaced("ada", (TEA,), 200),
        StockRefused("7", 2),
        OrderCancelled("tea is out of stock", ()),
    )


def test_what_is_held_when_the_order_is_cancelled_already_is_given_back() -> None:
    story = Scenario(shop).given(received(TEA), *a_cart_of(TEA, CAKE)).when(check_out)
    end = story.then(
        CheckedOut("ada", (CAKE, TEA)),
        OrderPlaced("ada", (CAKE, TEA), 300),
        StockRefused("7", 1),
        StockReserved("7", 2),
        OrderCancelled("cake is out of stock", ()),
        ItemGivenBack("tea", 2),
        StockReleased("7", 2),
    )
    assert end.state("stock", "tea") == Stock(free=2, held=0)


def test_what_is_not_paid_in_time_is_cancelled_and_given_back(awaited: Scenario) -> None:
    expired = awaited.after(minutes=31).then(LATE, StockReleased("7", 2))
    assert expired.state("stock", "tea") == Stock(free=2, held=0)
    expired.when(pay).then_rejected("the order is cancelled")


def test_a_payment_just_before_the_deadline_counts_and_the_deadline_does_nothing(
    awaited: Scenario,
) -> None:
    last_moment = TO_PAY.total_seconds() - 0.001
    paid = awaited.after(seconds=last_moment).when(pay).then(OrderPaid())
    paid.after(days=1).then().when(ship).then(OrderShipped((TEA,)), StockDispatched("7", 2))
    awaited.after(seconds=last_moment).then().after(seconds=0.001).then(LATE, StockReleased("7", 2))


def test_a_newer_deadline_takes_the_place_of_an_older_one() -> None:
    def deposit() -> Deposit:
        return Deposit(account_id="ada", cents=5)

    quiet = Scenario(transfers).given(deposit()).after(hours=23)
    quiet.after(hours=1).then(FellAsleep(5))
    busy = quiet.when(deposit()).then(Deposited(5))
    busy.after(hours=23).then().after(hours=1).then(FellAsleep(10)).after(days=9).then()


def test_a_story_branches_where_it_is_kept(awaited: Scenario) -> None:
    paid, left = awaited.when(pay), awaited.after(minutes=31)
    assert paid.state("order", "7").status == "paid"
    assert left.state("order", "7").status == "cancelled"
    assert awaited.state("order", "7").status == "awaiting payment"
    paid.then(OrderPaid())
    left.then(LATE, StockReleased("7", 2))
    awaited.then()


def test_a_send_that_is_rejected_is_an_error_of_the_story() -> None:
    """Nobody has placed order 7, so that it does not hold what the stock reserves."""
    reserved = Scenario(shop).when(
        received(TEA), ReserveStock(product_id="tea", order_id="7", quantity=2)
    )
    with pytest.raises(AssertionError, match="rejected: the order is new"):
        reserved.then(StockReserved("7", 2))
    reserved.then_rejected("the order is new")
    with pytest.raises(AssertionError, match="is given, and was rejected: the order is new"):
        Scenario(shop).given(pay)


def test_what_happened_otherwise_is_an_error_that_shows_both(awaited: Scenario) -> None:
    with pytest.raises(AssertionError, match=r"happened: \[OrderPaid\(\)\], not \[\]"):
        awaited.when(pay).then()
    with pytest.raises(AssertionError, match="rejected: nothing, not for 'it is late'"):
        awaited.when(pay).then_rejected("it is late")
    with pytest.raises(AssertionError, match="not for 'it is late'"):
        awaited.when(ship).then_rejected("it is late")


def test_commands_without_an_id_are_never_duplicates_and_those_with_one_may_be() -> None:
    deposit = Deposit(account_id="ada", cents=1)
    one, two = (deposit.model_copy(update={"command_id": number}) for number in "12")
    Scenario(transfers).when(deposit, one, two, deposit).then(*[Deposited(1)] * 4)
    Scenario(transfers).when(one, one).then(Deposited(1))


# --- two aggregates that never stop to answer each other


@event
class Pinged: ...


@event
class Ponged: ...


class Count(NamedTuple):
    hits: int = 0


class Ping(Command):
    ping_id: Identifier


class Pong(Command):
    pong_id: Identifier


def evolve_ping(count: Count, event: Pinged) -> Count:
    return Count(count.hits + 1)


def decide_ping(count: Count, command: Ping) -> list[Pinged]:
    return [Pinged()]


def evolve_pong(count: Count, event: Ponged) -> Count:
    return Count(count.hits + 1)


def decide_pong(count: Count, command: Pong) -> list[Ponged]:
    return [Ponged()]


def return_ping(event: Pinged, of: Of[Count]) -> Iterator[Pong]:
    yield Pong(pong_id=of.id)


def return_pong(event: Ponged, of: Of[Count]) -> Iterator[Ping]:
    yield Ping(ping_id=of.id)


ping = Aggregate(
    name="ping", key="ping_id", initial=Count(), decide=decide_ping, evolve=evolve_ping,
    table="pings",
)  # fmt: skip
pong = Aggregate(
    name="pong", key="pong_id", initial=Count(), decide=decide_pong, evolve=evolve_pong,
    table="pongs",
)  # fmt: skip
table_tennis = Domain("table_tennis", (ping, pong), (return_ping, return_pong))


def test_commands_that_cause_each_other_without_end_are_one_clear_rejection() -> None:
    game = Scenario(table_tennis).when(Ping(ping_id="7"))
    game.then_rejected(
        f"Pong would be the last of more than {HOPS_MAX} commands that cause each other; let a"
        " deadline be between them"
    )
    with pytest.raises(AssertionError, match=r"^rejected: Pong would be the last of more than \d+"):
        game.then()
    hits = [game.state(kind, "7").hits for kind in ("ping", "pong")]
    assert sum(hits) == HOPS_MAX, "the command of the last hop has caused nothing"


def ping_again_at_once(event: Pinged, of: Of[Count]) -> Iterator[Later[Ping]]:
    yield Later(timedelta.min, Ping(ping_id=of.id))


def test_what_is_kept_for_no_time_at_all_is_no_deadline_between_them() -> None:
    game = Scenario(Domain("solo", (ping,), (ping_again_at_once,))).when(Ping(ping_id="7"))
    game = game.after(minutes=1)
    game.then_rejected(
        f"Ping would be the last of more than {HOPS_MAX} commands that cause each other; let a"
        " deadline be between them"
    )
    assert game.state("ping", "7").hits == HOPS_MAX


def yields_nothing(event: Deposited, of: Of[Account]) -> Iterator[Deposit]:
    nothing: Any = None
    yield nothing


def later_to_another(event: Deposited, of: Of[Account]) -> Iterator[Later[Deposit]]:
    yield Later(timedelta(1), Deposit(account_id="secret", cents=1))


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        (partial(yields_nothing), "policy yields_nothing sends NoneType"),
        (yields_nothing, "policy yields_nothing sends NoneType, which no aggregate decides"),
        (later_to_another, "policy later_to_another keeps Deposit for later for another aggregate"),
    ],
)
def test_what_a_policy_does_wrong_is_told_by_its_name_and_without_a_value(
    policy: Policy, why: str
) -> None:
    story = Scenario(replace(transfers, policies=(policy,)))
    with pytest.raises(DomainFailed) as failed:
        story.when(Deposit(account_id="a secret", cents=1)).then()
    assert why in str(failed.value)
    assert "secret" not in str(failed.value)


class Shut(Command):
    door_id: Identifier
    how_hard: int = Field(alias="howHard")


@event
class Shaken:
    how_hard: int


def shut(count: Count, command: Shut) -> list[Shaken]:
    return [Shaken(command.how_hard)]


def shaken(count: Count, event: Shaken) -> Count:
    return Count(count.hits + 1)


def shut_again(event: Shaken, of: Of[Count]) -> Iterator[Shut]:
    if event.how_hard:
        yield Shut(door_id=of.id, howHard=event.how_hard - 1)


def test_a_field_of_another_name_on_the_wire_has_it_also_in_what_is_sent() -> None:
    door = Aggregate(
        name="door", key="door_id", initial=Count(), decide=shut, evolve=shaken, table="doors"
    )
    house = Domain("house", (door,), (shut_again,))
    hard = Shut(door_id="7", howHard=1)
    Scenario(house).when(hard).then(Shaken(1), Shaken(0))
    _, (_, payload) = Wire(house, 1).encode(hard)
    assert json.loads(payload)["howHard"] == 1
