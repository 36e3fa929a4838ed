"""What the shopping cart must come to, worked out slowly and plainly. Imports no product code."""

from __future__ import annotations

import zlib
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]


def partition_of(aggregate_id: str, partitions: int) -> int:
    return zlib.crc32(tag_of(aggregate_id).encode()) % partitions


def tag_of(key: str) -> str:
    """What counts of a key: Redis Cluster's rule, character by character as its specification."""
    at = 0
    while at < len(key) and key[at] != "{":
        at += 1
    end = at + 1
    while end < len(key) and key[end] != "}":
        end += 1
    return key if end >= len(key) or end == at + 1 else key[at + 1 : end]


@dataclass
class Expected:
    """Outcomes by command id, and the read models' rows."""

    outcomes: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    carts: dict[str, list[Any]] = field(default_factory=dict)
    """cart → [status, units, value in cents, version]."""
    items: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    """(cart, product) → [quantity, value in cents]."""
    daily: dict[tuple[str, str], list[int]] = field(
        default_factory=lambda: defaultdict(lambda: [0, 0, 0])
    )
    """(product, day) → [units added, units removed, revenue in cents]."""


def expect(commands: list[Json]) -> Expected:
    """The commands' outcomes, those of one cart in the order given."""
    e = Expected()
    for command in commands:
        if command["command_id"] not in e.outcomes:
            e.outcomes[command["command_id"]] = _handle(e, command)
    return e


def _handle(e: Expected, command: Json) -> tuple[str, str | None]:
    kind, cart_id = command["type"], command["cart_id"]
    if "quantity" in command and command["quantity"] <= 0:
        return "unreadable", "quantity: Input should be greater than 0"
    cart = e.carts.get(cart_id, ["open", 0, 0, 0])
    expected_version = command.get("expected_version")
    if expected_version is not None and expected_version != cart[3]:
        return "rejected", f"the version is {cart[3]}, not {expected_version}"
    if cart[0] == "checked out":
        return "rejected", "the cart is checked out"
    if kind == "CheckOut":
        if cart[1] == 0:
            return "rejected", "the cart is empty"
        cart[0] = "checked out"
    else:
        product, quantity = command["product_id"], command["quantity"]
        item = e.items.get((cart_id, product), [0, 0])
        day = e.daily[product, command["occurred_at"][:10]] if kind == "AddProduct" else None
        if kind == "AddProduct":
            value = quantity * command["unit_price_cents"]
            assert day is not None
            day[0] += quantity
        else:
            if item[0] < quantity:
                return "rejected", "the cart does not hold that many"
            value = -(item[1] * quantity // item[0])
            day = e.daily[product, command["occurred_at"][:10]]
            day[1] += quantity
            quantity = -quantity
        day[2] += value
        e.items[cart_id, product] = [item[0] + quantity, item[1] + value]
        if e.items[cart_id, product][0] == 0:
            del e.items[cart_id, product]
        cart[1] += quantity
        cart[2] += value
    cart[3] += 1
    e.carts[cart_id] = cart
    return "accepted", None
