"""The rules of an order: it is placed, paid, and then shipped or cancelled.

From the top: events, state, evolve, commands, decide, then the domain itself. Money is in cents.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, TypeAlias, assert_never

from pydantic import Field

from ingest import Aggregate, Command, Domain, Identifier, Rejected, event

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


Event: TypeAlias = OrderPlaced | OrderPaid | OrderShipped | OrderCancelled

# --- state: what the rules have to know about one order; also its row in the read model `orders`


@dataclass(frozen=True, slots=True)
class Order:
    status: Literal["new", "placed", "paid", "shipped", "cancelled"] = "new"
    customer_id: str = ""
    amount_cents: int = 0
    paid_cents: int = 0


# --- evolve: the state after an event


def evolve(order: Order, event: Event) -> Order:
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

Cents: TypeAlias = Annotated[int, Field(gt=0, le=100_000_000, description="In cents.")]


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


OrderCommand: TypeAlias = PlaceOrder | PayOrder | ShipOrder | CancelOrder

# --- decide: the events that a command causes, or Rejected with the reason; pure, without a clock


def decide(order: Order, command: OrderCommand) -> list[Event]:
    match command:
        case PlaceOrder():
            if order.status != "new":
                raise Rejected("there is such an order already")
            return [OrderPlaced(command.customer_id, command.amount_cents)]
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


# --- the domain


order = Aggregate(
    name="order",
    key="order_id",
    initial=Order(),
    decide=decide,
    evolve=evolve,
    table="orders",
)

domain = Domain(
    "starter",
    (order,),
    read_models=Path(__file__).parent / "read_models",
    queries="pipeline.extras.starter.queries",
)
