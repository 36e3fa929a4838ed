"""The stock of a product: what came in, what is held for orders, what went out."""

from __future__ import annotations

from typing import Annotated, NamedTuple, TypeAlias, assert_never

from pydantic import Field

from ingest.aggregate import Aggregate
from ingest.command import Command, Identifier
from ingest.errors import Rejected
from ingest.events import event
from ingest.shop.cart import Quantity

Units: TypeAlias = Annotated[int, Field(gt=0, description="Of a whole cart, so without a limit.")]

# --- events


@event
class StockReceived:
    """Units came in."""

    quantity: int


@event
class StockReserved:
    """Units are held for an order."""

    order_id: str
    quantity: int


@event
class StockRefused:
    """There are not as many as an order asked for."""

    order_id: str
    quantity: int


@event
class StockReleased:
    """Units that were held for an order are free again."""

    order_id: str
    quantity: int


@event
class StockDispatched:
    """Units that were held for an order went out."""

    order_id: str
    quantity: int


Event: TypeAlias = StockReceived | StockReserved | StockRefused | StockReleased | StockDispatched

# --- state; also its row in the read model `stock`


class Stock(NamedTuple):
    """Units: free, and held for orders."""

    free: int = 0
    held: int = 0


# --- evolve


def evolve(stock: Stock, event: Event) -> Stock:
    """The stock after an event."""
    match event:
        case StockReceived(quantity):
            return Stock(stock.free + quantity, stock.held)
        case StockReserved(_, quantity):
            return Stock(stock.free - quantity, stock.held + quantity)
        case StockReleased(_, quantity):
            return Stock(stock.free + quantity, stock.held - quantity)
        case StockDispatched(_, quantity):
            return Stock(stock.free, stock.held - quantity)
        case StockRefused():
            return stock
    assert_never(event)


# --- commands


class ReceiveStock(Command):
    """Units have come in."""

    product_id: Identifier
    quantity: Quantity


class ReserveStock(Command):
    """Hold units for an order, if there are as many."""

    product_id: Identifier
    order_id: Identifier
    quantity: Units


class ReleaseStock(Command):
    """Hold units for an order no more."""

    product_id: Identifier
    order_id: Identifier
    quantity: Units


class DispatchStock(Command):
    """Send out units that are held for an order."""

    product_id: Identifier
    order_id: Identifier
    quantity: Units


StockCommand: TypeAlias = ReceiveStock | ReserveStock | ReleaseStock | DispatchStock

# --- decide


def decide(stock: Stock, command: StockCommand) -> list[Event]:
    """The events that a command causes. Raises `Rejected`."""
    quantity = command.quantity
    if isinstance(command, ReceiveStock):
        return [StockReceived(quantity)]
    order_id = command.order_id
    if isinstance(command, ReserveStock):
        enough = quantity <= stock.free
        return [(StockReserved if enough else StockRefused)(order_id, quantity)]
    if quantity > stock.held:
        raise Rejected("not as many are held")
    if isinstance(command, ReleaseStock):
        return [StockReleased(order_id, quantity)]
    return [StockDispatched(order_id, quantity)]


# --- the aggregate

stock = Aggregate(
    name="stock",
    key="product_id",
    initial=Stock(),
    decide=decide,
    evolve=evolve,
    table="stock",
)
