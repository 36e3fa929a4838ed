"""The contract in print says what the running system does."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from jsonschema import Draft7Validator, Draft202012Validator, FormatChecker
from jsonschema.protocols import Validator

from ingest.cart import cart
from ingest.command import partition_of
from ingest.contract import asyncapi, commands_schema, events_schema, outcomes_schema
from ingest.domain import Domain
from ingest.entries import Batch
from ingest.envelope import UNREADABLE as UNREADABLE_TYPE
from ingest.keys import command_stream
from pipeline.decide.batch import BatchDecider
from pipeline.decide.partition import Partition
from pipeline.extras.starter.domain import domain as starter
from pipeline.settings import Settings
from tests.chaos.fuzz import mutated
from tests.domains.bank import bank
from tests.domains.clicks import clicks
from tests.domains.shop import now as shop
from tests.running import Up, entry, foldlog

OFFICIAL = json.loads((Path(__file__).parent / "fixtures/asyncapi/3.0.0.json").read_text())
DOMAINS = [cart, bank, clicks, shop, starter]

ADD = {"type": "AddProduct", "command_id": "1", "cart_id": "7", "product_id": "milk"}
PRICED = {**ADD, "quantity": 2, "unit_price_cents": 89}
ANSWERED = {**PRICED, "reply_to": "cart:replies:me"}
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


def no_number(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def all_refs(found: Any) -> Iterator[str]:
    if isinstance(found, dict):
        if isinstance(found.get("$ref"), str):
            yield found["$ref"]
        for inner in found.values():
            yield from all_refs(inner)
    elif isinstance(found, list):
        for inner in found:
            yield from all_refs(inner)


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda domain: domain.name)
def test_the_document_is_what_the_official_schema_wants(domain: Domain) -> None:
    document = asyncapi(domain)
    Draft7Validator(OFFICIAL).validate(document)
    for ref in all_refs(document):
        at = document
        for key in ref.removeprefix("#/").split("/"):
            at = at[key]


def test_the_official_schema_would_tell() -> None:
    document = asyncapi(cart)
    document["channels"]["commands"]["adress"] = document["channels"]["commands"].pop("address")
    assert not Draft7Validator(OFFICIAL).is_valid(document)


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda domain: domain.name)
def test_each_part_is_a_json_schema(domain: Domain) -> None:
    for schema in (commands_schema, events_schema, outcomes_schema):
        validator(schema(domain))


def test_limits_and_units_are_in_it() -> None:
    add = asyncapi(cart)["components"]["schemas"]["AddProduct"]["properties"]
    assert add["unit_price_cents"]["description"] == "In cents."
    assert add["quantity"]["maximum"] == 1_000_000
    assert "Redis Stream" in add["reply_to"]["description"]


def test_of_thousands_of_mutations_the_schema_allows_those_that_are_read() -> None:
    commands = validator(commands_schema(cart))
    fold = BatchDecider(cart, partitions=1, payload_bytes_max=65_536)
    rnd = random.Random(1)
    agreed = {True: 0, False: 0}
    for number in range(20_000):
        payload = mutated(rnd, number)
        if len(payload) > 65_536 or b"\\ud800" in payload:  # no schema can say so
            continue
        try:
            found = json.loads(payload, parse_constant=no_number)
        except (ValueError, RecursionError):
            continue
        rows = fold.decide(Partition(0), Batch(0, [entry(number, payload)])).rows
        is_read = rows["event_type"].to_pylist() != [UNREADABLE_TYPE]
        assert commands.is_valid(found) == is_read, payload
        agreed[is_read] += 1
    assert min(agreed.values()) > 1000


def test_what_a_running_pipeline_reads_is_what_the_schema_allows(
    settings: Settings, up: Callable[..., Up]
) -> None:
    pipeline = up(settings)
    pipeline.ready().close()
    partitions = 4
    client = redis.Redis.from_url(str(settings.redis_url))
    readable = [{**payload, "command_id": f"{i}"} for i, payload in enumerate(READABLE)]
    broken = [
        {**payload, "command_id": f"broken {i}"}
        if isinstance(payload, dict) and payload["command_id"]
        else payload
        for i, payload in enumerate(UNREADABLE)
    ]
    cases = [*readable, *broken]
    for payload in cases:
        cart_id = payload.get("cart_id") if isinstance(payload, dict) else None
        partition = partition_of(str(cart_id), partitions)
        client.xadd(command_stream("cart", partition), {"command": json.dumps(payload)})
    answered = {**ANSWERED, "command_id": "answered"}
    stream = command_stream("cart", partition_of("7", partitions))
    client.xadd(stream, {"command": json.dumps(answered)})
    pipeline.settle()

    commands = validator(commands_schema(cart))
    allowed = [payload for payload in cases if commands.is_valid(payload)]
    assert allowed == readable
    assert commands.is_valid(answered)
    sql = "SELECT command_id, outcome FROM outcomes"
    found = json.loads(foldlog(settings, "query", sql, "--format", "json").stdout)
    unreadable = [row["command_id"] for row in found if row["outcome"] == "unreadable"]
    assert len(unreadable) == len(UNREADABLE)
    read = {row["command_id"] for row in found if row["outcome"] != "unreadable"}
    assert read == {payload["command_id"] for payload in readable} | {"answered"}

    rows = json.loads(foldlog(settings, "query", "FROM events", "--format", "json").stdout)
    events = validator(events_schema(cart))
    accepted = {row["command_id"] for row in found if row["outcome"] == "accepted"}
    assert {row["command_id"] for row in rows} == accepted
    for row in rows:
        events.validate(row)
        assert not events.is_valid({**row, "event_type": "CheckedOut"})
        assert not events.is_valid({**row, "position": None})

    ((_, entry),) = client.xrange("cart:replies:me")
    client.close()
    outcome = json.loads(entry[b"outcome"])
    outcomes = validator(outcomes_schema(cart))
    outcomes.validate(outcome)
    assert not outcomes.is_valid({**outcome, "outcome": "lost"})
