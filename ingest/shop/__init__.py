"""The shop that ships, and the default domain: carts, the orders that come of them, and the stock.

    checked out ──▶ order placed ──▶ stock reserved ──▶ payment awaited ──▶ paid ──▶ shipped
                                          │ refused          │ half an hour
                                          ▼                  ▼
                                      cancelled, and what was held is given back

What may not come in: anything that the system itself would need.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from ingest.domain import Domain
from ingest.policy import Later, Of
from ingest.shop.cart import CheckedOut, cart
from ingest.shop.cart import State as Cart
from ingest.shop.order import (
    ExpireOrder,
    HoldItem,
    ItemGivenBack,
    Order,
    OrderCancelled,
    OrderPlaced,
    OrderShipped,
    PaymentAwaited,
    PlaceOrder,
    RefuseItem,
    order,
)
from ingest.shop.stock import (
    DispatchStock,
    ReleaseStock,
    ReserveStock,
    Stock,
    StockRefused,
    StockReserved,
    stock,
)

TO_PAY = timedelta(minutes=30)
"""From when all of an order is held to when it is cancelled."""


def place(event: CheckedOut, of: Of[Cart]) -> Iterator[PlaceOrder]:
    """A cart that is to be delivered becomes the order of the same id."""
    if event.deliver_to is not None:
        yield PlaceOrder(
            order_id=of.id,
            deliver_to=event.deliver_to,
            items=event.items,
            value_cents=of.state.value_cents,
        )


def reserve(event: OrderPlaced, of: Of[Order]) -> Iterator[ReserveStock]:
    """Each of its items is held, or refused."""
    for item in event.items:
        yield ReserveStock(product_id=item.product_id, order_id=of.id, quantity=item.quantity)


def answer(event: StockReserved | StockRefused, of: Of[Stock]) -> Iterator[HoldItem | RefuseItem]:
    """The order hears of it."""
    said = HoldItem if isinstance(event, StockReserved) else RefuseItem
    yield said(order_id=event.order_id, product_id=of.id)


def expire(event: PaymentAwaited, of: Of[Order]) -> Iterator[Later[ExpireOrder]]:
    """What is not paid in time is cancelled."""
    yield Later(TO_PAY, ExpireOrder(order_id=of.id))


def give_back(event: OrderCancelled | ItemGivenBack, of: Of[Order]) -> Iterator[ReleaseStock]:
    """What was held is free again."""
    for item in event.items if isinstance(event, OrderCancelled) else (event,):
        yield ReleaseStock(product_id=item.product_id, order_id=of.id, quantity=item.quantity)


def dispatch(event: OrderShipped, of: Of[Order]) -> Iterator[DispatchStock]:
    """What was held goes out."""
    for item in event.items:
        yield DispatchStock(product_id=item.product_id, order_id=of.id, quantity=item.quantity)


shop = Domain(
    "shop",
    (cart, order, stock),
    (place, reserve, answer, expire, give_back, dispatch),
    read_models="projections.shop",
    queries="projections.shop.queries",
)
