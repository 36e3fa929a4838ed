"""A whole process as a test: given(commands).when(command).after(minutes=31).then(events).

    Scenario(shop).given(ReceiveStock(product_id="tea", quantity=2)).when(…).then(StockReserved(…))

It is the real path of deciding, with one partition, without Redis and files, and with a clock that
only `after` moves: commands, what policies send because of them, deadlines that are due by then.
For the rules of one aggregate `ingest.spec.Spec` is enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeAlias

from ingest.command import COMMAND_BYTES_MAX, Command
from ingest.domain import Domain
from ingest.entries import Batch
from pipeline.decide.batch import BatchDecider
from pipeline.decide.partition import Decided, Partition
from pipeline.decide.sends import EPOCH, MICROSECOND, Send, due_at
from pipeline.replay.decode import Decoder

BEGINS = datetime(2026, 1, 1, tzinfo=UTC)
"""When every scenario begins."""

_Step: TypeAlias = tuple[Literal["given", "when"], Command] | tuple[Literal["after"], timedelta]


@dataclass(frozen=True)
class Scenario:
    """What has been said so far. Each method gives another one, so that a story may branch."""

    domain: Domain
    steps: tuple[_Step, ...] = ()
    seen: int = 0
    """Of the events that the steps cause, those that were looked at."""

    def given(self, *commands: Command) -> Scenario:
        """These were accepted before, with all that followed. What they caused counts as seen.

        Raises `AssertionError` where one is not.
        """
        told = replace(self, steps=(*self.steps, *(("given", command) for command in commands)))
        return replace(told, seen=len(_told(told).events))

    def when(self, *commands: Command) -> Scenario:
        """These come, one after the other."""
        return replace(self, steps=(*self.steps, *(("when", command) for command in commands)))

    def after(self, **time: float) -> Scenario:
        """So much time passes, in the words of `timedelta`: `after(minutes=31)`."""
        return replace(self, steps=(*self.steps, ("after", timedelta(**time))))

    def then(self, *events: Any) -> Scenario:
        """Just these events have happened since what was looked at last, in this order.

        Raises `AssertionError` where it is otherwise, also where a command was rejected.
        """
        told = _told(self)
        if told.rejected:
            raise AssertionError(f"rejected: {'; '.join(told.rejected)}")
        found = told.events[self.seen :]
        if found != list(events):
            raise AssertionError(f"happened: {found}, not {list(events)}")
        return replace(self, seen=len(told.events))

    def then_rejected(self, reason: str) -> None:
        """The last command was rejected for just this reason. Raises `AssertionError`."""
        rejected = _told(self).rejected
        if rejected[-1:] != [reason]:
            raise AssertionError(f"rejected: {rejected or 'nothing'}, not for {reason!r}")

    def state(self, aggregate: str, aggregate_id: str) -> Any:
        """Of an aggregate, by its kind and id; the initial one where nothing has happened to it."""
        found = _told(self).partition.aggregates.get((aggregate, aggregate_id))
        return found[0] if found else self.domain.aggregate(aggregate).initial


@dataclass
class _Told:
    decider: BatchDecider
    decoder: Decoder
    partition: Partition = field(default_factory=lambda: Partition(0))
    now_us: int = (BEGINS - EPOCH) // MICROSECOND
    commands: int = 0
    events: list[Any] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)

    def send(self, command: Command) -> None:
        self.commands += 1
        stream_id = f"{self.now_us // 1000}-{self.commands}"
        known = command.model_copy(update={"command_id": command.command_id or stream_id})
        entry = stream_id.encode(), known.model_dump_json().encode(), ()
        self.handle(Batch(0, [entry]), ())

    def wait(self, time: timedelta) -> None:
        until = self.now_us + time // MICROSECOND
        while (due_us := self.partition.deadlines.next_us) is not None and due_us <= until:
            self.now_us = max(self.now_us, due_us)
            due = self.partition.deadlines.due(self.now_us, 1)
            self.handle(Batch(0, []), [due_at(send, self.now_us) for send in due])
        self.now_us = until

    def handle(self, batch: Batch, sends: Sequence[Send]) -> None:
        while batch.entries or sends:
            decided = self.decider.decide(self.partition, batch, sends)
            self.partition.apply(decided)
            self.events += [e for e in self.decoder.events(decided.rows) if e is not None]
            self.rejected += _rejected(decided)
            batch, sends = Batch(0, []), [s for s in decided.sends if s.due_us is None]


def _rejected(decided: Decided) -> list[str]:
    return [reason for reason in decided.rows["reason"].to_pylist() if reason is not None]


def _told(scenario: Scenario) -> _Told:
    """All of it, from the beginning."""
    decider = BatchDecider(scenario.domain, partitions=1, payload_bytes_max=COMMAND_BYTES_MAX)
    told = _Told(decider, Decoder(scenario.domain))
    for step in scenario.steps:
        if step[0] == "after":
            told.wait(step[1])
            continue
        told.send(step[1])
        if step[0] == "given" and told.rejected:
            raise AssertionError(f"{step[1]!r} is given, and was rejected: {told.rejected[-1]}")
    return told
