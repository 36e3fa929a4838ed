"""The rules of orders: they are placed, paid, and then shipped or cancelled.

What was paid for a cancelled order is its customer's credit. An order that is not paid in a week is
cancelled by a deadline. From the top, for both aggregates: events, state, evolve, commands, decide.
Then what follows from events, and last the domain itself. Money is in cents.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, TypeAlias, assert_never

from pydantic import Field

from ingest import Aggregate, Command, Domain, Identifier, Later, Of, Rejected, event

Cents: TypeAlias = Annotated[int, Field(gt=0, le=100_000_000, description="In cents.")]

# ---------------- an order

# --- events: what has happened; their fields are columns of the log


@event
class OrderPlaced:
    customer_id: str
    amount_cents: int


@event
class OrderPaid:
    paid_cents: int


@event
class OrderShipped:
    carrier: str


@event
class OrderCancelled:
    refund_cents: int


OrderEvent: TypeAlias = OrderPlaced | OrderPaid | OrderShipped | OrderCancelled

# --- state: what the rules have to know about one order; also its row in the read model `orders`


@dataclass(frozen=True, slots=True)
class Order:
    status: Literal["new", "placed", "paid", "shipped", "cancelled"] = "new"
    customer_id: str = ""
    amount_cents: int = 0
    paid_cents: int = 0


# --- evolve: the state after an event


def evolve_order(order: Order, event: OrderEvent) -> Order:
    match event:
        case OrderPlaced(customer_id, amount_cents):
            return Order("placed", customer_id, amount_cents)
        case OrderPaid(paid_cents):
            paid = order.paid_cents + paid_cents
            status: Literal["paid", "placed"] = "paid" if paid == order.amount_cents else "placed"
            return replace(order, status=status, paid_cents=paid)
        case OrderShipped():
            return replace(order, status="shipped")
        case OrderCancelled(refund_cents):
            return replace(order, status="cancelled", paid_cents=order.paid_cents - refund_cents)
        case _:
            assert_never(event)


# --- commands: what may be asked for; a command that breaks these limits is unreadable


class PlaceOrder(Command):
    order_id: Identifier
    customer_id: Identifier
    amount_cents: Cents


class PayOrder(Command):
    order_id: Identifier
    paid_cents: Cents


class ShipOrder(Command):
    order_id: Identifier
    carrier: Identifier


class CancelOrder(Command):
    order_id: Identifier


class ExpireOrder(Command):
    order_id: Identifier


OrderCommand: TypeAlias = PlaceOrder | PayOrder | ShipOrder | CancelOrder | ExpireOrder

# --- decide: the events that a command causes, or Rejected with the reason; pure, without a clock


def decide_order(order: Order, command: OrderCommand) -> list[OrderEvent]:
    match command:
        case PlaceOrder():
            if order.status != "new":
                raise Rejected("there is such an order already")
            return [OrderPlaced(command.customer_id, command.amount_cents)]
        case ExpireOrder():
            # A deadline comes in any case; where there is nothing left to do, it does nothing.
            return [OrderCancelled(order.paid_cents)] if order.status == "placed" else []
        case _ if order.status == "new":
            raise Rejected("there is no such order")
        case _ if order.status in ("shipped", "cancelled"):
            raise Rejected(f"the order is {order.status}")
        case PayOrder():
            if command.paid_cents > order.amount_cents - order.paid_cents:
                raise Rejected("that is more than what is due")
            return [OrderPaid(command.paid_cents)]
        case ShipOrder():
            if order.status != "paid":
                raise Rejected("the order is not paid")
            return [OrderShipped(command.carrier)]
        case CancelOrder():
            return [OrderCancelled(refund_cents=order.paid_cents)]
        case _:
            assert_never(command)


# --- the aggregate

order = Aggregate(
    name="order",
    key="order_id",
    initial=Order(),
    decide=decide_order,
    evolve=evolve_order,
    table="orders",
)

# ---------------- the credit of a customer


@event
class CreditGiven:
    order_id: str
    credit_cents: int


@event
class CreditPaidOut:
    credit_cents: int


CreditEvent: TypeAlias = CreditGiven | CreditPaidOut


@dataclass(frozen=True, slots=True)
class Credit:
    credit_cents: int = 0


def evolve_credit(credit: Credit, event: CreditEvent) -> Credit:
    match event:
        case CreditGiven(_, cents):
            return Credit(credit.credit_cents + cents)
        case CreditPaidOut(cents):
            return Credit(credit.credit_cents - cents)
        case _:
            assert_never(event)


class GiveCredit(Command):
    customer_id: Identifier
    order_id: Identifier
    credit_cents: Cents


class PayOutCredit(Command):
    customer_id: Identifier
    credit_cents: Cents


def decide_credit(credit: Credit, command: GiveCredit | PayOutCredit) -> list[CreditEvent]:
    match command:
        case GiveCredit():
            return [CreditGiven(command.order_id, command.credit_cents)]
        case PayOutCredit():
            if command.credit_cents > credit.credit_cents:
                raise Rejected("that is more than the credit")
            return [CreditPaidOut(command.credit_cents)]
        case _:
            assert_never(command)


credit = Aggregate(
    name="credit",
    key="customer_id",
    initial=Credit(),
    decide=decide_credit,
    evolve=evolve_credit,
    table="credits",
)

# ---------------- policies: what follows from events

TO_PAY = timedelta(days=7)


def refund(event: OrderCancelled, of: Of[Order]) -> Iterator[GiveCredit]:
    if event.refund_cents:
        yield GiveCredit(
            customer_id=of.state.customer_id, order_id=of.id, credit_cents=event.refund_cents
        )


def expire(event: OrderPlaced, of: Of[Order]) -> Iterator[Later[ExpireOrder]]:
    yield Later(TO_PAY, ExpireOrder(order_id=of.id))


# ---------------- the domain

domain = Domain(
    "starter",
    (order, credit),
    (refund, expire),
    read_models=Path(__file__).parent / "read_models",
    queries="pipeline.extras.starter.queries",
)
