"""A command that comes again within the window changes nothing, whatever is in memory."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.entries import Batch, Entry
from pipeline.decide.batch import BatchDecider
from pipeline.decide.outcomes import A_DAY, Outcomes, Window
from pipeline.decide.partition import Decided
from pipeline.log.log import Log
from pipeline.read.compaction import compact
from pipeline.replay.restore import restore
from pipeline.replay.snapshots import Snapshots
from pipeline.settings import Settings
from tests.domains.bank import bank
from tests.more import examples
from tests.running import LATE_2023_MS, chunked

MINUTE_MS = 60_000


def paid(command_id: str, at_ms: int, number: int = 0) -> Entry:
    """A command as it comes, so many ms after the first moment; it asks for its outcome."""
    command = {"type": "Deposit", "command_id": command_id, "account_id": "ada", "cents": 1,
               "reply_to": "bank:replies:ada"}  # fmt: skip
    return b"%d-%d" % (LATE_2023_MS + at_ms, number), json.dumps(command).encode(), []


class Bank:
    """One partition that decides and commits; `recent` outcomes stay in memory."""

    def __init__(self, folder: Path, window: Window, recent: int) -> None:
        self._folder = folder
        self._window = window
        self._recent = recent
        self._fold = BatchDecider(bank, partitions=1, payload_bytes_max=65_536)
        self.log = Log.create(folder / "events", partitions=1, domain=bank.name)
        self.restart()

    def restart(self, *, from_snapshot: bool = False) -> None:
        folder = self._folder / "snapshots"
        self._snapshots = Snapshots(folder, bank, self.log, rows=10**9, in_memory=1000)
        snapshot = self._snapshots.open(0)
        if not from_snapshot:
            snapshot.discard()
        self.partition = restore(bank, self.log, 0, self._window, snapshot)
        end = self.partition.next_position
        self.partition.outcomes = Outcomes(self._window, self.log, 0, end, self._recent)

    def stop(self) -> None:
        self._snapshots.close()

    def decide(self, *entries: Entry) -> Decided:
        decided = self._fold.decide(self.partition, Batch(0, [*entries]))
        self.partition.apply(decided)
        if len(decided.rows):
            self.log.append(0, decided.first, decided.rows)
            self._snapshots.committed(self.partition, self.partition.next_position)
        return decided

    def answers(self, *entries: Entry) -> list[tuple[int, bool]]:
        """Each one's position, and whether it was there already."""
        replies = self.decide(*entries).replies
        return [(outcome.position, outcome.duplicate) for _, outcome in replies]


@pytest.mark.parametrize("recent", [0, 1000])
@pytest.mark.parametrize("restarted", [False, True])
def test_the_window_ends_exactly_when_it_says(tmp_path: Path, recent: int, restarted: bool) -> None:
    till = Bank(tmp_path, Window(us=MINUTE_MS * 1000, rows=10), recent)
    till.decide(paid("a", 0))
    for number in range(6):
        till.decide(paid(f"other-{number}", 1))
    if restarted:
        till.restart()
    assert till.answers(paid("a", MINUTE_MS)) == [(0, True)]
    assert till.answers(paid("a", MINUTE_MS + 1)) == [(7, False)]
    assert till.answers(paid("a", MINUTE_MS + 2)) == [(7, True)]
    for number in range(9):
        till.decide(paid(f"more-{number}", MINUTE_MS + 3))
    if restarted:
        till.restart()
    assert till.answers(paid("a", MINUTE_MS + 4)) == [(7, True)]
    till.decide(paid("one more", MINUTE_MS + 5))
    assert till.answers(paid("a", MINUTE_MS + 6)) == [(18, False)]


def expected(entries: list[tuple[str, int]], window_ms: int, rows: int) -> list[tuple[int, bool]]:
    """By a dictionary that forgets nothing."""
    last: dict[str, tuple[int, int]] = {}
    answers, end = [], 0
    for command_id, at_ms in entries:
        first = last.get(command_id)
        if first and at_ms - first[1] <= window_ms and end - first[0] <= rows:
            answers.append((first[0], True))
        else:
            last[command_id] = end, at_ms
            answers.append((end, False))
            end += 1
    return answers


@examples(10)
@given(
    ids=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 20)), min_size=1, max_size=60),
    sizes=st.lists(st.integers(1, 9), max_size=20),
    recent=st.sampled_from([0, 3, 1000]),
    restarts=st.sets(st.integers(0, 20)),
    window=st.tuples(st.integers(0, 100), st.integers(0, 30)),
)
def test_any_memory_any_batches_and_any_restarts_give_the_same_outcomes(
    ids: list[tuple[int, int]],
    sizes: list[int],
    recent: int,
    restarts: set[int],
    window: tuple[int, int],
) -> None:
    at_ms, commands = 0, []
    for number, pause_ms in ids:
        at_ms += pause_ms
        commands.append((f"c{number}", at_ms))
    entries = [paid(i, at, number) for number, (i, at) in enumerate(commands)]
    with tempfile.TemporaryDirectory() as folder:
        till = Bank(Path(folder), Window(us=window[0] * 1000, rows=window[1]), recent)
        answers: list[tuple[int, bool]] = []
        for number, batch in enumerate(chunked(entries, sizes)):
            answers += till.answers(*batch)
            if number in restarts:
                till.restart()
    assert answers == expected(commands, *window)


def test_who_pays_again_after_a_hundred_thousand_others_has_paid_once(tmp_path: Path) -> None:
    till = Bank(tmp_path, A_DAY, recent=1000)
    rejected = {"type": "Transfer", "command_id": "no", "account_id": "ada", "cents": 10**9,
                "to_account": "eve", "reply_to": "bank:replies:ada"}  # fmt: skip
    refused: Entry = b"%d-1" % LATE_2023_MS, json.dumps(rejected).encode(), []
    first, no = till.decide(paid("a", 0), refused).replies
    for at in range(0, 100_000, 5_000):
        till.decide(*[paid(f"c{n}", n // 10 + 1, n % 10) for n in range(at, at + 5_000)])

    def again() -> list[Any]:
        late: Entry = b"%d-1" % (LATE_2023_MS + 20_000), refused[1], []
        outcomes = [o for _, o in till.decide(paid("a", 20_000), late).replies]
        return [(o.outcome, o.position, o.reason, o.duplicate) for o in outcomes]

    before = [(o.outcome, o.position, o.reason, True) for _, o in (first, no)]
    assert before[1][0] == "rejected"
    assert again() == before
    till.restart()
    assert again() == before
    till.stop()
    till.restart(from_snapshot=True)
    assert again() == before
    settings = Settings(data=tmp_path, compact_grace_s=0)
    assert compact(settings, till.log).removed
    assert again() == before
    till.stop()
    till.restart(from_snapshot=True)
    assert again() == before
