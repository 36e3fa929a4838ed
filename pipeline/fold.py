"""One batch: validate, dedupe, decide, evolve; entries in, rows out. Nothing here does I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeAlias

import pyarrow as pa

from ingest.command import (
    PAYLOAD_KEPT_BYTES_MAX,
    REASON_LENGTH_MAX,
    Command,
    Unreadable,
    partition_of,
    reader,
)
from ingest.domain import Domain
from ingest.errors import Rejected
from ingest.outcome import Kind, Outcome
from ingest.schema import ENVELOPE, NOTHING_CHANGED, OUTCOME_COLUMNS, REJECTED, UNREADABLE, columns_of
from ingest.source import Batch
from ingest.streams import reply_prefix

Aggregate: TypeAlias = tuple[Any, int]
"""State and version."""

First: TypeAlias = tuple[int, Kind, str | None]
"""The first outcome of a command id: position, kind, reason."""

RECORDED_AT_MAX_MS = 253_402_300_799_999
"""The end of the year 9999: a stream id may say later, a timestamp may not."""

_DOES_NOT_FIT = (pa.ArrowException, OverflowError, TypeError, UnicodeError)
"""What Arrow raises for a value that its column cannot hold."""


@dataclass(slots=True)
class Partition:
    """What a partition's writer remembers. All of it comes back from the log."""

    number: int
    next_position: int = 0
    aggregates: dict[str, Aggregate] = field(default_factory=dict)
    outcomes: dict[str, First] = field(default_factory=dict)
    """The dedupe window, oldest first."""

    def apply(self, decided: Decided, dedupe_window: int) -> None:
        self.next_position += len(decided.rows)
        self.aggregates.update(decided.changed)
        self.remember(decided.outcomes, dedupe_window)

    def remember(self, outcomes: dict[str, First], dedupe_window: int) -> None:
        self.outcomes.update(outcomes)
        too_many = len(self.outcomes) - dedupe_window
        for command_id in list(islice(self.outcomes, max(0, too_many))):
            del self.outcomes[command_id]


@dataclass(frozen=True, slots=True)
class Decided:
    """A batch's effect: rows for the log, and what follows from them once they are committed."""

    partition: int
    first: int
    rows: pa.Table
    states: pa.Table
    """The folded read model's rows of the aggregates that changed; see `FoldedRows`."""
    changed: dict[str, Aggregate]
    outcomes: dict[str, First]
    replies: list[tuple[str, Outcome]]
    last_stream_id: str


class FoldedRows:
    """Aggregates as a table: `aggregate_id`, `version`, then the columns of the domain's row type."""

    def __init__(self, domain: Domain) -> None:
        self._row = domain.row
        columns = columns_of(domain.row_type)
        self._names = list(columns)
        self.schema = pa.schema(
            [("aggregate_id", pa.string()), ("version", pa.int64()), *columns.items()]
        )

    def table(self, aggregates: dict[str, Aggregate]) -> pa.Table:
        shown = [self._row(state) for state, _ in aggregates.values()]
        columns = [
            list(aggregates),
            [version for _, version in aggregates.values()],
            *([getattr(row, name) for row in shown] for name in self._names),
        ]
        return _table(columns, self.schema)


Row: TypeAlias = tuple[
    bytes, str, str | None, int | None, str | None, str | None, str | None,
    int, datetime | None, Any, str | None, bytes | None,
]  # fmt: skip
"""stream_id, event_type, aggregate_id, version, command_id, correlation_id, causation_id,
recorded_at in µs, occurred_at, event, reason, payload."""


class Fold:
    """Decides batches for a domain. The same entries on the same partition give the same rows."""

    def __init__(self, domain: Domain, *, partitions: int, payload_bytes_max: int) -> None:
        self._domain = domain
        self._partitions = partitions
        self._read = reader(
            domain.validate_json, id_field=domain.id_field, bytes_max=payload_bytes_max
        )
        self._reply_prefix = reply_prefix(domain.name)
        self._body = [n for n in domain.schema.names if n not in (*ENVELOPE.names, *OUTCOME_COLUMNS.names)]
        self._versions = {
            name: getattr(cls, "schema_version", 1) for name, cls in domain.events.items()
        }
        self._folded = FoldedRows(domain)

    def decide(self, partition: Partition, batch: Batch) -> Decided:
        """The batch's effect; `partition` itself is left as it is."""
        try:
            return self._decide(partition, batch, check=False)
        except _DOES_NOT_FIT:
            return self._decide(partition, batch, check=True)

    def _decide(self, partition: Partition, batch: Batch, *, check: bool) -> Decided:
        """With `check`, each command's events are tried on the log's columns before they count."""
        decider, event_types = self._domain.decider, self._domain.event_types
        decide, evolve = decider.decide, decider.evolve
        id_field, reply_prefix, read = self._domain.id_field, self._reply_prefix, self._read
        known, remembered = partition.aggregates, partition.outcomes
        changed: dict[str, Aggregate] = {}
        outcomes: dict[str, First] = {}
        replies: list[tuple[str, Outcome]] = []
        rows: list[Row] = []
        prefix, recorded_us, recorded_at = b"", 0, datetime.fromtimestamp(0, UTC)

        for stream_id, payload, fields in batch.entries:
            milliseconds = stream_id[: stream_id.index(b"-")]
            if milliseconds != prefix:
                prefix = milliseconds
                recorded_us = min(int(milliseconds), RECORDED_AT_MAX_MS) * 1000
                recorded_at = datetime.fromtimestamp(recorded_us / 1_000_000, UTC)

            command: Command | Unreadable
            if payload is None:
                payload = b" ".join(fields)
                command = Unreadable("the entry has no field named command")
            else:
                command = read(payload)
            reply_to = command.reply_to
            if reply_to is not None and not reply_to.startswith(reply_prefix):
                reply_to = None
                command = _unreadable(
                    command, id_field, f"reply_to: must begin with {self._reply_prefix}"
                )
            command_id = command.command_id
            first = outcomes.get(command_id) or remembered.get(command_id) if command_id else None
            if first is not None:
                if reply_to is not None:
                    replies.append((reply_to, self._outcome(partition, command_id, first, True)))
                continue

            reason: str | None = None
            kind: Kind = "accepted"
            if isinstance(command, Unreadable):
                aggregate_id, kind, reason = command.aggregate_id, "unreadable", command.reason
            else:
                aggregate_id = getattr(command, id_field)
                aggregate = changed.get(aggregate_id) or known.get(aggregate_id)
                if aggregate is None:
                    aggregate = decider.initial, 0
                    right = partition_of(aggregate_id, self._partitions)
                    if right != partition.number:
                        kind = "unreadable"
                        reason = f"{aggregate_id} belongs to partition {right}, not {partition.number}"
                state, version = aggregate
                if kind == "accepted":
                    if command.occurred_at is None:
                        # Past pydantic's __setattr__, which would cost as much as the validation.
                        command.__dict__["occurred_at"] = recorded_at
                    expected = command.expected_version
                    try:
                        if expected is not None and expected != version:
                            raise Rejected(f"the version is {version}, not {expected}")
                        events = decide(state, command)
                        new = []
                        for event in events:
                            state = evolve(state, event)
                            version += 1
                            new.append((
                                stream_id, event_types[type(event)], aggregate_id, version, command_id,
                                command.correlation_id, command.causation_id, recorded_us,
                                command.occurred_at, event, None, None,
                            ))  # fmt: skip
                        if check:
                            self._try_columns(partition, new, aggregate_id, (state, version))
                    except Rejected as rejected:
                        kind, reason = "rejected", rejected.reason[:REASON_LENGTH_MAX]
                    else:
                        changed[aggregate_id] = state, version
                        rows += new

            if reason is not None or not new:
                event_type = {"accepted": NOTHING_CHANGED, "rejected": REJECTED}.get(kind, UNREADABLE)
                kept = payload if kind == "rejected" else payload[:PAYLOAD_KEPT_BYTES_MAX]
                rows.append((
                    stream_id, event_type, aggregate_id, None, command_id,
                    command.correlation_id, command.causation_id, recorded_us,
                    getattr(command, "occurred_at", None), None,
                    reason, kept if reason is not None else None,
                ))  # fmt: skip
            first = partition.next_position + len(rows) - 1, kind, reason
            if command_id is not None:
                outcomes[command_id] = first
            if reply_to is not None:
                replies.append((reply_to, self._outcome(partition, command_id, first, False)))

        return Decided(
            partition=partition.number,
            first=partition.next_position,
            rows=self._rows(partition, rows),
            states=self._folded.table(changed),
            changed=changed,
            outcomes=outcomes,
            replies=replies,
            last_stream_id=batch.entries[-1][0].decode(),
        )

    @staticmethod
    def _outcome(
        partition: Partition, command_id: str | None, first: First, duplicate: bool
    ) -> Outcome:
        position, kind, reason = first
        return Outcome(kind, command_id, partition.number, position, reason, duplicate)

    def _try_columns(
        self, partition: Partition, rows: list[Row], aggregate_id: str, aggregate: Aggregate
    ) -> None:
        try:
            self._rows(partition, rows)
            self._folded.table({aggregate_id: aggregate})
        except _DOES_NOT_FIT as error:
            raise Rejected(f"a value does not fit its column: {error}") from None

    def _rows(self, partition: Partition, rows: list[Row]) -> pa.Table:
        """The rows as the log's table, positions following the partition's last one."""
        count = len(rows)
        (stream_ids, types, ids, versions, command_ids, correlations, causations, recorded, occurred,
         events, reasons, payloads) = zip(*rows, strict=True) if rows else [()] * 12  # fmt: skip
        recorded_at = pa.array(recorded, pa.int64()).cast(pa.timestamp("us"))
        occurred_at = pa.array(occurred, pa.timestamp("us")).fill_null(0)
        if None in occurred:
            occurred_at = pa.array(occurred, pa.timestamp("us"))
            occurred_at = pa.compute.coalesce(occurred_at, recorded_at)
        columns = [
            [partition.number] * count,
            range(partition.next_position, partition.next_position + count),
            stream_ids, types, ids, versions, command_ids, correlations, causations,
            recorded_at, occurred_at,
            [self._versions.get(event_type, 1) for event_type in types],
            *([getattr(event, name, None) for event in events] for name in self._body),
            reasons, payloads,
        ]  # fmt: skip
        return _table(columns, self._domain.schema)


def _unreadable(command: Command | Unreadable, id_field: str, reason: str) -> Unreadable:
    if isinstance(command, Unreadable):
        return command
    return Unreadable(reason, command.command_id, getattr(command, id_field),
                      command.correlation_id, command.causation_id)  # fmt: skip


def _table(columns: Iterable[Any], schema: pa.Schema) -> pa.Table:
    arrays = [
        column if isinstance(column, pa.Array) else pa.array(column, field.type)
        for column, field in zip(columns, schema, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


DecideBatch: TypeAlias = Callable[[Batch], Decided]
