"""The rules of an order. Run it with pytest."""

from __future__ import annotations

import pytest

from ingest import Spec
from pipeline.extras.starter.domain import (
    CancelOrder,
    OrderCancelled,
    OrderPaid,
    OrderPlaced,
    OrderShipped,
    PayOrder,
    PlaceOrder,
    ShipOrder,
    order,
)

an_order = Spec(order)
placed = OrderPlaced("ada", 4200)

place = PlaceOrder(command_id="1", order_id="7", customer_id="ada", amount_cents=4200)
ship = ShipOrder(command_id="1", order_id="7", carrier="post")
cancel = CancelOrder(command_id="1", order_id="7")


def pay(cents: int) -> PayOrder:
    return PayOrder(command_id="1", order_id="7", paid_cents=cents)


def test_an_order_is_placed_once() -> None:
    an_order.given().when(place).then(placed)
    an_order.given(placed).when(place).then_rejected("there is such an order already")


def test_it_may_be_paid_in_parts_and_is_then_shipped() -> None:
    half_paid = an_order.given(placed).when(pay(2000)).then(OrderPaid(2000))
    half_paid.when(ship).then_rejected("the order is not paid")
    half_paid.when(pay(2200)).then(OrderPaid(2200)).when(ship).then(OrderShipped("post"))


def test_never_more_is_paid_than_what_is_due() -> None:
    an_order.given(placed, OrderPaid(2000)).when(pay(2201)).then_rejected(
        "that is more than what is due"
    )


def test_cancelling_gives_back_what_was_paid() -> None:
    an_order.given(placed, OrderPaid(2000)).when(cancel).then(OrderCancelled(refund_cents=2000))


@pytest.mark.parametrize("command", [pay(1), ship, cancel])
def test_nothing_happens_before_it_is_placed_or_after_its_end(
    command: PayOrder | ShipOrder | CancelOrder,
) -> None:
    an_order.given().when(command).then_rejected("there is no such order")
    shipped = an_order.given(placed, OrderPaid(4200), OrderShipped("post"))
    shipped.when(command).then_rejected("the order is shipped")
    cancelled = an_order.given(placed, OrderCancelled(0))
    cancelled.when(command).then_rejected("the order is cancelled")
