"""The rows that a batch adds to the log: the only place that knows what a row is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from ingest.columns.arrays import array_of, table_of
from ingest.columns.column import TIME, as_is
from ingest.columns.declared import record_of
from ingest.command import Command
from ingest.domain import Domain
from ingest.envelope import (
    DEFERRED,
    ENVELOPE,
    NOTHING_CHANGED,
    OUTCOME_COLUMNS,
    REJECTED,
    SENT,
    SYSTEM_TYPES,
    UNREADABLE,
    Sending,
)
from ingest.outcome import Kind
from ingest.reading import PAYLOAD_KEPT_BYTES_MAX, Unreadable
from pipeline.decide.aggregates import Key
from pipeline.decide.sends import EPOCH, MICROSECOND, Send

EVENT_TYPE_OF_OUTCOME: dict[Kind, str] = {
    "accepted": NOTHING_CHANGED,
    "rejected": REJECTED,
    "unreadable": UNREADABLE,
}
"""The log's own event types, for a command that caused no event of the domain."""

_Row: TypeAlias = tuple[
    bytes, str, str | None, str | None, int | None, str | None, str | None, str | None,
    int, datetime | None, Any, str | None, bytes | None,
]  # fmt: skip
"""Stream id, event type, the aggregate's kind and id, version, the command's id, correlation and
causation, recorded at in µs, occurred at, event, reason, payload.

Not the command itself: a batch of them that stay alive takes a third more time."""

_ToLog: TypeAlias = dict[type, Callable[[Any], Any]] | None
"""Event class → what makes of a field's value what Arrow takes; None where all are that."""


class LogColumns:
    """The columns of a domain's log, and how rows become a table with them."""

    def __init__(self, domain: Domain) -> None:
        self._schema = domain.schema
        not_the_body = {*ENVELOPE.names, *OUTCOME_COLUMNS.names}
        self._body: dict[str, _ToLog] = {
            name: _to_log(name, [*domain.events.values(), Sending])
            for name in domain.schema.names
            if name not in not_the_body
        }
        self._of_class = {
            cls: frozenset(record_of(cls).columns) for cls in (*domain.events.values(), Sending)
        }
        event_types = (*domain.events, *SYSTEM_TYPES)
        self._versions = {name: domain.schema_version(name) for name in event_types}

    def table(self, partition: int, first: int, rows: Sequence[_Row]) -> pa.Table:
        """The rows as the log has them, the first one at position `first`."""
        (
            stream_ids, types, kinds, ids, versions, command_ids, correlations, causations,
            recorded, occurred, events, reasons, payloads,
        ) = zip(*rows, strict=True) if rows else [()] * 13  # fmt: skip
        used = frozenset[str]().union(*(self._of_class.get(c, ()) for c in {*map(type, events)}))
        recorded_at = pa.array(recorded, pa.int64()).cast(TIME)
        said = array_of([None if time is None else time - EPOCH for time in occurred], TIME)
        count, type_of = len(rows), self._schema.field
        columns = [
            pa.repeat(pa.scalar(partition, type_of("partition").type), count),
            pa.arange(first, first + count),
            stream_ids, types, kinds, ids, versions, command_ids, correlations, causations,
            recorded_at, pc.coalesce(said, recorded_at),
            [*map(self._versions.__getitem__, types)],
            *(self._values(name, events) if name in used else pa.nulls(count, type_of(name).type)
              for name in self._body),
            reasons, payloads,
        ]  # fmt: skip
        return table_of(columns, self._schema)

    def _values(self, name: str, events: Sequence[Any]) -> list[Any]:
        """A field of each event as Arrow takes it; None for events that have no such field."""
        values = [getattr(event, name, None) for event in events]
        to_log = self._body[name]
        if to_log is None:
            return values
        pairs = zip(events, values, strict=True)
        return [None if value is None else to_log[type(event)](value) for event, value in pairs]


class Rows(list[_Row]):
    """Rows in the order in which they get their positions."""

    def add_event(
        self,
        stream_id: bytes,
        command: Command,
        recorded_us: int,
        event_type: str,
        key: Key,
        version: int,
        event: Any,
    ) -> None:
        """An event that the command caused; `version` is its aggregate's after it."""
        self.append((
            stream_id, event_type, *key, version,
            command.command_id or None, command.correlation_id, command.causation_id,
            recorded_us, command.occurred_at, event, None, None,
        ))  # fmt: skip

    def add_send(self, stream_id: bytes, command: Command, send: Send) -> None:
        """A command that follows from an event of the command in that entry."""
        event_type = SENT if send.due_us is None else DEFERRED
        due_at = None if send.due_us is None else EPOCH + send.due_us * MICROSECOND
        self.append((
            stream_id, event_type, *send.key, None,
            command.command_id or None, send.correlation_id, send.causation_id,
            send.recorded_us, send.occurred_at,
            Sending(send.to_partition, send.hops, due_at), None, send.payload,
        ))  # fmt: skip

    def add_outcome(
        self,
        stream_id: bytes,
        command: Command | Unreadable,
        recorded_us: int,
        kind: Kind,
        key: Key | tuple[str | None, str | None],
        reason: str | None,
        payload: bytes | None,
    ) -> None:
        """That the command caused no event, and why; `payload` is what is kept of it."""
        self.append((
            stream_id, EVENT_TYPE_OF_OUTCOME[kind], *key, None,
            command.command_id or None, command.correlation_id, command.causation_id,
            recorded_us, getattr(command, "occurred_at", None), None, reason, payload,
        ))  # fmt: skip

    def cut(self, count: int) -> None:
        """Keep only the first rows: what a command caused before it was rejected does not count."""
        del self[count:]

    def table(self, columns: LogColumns, partition: int, first: int) -> pa.Table:
        """As the log has them, the first one at position `first` of the partition.

        Raises what Arrow does for values that do not fit their columns.
        """
        return columns.table(partition, first, self)


def kept(kind: Kind, payload: bytes | None, fields: Sequence[bytes]) -> bytes | None:
    """What the log keeps of a command: all of a rejected one, so that it can be sent again."""
    if kind == "accepted":
        return None
    if kind == "rejected":
        return payload
    return (b" ".join(fields) if payload is None else payload)[:PAYLOAD_KEPT_BYTES_MAX]


def _to_log(name: str, classes: Iterable[type]) -> _ToLog:
    found: dict[type, Callable[[Any], Any]] = {}
    plain = True
    for cls in classes:
        column = record_of(cls).columns.get(name)
        found[cls] = column.to_log if column else lambda _: None
        plain = plain and (column.to_log is as_is if column else not hasattr(cls, name))
    return None if plain else found
