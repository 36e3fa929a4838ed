"""The shopping cart: add a product, remove one, check out.

In every aggregate's order: events, state, evolve, commands, decide, and last the aggregate itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import Annotated, Literal, NamedTuple, TypeAlias, assert_never

from immutables import Map
from pydantic import Field

from ingest.aggregate import Aggregate
from ingest.command import Command, Identifier
from ingest.errors import Rejected
from ingest.events import event

# --- events: their fields are columns of the log; a rename changes the storage format


@event
class ProductAdded:
    """Units of a product came into the cart."""

    product_id: str
    quantity: int
    unit_price_cents: int


@event
class ProductRemoved:
    """Units of a product left the cart."""

    product_id: str
    quantity: int
    value_cents: int
    """What the removed units were worth: their share of what that product had cost in this cart."""


@dataclass(frozen=True, slots=True)
class Item:
    """So much of a product."""

    product_id: str
    quantity: int


@event
class CheckedOut:
    """The cart was closed with what was in it."""

    deliver_to: str | None = None
    """Where it is to be sent; None where the customer has taken it along."""
    items: tuple[Item, ...] = ()
    """What is to be sent there."""


Event: TypeAlias = ProductAdded | ProductRemoved | CheckedOut

# --- state

Line: TypeAlias = tuple[int, int]
"""What a cart holds of one product: units, and what they cost in cents."""

NO_LINE: Line = (0, 0)


class Open(NamedTuple):
    """A cart that may still change."""

    lines: Map[str, Line] = Map()
    """By product. A `Map` shares with the next state all but what changed, however long it is."""
    units: int = 0
    value_cents: int = 0
    """Of all lines, kept as they change: a cart is shown far more often than it is added up."""


class Closed(NamedTuple):
    """A cart after its check-out, and what was in it."""

    units: int
    value_cents: int


State: TypeAlias = Open | Closed

# --- evolve


def evolve(state: State, event: Event) -> State:
    """The cart after an event."""
    assert isinstance(state, Open), "nothing happens to a cart after its check-out"
    if isinstance(event, ProductAdded):
        cents = event.quantity * event.unit_price_cents
        return _changed(state, event.product_id, event.quantity, cents)
    if isinstance(event, ProductRemoved):
        return _changed(state, event.product_id, -event.quantity, -event.value_cents)
    if isinstance(event, CheckedOut):
        return Closed(state.units, state.value_cents)
    assert_never(event)


def _changed(cart: Open, product_id: str, units: int, value_cents: int) -> Open:
    lines, all_units, all_cents = cart
    quantity, cents = lines.get(product_id, NO_LINE)
    quantity += units
    assert quantity >= 0, "only what is in a cart is removed from it"
    if quantity:
        lines = lines.set(product_id, (quantity, cents + value_cents))
    else:
        lines = lines.delete(product_id)
    return Open(lines, all_units + units, all_cents + value_cents)


# --- commands

Quantity: TypeAlias = Annotated[int, Field(gt=0, le=1_000_000, description="In units.")]
Cents: TypeAlias = Annotated[int, Field(ge=0, le=100_000_000, description="In cents.")]


class AddProduct(Command):
    """Put units of a product into the cart, at a price."""

    cart_id: Identifier
    product_id: Identifier
    quantity: Quantity
    unit_price_cents: Cents


class RemoveProduct(Command):
    """Take units of a product out of the cart."""

    cart_id: Identifier
    product_id: Identifier
    quantity: Quantity


class CheckOut(Command):
    """Close the cart; it may not be empty."""

    cart_id: Identifier
    deliver_to: Identifier | None = None
    """Where to send it; without, the customer takes it along, and no order is placed."""


CartCommand: TypeAlias = AddProduct | RemoveProduct | CheckOut

# --- decide


def decide(state: State, command: CartCommand) -> list[Event]:
    """The events that a command causes. Raises `Rejected`."""
    if isinstance(state, Closed):
        raise Rejected("the cart is checked out")
    if isinstance(command, AddProduct):
        return [ProductAdded(command.product_id, command.quantity, command.unit_price_cents)]
    if isinstance(command, RemoveProduct):
        quantity, value_cents = state.lines.get(command.product_id, NO_LINE)
        if quantity < command.quantity:
            raise Rejected("the cart does not hold that many")
        share = value_cents * command.quantity // quantity
        return [ProductRemoved(command.product_id, command.quantity, share)]
    if isinstance(command, CheckOut):
        if not state.lines:
            raise Rejected("the cart is empty")
        if command.deliver_to is None:
            return [CheckedOut()]
        items = (Item(product_id, units) for product_id, (units, _) in state.lines.items())
        return [CheckedOut(command.deliver_to, tuple(sorted(items, key=attrgetter("product_id"))))]
    assert_never(command)


# --- the aggregate


class CartRow(NamedTuple):
    """What the read model `carts` shows of a cart."""

    status: Literal["open", "checked out"]
    units: int
    value_cents: int


def row(state: State) -> CartRow:
    """The cart as analysts see it."""
    status: Literal["open", "checked out"] = "open" if isinstance(state, Open) else "checked out"
    return CartRow(status, state.units, state.value_cents)


cart: Aggregate[State, CartCommand, Event] = Aggregate(
    name="cart", key="cart_id", initial=Open(), decide=decide, evolve=evolve, table="carts", row=row
)
