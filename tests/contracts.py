"""Commands that a contract allows and refuses, and a validator that takes formats seriously."""

from __future__ import annotations

import re
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.protocols import Validator

from ingest.shop import shop
from pipeline.extras.starter.domain import domain as starter
from tests.domains.bank import bank
from tests.domains.clicks import clicks
from tests.domains.shop import now as tills

DOMAINS = [shop, bank, clicks, tills, starter]

ADD = {"type": "AddProduct", "command_id": "1", "cart_id": "7", "product_id": "milk"}
PRICED = {**ADD, "quantity": 2, "unit_price_cents": 89}
ANSWERED = {**PRICED, "reply_to": "shop:replies:me"}
READABLE = [
    PRICED,
    {**PRICED, "quantity": 1_000_000, "unit_price_cents": 100_000_000},
    {**PRICED, "unit_price_cents": 0},
    {**PRICED, "cart_id": "x" * 100},
    {**PRICED, "cart_id": "ü" * 100},
    {**PRICED, "occurred_at": "2017-01-01T12:00:00Z"},
    {**PRICED, "occurred_at": "2017-01-01T12:00:00.123456+02:00"},
    {**PRICED, "occurred_at": "2017-01-01t12:00:00.5z"},
    {**PRICED, "occurred_at": "9999-12-31T23:59:59Z"},
    {**PRICED, "occurred_at": None},
    {**PRICED, "correlation_id": "a", "causation_id": "b", "expected_version": 3},
    {"type": "RemoveProduct", "command_id": "1", "cart_id": "7", "product_id": "a", "quantity": 1},
    {"type": "CheckOut", "command_id": "1", "cart_id": "an empty one"},
]
UNREADABLE: list[Any] = [
    ADD,
    {**PRICED, "quantity": 0},
    {**PRICED, "quantity": 1_000_001},
    {**PRICED, "quantity": "2"},
    {**PRICED, "quantity": 1.5},
    {**PRICED, "quantity": True},
    {**PRICED, "quantity": None},
    {**PRICED, "unit_price_cents": -1},
    {**PRICED, "unit_price_cents": 100_000_001},
    {**PRICED, "cart_id": ""},
    {**PRICED, "cart_id": 7},
    {**PRICED, "cart_id": "x" * 101},
    {**PRICED, "command_id": ""},
    {**PRICED, "command_id": None},
    {**PRICED, "type": "addproduct"},
    {**PRICED, "type": None},
    {**PRICED, "color": "red"},
    {**PRICED, "occurred_at": "2017-01-01T12:00:00"},
    {**PRICED, "occurred_at": "2016-12-31T23:59:60Z"},
    {**PRICED, "occurred_at": "2017-01-01T12:00:00+02"},
    {**PRICED, "occurred_at": "0000-01-01T12:00:00Z"},
    {**PRICED, "occurred_at": "9999-12-31T23:59:59-10:00"},
    {**PRICED, "expected_version": 1e30},
    {**PRICED, "expected_version": 2**63},
    {**PRICED, "occurred_at": "yesterday"},
    {**PRICED, "expected_version": "1"},
    {**PRICED, "correlation_id": ""},
    {**PRICED, "reply_to": "elsewhere"},
    {"type": "CheckOut", "command_id": "1", "cart_id": "7", "quantity": 1},
    {name: value for name, value in PRICED.items() if name != "type"},
    [PRICED],
    "AddProduct",
    None,
    7,
]

FORMATS = FormatChecker([])


@FORMATS.checks("date-time")
def is_a_time(value: object) -> bool:
    """As RFC 3339 has it, leap seconds too."""
    clock = r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:([0-5]\d|60)(\.\d+)?([Zz]|[+-]\d\d(:?\d\d)?)"
    return not isinstance(value, str) or re.fullmatch(clock, value) is not None


def validator(schema: dict[str, Any]) -> Validator:
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema, format_checker=FORMATS)
