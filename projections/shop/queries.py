"""What is asked about shopping carts. Amounts are in cents, times and days in UTC."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, Field

from projections.query import Query


class Cart(BaseModel):
    """A row of `carts`: how many units are in it, their value, and when events of it occurred."""

    cart_id: str
    status: Literal["open", "checked out"]
    units: int
    value_cents: int
    version: int
    first_at: datetime
    last_at: datetime


class GetCart(Query[Cart | None]):
    """One cart, or None where there is none."""

    sql: ClassVar[str] = "SELECT * FROM carts WHERE cart_id = $cart_id"
    cart_id: str


class CartItem(BaseModel):
    """A row of `cart_items`, of one cart: how many units of a product, and their value."""

    product_id: str
    quantity: int
    value_cents: int
    first_at: datetime
    last_at: datetime


class GetCartItems(Query[list[CartItem]]):
    """What is in a cart now."""

    sql: ClassVar[str] = (
        "SELECT * EXCLUDE cart_id FROM cart_items WHERE cart_id = $cart_id ORDER BY product_id"
    )
    cart_id: str


class ProductSales(BaseModel):
    """What a product has sold: units less those that were taken out again."""

    product_id: str
    units: int
    revenue_cents: int


class TopProducts(Query[list[ProductSales]]):
    """The products with the highest revenue from one day to another, both included."""

    sql: ClassVar[str] = """
        SELECT product_id, sum(units_added - units_removed)::BIGINT AS units,
            sum(revenue_cents)::BIGINT AS revenue_cents
        FROM product_daily
        WHERE ($since::DATE IS NULL OR day >= $since) AND ($until::DATE IS NULL OR day <= $until)
        GROUP BY product_id ORDER BY revenue_cents DESC, product_id LIMIT $limit"""
    since: date | None = None
    until: date | None = None
    limit: Annotated[int, Field(ge=1)] = 10


class DaySales(BaseModel):
    """A row of `sales_daily`: a day's sales, and of how many products."""

    day: date
    units: int
    revenue_cents: int
    products: int


class SalesByDay(Query[list[DaySales]]):
    """Sales of each day from one to another, both included; days without any are not there."""

    sql: ClassVar[str] = """
        FROM sales_daily
        WHERE ($since::DATE IS NULL OR day >= $since) AND ($until::DATE IS NULL OR day <= $until)
        ORDER BY day"""
    since: date | None = None
    until: date | None = None


class FunnelHour(BaseModel):
    """A row of `hourly_funnel`: how many events of each kind an hour had."""

    hour: datetime
    carts_begun: int
    products_added: int
    products_removed: int
    carts_checked_out: int


class CartFunnel(Query[list[FunnelHour]]):
    """How many carts got how far, by hour, from one time up to but not including another."""

    sql: ClassVar[str] = """
        FROM hourly_funnel
        WHERE ($since::TIMESTAMP IS NULL OR hour >= $since)
            AND ($until::TIMESTAMP IS NULL OR hour < $until)
        ORDER BY hour"""
    since: datetime | None = None
    until: datetime | None = None


class AbandonedCart(BaseModel):
    """A cart that somebody may have forgotten, and when it was last touched."""

    cart_id: str
    units: int
    value_cents: int
    last_at: datetime


class AbandonedCarts(Query[list[AbandonedCart]]):
    """Carts with something in them, open, and untouched for `idle_for`; the most valuable first.

    Idle until `now`, or else until the newest event of any cart, so that old data can be asked.
    """

    sql: ClassVar[str] = """
        SELECT cart_id, units, value_cents, last_at FROM carts
        WHERE status = 'open' AND units > 0
            AND last_at <= coalesce($now::TIMESTAMP, (SELECT max(last_at) FROM carts)) - $idle_for
        ORDER BY value_cents DESC, cart_id LIMIT $limit"""
    idle_for: timedelta
    now: datetime | None = None
    limit: Annotated[int, Field(ge=1)] = 100
