"""One batch: validate, dedupe, decide, evolve; entries in, rows out. Nothing here does I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from ingest.columns.arrays import array_of, table_of
from ingest.columns.column import TIME, Misfit, as_is
from ingest.columns.declared import record_of
from ingest.command import Command, partition_of
from ingest.domain import Domain
from ingest.entries import Batch, Entry
from ingest.envelope import (
    ENVELOPE,
    NOTHING_CHANGED,
    OUTCOME_COLUMNS,
    REJECTED,
    UNREADABLE,
)
from ingest.errors import DomainFailed, Rejected
from ingest.keys import command_stream, reply_prefix
from ingest.outcome import Kind, Outcome
from ingest.reading import PAYLOAD_KEPT_BYTES_MAX, REASON_LENGTH_MAX, Unreadable, reader
from ingest.stream_id import recorded_us
from pipeline.decide.aggregates import Aggregate
from pipeline.decide.folded_rows import FoldedRows
from pipeline.decide.mistake import failed
from pipeline.decide.outcomes import First
from pipeline.decide.partition import Decided, Partition

EVENT_TYPE_OF_OUTCOME: dict[Kind, str] = {
    "accepted": NOTHING_CHANGED,
    "rejected": REJECTED,
    "unreadable": UNREADABLE,
}
"""The log's own event types, for a command that caused no event of the domain."""

_EPOCH = datetime.fromtimestamp(0, UTC)

_DOES_NOT_FIT = (pa.ArrowException, OverflowError, TypeError, UnicodeError)
"""What Arrow raises for a value that its column cannot hold."""


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
        self._read = reader(domain, payload_bytes_max)
        self._decider = domain.decider
        self._kinds = {
            cls: (name, record_of(cls).normal, record_of(cls).checked)
            for name, cls in domain.events.items()
        }
        """Event class → its name, and what makes an event as the log gives it back."""
        self._id_field = domain.id_field
        self._reply_prefix = reply_prefix(domain.name)
        self._body = {
            n: _to_log(n, domain.events.values())
            for n in domain.schema.names
            if n not in (*ENVELOPE.names, *OUTCOME_COLUMNS.names)
        }
        """Column of some event → for each event class what makes of a value what Arrow takes."""
        event_types = (*domain.events, *EVENT_TYPE_OF_OUTCOME.values())
        self._versions = {name: domain.schema_version(name) for name in event_types}
        self._folded = FoldedRows(domain)

    def decide(self, partition: Partition, batch: Batch) -> Decided:
        """The batch's effect; `partition` itself is left as it is.

        Where Arrow refuses a value, or a state has no row, the batch is decided again, and each
        field of each command's events and row is looked at before they count. Raises `DomainFailed`
        for a mistake in the domain's code; the entries before its `stream_id` can be decided.
        """
        if batch.entries:
            partition.outcomes.restore(recorded_us(batch.entries[0][0]))
        try:
            return self._decide(partition, batch, check=False)
        except (*_DOES_NOT_FIT, DomainFailed):
            return self._decide(partition, batch, check=True)

    def _decide(self, partition: Partition, batch: Batch, *, check: bool) -> Decided:
        known, seen = partition.aggregates.get, partition.outcomes.seen
        unseen: Aggregate = self._decider.initial, 0
        changed: dict[str, Aggregate] = {}
        outcomes: dict[str, First] = {}
        replies: list[tuple[str, Outcome]] = []
        rows: list[Row] = []
        kind: Kind
        reason: str | None
        new: list[Row]
        millisecond, recorded, recorded_at = b"none yet", 0, _EPOCH

        for stream_id, payload, fields in batch.entries:
            if not stream_id.startswith(millisecond):
                millisecond = stream_id[: stream_id.index(b"-") + 1]
                recorded = recorded_us(stream_id)
                recorded_at = datetime.fromtimestamp(recorded / 1_000_000, UTC)

            command = self._read(payload)
            if command.reply_to is not None:
                command = self._answerable(command)
            command_id = command.command_id
            first: First | None = None
            if command_id is not None and (command_id in outcomes or seen(command_id)):
                position = partition.next_position + len(rows)
                first = partition.outcomes.first(command_id, position, recorded, outcomes)
            duplicate = first is not None
            if first is None:
                kind, reason, new = "accepted", None, []
                if isinstance(command, Unreadable):
                    aggregate_id, kind, reason = command.aggregate_id, "unreadable", command.reason
                else:
                    if command.occurred_at is None:
                        # Past pydantic's __setattr__, which costs as much as the validation.
                        command.__dict__["occurred_at"] = recorded_at
                    aggregate_id = getattr(command, self._id_field)
                    aggregate = changed.get(aggregate_id) or known(aggregate_id) or unseen
                    if aggregate is unseen and (stream := self._elsewhere(aggregate_id, partition)):
                        kind, reason = "unreadable", f"{aggregate_id} belongs in {stream}"
                    else:
                        try:
                            new, aggregate = self._events(
                                aggregate, command, aggregate_id, stream_id, recorded, check
                            )
                            changed[aggregate_id] = aggregate
                        except Rejected as rejected:
                            kind, reason, new = "rejected", _as_reason(rejected.reason), []
                        except Misfit as misfit:
                            kind, new = "rejected", []
                            reason = _as_reason(f"a value does not fit its column: {misfit}")
                        except Exception as error:
                            what = f"deciding command {command_id}"
                            raise failed(what, error, stream_id.decode()) from error
                rows += new or [(
                    stream_id, EVENT_TYPE_OF_OUTCOME[kind], aggregate_id, None, command_id,
                    command.correlation_id, command.causation_id, recorded,
                    getattr(command, "occurred_at", None), None,
                    reason, self._kept(kind, payload, fields),
                )]  # fmt: skip
                first = partition.next_position + len(rows) - 1, kind, reason, recorded
                if command_id is not None:
                    outcomes[command_id] = first
            if command.reply_to is not None:
                position, kind, reason, _ = first
                outcome = Outcome(kind, command_id, partition.number, position, reason, duplicate)
                replies.append((command.reply_to, outcome))

        # The read side makes these rows from the log, when it is too late to reject the command.
        self._folded.table(changed)
        return Decided(
            owner=partition,
            first=partition.next_position,
            rows=self._rows(partition, rows),
            changed=changed,
            outcomes=outcomes,
            replies=replies,
            last_stream_id=batch.entries[-1][0].decode() if batch.entries else None,
        )

    def known_by(self, entry: Entry) -> tuple[str | None, bytes | None]:
        """What tells an entry from others: its command id, or else what the log keeps of it."""
        _, payload, fields = entry
        command_id = self._read(payload).command_id
        return command_id, None if command_id else self._kept("unreadable", payload, fields)

    def _elsewhere(self, aggregate_id: str, partition: Partition) -> str | None:
        """The stream where an aggregate's commands belong, if not in this partition's."""
        right = partition_of(aggregate_id, self._partitions)
        return None if right == partition.number else command_stream(self._domain.name, right)

    def _answerable(self, command: Command | Unreadable) -> Command | Unreadable:
        """The command, if its sender may be told where it says."""
        if command.reply_to is None or command.reply_to.startswith(self._reply_prefix):
            return command
        if isinstance(command, Unreadable):
            return replace(command, reply_to=None)
        return Unreadable(
            f"reply_to: begin it with {self._reply_prefix}",
            aggregate_id=getattr(command, self._id_field),
            command_id=command.command_id,
            correlation_id=command.correlation_id,
            causation_id=command.causation_id,
        )

    def _events(
        self,
        aggregate: Aggregate,
        command: Command,
        aggregate_id: str,
        stream_id: bytes,
        recorded: int,
        check: bool,
    ) -> tuple[list[Row], Aggregate]:
        """The rows of a command's events, and the aggregate after them.

        Raises `Rejected`, and `Misfit` for a value that the log could not give back.
        """
        state, version = aggregate
        if command.expected_version is not None and command.expected_version != version:
            raise Rejected(f"the version is {version}, not {command.expected_version}")
        rows: list[Row] = []
        for decided in self._decider.decide(state, command):
            event_type, normal, checked = self._kinds[type(decided)]
            event = checked(decided) if check else normal(decided)
            state = self._decider.evolve(state, event)
            version += 1
            rows.append((
                stream_id, event_type, aggregate_id, version,
                command.command_id, command.correlation_id, command.causation_id, recorded,
                command.occurred_at, event, None, None,
            ))  # fmt: skip
        if check:
            self._folded.check(state)
        return rows, (state, version)

    @staticmethod
    def _kept(kind: Kind, payload: bytes | None, fields: Sequence[bytes]) -> bytes | None:
        """What the log keeps of a command: all of a rejected one, so that it can be sent again."""
        if kind == "accepted":
            return None
        if kind == "rejected":
            return payload
        return (b" ".join(fields) if payload is None else payload)[:PAYLOAD_KEPT_BYTES_MAX]

    def _values(self, name: str, events: Sequence[Any]) -> list[Any]:
        """A field of each event as Arrow takes it; None for events that have no such field."""
        values = [getattr(event, name, None) for event in events]
        to_log = self._body[name]
        if to_log is None:
            return values
        pairs = zip(events, values, strict=True)
        return [None if value is None else to_log[type(event)](value) for event, value in pairs]

    def _rows(self, partition: Partition, rows: list[Row]) -> pa.Table:
        """The rows as the log's table, positions following the partition's last one."""
        count = len(rows)
        (
            stream_ids, types, ids, versions, command_ids, correlations, causations,
            recorded, occurred, events, reasons, payloads,
        ) = zip(*rows, strict=True) if rows else [()] * 12  # fmt: skip
        recorded_at = pa.array(recorded, pa.int64()).cast(TIME)
        said = array_of([None if time is None else time - _EPOCH for time in occurred], TIME)
        columns = [
            [partition.number] * count,
            range(partition.next_position, partition.next_position + count),
            stream_ids, types, ids, versions, command_ids, correlations, causations,
            recorded_at, pc.coalesce(said, recorded_at),
            [self._versions[event_type] for event_type in types],
            *(self._values(name, events) for name in self._body),
            reasons, payloads,
        ]  # fmt: skip
        return table_of(columns, self._domain.schema)


def _to_log(name: str, classes: Iterable[type]) -> dict[type, Callable[[Any], Any]] | None:
    """What makes of a field's value what Arrow takes, by event class; None where all are that."""
    found: dict[type, Callable[[Any], Any]] = {}
    plain = True
    for cls in classes:
        column = record_of(cls).columns.get(name)
        found[cls] = column.to_log if column else lambda _: None
        plain = plain and (column.to_log is as_is if column else not hasattr(cls, name))
    return None if plain else found


def _as_reason(text: object) -> str:
    """As a column takes it, whatever the domain's code says."""
    return str(text)[:REASON_LENGTH_MAX].encode(errors="replace").decode()
