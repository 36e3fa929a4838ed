"""The shop, whose orders are to be paid within seconds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

from ingest.policy import Later, Of
from ingest.shop import expire, shop
from ingest.shop.order import ExpireOrder, Order, PaymentAwaited

TO_PAY = timedelta(seconds=3)


def expire_soon(event: PaymentAwaited, of: Of[Order]) -> Iterator[Later[ExpireOrder]]:
    yield Later(TO_PAY, ExpireOrder(order_id=of.id))


quick_shop = replace(
    shop, policies=tuple(expire_soon if policy is expire else policy for policy in shop.policies)
)
