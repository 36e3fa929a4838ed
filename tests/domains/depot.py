"""Two aggregates whose ids are the same: what a depot has of a product, and what that costs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple, TypeAlias, assert_never

from pydantic import Field

from ingest import Aggregate, Command, Domain, Identifier, Rejected, event

Units: TypeAlias = Annotated[int, Field(gt=0, le=1_000_000)]

# --- the stock of a product


@event
class Received:
    units: int


@event
class Taken:
    units: int


StockEvent: TypeAlias = Received | Taken


class Stock(NamedTuple):
    """Also its row, so that there is no function for it."""

    units: int = 0


def evolve_stock(stock: Stock, event: StockEvent) -> Stock:
    match event:
        case Received(units):
            return Stock(stock.units + units)
        case Taken(units):
            return Stock(stock.units - units)
        case _:
            assert_never(event)


class Receive(Command):
    product_id: Identifier
    units: Units


class Take(Command):
    product_id: Identifier
    units: Units


def decide_stock(stock: Stock, command: Receive | Take) -> list[StockEvent]:
    match command:
        case Receive():
            return [Received(command.units)]
        case Take() if command.units > stock.units:
            raise Rejected(f"there are {stock.units}")
        case Take():
            return [Taken(command.units)]
        case _:
            assert_never(command)


stock = Aggregate(
    name="stock",
    key="product_id",
    initial=Stock(),
    decide=decide_stock,
    evolve=evolve_stock,
    table="stocks",
)

# --- its price


@event
class PriceSet:
    cents: int


@dataclass(frozen=True, slots=True)
class Price:
    history: tuple[int, ...] = ()


def evolve_price(price: Price, event: PriceSet) -> Price:
    return Price((*price.history, event.cents))


class SetPrice(Command):
    product_id: Identifier
    cents: int


def decide_price(price: Price, command: SetPrice) -> list[PriceSet]:
    if price.history[-1:] == (command.cents,):
        raise Rejected("that is the price")
    return [PriceSet(command.cents)]


class PriceRow(NamedTuple):
    cents: int
    lowest: int


def price_row(price: Price) -> PriceRow:
    return PriceRow(price.history[-1], min(price.history))


price = Aggregate(
    name="price",
    key="product_id",
    initial=Price(),
    decide=decide_price,
    evolve=evolve_price,
    table="prices",
    row=price_row,
)

depot = Domain("depot", (stock, price), read_models=Path(__file__).parent / "depot_read_models")
