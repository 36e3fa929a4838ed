"""`foldlog history`: one aggregate's life, each event with the state after it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from ingest.command import partition_of
from ingest.errors import NotAvailable
from pipeline.deployment import Deployment
from pipeline.log.schemas import check
from pipeline.replay.decode import Decoder
from pipeline.replay.states import scan
from pipeline.settings import Settings
from projections.sql import named


@dataclass(frozen=True, slots=True)
class Happening:
    """An event of an aggregate, and the folded read model's columns after it."""

    version: int
    recorded_at: datetime
    occurred_at: datetime
    event_type: str
    command_id: str
    event: dict[str, Any]
    state: dict[str, Any]


def history(aggregate_id: str, settings: Settings | None = None) -> list[Happening]:
    """All that has happened to an aggregate, from the log. Raises `NotAvailable` for nothing."""
    deployed = Deployment.open(settings or Settings())
    domain, log = deployed.domain, deployed.log
    check(domain, log)
    partition = partition_of(aggregate_id, log.partitions)
    decoder = Decoder(domain)
    envelope = ["version", "recorded_at", "occurred_at", "event_type", "command_id"]
    columns = ", ".join(map(named, dict.fromkeys([*envelope, *decoder.columns])))
    state = domain.decider.initial
    found = []
    for rows in scan(
        domain,
        log,
        {partition: log.next_position(partition)},
        where="aggregate_id = ?",
        parameters=[aggregate_id],
        columns=columns,
    ):
        for row, event in zip(rows.select(envelope).to_pylist(), decoder.events(rows), strict=True):
            state = domain.decider.evolve(state, event)
            found.append(Happening(**row, event=asdict(event), state=asdict(domain.row(state))))
    if not found:
        raise NotAvailable(f"nothing has happened to {domain.id_field} {aggregate_id}")
    return found
