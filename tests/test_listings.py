"""Whoever follows the log sees each commit, whatever a folder's time stamp says."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.feed.follower import Follower as Feed
from pipeline.log.listings import Listings
from pipeline.log.log import Log
from pipeline.read.source import Follower as ReadSide
from tests.domains.transfers import transfers
from tests.reacting import Workers, check_sends
from tests.running import wait_for
from tests.test_sends_far_behind import RECEIVERS, sent

SENDERS_LOG = {0: 0}


def worker(workers: Workers) -> Callable[[], bool]:
    """Whether it finds something new."""
    return lambda: workers.step(RECEIVERS, 1)


def subscriber(workers: Workers) -> Callable[[], bool]:
    feed = Feed(workers.log, SENDERS_LOG, None)
    return lambda: feed.look() is not None


def read_side(workers: Workers) -> Callable[[], bool]:
    follower = ReadSide(transfers, workers.log, SENDERS_LOG)
    return lambda: bool(follower.look(10**9))


@pytest.mark.parametrize("looks", [worker, subscriber, read_side])
@pytest.mark.parametrize("seconds", [0.0, 0.4], ids=["at once", "late in a long tick"])
def test_a_commit_is_seen_that_leaves_the_stamp_as_it_was_whatever_the_hosts_clock_says(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    looks: Callable[[Workers], Callable[[], bool]],
    seconds: float,
) -> None:
    workers = Workers(tmp_path, transfers, [[0], [1, 2]])
    folder = workers.log.partition_folder(0)
    an_hour = 3_600_000_000_000
    monkeypatch.setattr(time, "time_ns", lambda clock=time.time_ns: clock() + an_hour)
    finds = looks(workers)
    sent(workers, "g", files=1)
    tick = os.stat(folder)
    until = time.monotonic() + seconds
    while finds() or time.monotonic() < until:
        time.sleep(0.005)
    sent(workers, "g", files=1)
    os.utime(folder, ns=(tick.st_atime_ns, tick.st_mtime_ns))
    wait_for(finds, "the commit", 5)
    workers.settle()
    check_sends(workers, complete=True)


def test_a_folder_that_has_changed_is_listed_with_each_look_and_later_hardly_ever(
    tmp_path: Path,
) -> None:
    listings = Listings(Log.create(tmp_path, partitions=1, domain="shop"))
    assert all(listings.due(0) for _ in range(100))
    until = time.monotonic() + 0.3
    while time.monotonic() < until:
        listings.due(0)
    assert sum(listings.due(0) for _ in range(1_000)) <= 1
