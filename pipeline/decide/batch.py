"""One batch: read, dedupe, decide, record; entries in, rows out. Nothing here does I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TypeAlias

import pyarrow as pa
from pydantic import ValidationError

from ingest.columns.column import Misfit
from ingest.columns.declared import record_of
from ingest.command import Command, partition_of
from ingest.domain import Domain
from ingest.entries import Batch, Entry
from ingest.errors import DomainFailed, Rejected
from ingest.keys import command_stream, reply_prefix
from ingest.outcome import Kind, Outcome
from ingest.reading import REASON_LENGTH_MAX, Unreadable, first_reasons, reader
from ingest.stream_id import recorded_us
from pipeline.decide.aggregates import Key, Versioned
from pipeline.decide.folded_rows import FoldedRows
from pipeline.decide.mistake import failed
from pipeline.decide.outcomes import First
from pipeline.decide.partition import Decided, Partition
from pipeline.decide.rows import LogColumns, Rows, kept
from pipeline.decide.sends import EPOCH, Reactions, Said, Send

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
    sends: list[Send] = field(default_factory=list)
    not_accepted: Counter[str] = field(default_factory=Counter)

    def send(self, said: Said, command: Command, stream_id: bytes, recorded: int) -> None:
        """Add the row of what follows from an event of the command in that entry."""
        source = command.command_id or stream_id.decode()
        position = self.partition.next_position + len(self.rows)
        assert command.occurred_at is not None
        send = Send(
            self.partition.number, position, *said,
            command.correlation_id or source, source, recorded, command.occurred_at,
        )  # fmt: skip
        self.rows.add_send(stream_id, command, send)
        self.sends.append(send)

    def replaced(self, send: Send) -> bool:
        """Whether it is a deadline that one of this batch, which was due before it, has replaced.

        It was not before the batch, so it is no matter what else the batch holds.
        """
        if send.due_us is None or send.key not in self.changed:
            return False
        newer = (s for s in self.sends if s.due_us is not None and s.key == send.key)
        return any(s.command_type == send.command_type for s in newer)


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
        self._validate = domain.validate_json
        self._tagged = len(domain.commands) > 1
        self._reactions = Reactions(domain, partitions)
        self._kinds = {
            cls: (name, record_of(cls).normal, record_of(cls).checked)
            for name, cls in domain.events.items()
        }
        """Event class → its name, and what makes an event as the log gives it back."""
        self._reply_prefix = reply_prefix(domain.name)
        self._columns = LogColumns(domain)
        self._folded = FoldedRows(domain)

    def decide(self, partition: Partition, batch: Batch, sends: Sequence[Send] = ()) -> Decided:
        """The effect of what was sent to the partition, and then of the batch's entries.

        `partition` itself is left as it is.

        Where Arrow refuses a value, or a state has no row, the batch is decided again, and each
        field of each command's events and row is looked at before they count. Raises `DomainFailed`
        for a mistake in the domain's code; what stands before its `stream_id` can be decided.
        """
        if batch.entries:
            partition.outcomes.restore(recorded_us(batch.entries[0][0]))
        try:
            return self._decided(partition, batch, sends, check=False)
        except (*_DOES_NOT_FIT, DomainFailed):
            return self._decided(partition, batch, sends, check=True)

    def _decided(
        self, partition: Partition, batch: Batch, sends: Sequence[Send], *, check: bool
    ) -> Decided:
        done = _Batch(partition, check)
        rows, outcomes, begin = done.rows, done.outcomes, partition.next_position
        seen = partition.outcomes.seen
        recorded = self._handle_sends(done, sends) if sends else partition.recorded_us
        millisecond, recorded_at = b"none yet", EPOCH
        for stream_id, payload, fields in batch.entries:
            if not stream_id.startswith(millisecond):
                millisecond = stream_id[: stream_id.index(b"-") + 1]
                # What was sent to the partition meanwhile may be younger than what waited here.
                recorded = max(recorded, recorded_us(stream_id))
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
                kind, reason, key = self._handle(done, command, stream_id, recorded, recorded_at, 0)
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
            inputs=partition.inputs.moved(
                batch.entries[-1][0].decode() if batch.entries else None,
                {send.partition: send.position + 1 for send in sends if send.due_us is None},
                {send.to_partition: send.position for send in done.sends if send.due_us is None},
            ),
            recorded_us=recorded,
            sends=done.sends,
            handled=sends,
            entries=len(batch.entries),
        )

    def _handle_sends(self, done: _Batch, sends: Sequence[Send]) -> int:
        """Add the outcomes of what was sent; gives the time of the last."""
        recorded = done.partition.recorded_us
        for send in sends:
            if done.replaced(send):
                continue
            recorded = max(recorded, send.recorded_us)
            source, count = send.source.encode(), len(done.rows)
            try:
                command: Command | Unreadable = self._validate(send.payload)
                command.__dict__.update(
                    correlation_id=send.correlation_id,
                    causation_id=send.causation_id,
                    occurred_at=send.occurred_at,
                )
            except ValidationError as error:  # other code has sent it
                why = first_reasons(error, self._tagged)
                ids = send.correlation_id, send.causation_id
                command = Unreadable(why, None, *send.key, *ids)
            kind, reason, key = self._handle(
                done, command, source, recorded, send.occurred_at, send.hops
            )
            if len(done.rows) == count:
                if kind != "accepted":
                    done.not_accepted[kind] += 1
                left = kept(kind, send.payload, ())
                done.rows.add_outcome(source, command, recorded, kind, key, reason, left)
        return recorded

    def _handle(
        self,
        done: _Batch,
        command: Command | Unreadable,
        stream_id: bytes,
        recorded: int,
        recorded_at: datetime,
        hops: int,
    ) -> _Said:
        """Add the rows of the command's events, if it has any, and of what follows from them.

        Raises `DomainFailed`.
        """
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
        rows, count, sent = done.rows, len(done.rows), len(done.sends)
        reacting = self._reactions
        try:
            if command.expected_version is not None and command.expected_version != version:
                raise Rejected(f"the version is {version}, not {command.expected_version}")
            for decided in decide(state, command):
                event_type, normal, checked = self._kinds[type(decided)]
                event = checked(decided) if done.check else normal(decided)
                state = evolve(state, event)
                version += 1
                rows.add_event(stream_id, command, recorded, event_type, key, version, event)
                if type(event) in reacting:
                    for said in reacting.to(event, key, state, hops, recorded):
                        done.send(said, command, stream_id, recorded)
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
        del done.sends[sent:]
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
