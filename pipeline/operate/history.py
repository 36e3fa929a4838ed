"""`foldlog history`: one aggregate's life, each event with the state after it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa

from ingest.columns.record import as_dict
from ingest.command import partition_of
from ingest.domain import Domain
from ingest.errors import NotAvailable
from pipeline.deployment import Deployment
from pipeline.log.log import Log
from pipeline.log.schemas import check
from pipeline.replay.decode import Decoder
from pipeline.replay.states import scan
from pipeline.settings import Settings
from projections.sql import named

ENVELOPE = ["version", "recorded_at", "occurred_at", "event_type", "command_id"]
"""What is shown of it."""


@dataclass(frozen=True, slots=True)
class Happening:
    """An event of an aggregate, and the columns of its table after it."""

    version: int
    recorded_at: datetime
    occurred_at: datetime
    event_type: str
    command_id: str | None
    event: dict[str, Any]
    state: dict[str, Any]


def history(
    aggregate_id: str, settings: Settings | None = None, *, aggregate: str | None = None
) -> list[Happening]:
    """All that has happened to an aggregate, from the log; `aggregate` is its kind.

    Raises `NotAvailable` for nothing, and where several kinds have that id and none is said.
    """
    deployed = Deployment.open(settings or Settings())
    domain, log = deployed.domain, deployed.log
    check(domain, log)
    kinds = domain.aggregates if aggregate is None else (domain.aggregate(aggregate),)
    states = {kind.name: kind.initial for kind in kinds}
    found: dict[str, list[Happening]] = {}
    decoder = Decoder(domain)
    for rows in _rows(aggregate_id, log, domain, decoder):
        names = rows["aggregate"].to_pylist()
        about = rows.select(ENVELOPE).to_pylist()
        for name, row, event in zip(names, about, decoder.events(rows), strict=True):
            if name in states:
                kind = domain.aggregate(name)
                states[name] = kind.evolve(states[name], event)
                shown = as_dict(kind.shown(states[name]))
                happening = Happening(**row, event=as_dict(event), state=shown)
                found.setdefault(name, []).append(happening)
    if len(found) > 1:
        raise NotAvailable(
            f"say with --aggregate which {aggregate_id} is meant: {', '.join(found)}"
        )
    if not found:
        what = f"{kinds[0].key} " if len(kinds) == 1 else ""
        raise NotAvailable(f"nothing has happened to {what}{aggregate_id}")
    return next(iter(found.values()))


def _rows(aggregate_id: str, log: Log, domain: Domain, decoder: Decoder) -> Iterator[pa.Table]:
    """The events of whatever has that id, in order."""
    partition = partition_of(aggregate_id, log.partitions)
    columns = dict.fromkeys([*ENVELOPE, "aggregate", *decoder.columns])
    return scan(
        domain,
        log,
        {partition: log.next_position(partition)},
        where="aggregate_id = ?",
        parameters=[aggregate_id],
        columns=", ".join(map(named, columns)),
    )
