"""The carts of the shop that ships, without orders and stock: one aggregate, and no policies."""

from __future__ import annotations

from dataclasses import replace

from ingest.shop import shop
from ingest.shop.cart import cart

carts = replace(shop, aggregates=(cart,), policies=())
