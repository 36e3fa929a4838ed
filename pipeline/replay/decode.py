"""From rows of the log back to the domain's events."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ingest.columns.arrays import values_of
from ingest.columns.column import Column, as_is
from ingest.columns.declared import record_of
from ingest.domain import Domain
from ingest.envelope import SYSTEM_TYPES
from ingest.errors import LogMismatch
from projections.upcast import upcast_table


class Decoder:
    """From rows of the log back to the domain's events."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self._types = {name: record_of(cls) for name, cls in domain.events.items()}
        self._known = {
            name: domain.schema_version(name) for name in (*domain.events, *SYSTEM_TYPES)
        }
        body = {name for record in self._types.values() for name in record.columns}
        self._needed = {"event_type", "aggregate_id", "version", "schema_version", *body}

    @property
    def columns(self) -> list[str]:
        """What to read of events that are upcast already."""
        return sorted(self._needed)

    def columns_with(self, *more: str) -> list[str] | None:
        """What to read of the log; None for every column, since an upcast may look at any."""
        return None if self._domain.upcasts else sorted({*self._needed, *more})

    def events(self, rows: pa.Table) -> list[Any]:
        """Each row's event, as `decide` made it, or None for a row that is an outcome.

        Raises `LogMismatch` for an event that newer code has written, and for a value that is none
        of its enum any more.
        """
        rows = self.current(rows)
        types = rows["event_type"].combine_chunks()
        events: list[Any] = [None] * len(rows)
        for event_type in types.unique().to_pylist():
            record = self._types.get(event_type)
            if record is None:
                continue
            where = pc.indices_nonzero(pc.equal(types, event_type))
            indices = where.to_pylist()
            columns = [
                _values(rows[name].take(where), column, f"{event_type}.{name}")
                for name, column in record.columns.items()
            ]
            made = record.make_all(columns) if columns else (record.cls() for _ in indices)
            for index, event in zip(indices, made, strict=True):
                events[index] = event
        return events

    def current(self, rows: pa.Table) -> pa.Table:
        """The rows as code of today would have written them; the same table where it did."""
        return rows if self._is_current(rows) else upcast_table(self._domain, rows)

    def _is_current(self, rows: pa.Table) -> bool:
        """Whether all events are of the present versions, and none of a later one."""
        types, versions = (rows[n].unique().to_pylist() for n in ("event_type", "schema_version"))
        kinds = [(event_type, version) for event_type in types for version in versions]
        if len(versions) > 1:
            pairs = rows.select(["event_type", "schema_version"])
            found = pairs.group_by(pairs.column_names).aggregate([])
            kinds = [*zip(*(column.to_pylist() for column in found.columns), strict=True)]
        current = self._needed <= set(rows.schema.names)
        for event_type, version in kinds:
            known = self._known.get(event_type)
            if known is None:
                raise LogMismatch(
                    f"the log holds {event_type} events, and the domain declares none of that name"
                )
            if version > known:
                raise LogMismatch(
                    f"the log holds {event_type} in schema version {version}, and this code knows"
                    f" {known}: it is older than the log; upgrade it"
                )
            current = current and version == known
        return current


def _values(found: pa.ChunkedArray, column: Column, where: str) -> list[Any]:
    """The values of the event field `where`."""
    values = values_of(found)
    if column.from_log is as_is:
        return values
    try:
        return [None if value is None else column.from_log(value) for value in values]
    except LookupError as error:
        raise LogMismatch(
            f"{where}: the log holds {error}, and this code has no such value; put it back,"
            " or give the event a new schema_version and an Upcast"
        ) from None
