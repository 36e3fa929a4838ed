"""Folding rows of the log into states."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ingest.domain import Domain
from pipeline.decide.aggregates import Key, Versioned
from pipeline.decide.folded_rows import FoldedRows
from pipeline.log.log import Log
from pipeline.replay.decode import Decoder
from projections.relations import Positions, with_relations
from projections.session import session
from projections.sql import named
from projections.upcast import current_rows

SCANNED_ROWS = 65_536

EVENTS_MAX = 16_384
"""So many events are made at a time: each takes some 200 bytes, while rows of a large file wait."""

FROM_THE_START: Positions = {}
NO_AGGREGATES: Mapping[Key, Versioned] = {}


def fold_rows(
    domain: Domain,
    decoder: Decoder,
    known: Callable[[Key], Versioned | None],
    rows: pa.Table,
) -> dict[Key, Versioned]:
    """The aggregates that the events among `rows` change, after them; `known` is from before."""
    kinds = {
        cls: (kind.name, kind.evolve, kind.initial)
        for kind in domain.aggregates
        for cls in kind.events.values()
    }
    changed: dict[Key, Versioned] = {}
    for first in range(0, len(rows), EVENTS_MAX):
        part = rows.slice(first, EVENTS_MAX)
        ids, versions = part["aggregate_id"].to_pylist(), part["version"].to_pylist()
        for event, aggregate_id, version in zip(decoder.events(part), ids, versions, strict=True):
            if event is not None:
                name, evolve, initial = kinds[type(event)]
                key = name, aggregate_id
                found = changed.get(key) or known(key)
                changed[key] = evolve(found[0] if found else initial, event), version
    return changed


def scan(
    domain: Domain,
    log: Log,
    until: Positions,
    *,
    since: Positions = FROM_THE_START,
    where: str = "true",
    parameters: Sequence[Any] = (),
    columns: str | None = None,
) -> Iterator[pa.Table]:
    """The domain's events from `since` up to `until` that meet a condition, as of today's code.

    Partition by partition, in order; tables of up to `SCANNED_ROWS` with the given columns, or
    those that `fold_rows` needs. For many events: DuckDB reads and filters them on all cores, and
    does not check the pages' checksums as `Log.read` does.
    """
    shown = columns or ", ".join(map(named, Decoder(domain).columns))
    with session() as db:
        db.execute("SET enable_progress_bar = false")  # it prints where it takes us for a notebook
        for partition, end in until.items():
            rows = current_rows(domain, log, since, {partition: end})
            query = f"SELECT {shown} FROM events WHERE {where}"
            query = with_relations(domain.schema, rows, query, "events")
            found = db.sql(query, params=[*parameters]).to_arrow_reader(SCANNED_ROWS)
            for batch in found:
                yield pa.Table.from_batches([batch])


def folded(
    domain: Domain, events: Iterable[pa.Table], begin: Mapping[Key, Versioned] = NO_AGGREGATES
) -> dict[str, pa.Table]:
    """The aggregates as `FoldedRows.tables` after these events, each aggregate's in order.

    `begin` are the aggregates before them.
    """
    decoder = Decoder(domain)
    aggregates = {**begin}
    for rows in events:
        aggregates |= fold_rows(domain, decoder, aggregates.get, rows)
    return FoldedRows(domain).tables(aggregates)


class Refold:
    """The aggregates' rows, from the log alone; see `projections.tables.FoldedBetween`."""

    def __init__(self, domain: Domain, log: Log) -> None:
        self._domain = domain
        self._log = log
        self._rows = FoldedRows(domain)

    def __call__(self, since: Positions, until: Positions) -> dict[str, pa.Table]:
        moved = {p: end for p, end in until.items() if since.get(p, 0) < end}
        return self._rows.joined(
            [self.partition(p, since.get(p, 0), end) for p, end in moved.items()]
        )

    def partition(self, number: int, since: int, until: int) -> dict[str, pa.Table]:
        """As of `until`, the aggregates of one partition that have events from `since` on."""
        touched = None
        if since:
            columns = ["position", "event_type", "aggregate_id"]
            recent = self._log.read(number, since, columns)
            touched = pa.array({i for t in recent for i in t["aggregate_id"].unique().to_pylist()})
        events = scan(self._domain, self._log, {number: until})
        if touched is not None:
            events = (rows.filter(pc.is_in(rows["aggregate_id"], touched)) for rows in events)
        return folded(self._domain, events)
