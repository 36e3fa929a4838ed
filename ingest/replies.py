"""Which commands still have no outcome, and who waits for it: without input or output.

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
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from ingest.outcome import Outcome
from ingest.wire import CommandLike, Sent, Wire

Ticket = TypeVar("Ticket")
"""Stands for somebody who waits."""

SEND_AGAIN_AFTER_S = 2.0
"""How long a partition may be silent before its oldest command is sent again; then doubled."""

SEND_AGAIN_MAX_S = 60.0


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

    Call `written` with what was put into Redis.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
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

    def ask_all(
        self, commands: Iterable[CommandLike], ticket: Ticket
    ) -> tuple[list[Asked[Ticket]], list[Sent]]:
        """Expect the outcomes of commands, and what to put into Redis for them, in order.

        Raises `CommandInvalid` or `CommandTooLarge`, and expects nothing then.
        """
        encoded = [self._wire.encode(command, self.key) for command in commands]
        asked = [self.ask(command_id, sent, ticket) for command_id, sent in encoded]
        return asked, [sent for _, sent in encoded]

    def written(self, asked: list[Asked[Ticket]]) -> None:
        """All of these are in Redis now."""
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

    def block_ms(self, left_s: float = math.inf) -> int:
        """How long to wait for a reply: until something is `due_again`, `left_s` seconds at most.

        In milliseconds, and never 0, which to Redis means for ever.
        """
        at = min(p.again_at for p in self._partitions.values() if p.asked) if len(self) else 0
        due_s = max(0.0, min(SEND_AGAIN_AFTER_S, at - time.monotonic()))
        return max(1, int(1000 * min(left_s, due_s)))

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
