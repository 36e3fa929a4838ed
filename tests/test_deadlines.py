"""A deadline fires once, in the order of due, by Redis's clock; a newer one replaces it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ingest.client import connect
from ingest.domain import Domain
from ingest.producer import Producer
from ingest.reader import StreamReader
from ingest.redis_clock import RedisClock
from ingest.server import EmbeddedServer
from ingest.source import CommandSource
from ingest.stop import Stop
from pipeline.decide.deadlines import Deadlines
from pipeline.decide.sends import EPOCH, Send
from pipeline.deployment import Deployment
from pipeline.log.log import Log
from pipeline.replay.restore import restore
from pipeline.settings import Settings
from pipeline.work.steps import Worker
from tests.domains.alarms import Arm, TurnOff, alarms
from tests.domains.transfers import Close, Deposit, Transfer, transfers
from tests.reacting import BEGINS_MS, Workers, check_sends
from tests.running import DEDUPE_WINDOW, wait_for

HOUR_MS = 3_600_000


def happened(workers: Workers, *types: str) -> list[tuple[str, str, int]]:
    """Events of these types: which, of what, how many seconds after all began."""
    rows = [row for p in range(workers.partitions) for row in workers.rows(p)]
    return [
        (row["event_type"], row["aggregate_id"], round(row["occurred_at"].timestamp()) - BEGINS_S)
        for row in rows
        if row["event_type"] in types
    ]


BEGINS_S = BEGINS_MS // 1000


def test_one_that_is_replaced_in_the_batch_in_which_both_are_due_waits_for_its_new_time(
    tmp_path: Path,
) -> None:
    """Whether it is replaced must not rest on what one batch happens to hold."""
    workers = Workers(tmp_path, alarms, [[0]])
    workers.send(Arm(alarm_id="a", in_s=60))
    workers.send(Arm(alarm_id="b", in_s=90))
    workers.settle()
    workers.now_ms += 95_000
    workers.settle()
    assert happened(workers, "Dozed", "Rang") == [("Dozed", "a", 60), ("Dozed", "b", 90)]
    waiting = restore(alarms, workers.log, 0, DEDUPE_WINDOW).deadlines
    assert len(waiting) == len(workers.workers[0]._owned[0].deadlines) == 2
    workers.now_ms += HOUR_MS
    workers.settle()
    hour = HOUR_MS // 1000
    # An hour after each dozed, which was recorded when the worker came to it.
    assert happened(workers, "Rang") == [("Rang", "a", 95 + hour), ("Rang", "b", 95 + hour)]


def test_one_that_is_replaced_fired_and_answered_in_one_batch_has_one_outcome(
    tmp_path: Path,
) -> None:
    """The batch in which it fires also has the command that sets it anew, and one that ends it."""
    workers = Workers(tmp_path, alarms, [[0]])
    workers.send(Arm(alarm_id="a", in_s=60))
    workers.settle()
    workers.now_ms += 60_000
    workers.send(Arm(alarm_id="a", in_s=30))
    workers.send(TurnOff(alarm_id="a"))
    assert workers.step(0, 0)
    workers.kill(0)
    workers.now_ms += 2 * HOUR_MS
    workers.settle()
    assert [kind for kind, _, _ in happened(workers, "Dozed", "Rang", "TurnedOff")] == [
        "Dozed", "TurnedOff",
    ]  # fmt: skip
    fired = [row["stream_id"] for row in workers.rows(0) if "/" in row["stream_id"]]
    assert len(fired) == len({*fired}) + 1, "the first has an event and what follows from it"
    assert not len(restore(alarms, workers.log, 0, DEDUPE_WINDOW).deadlines)


def test_after_a_day_in_which_nothing_ran_thousands_fire_once_and_in_the_order_of_due(
    tmp_path: Path,
) -> None:
    workers = Workers(tmp_path, transfers, [[0, 2], [1]])
    names = [f"n{number}" for number in range(1500)]
    for number, name in enumerate(names):
        workers.now_ms = BEGINS_MS + 7_919 * number % 1500 * 10
        workers.send(Deposit(account_id=name, cents=1))
    for stream in workers.streams.values():
        stream.sort(key=lambda entry: int(entry[0].partition(b"-")[0]))
    workers.settle()
    for number in (0, 1):
        workers.kill(number)
    workers.now_ms = BEGINS_MS + 3 * 24 * HOUR_MS
    for turn in range(40):
        workers.step(turn % 2, [0, 1, 2, 1][turn % 4])
        if turn % 7 == 6:
            workers.kill(turn % 2)
    workers.settle()
    for partition in range(3):
        rows = [r for r in workers.rows(partition) if r["event_type"] == "FellAsleep"]
        due = [row["occurred_at"] for row in rows]
        assert due == sorted(due)
        recorded = {round(row["recorded_at"].timestamp() * 1000) for row in rows}
        assert recorded == {workers.now_ms}
    assert sorted(name for _, name, _ in happened(workers, "FellAsleep")) == sorted(names)


def test_snapshots_hold_the_ones_that_wait_and_a_restart_fires_each_once(tmp_path: Path) -> None:
    workers = Workers(tmp_path, transfers, [[0, 1, 2]])
    names = [f"n{number}" for number in range(400)]
    for turn in range(3):  # of each the last one counts
        for name in names:
            workers.send(Deposit(account_id=name, cents=1))
        workers.settle()
        workers.now_ms += HOUR_MS
        worker = workers.workers[0]
        if turn == 1:
            worker.close(Stop())
        workers.kill(0)
    owned = workers.workers[0]._owned
    assert sum(len(p.deadlines) for p in owned.values()) == len(names)
    assert all(workers.workers[0]._snapshots._open[p].position for p in owned)
    workers.now_ms += 22 * HOUR_MS
    workers.settle()
    assert happened(workers, "FellAsleep") == []
    workers.now_ms += HOUR_MS
    workers.settle()
    assert sorted(name for _, name, _ in happened(workers, "FellAsleep")) == sorted(names)


def test_one_that_is_replaced_again_and_again_takes_no_more_memory_than_one() -> None:
    deadlines = Deadlines()
    for position in range(20_000):
        key = ("alarm", f"a{position % 10}")
        deadlines.add(
            Send(
                0, position, key, 0, 0, 10**15 + position, b'{"type":"Ring"}', None, None, 0, EPOCH
            )
        )
    assert len(deadlines) == 10
    assert len(deadlines._by_time) < 200
    due = deadlines.due(10**16, 100)
    assert [send.position for send in due] == [*range(19_990, 20_000)]


def test_from_one_partition_to_another_and_back_nothing_is_recorded_before_its_cause(
    tmp_path: Path,
) -> None:
    workers = Workers(tmp_path, transfers, [[0, 2], [1]])
    workers.send(Deposit(account_id="a", cents=100))
    workers.send(Close(account_id="g"))
    workers.settle()
    workers.send(Transfer(account_id="a", to_account="g", cents=40))
    workers.step(0, 0)
    workers.now_ms -= HOUR_MS  # of a Redis that came back with another clock
    for number in (0, 1):
        workers.kill(number)
    workers.settle()
    check_sends(workers, complete=True)
    kinds = ["Withdrawn", "Refused", "Received"]
    rows = [row for p in (0, 1) for row in workers.rows(p)]
    chain = [next(row for row in rows if row["event_type"] == kind) for kind in kinds]
    assert [row["recorded_at"] for row in chain] == [chain[0]["recorded_at"]] * 3
    assert len({row["correlation_id"] for row in chain[1:]}) == 1
    assert chain[1]["correlation_id"] == chain[0]["command_id"]
    money = restore(transfers, workers.log, 0, DEDUPE_WINDOW).aggregates.get(("account", "a"))
    assert money is not None
    assert money[0].balance == 100


# --- with a real Redis


class Working:
    """A worker of one partition in this process, with a real Redis."""

    def __init__(self, settings: Settings, domain: Domain) -> None:
        self.log = Log.create(settings.events, partitions=1, domain=domain.name)
        self._worker = Worker(Deployment(settings, domain, self.log), [0], "of a test")
        self._stop = Stop()
        self._part = CommandSource(self._worker.take, self._stop).build("", 0, 1)

    def has(self, event_type: str) -> bool:
        """Work a little; whether the log has such an event."""
        for batch in self._part.next_batch():
            decided = self._worker.decide(batch)
            assert decided is not None
            assert self._worker.commit(decided) is not None
            self._worker.reply(decided)
        assert self._stop.error is None
        return any(event_type in t["event_type"].to_pylist() for t in self.log.read(0))

    def close(self) -> None:
        self._worker.close(self._stop)


@pytest.fixture
def working(settings: Settings) -> Iterator[Working]:
    worker = Working(settings.model_copy(update={"partitions": 1}), alarms)
    worker.has("nothing")
    yield worker
    worker.close()


@pytest.mark.parametrize("off_s", [-3600, 3600])
def test_the_hosts_clock_may_be_an_hour_off(
    settings: Settings, working: Working, monkeypatch: pytest.MonkeyPatch, off_s: int
) -> None:
    seconds, nanoseconds = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: seconds() + off_s)
    monkeypatch.setattr(time, "time_ns", lambda: nanoseconds() + off_s * 1_000_000_000)
    wait_for(lambda: not working.has("nothing"), "the start")
    with Producer(settings.reachable_redis, alarms) as producer:
        producer.send(Arm(command_id="soon", alarm_id="a", in_s=1))
        producer.send(Arm(command_id="late", alarm_id="b", in_s=1800))
    wait_for(lambda: working.has("Dozed"), "the deadline")
    (rows,) = [*working.log.read(0)][:1]
    asked = rows["recorded_at"].to_pylist()[0]
    fired = [r for t in working.log.read(0) for r in t.to_pylist() if r["event_type"] == "Dozed"]
    assert [row["aggregate_id"] for row in fired] == ["a"]
    assert fired[0]["occurred_at"] == asked + timedelta(seconds=1)
    late = fired[0]["recorded_at"] - fired[0]["occurred_at"]
    assert timedelta(0) <= late < timedelta(minutes=30), "not an hour"


def test_one_that_is_due_while_redis_is_away_fires_still(
    settings: Settings,
    working: Working,
    redis_server: EmbeddedServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Producer(settings.reachable_redis, alarms) as producer:
        producer.send(Arm(command_id="soon", alarm_id="a", in_s=HOUR_MS // 1000))
    wait_for(lambda: working.has("Armed"), "the command")
    redis_server.stop()
    assert not working.has("Dozed")
    clock = time.monotonic_ns
    monkeypatch.setattr(time, "monotonic_ns", lambda: clock() + HOUR_MS * 1_000_000)
    wait_for(lambda: working.has("Dozed"), "the deadline")


def test_a_host_that_slept_while_redis_did_not_catches_up_without_a_new_connection(
    redis_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The monotonic clock stands still while a host sleeps, and connections outlive it."""
    nothing: Any = lambda _: []  # noqa: E731
    reader = StreamReader(
        redis_server.url, "alarms", 0, "0-0",
        partitions=1, batch_max=10, linger_ms=0, compare=nothing,
    )  # fmt: skip

    def behind_s() -> float:
        reader.poll()
        with connect(redis_server.url) as client:
            seconds, us = client.time()
        return seconds + us / 1e6 - (reader.clock.now_us or 0) / 1e6

    wait_for(lambda: abs(behind_s()) < 5, "the first connection")
    clock = time.monotonic_ns
    monkeypatch.setattr(time, "monotonic_ns", lambda: clock() - HOUR_MS * 1_000_000)
    assert behind_s() > 3000
    wait_for(lambda: abs(behind_s()) < 5, "Redis's clock")
    reader.close()


def test_a_clock_of_redis_that_is_set_back_by_seconds_is_followed_and_an_answer_read_late_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, seconds = RedisClock(), 1000
    monkeypatch.setattr(time, "monotonic_ns", lambda: seconds * 1_000_000_000)

    def answer(said: int) -> int:
        clock.set(b"%d" % said, b"0")
        assert clock.now_us is not None
        return clock.now_us // 1_000_000

    clock.ask()
    assert answer(5000) == 5000
    clock.ask()
    assert answer(4992) == 4992, "a deadline would come eight seconds early"
    clock.ask()
    seconds += 30
    assert answer(4993) == 5022, "it was said soon after it was asked, and is read late"
    clock.ask()
    seconds += 1
    assert answer(6000) == 6000
