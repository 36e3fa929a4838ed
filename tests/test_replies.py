"""What is sent again, and when: nothing that is only late, everything whose outcome was lost."""

from __future__ import annotations

import pytest

from ingest import replies as module
from ingest.outcome import Outcome
from ingest.replies import Asked, Replies
from ingest.shop import shop
from ingest.wire import Wire


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(module, "time", found)
    return found


class Sender:
    """Sends to a pipeline of two partitions that answers when it is told to."""

    def __init__(self) -> None:
        self.wire = Wire(shop, 2)
        self.replies: Replies[str] = Replies(self.wire)
        self.counts = [0, 0]
        self.of_partition: list[list[Asked[str]]] = [[], []]

    def send(self, *command_ids: str) -> list[Asked[str]]:
        encoded = [
            self.wire.encode({"type": "CheckOut", "command_id": i, "cart_id": i})
            for i in command_ids
        ]
        asked = [self.replies.ask(i, sent, f"who asked {i}") for i, sent in encoded]
        self.replies.written(asked)
        for command in asked:
            self.of_partition[self.wire.streams.index(command.sent[0])].append(command)
        return asked

    def again(self) -> list[str]:
        due = self.replies.due_again()
        self.replies.written(due)
        return [command.command_id for command in due]

    def answer(self, command: Asked[str], *, duplicate: bool = False) -> list[str]:
        return self.hear(command.command_id, command, duplicate=duplicate)

    def hear(self, command_id: str | None, of: Asked[str], *, duplicate: bool = False) -> list[str]:
        partition = self.wire.streams.index(of.sent[0])
        outcome = Outcome("accepted", command_id, partition, 0, duplicate=duplicate)
        entry = (b"1-1", {b"outcome": outcome.to_json()})
        return [ticket for ticket, _ in self.replies.arrived([(b"key", [entry])])]


@pytest.fixture
def sender(clock: Clock) -> Sender:
    found = Sender()
    found.send(*map(str, range(100)))
    assert min(map(len, found.of_partition)) > 10
    return found


def test_a_pipeline_that_is_behind_is_sent_one_command_of_each_partition_now_and_then(
    sender: Sender, clock: Clock
) -> None:
    oldest = {commands[0].command_id for commands in sender.of_partition}
    sent = {}
    for clock.now in range(60):
        if again := sender.again():
            sent[clock.now] = again
    assert list(sent) == [2, 6, 14, 30]
    assert set(sent[2]) == oldest
    assert all(len(again) == 2 for again in sent.values())


def test_a_pipeline_that_answers_is_sent_nothing_twice(sender: Sender, clock: Clock) -> None:
    for commands in sender.of_partition:
        for clock.now, command in enumerate(commands):
            assert sender.answer(command) == [f"who asked {command.command_id}"]
            assert sender.again() == [] or clock.now >= 2
    assert len(sender.replies) == 0


def test_where_a_later_command_is_answered_those_before_it_are_sent_again(sender: Sender) -> None:
    commands = sender.of_partition[1]
    sender.answer(commands[7])
    assert sender.again() == [command.command_id for command in commands[:7]]
    assert sender.again() == []


def test_outcomes_that_were_lost_are_all_asked_for_when_the_oldest_ones_second_is_here(
    sender: Sender, clock: Clock
) -> None:
    commands, others = sender.of_partition
    clock.now = 2
    assert sender.again() == [commands[0].command_id, others[0].command_id]
    sender.answer(others[0])  # its first sending: this partition was only behind
    sender.answer(commands[0], duplicate=True)
    assert sender.again() == [command.command_id for command in commands[1:]]
    for command in commands[1:]:
        assert sender.answer(command, duplicate=True)
    assert len(sender.replies) == len(others) - 1


def test_what_may_have_been_sent_in_another_order_is_not_taken_for_lost(clock: Clock) -> None:
    sender = Sender()
    first, second = (
        sender.replies.ask(i, (sender.wire.streams[0], b""), "somebody") for i in ("a", "b")
    )
    sender.replies.written([second])  # over another connection
    sender.answer(second)
    sender.replies.written([first])
    assert sender.again() == []


def test_an_outcome_without_an_id_is_the_oldest_commands(sender: Sender) -> None:
    oldest = sender.of_partition[1][0]
    assert sender.hear(None, oldest) == [f"who asked {oldest.command_id}"]
    assert sender.replies.tickets().count(f"who asked {oldest.command_id}") == 0


def test_who_waits_no_more_has_nothing_sent_again(sender: Sender, clock: Clock) -> None:
    for command in [*sender.of_partition[0], *sender.of_partition[1]]:
        sender.replies.forget([command], f"who asked {command.command_id}")
    clock.now = 100
    assert sender.again() == []
    assert len(sender.replies) == 0
