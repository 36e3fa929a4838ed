"""The rules of an order and of credit, and how one leads to the other. Run it with pytest."""

from __future__ import annotations

import pytest

from ingest import Spec
from pipeline.extras.starter.domain import (
    CancelOrder,
    CreditGiven,
    CreditPaidOut,
    OrderCancelled,
    OrderPaid,
    OrderPlaced,
    OrderShipped,
    PayOrder,
    PayOutCredit,
    PlaceOrder,
    ShipOrder,
    credit,
    domain,
    order,
)
from pipeline.scenario import Scenario

an_order = Spec(order)
placed = OrderPlaced("ada", 4200)

place = PlaceOrder(order_id="7", customer_id="ada", amount_cents=4200)
ship = ShipOrder(order_id="7", carrier="post")
cancel = CancelOrder(order_id="7")


def pay(cents: int) -> PayOrder:
    return PayOrder(order_id="7", paid_cents=cents)


def pay_out(cents: int) -> PayOutCredit:
    return PayOutCredit(customer_id="ada", credit_cents=cents)


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


@pytest.mark.parametrize("command", [pay(1), ship, cancel])
def test_nothing_happens_before_it_is_placed_or_after_its_end(
    command: PayOrder | ShipOrder | CancelOrder,
) -> None:
    an_order.given().when(command).then_rejected("there is no such order")
    shipped = an_order.given(placed, OrderPaid(4200), OrderShipped("post"))
    shipped.when(command).then_rejected("the order is shipped")
    cancelled = an_order.given(placed, OrderCancelled(0))
    cancelled.when(command).then_rejected("the order is cancelled")


def test_no_more_is_paid_out_than_there_is_credit() -> None:
    has_credit = Spec(credit).given(CreditGiven("7", 2000))
    has_credit.when(pay_out(2001)).then_rejected("that is more than the credit")
    has_credit.when(pay_out(2000)).then(CreditPaidOut(2000))


def test_what_was_paid_for_a_cancelled_order_is_the_customers_credit() -> None:
    half_paid = Scenario(domain).given(place, pay(2000))
    cancelled = half_paid.when(cancel).then(OrderCancelled(2000), CreditGiven("7", 2000))
    cancelled.when(pay_out(2000)).then(CreditPaidOut(2000))


def test_an_order_that_is_not_paid_in_a_week_is_cancelled() -> None:
    placed = Scenario(domain).given(place)
    placed.after(days=6).then().after(days=1).then(OrderCancelled(0))
    placed.when(pay(4200)).then(OrderPaid(4200)).after(days=7).then()
