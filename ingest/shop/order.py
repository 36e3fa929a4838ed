"""An order: placed, its stock held, paid in time, shipped; or cancelled, and all is given back."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple, TypeAlias, assert_never

from immutables import Map
from pydantic import Field

from ingest.aggregate import Aggregate
from ingest.command import Command, Identifier
from ingest.errors import Rejected
from ingest.events import event
from ingest.shop.cart import Item

# --- events


@event
class OrderPlaced:
    """A cart was checked out, to be delivered."""

    deliver_to: str
    items: tuple[Item, ...]
    value_cents: int


@event
class ItemHeld:
    """The stock of a product is held for the order."""

    product_id: str


@event
class PaymentAwaited:
    """All of it is held; it is to be paid now."""


@event
class OrderPaid:
    """It was paid."""


@event
class OrderShipped:
    """It went out."""

    items: tuple[Item, ...]


@event
class OrderCancelled:
    """It came to nothing."""

    why: str
    items: tuple[Item, ...]
    """What was held for it."""


@event
class ItemGivenBack:
    """A product was held for it when it was cancelled already."""

    product_id: str
    quantity: int


Event: TypeAlias = (
    OrderPlaced
    | ItemHeld
    | PaymentAwaited
    | OrderPaid
    | OrderShipped
    | OrderCancelled
    | ItemGivenBack
)

# --- state

Status: TypeAlias = Literal["new", "reserving", "awaiting payment", "paid", "shipped", "cancelled"]


class Order(NamedTuple):
    """What the rules have to know of an order."""

    status: Status = "new"
    value_cents: int = 0
    wanted: Map[str, int] = Map()
    """By product: units."""
    held: frozenset[str] = frozenset()
    """The products whose units are held."""
    why: str | None = None
    """It was cancelled."""

    def items(self) -> tuple[Item, ...]:
        """What is held."""
        return tuple(Item(product_id, self.wanted[product_id]) for product_id in sorted(self.held))


# --- evolve


def evolve(order: Order, event: Event) -> Order:
    """The order after an event."""
    match event:
        case OrderPlaced(_, items, value_cents):
            wanted = Map((item.product_id, item.quantity) for item in items)
            return Order("reserving", value_cents, wanted)
        case ItemHeld(product_id):
            return order._replace(held=order.held | {product_id})
        case PaymentAwaited():
            return order._replace(status="awaiting payment")
        case OrderPaid():
            return order._replace(status="paid")
        case OrderShipped():
            return order._replace(status="shipped", held=frozenset())
        case OrderCancelled(why):
            return order._replace(status="cancelled", held=frozenset(), why=why)
        case ItemGivenBack():
            return order
    assert_never(event)


# --- commands


class PlaceOrder(Command):
    """Begin an order with what is in a cart."""

    order_id: Identifier
    deliver_to: Identifier
    items: tuple[Item, ...]
    value_cents: Annotated[int, Field(ge=0, description="Of the whole cart.")]


class HoldItem(Command):
    """The stock has held a product for it."""

    order_id: Identifier
    product_id: Identifier


class RefuseItem(Command):
    """The stock has not as many of a product."""

    order_id: Identifier
    product_id: Identifier


class PayOrder(Command):
    """Its price was paid."""

    order_id: Identifier


class ExpireOrder(Command):
    """Its time to be paid is over."""

    order_id: Identifier


class ShipOrder(Command):
    """Send it out."""

    order_id: Identifier


OrderCommand: TypeAlias = PlaceOrder | HoldItem | RefuseItem | PayOrder | ExpireOrder | ShipOrder

# --- decide


def decide(order: Order, command: OrderCommand) -> list[Event]:
    """The events that a command causes. Raises `Rejected`."""
    match command:
        case PlaceOrder() if order.status == "new":
            return [OrderPlaced(command.deliver_to, command.items, command.value_cents)]
        case HoldItem(product_id=product_id) if order.status == "reserving":
            complete = len(order.held | {product_id}) == len(order.wanted)
            return [ItemHeld(product_id), *([PaymentAwaited()] if complete else [])]
        case HoldItem(product_id=product_id) if order.status == "cancelled":
            return [ItemGivenBack(product_id, order.wanted[product_id])]
        case RefuseItem(product_id=product_id) if order.status == "reserving":
            return [OrderCancelled(f"{product_id} is out of stock", order.items())]
        case ExpireOrder() if order.status == "awaiting payment":
            return [OrderCancelled("it was not paid in time", order.items())]
        case PayOrder() if order.status == "awaiting payment":
            return [OrderPaid()]
        case ShipOrder() if order.status == "paid":
            return [OrderShipped(order.items())]
        case RefuseItem() | ExpireOrder() if order.status != "new":
            return []  # it came too late to matter
    raise Rejected(f"the order is {order.status}")


# --- the aggregate


class OrderRow(NamedTuple):
    """What the read model `orders` shows of an order."""

    status: Status
    value_cents: int
    why: str | None


def row(order: Order) -> OrderRow:
    """The order as analysts see it."""
    return OrderRow(order.status, order.value_cents, order.why)


order = Aggregate(
    name="order",
    key="order_id",
    initial=Order(),
    decide=decide,
    evolve=evolve,
    table="orders",
    row=row,
)
