"""What one partition sends to another has exactly one effect, whatever is killed, lost or late."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from pipeline.decide.partition import Decided, Partition
from pipeline.decide.sends import Send
from pipeline.log.compaction import merge
from pipeline.log.inputs import Inputs
from pipeline.react.inbox import Inbox
from tests.domains.transfers import Close, Deposit, Transfer, transfers
from tests.more import examples
from tests.reacting import Workers, check_sends

SHARES = [[0, 2], [1]]
OF_PARTITION = [["a", "c"], ["g", "i"], ["b", "f"]]
NAMES = [name for names in OF_PARTITION for name in names]
ACCOUNTS = st.sampled_from(NAMES)
OWNED = st.sampled_from([(n, p) for n, share in enumerate(SHARES) for p in share])


class Transfers(RuleBasedStateMachine):
    """Two workers over three partitions; money is neither made nor lost."""

    inbox: Any = Inbox

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.workers = Workers(Path(self._folder.name), transfers, SHARES, self.inbox)
        for name in NAMES:
            self.workers.send(Deposit(account_id=name, cents=1000))
        self.workers.settle()

    @rule(account=ACCOUNTS, cents=st.integers(1, 500))
    def deposit(self, account: str, cents: int) -> None:
        self.workers.send(Deposit(account_id=account, cents=cents))

    @rule(account=ACCOUNTS, to=ACCOUNTS, cents=st.integers(1, 300))
    def transfer(self, account: str, to: str, cents: int) -> None:
        self.workers.send(Transfer(account_id=account, to_account=to, cents=cents))

    @rule(account=st.sampled_from(["c", "i"]))
    def close(self, account: str) -> None:
        self.workers.send(Close(account_id=account))

    @rule(owned=OWNED, most=st.integers(1, 5))
    def step(self, owned: tuple[int, int], most: int) -> None:
        self.workers.step(*owned, most)

    @rule(owned=OWNED)
    def kill_before_the_commit(self, owned: tuple[int, int]) -> None:
        number, partition = owned
        self.workers.decide(self.workers.workers[number], partition)
        self.workers.kill(number)

    @rule(number=st.sampled_from([0, 1]))
    def kill(self, number: int) -> None:
        self.workers.kill(number)

    @rule(owned=OWNED, to=ACCOUNTS)
    def lose_a_hand_over(self, owned: tuple[int, int], to: str) -> None:
        number, partition = owned
        inbox = self.workers.workers[number]._inbox
        assert inbox is not None

        def committed(decided: Decided) -> None:
            inbox._ends[partition] = decided.first + len(decided.rows)

        self.transfer(OF_PARTITION[partition][0], to, 5)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(inbox, "committed", committed)
            self.workers.step(number, partition)

    @rule(owned=OWNED)
    def another_writer_comes_and_goes(self, owned: tuple[int, int]) -> None:
        number, partition = owned
        zombie = self.workers.workers[number]
        late = self.workers.decide(zombie, partition)
        self.workers.kill(number)
        self.workers.step(number, partition)
        if late is not None:
            zombie.commit(late)

    @rule(days=st.sampled_from([0.1, 2]))
    def time_passes(self, days: float) -> None:
        self.workers.now_ms += int(days * 86_400_000)

    @rule()
    def compact(self) -> None:
        merge(self.workers.log)

    def teardown(self) -> None:
        try:
            self.workers.settle()
            check_sends(self.workers, complete=True)
            self._check_money()
        finally:
            self._folder.cleanup()

    def _check_money(self) -> None:
        rows = [row for p in range(3) for row in self.workers.rows(p)]
        signs = {"Deposited": 1, "Withdrawn": -1, "Received": 1}
        there = sum(signs.get(row["event_type"], 0) * (row["cents"] or 0) for row in rows)
        came = sum(row["cents"] for row in rows if row["event_type"] == "Deposited")
        assert there == came


class Windowed(Inbox):
    """Wrong: begins anew after each start, and passes over what the last few rows say."""

    def open(self, partition: Partition) -> None:
        self._known = {}
        super().open(
            replace(partition, inputs=Inputs(partition.inputs.stream_id))
            if partition.next_position
            else partition
        )
        rows = next(iter([*self._log.read(partition.number)][-1:]), None)
        sources = rows["stream_id"].to_pylist()[-5:] if rows is not None else []
        self._known = {*sources}

    def take(self, number: int, most: int) -> list[Send]:
        return [send for send in super().take(number, most) if send.source not in self._known]


class HighWater(Inbox):
    """Wrong: takes what is handed over for all that there was before it, and reads nothing."""

    def _is_read(self, sender: int, queues: Iterable[Any]) -> bool:
        return sender in self._ends or super()._is_read(sender, queues)

    def committed(self, decided: Decided) -> None:
        for queue in self._queues[decided.owner.number].values():
            queue.read_to = max(queue.read_to, decided.first)
        super().committed(decided)


def run(inbox: Any, *phases: Phase) -> None:
    machine = type("Machine", (Transfers,), {"inbox": inbox})
    run_state_machine_as_test(
        machine,
        settings=settings(examples(20), stateful_step_count=40, phases=phases or tuple(Phase)),
    )


def test_money_is_conserved_over_kills_zombies_and_lost_hand_overs() -> None:
    run(Inbox)


@pytest.mark.parametrize("wrong", [Windowed, HighWater])
def test_a_protocol_that_sends_twice_or_loses_is_caught(wrong: type[Inbox]) -> None:
    with pytest.raises((AssertionError, Flaky)):
        run(wrong, Phase.generate)
