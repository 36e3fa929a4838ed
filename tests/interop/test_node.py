"""Programs in Node: two Redis clients, a strict JSON Schema validator, the AsyncAPI parser."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ingest.contract import asyncapi, commands_schema, events_schema, outcomes_schema
from ingest.domain import Domain
from tests.contracts import DOMAINS, PRICED, READABLE, UNREADABLE
from tests.oracle import partition_of
from tests.running import Up
from tests.test_partitions import COUNTS

Node = Callable[..., str]


@pytest.mark.parametrize("client", ["redis", "ioredis"])
def test_a_client_sends_a_command_and_reads_its_outcome(
    node: Node, filled: Up, client: str
) -> None:
    socket = filled.settings.reachable_redis.removeprefix("unix://")
    outcome = json.loads(node(f"node_{client}.js", socket, 4))
    assert (outcome["outcome"], outcome["command_id"]) == ("accepted", f"by-{client}")
    again = json.loads(node(f"node_{client}.js", socket, 4).splitlines()[-1])
    assert again["position"] == outcome["position"]


def test_in_javascript_an_id_has_the_same_partition(node: Node) -> None:
    ids = [aggregate_id for aggregate_id in COUNTS if "\0" not in aggregate_id]
    found = [int(partition) for partition in node("partition.js", 97, *ids).split()]
    assert found == [partition_of(aggregate_id, 97) for aggregate_id in ids]


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda domain: domain.name)
def test_a_strict_validator_takes_every_schema(node: Node, tmp_path: Path, domain: Domain) -> None:
    files = []
    for make in (commands_schema, events_schema, outcomes_schema):
        files.append(tmp_path / f"{make.__name__}.json")
        files[-1].write_text(json.dumps(make(domain)))
    assert node("strict.js", *files) == ""


def test_a_strict_validator_says_of_commands_what_the_pipeline_does(
    node: Node, tmp_path: Path
) -> None:
    file = tmp_path / "commands.json"
    file.write_text(json.dumps(commands_schema(DOMAINS[0])))
    too_large = {**PRICED, "expected_version": 2**63}  # for JavaScript it is the largest allowed
    refused = [command for command in UNREADABLE if command != too_large]
    lines = "".join(json.dumps(command) + "\n" for command in [*READABLE, *refused])
    said = node("strict.js", file, stdin=lines).split()
    assert said == ["true"] * len(READABLE) + ["false"] * len(refused)


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda domain: domain.name)
def test_the_official_parser_has_nothing_to_say_of_the_document(node: Node, domain: Domain) -> None:
    found = node("asyncapi.js", stdin=json.dumps(asyncapi(domain)))
    others = ("Outcome", "CloudEvent", "SubscribedEvent")
    assert int(found) == len(domain.commands) + len(others)
