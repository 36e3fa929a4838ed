"""What is asked about orders. A query's fields are bound to the `$parameters` of its SQL."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import BaseModel, Field

from projections.query import Query


class OrderShown(BaseModel):
    order_id: str
    status: str
    customer_id: str
    amount_cents: int
    paid_cents: int


class GetOrder(Query[OrderShown | None]):
    """One order, or None where there is none."""

    sql: ClassVar[str] = (
        "SELECT order_id, status, customer_id, amount_cents, paid_cents"
        " FROM orders WHERE order_id = $order_id"
    )
    order_id: str


class CustomerShown(BaseModel):
    customer_id: str
    orders: int
    ordered_cents: int
    credit_cents: int


class TopCustomers(Query[list[CustomerShown]]):
    """The customers who have ordered for the most, each with the credit that is left."""

    sql: ClassVar[str] = (
        "SELECT customer_id, orders, ordered_cents, coalesce(credit_cents, 0) AS credit_cents"
        " FROM customers LEFT JOIN credits USING (customer_id)"
        " ORDER BY ordered_cents DESC, customer_id LIMIT $limit"
    )
    limit: Annotated[int, Field(ge=1)] = 10
