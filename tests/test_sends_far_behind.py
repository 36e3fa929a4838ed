"""A receiver far behind its senders gets all that they have sent, and holds little of it."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ingest import crash
from ingest.errors import LogDamaged
from pipeline.log import compaction, listings
from pipeline.react import inbox
from pipeline.replay.restore import restore
from tests.domains.transfers import Deposit, Transfer, transfers
from tests.reacting import Workers, check_sends
from tests.running import DEDUPE_WINDOW

SENDER, RECEIVERS = 0, 1


def sent(workers: Workers, *receivers: str, files: int = 10) -> None:
    """Account a, of partition 0, sends to each of them from each of so many files."""
    workers.send(Deposit(account_id="a", cents=100_000))
    workers.step(SENDER, 0)
    for _ in range(files):
        for receiver in receivers:
            workers.send(Transfer(account_id="a", to_account=receiver, cents=1))
        assert workers.step(SENDER, 0, most=len(receivers))


def waiting(workers: Workers) -> int:
    """How much of what was sent the receiving worker holds."""
    held = workers.workers[RECEIVERS]._inbox
    assert held is not None
    return sum(len(queue.waiting) for queues in held._queues.values() for queue in queues.values())


def test_a_queue_that_was_full_goes_on_though_another_one_has_read_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "QUEUE_MAX", 3)
    workers = Workers(tmp_path, transfers, [[0], [1, 2]])
    sent(workers, "g")
    for _ in range(3):  # the folder of the sender changes no more
        time.sleep(0.15)
        workers.step(RECEIVERS, 2)
    workers.settle()
    check_sends(workers, complete=True)


@pytest.mark.parametrize("removed", [False, True], ids=["covered files there", "removed"])
def test_what_was_sent_long_ago_is_read_from_compacted_files_and_little_of_it_is_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, removed: bool
) -> None:
    monkeypatch.setattr(inbox, "QUEUE_MAX", 20)
    workers = Workers(tmp_path, transfers, [[0], [1, 2]])
    sent(workers, "g", "b", "g", "f", files=60)
    workers.step(RECEIVERS, 1)
    compaction.merge(workers.log)
    if removed:
        assert compaction.remove_covered(workers.log, grace_s=0) > 30
    most = 0
    for _ in range(40):
        workers.step(RECEIVERS, 1)
        workers.step(RECEIVERS, 2)
        most = max(most, waiting(workers))
    workers.kill(RECEIVERS)
    workers.settle()
    check_sends(workers, complete=True)
    assert most <= 2 * 20


def test_thousands_of_sends_are_compacted_and_their_files_removed_while_they_are_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "QUEUE_MAX", 500)
    workers = Workers(tmp_path, transfers, [[0], [1, 2]])
    sent(workers, *(["g", "b", "i", "f", "g"] * 12), files=20)
    for turn in range(60):
        if turn % 9 == 0:
            sent(workers, "g", files=2)
            compaction.merge(workers.log)
            compaction.remove_covered(workers.log, grace_s=0)
        if turn % 19 == 18:
            workers.kill(RECEIVERS)
        workers.step(RECEIVERS, 1 + turn % 2)
    workers.settle()
    check_sends(workers, complete=True)


class PowerCut:
    """Which names of a partition's folder a power cut would leave: those that were brought there
    by an fsync of the folder, whoever called it.
    """

    def __init__(self, workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = workers.log.partition_folder(0)
        self._kept: set[str] = set()
        real = os.fsync

        def fsync(descriptor: int) -> None:
            real(descriptor)
            if os.path.samestat(os.fstat(descriptor), os.stat(self._folder)):
                self._kept = {*os.listdir(self._folder)}

        monkeypatch.setattr(os, "fsync", fsync)

    def happens(self) -> None:
        for name in {*os.listdir(self._folder)} - self._kept:
            (self._folder / name).unlink()


class Killed(BaseException):
    """In place of the end of the process."""


def dies_at(point: str) -> Callable[[str], None]:
    def come_by(name: str) -> None:
        if name == point:
            raise Killed

    return come_by


@pytest.mark.parametrize("starts", [False, True], ids=["follower runs", "follower starts"])
@pytest.mark.parametrize("receiver", ["g", "a"], ids=["sent to it", "sent to another"])
def test_nothing_rests_on_a_file_whose_name_a_power_cut_can_take_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, starts: bool, receiver: str
) -> None:
    """A sender dies between the link of its file and the folder's fsync; its store loses power when
    the follower has looked. The sender decides again, and something else: that must be read.
    """
    workers = Workers(tmp_path, transfers, [[0], [1, 2]])
    sent(workers, "g", files=2)
    workers.settle()
    power_cut = PowerCut(workers, monkeypatch)
    os.fsync(fd := os.open(workers.log.partition_folder(0), os.O_RDONLY))
    os.close(fd)
    workers.send(Transfer(account_id="a", to_account=receiver, cents=7))
    with monkeypatch.context() as patched:
        patched.setattr(crash, "point", dies_at("commit.linked"))
        with pytest.raises(Killed):
            workers.step(SENDER, 0)
    if starts:
        workers.kill(RECEIVERS)
    workers.step(RECEIVERS, 1)
    power_cut.happens()
    workers.kill(SENDER)
    workers.streams[0].pop()  # Redis has lost it, too, and others come
    for _ in range(5):
        workers.send(Transfer(account_id="a", to_account="g", cents=1))
    workers.settle()
    check_sends(workers, complete=True)


def test_a_file_that_is_missing_is_named_and_what_it_may_have_sent_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listings, "PATIENCE_S", math.inf)
    workers = Workers(tmp_path, transfers, [[0], [1, 2]])
    sent(workers, "g", "b", files=10)
    missing = workers.log.files(0)[5]
    kept = missing.path.rename(tmp_path / "kept")
    for _ in range(3):
        workers.step(RECEIVERS, 1)
    kept.rename(missing.path)  # it was only slow to be listed
    while workers.step(RECEIVERS, 1):
        pass
    check_sends(workers, complete=False)
    workers.kill(RECEIVERS)
    sent(workers, "g", files=10)
    missing, after = workers.log.files(0)[-5:-3]
    missing.path.unlink()
    while workers.step(RECEIVERS, 1):
        pass
    monkeypatch.setattr(listings, "PATIENCE_S", 0.0)
    with pytest.raises(LogDamaged, match=f"positions are missing before .*{after.path.name}"):
        workers.step(RECEIVERS, 1)


def test_of_two_writers_one_goes_on_and_what_was_sent_has_one_outcome(tmp_path: Path) -> None:
    """Both believe in partition 1; each commits now and then, and neither knows of the other."""
    workers = Workers(tmp_path, transfers, [[0], [1, 2]])
    other: Any = workers._started([1])
    sent(workers, "g", "b", "i", files=30)
    for turn in range(60):
        worker = workers.workers[RECEIVERS] if turn % 3 else other
        worker._open_at = dict.fromkeys(worker._open_at, 0.0)
        decided = workers.decide(worker, 1, most=3)
        if decided is not None:
            worker.commit(decided)
    workers.settle()
    check_sends(workers, complete=True)
    balance = restore(transfers, workers.log, 1, DEDUPE_WINDOW).aggregates.get(("account", "g"))
    assert balance is not None
    assert balance[0].balance == 30
