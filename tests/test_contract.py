"""The contract in print says what the running system does."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from jsonschema import Draft7Validator

from ingest.command import partition_of
from ingest.contract import asyncapi, commands_schema, events_schema, outcomes_schema
from ingest.domain import Domain
from ingest.entries import Batch
from ingest.envelope import UNREADABLE as UNREADABLE_TYPE
from ingest.keys import command_stream
from ingest.shop import shop
from pipeline.decide.batch import BatchDecider
from pipeline.decide.partition import Partition
from pipeline.settings import Settings
from tests.chaos.fuzz import mutated
from tests.contracts import ANSWERED, DOMAINS, READABLE, UNREADABLE, validator
from tests.more import MORE
from tests.running import Up, entry, foldlog

OFFICIAL = json.loads((Path(__file__).parent / "fixtures/asyncapi/3.0.0.json").read_text())


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
    document = asyncapi(shop)
    document["channels"]["commands"]["adress"] = document["channels"]["commands"].pop("address")
    assert not Draft7Validator(OFFICIAL).is_valid(document)


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda domain: domain.name)
def test_each_part_is_a_json_schema(domain: Domain) -> None:
    for schema in (commands_schema, events_schema, outcomes_schema):
        validator(schema(domain))


def test_limits_and_units_are_in_it() -> None:
    add = asyncapi(shop)["components"]["schemas"]["AddProduct"]["properties"]
    assert add["unit_price_cents"]["description"] == "In cents."
    assert add["quantity"]["maximum"] == 1_000_000
    assert "Redis Stream" in add["reply_to"]["description"]


def test_of_thousands_of_mutations_the_schema_allows_those_that_are_read() -> None:
    commands = validator(commands_schema(shop))
    fold = BatchDecider(shop, partitions=1, payload_bytes_max=65_536)
    rnd = random.Random(1)
    agreed = {True: 0, False: 0}
    for number in range(5_000 * MORE):
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
    assert min(agreed.values()) > 250 * MORE


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
        client.xadd(command_stream("shop", partition), {"command": json.dumps(payload)})
    answered = {**ANSWERED, "command_id": "answered"}
    stream = command_stream("shop", partition_of("7", partitions))
    client.xadd(stream, {"command": json.dumps(answered)})
    pipeline.settle()

    commands = validator(commands_schema(shop))
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
    events = validator(events_schema(shop))
    accepted = {row["command_id"] for row in found if row["outcome"] == "accepted"}
    assert {row["command_id"] for row in rows} == accepted
    for row in rows:
        events.validate(row)
        assert not events.is_valid({**row, "event_type": "CheckedOut"})
        assert not events.is_valid({**row, "position": None})

    ((_, entry),) = client.xrange("shop:replies:me")
    client.close()
    outcome = json.loads(entry[b"outcome"])
    outcomes = validator(outcomes_schema(shop))
    outcomes.validate(outcome)
    assert not outcomes.is_valid({**outcome, "outcome": "lost"})
