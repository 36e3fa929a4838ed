"""One batch: read, dedupe, decide, record; entries in, rows out. Nothing here does I/O."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TypeAlias

import pyarrow as pa

from ingest.columns.column import Misfit
from ingest.columns.declared import record_of
from ingest.command import Command, partition_of
from ingest.domain import Domain
from ingest.entries import Batch, Entry
from ingest.errors import DomainFailed, Rejected
from ingest.keys import command_stream, reply_prefix
from ingest.outcome import Kind, Outcome
from ingest.reading import REASON_LENGTH_MAX, Unreadable, reader
from ingest.stream_id import recorded_us
from pipeline.decide.aggregates import Key, Versioned
from pipeline.decide.folded_rows import FoldedRows
from pipeline.decide.mistake import failed
from pipeline.decide.outcomes import First
from pipeline.decide.partition import Decided, Partition
from pipeline.decide.rows import EPOCH, LogColumns, Rows, kept

_DOES_NOT_FIT = (pa.ArrowException, OverflowError, TypeError, UnicodeError)
"""What Arrow raises for a value that its column cannot hold."""

_Said: TypeAlias = tuple[Kind, str | None, tuple[str | None, str | None]]
"""Of a command: what it came to, why, and for which aggregate where that can be made out."""


@dataclass(slots=True)
class _Batch:
    """What a batch has come to so far; the partition itself is left as it is."""

    partition: Partition
    check: bool
    """Whether each value of each event and row is looked at before it counts."""
    rows: Rows = field(default_factory=Rows)
    changed: dict[Key, Versioned] = field(default_factory=dict)
    outcomes: dict[str, First] = field(default_factory=dict)
    replies: list[tuple[str, Outcome]] = field(default_factory=list)
    not_accepted: Counter[str] = field(default_factory=Counter)


class BatchDecider:
    """Decides batches for a domain. The same entries on the same partition give the same rows."""

    def __init__(self, domain: Domain, *, partitions: int, payload_bytes_max: int) -> None:
        """`partitions` are all of the log; a longer payload is unreadable."""
        self._domain = domain.name
        self._partitions = partitions
        self._read = reader(domain, payload_bytes_max)
        self._deciders = {
            command: (kind.name, kind.key, kind.decide, kind.evolve, (kind.initial, 0))
            for command, kind in domain.deciders.items()
        }
        """Command class → its aggregate's kind and rules, and one that is new."""
        self._kinds = {
            cls: (name, record_of(cls).normal, record_of(cls).checked)
            for name, cls in domain.events.items()
        }
        """Event class → its name, and what makes an event as the log gives it back."""
        self._reply_prefix = reply_prefix(domain.name)
        self._columns = LogColumns(domain)
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
            return self._decided(partition, batch, check=False)
        except (*_DOES_NOT_FIT, DomainFailed):
            return self._decided(partition, batch, check=True)

    def _decided(self, partition: Partition, batch: Batch, *, check: bool) -> Decided:
        done = _Batch(partition, check)
        rows, outcomes, begin = done.rows, done.outcomes, partition.next_position
        seen = partition.outcomes.seen
        millisecond, recorded, recorded_at = b"none yet", 0, EPOCH
        for stream_id, payload, fields in batch.entries:
            if not stream_id.startswith(millisecond):
                millisecond = stream_id[: stream_id.index(b"-") + 1]
                recorded = recorded_us(stream_id)
                recorded_at = datetime.fromtimestamp(recorded / 1_000_000, UTC)
            command = self._read(payload)
            if command.reply_to is not None:
                command = self._answerable(command)
            command_id, count = command.command_id, len(rows)
            first: First | None = None
            if command_id is not None and (command_id in outcomes or seen(command_id)):
                first = partition.outcomes.first(command_id, begin + count, recorded, outcomes)
            duplicate = first is not None
            if first is None:
                kind, reason, key = self._handle(done, command, stream_id, recorded, recorded_at)
                if len(rows) == count:
                    if kind != "accepted":
                        done.not_accepted[kind] += 1
                    left = kept(kind, payload, fields)
                    rows.add_outcome(stream_id, command, recorded, kind, key, reason, left)
                first = begin + len(rows) - 1, kind, reason, recorded
                if command_id is not None:
                    outcomes[command_id] = first
            else:
                done.not_accepted["duplicate"] += 1
            if command.reply_to is not None:
                position, kind, reason, _ = first
                outcome = Outcome(kind, command_id, partition.number, position, reason, duplicate)
                done.replies.append((command.reply_to, outcome))

        # The read side makes these rows from the log, when it is too late to reject the command.
        self._folded.tables(done.changed)
        return Decided(
            owner=partition,
            first=begin,
            rows=rows.table(self._columns, partition.number, begin),
            changed=done.changed,
            outcomes=outcomes,
            replies=done.replies,
            not_accepted=done.not_accepted,
            last_stream_id=batch.entries[-1][0].decode() if batch.entries else None,
        )

    def _handle(
        self,
        done: _Batch,
        command: Command | Unreadable,
        stream_id: bytes,
        recorded: int,
        recorded_at: datetime,
    ) -> _Said:
        """Add the rows of the command's events, if it has any. Raises `DomainFailed`."""
        if isinstance(command, Unreadable):
            return "unreadable", command.reason, (command.aggregate, command.aggregate_id)
        if command.occurred_at is None:
            # Past pydantic's __setattr__, which costs as much as the validation.
            command.__dict__["occurred_at"] = recorded_at
        name, field, decide, evolve, unseen = self._deciders[type(command)]
        key: Key = name, getattr(command, field)
        known = done.changed.get(key) or done.partition.aggregates.get(key)
        if known is None and (stream := self._elsewhere(key[1], done.partition)):
            return "unreadable", f"{key[1]} belongs in {stream}", key
        state, version = known or unseen
        rows, count = done.rows, len(done.rows)
        try:
            if command.expected_version is not None and command.expected_version != version:
                raise Rejected(f"the version is {version}, not {command.expected_version}")
            for decided in decide(state, command):
                event_type, normal, checked = self._kinds[type(decided)]
                event = checked(decided) if done.check else normal(decided)
                state = evolve(state, event)
                version += 1
                rows.add_event(stream_id, command, recorded, event_type, key, version, event)
            if done.check:
                self._folded.check(name, state)
        except Rejected as rejected:
            why: object = rejected.reason
        except Misfit as misfit:
            why = f"a value does not fit its column: {misfit}"
        except Exception as error:
            what = f"deciding command {command.command_id}"
            raise failed(what, error, stream_id.decode()) from error
        else:
            done.changed[key] = state, version
            return "accepted", None, key
        rows.cut(count)
        return "rejected", _as_reason(why), key

    def known_by(self, entry: Entry) -> tuple[str | None, bytes | None]:
        """What tells an entry from others: its command id, or else what the log keeps of it."""
        _, payload, fields = entry
        command_id = self._read(payload).command_id
        return command_id, None if command_id else kept("unreadable", payload, fields)

    def _elsewhere(self, aggregate_id: str, partition: Partition) -> str | None:
        """The stream where an aggregate's commands belong, if not in this partition's."""
        right = partition_of(aggregate_id, self._partitions)
        return None if right == partition.number else command_stream(self._domain, right)

    def _answerable(self, command: Command | Unreadable) -> Command | Unreadable:
        """The command, if its sender may be told where it says."""
        if command.reply_to is None or command.reply_to.startswith(self._reply_prefix):
            return command
        if isinstance(command, Unreadable):
            return replace(command, reply_to=None)
        kind = self._deciders[type(command)]
        return Unreadable(
            f"reply_to: begin it with {self._reply_prefix}",
            aggregate=kind[0],
            aggregate_id=getattr(command, kind[1]),
            command_id=command.command_id,
            correlation_id=command.correlation_id,
            causation_id=command.causation_id,
        )


def _as_reason(text: object) -> str:
    """As a column takes it, whatever the domain's code says."""
    return str(text)[:REASON_LENGTH_MAX].encode(errors="replace").decode()
