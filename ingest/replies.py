"""From a command to an entry, and from outcomes to who waits for them: without input or output.

A partition is handled in order, so its outcomes say more than they tell. When a command is
answered, everything sent before it is handled too: what of that has no outcome, has lost it (with a
connection, or with a worker that was killed) and is sent again. Where a partition is silent, only
its oldest command is sent again, after 2, 4, 8 … seconds: if the pipeline is merely behind, that
adds one duplicate; if outcomes were lost, its answer tells so of all.
"""

from __future__ import annotations

import itertools
import math
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

from pydantic_core import PydanticSerializationError, to_json

from ingest.command import COMMAND_BYTES_MAX, IDENTIFIER_LENGTH_MAX, Command, partition_of
from ingest.domain import Domain
from ingest.errors import (
    CommandInvalid,
    CommandTooLarge,
    OutcomeTimeout,
    Rejected,
    one_line,
)
from ingest.keys import command_stream, reply_prefix
from ingest.outcome import Outcome

CommandLike: TypeAlias = Command | Mapping[str, Any]
Ticket = TypeVar("Ticket")

SEND_AGAIN_AFTER_S = 2.0
"""How long a partition may be silent before its oldest command is sent again; then doubled."""

SEND_AGAIN_MAX_S = 60.0

Sent: TypeAlias = tuple[str, bytes]
"""A stream's key and the payload for it."""


class Wire:
    """From a command to a stream's key and a payload."""

    def __init__(self, domain: Domain, partitions: int) -> None:
        self._id_field = domain.id_field
        self._reply_prefix = reply_prefix(domain.name)
        self.streams = [command_stream(domain.name, p) for p in range(partitions)]

    def encode(self, command: CommandLike, reply_to: str | None = None) -> tuple[str, Sent]:
        """The command's id, and what goes where. Raises `CommandInvalid`, `CommandTooLarge`."""
        fields: dict[str, Any]
        if isinstance(command, Command):
            fields = command.model_dump(mode="json", exclude_none=True)
        else:
            fields = {**command}
            if "command_id" not in fields:
                fields["command_id"] = str(uuid.uuid4())
        if reply_to is not None:
            fields["reply_to"] = reply_to
        aggregate_id = fields.get(self._id_field)
        if not isinstance(aggregate_id, str):
            raise CommandInvalid(f"a command needs the field {self._id_field}, a string")
        command_id = fields.get("command_id")
        if not isinstance(command_id, str) or not 0 < len(command_id) <= IDENTIFIER_LENGTH_MAX:
            raise CommandInvalid(
                f"a command_id is a string of 1 to {IDENTIFIER_LENGTH_MAX} characters;"
                " leave it out for a random one"
            )
        try:
            payload = to_json(fields)
        except PydanticSerializationError as error:
            raise CommandInvalid(f"the command cannot be JSON: {one_line(error)}") from None
        if len(payload) > COMMAND_BYTES_MAX:
            raise CommandTooLarge(
                f"the command has {len(payload)} bytes; the limit is {COMMAND_BYTES_MAX}"
            )
        return command_id, (self.streams[partition_of(aggregate_id, len(self.streams))], payload)

    def reply_key(self) -> str:
        return self._reply_prefix + uuid.uuid4().hex


@dataclass(eq=False, slots=True)
class Asked(Generic[Ticket]):
    """A command without an outcome, and those who wait for it.

    It was put into its stream after `begun` and before `written`, both of one counter.
    """

    command_id: str
    sent: Sent
    tickets: list[Ticket]
    begun: float
    written: float = math.inf
    again: bool = False

    def is_before(self, other: Asked[Ticket]) -> bool:
        """Whether it stands before `other` for sure; of two connections, one may overtake."""
        together = self.written == other.written < math.inf  # a pipeline of commands
        return self.written < other.begun or (together and self.begun < other.begun)


@dataclass(slots=True)
class _Partition(Generic[Ticket]):
    asked: dict[str, Asked[Ticket]] = field(default_factory=dict)
    """By command id, in the order of sending."""
    pause_s: float = SEND_AGAIN_AFTER_S
    again_at: float = math.inf

    def heard(self) -> None:
        self.pause_s = SEND_AGAIN_AFTER_S
        self.again_at = time.monotonic() + self.pause_s


class Replies(Generic[Ticket]):
    """One stream of replies: which commands it still owes an outcome, and to whom.

    A ticket stands for somebody who waits. Call `written` with what was put into Redis.
    """

    def __init__(self, wire: Wire) -> None:
        self.key = wire.reply_key()
        self.seen = b"0-0"
        """The stream id of the last reply that was read."""
        self._partitions: dict[str, _Partition[Ticket]] = {s: _Partition() for s in wire.streams}
        self._streams = wire.streams
        self._clock = itertools.count()
        self._lost: dict[Asked[Ticket], None] = {}

    def __len__(self) -> int:
        return sum(len(partition.asked) for partition in self._partitions.values())

    def ask(self, command_id: str, sent: Sent, ticket: Ticket) -> Asked[Ticket]:
        """Expect the outcome of a command that will be sent now."""
        partition = self._partitions[sent[0]]
        if not partition.asked:
            partition.heard()
        found = partition.asked.get(command_id)
        if found is None:
            found = Asked(command_id, sent, [], next(self._clock))
            partition.asked[command_id] = found
        found.tickets.append(ticket)
        return found

    def written(self, asked: list[Asked[Ticket]]) -> None:
        now = next(self._clock)
        for command in asked:
            command.written = now

    def forget(self, asked: list[Asked[Ticket]], ticket: Ticket) -> None:
        """`ticket` waits no more."""
        for command in asked:
            if ticket in command.tickets:
                command.tickets.remove(ticket)
            waiting = self._partitions[command.sent[0]].asked
            if not command.tickets and waiting.get(command.command_id) is command:
                del waiting[command.command_id]
                self._lost.pop(command, None)

    def tickets(self) -> list[Ticket]:
        """Who waits, each as often as it waits for something."""
        commands = [c for p in self._partitions.values() for c in p.asked.values()]
        return [ticket for command in commands for ticket in command.tickets]

    def wait_s(self) -> float:
        """How long to wait for a reply before something is `due_again`."""
        at = min(p.again_at for p in self._partitions.values() if p.asked) if len(self) else 0
        return max(0.0, min(SEND_AGAIN_AFTER_S, at - time.monotonic()))

    def due_again(self) -> list[Asked[Ticket]]:
        """What is to be sent once more, now."""
        now = time.monotonic()
        due, self._lost = self._lost, {}
        for partition in self._partitions.values():
            if partition.asked and now >= partition.again_at:
                partition.pause_s = min(SEND_AGAIN_MAX_S, 2 * partition.pause_s)
                partition.again_at = now + partition.pause_s
                oldest = (c for c in partition.asked.values() if c.written < math.inf)
                due.update(dict.fromkeys(itertools.islice(oldest, 1)))
        for command in due:
            asked = self._partitions[command.sent[0]].asked
            asked[command.command_id] = asked.pop(command.command_id)
            command.begun, command.written, command.again = next(self._clock), math.inf, True
        return list(due)

    def arrived(self, response: Any) -> Iterator[tuple[Ticket, Outcome]]:
        """Outcomes for those who wait, from what XREAD says."""
        for _, entries in response or []:
            for stream_id, fields in entries:
                self.seen = stream_id
                outcome = Outcome.from_json(fields[b"outcome"])
                for ticket in self._answered(outcome):
                    yield ticket, outcome

    def _answered(self, outcome: Outcome) -> list[Ticket]:
        partition = self._partitions[self._streams[outcome.partition]]
        # An id that could not be made out is the oldest's: this stream is for our commands alone.
        command_id = outcome.command_id or next(iter(partition.asked), "")
        found = partition.asked.get(command_id)
        if found is None:
            return []  # the outcome of a second sending, or too late
        if outcome.duplicate or not found.again:  # else it is of the first sending, long ago
            before = itertools.takewhile(lambda c: c is not found, partition.asked.values())
            self._lost.update((c, None) for c in before if c.is_before(found))
        del partition.asked[command_id]
        self._lost.pop(found, None)
        partition.heard()
        return found.tickets


def accepted(outcome: Outcome) -> Outcome:
    """Raises `Rejected` where it is something else."""
    if outcome.outcome != "accepted":
        raise Rejected(outcome.reason or outcome.outcome)
    return outcome


def out_of_time(commands: int, timeout: float) -> OutcomeTimeout:
    return OutcomeTimeout(
        f"no outcome for {commands} command(s) within {timeout:g} s;"
        " is the pipeline running? They are sent, and will be handled"
    )
