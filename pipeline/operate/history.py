"""`foldlog history`: one aggregate's life, each event with the state after it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ingest.columns.record import as_dict
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
    """An event of an aggregate, and the columns of its table after it."""

    version: int
    recorded_at: datetime
    occurred_at: datetime
    event_type: str
    command_id: str
    event: dict[str, Any]
    state: dict[str, Any]


def history(
    aggregate_id: str, settings: Settings | None = None, *, aggregate: str | None = None
) -> list[Happening]:
    """All that has happened to an aggregate, from the log; `aggregate` is its kind.

    Raises `NotAvailable` for nothing, and where a kind is to be said.
    """
    deployed = Deployment.open(settings or Settings())
    domain, log = deployed.domain, deployed.log
    check(domain, log)
    kind = domain.aggregate(aggregate)
    partition = partition_of(aggregate_id, log.partitions)
    decoder = Decoder(domain)
    envelope = ["version", "recorded_at", "occurred_at", "event_type", "command_id"]
    columns = ", ".join(map(named, dict.fromkeys([*envelope, *decoder.columns])))
    state = kind.initial
    found = []
    for rows in scan(
        domain,
        log,
        {partition: log.next_position(partition)},
        where="aggregate = ? AND aggregate_id = ?",
        parameters=[kind.name, aggregate_id],
        columns=columns,
    ):
        for row, event in zip(rows.select(envelope).to_pylist(), decoder.events(rows), strict=True):
            state = kind.evolve(state, event)
            shown = as_dict(kind.shown(state))
            found.append(Happening(**row, event=as_dict(event), state=shown))
    if not found:
        raise NotAvailable(f"nothing has happened to {kind.key} {aggregate_id}")
    return found
