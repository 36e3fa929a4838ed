"""Events out: each once, in order, from anywhere, also while the log is compacted and killed at."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from ingest.command import partition_of
from ingest.contract import events_schema
from ingest.envelope import SYSTEM_TYPES
from ingest.errors import LogDamaged, LogMismatch, NotAvailable
from ingest.shop import shop
from ingest.shop.cart import CheckedOut, ProductAdded
from pipeline.feed.begin import Since
from pipeline.feed.events import LoggedEvent
from pipeline.feed.lines import Lines
from pipeline.feed.subscription import Subscription, subscribe
from pipeline.feed.token import Token
from pipeline.log import listings
from pipeline.log.compaction import merge, remove_covered
from pipeline.log.log import Log
from pipeline.log.names import LogFile
from pipeline.replay.decode import Decoder
from pipeline.settings import Settings
from tests.contracts import validator
from tests.domains.clicks import clicks
from tests.domains.shop import Sold, sell
from tests.domains.shop import now as new_shop
from tests.domains.shop import then as old_shop
from tests.more import MORE
from tests.processes import Program
from tests.running import DEADLINE_S, LATE_2023_MS, InProcess, Up, chunked, entry, foldlog, wait_for
from tests.shopping import shopping
from tests.test_clicks import generated

PARTITIONS = 2


def commit(pipeline: InProcess, commands: list[dict[str, Any]], first: int = 0) -> None:
    """Each partition's commands as one commit; the first has entry number `first`."""
    numbered = [*enumerate(commands, first)]
    for partition in range(PARTITIONS):
        mine = [(i, c) for i, c in numbered if partition_of(c["cart_id"], PARTITIONS) == partition]
        if mine:
            pipeline.decide(partition, [entry(i, c) for i, c in mine])


def a_shops_log(folder: Path, count: int = 300, seed: int = 0) -> InProcess:
    """A log of many small commits in two partitions."""
    pipeline = InProcess(folder, partitions=PARTITIONS)
    rnd, at = random.Random(seed), 0
    for batch in chunked(shopping(count, seed=seed), [rnd.randint(1, 20) for _ in range(count)]):
        commit(pipeline, batch, at)
        at += len(batch)
    return pipeline


def logged(pipeline: InProcess) -> list[dict[str, Any]]:
    """The events' rows in the log, partition by partition."""
    return [r for r in pipeline.rows().to_pylist() if r["event_type"] not in SYSTEM_TYPES]


def where(events: Iterable[LoggedEvent]) -> list[tuple[int, int]]:
    """Partition and position, in the order of partitions; those of one as they came."""
    return sorted(((e.partition, e.position) for e in events), key=lambda place: place[0])


def places(rows: Iterable[dict[str, Any]]) -> list[tuple[int, int]]:
    return [(row["partition"], row["position"]) for row in rows]


def subscription(pipeline: InProcess, since: Since = None, **how: Any) -> Subscription:
    return Subscription(pipeline.domain, pipeline.log, since, **{"follow": False, **how})


def test_each_event_comes_once_in_its_partitions_order_as_decide_made_it(tmp_path: Path) -> None:
    pipeline = a_shops_log(tmp_path)
    found = [*subscription(pipeline)]
    rows = logged(pipeline)
    assert len(rows) > 100
    assert where(found) == places(rows)
    by_place = {(row["partition"], row["position"]): row for row in rows}
    for event in found:
        row = by_place[event.partition, event.position]
        assert isinstance(event.event, shop.events[event.event_type])
        assert event.recorded_at == row["recorded_at"].replace(tzinfo=UTC)
        assert event.occurred_at == row["occurred_at"].replace(tzinfo=UTC)
        same = ["stream_id", "event_type", "aggregate_id", "version", "command_id"]
        assert [getattr(event, name) for name in same] == [row[name] for name in same]
        if isinstance(event.event, ProductAdded):
            assert event.event.quantity == row["quantity"]


def test_from_each_events_token_on_come_exactly_the_others(tmp_path: Path) -> None:
    pipeline = a_shops_log(tmp_path, 120)
    everything = [*subscription(pipeline)]
    for number, event in enumerate(everything, 1):
        left = [*subscription(pipeline, event.token)]
        assert where(left) == where(everything[number:])


def test_only_the_types_and_the_aggregate_that_were_asked_for_come(tmp_path: Path) -> None:
    pipeline = a_shops_log(tmp_path)
    rows = logged(pipeline)
    types = ["CheckedOut", "ProductRemoved"]
    some = [*subscription(pipeline, types=types)]
    assert where(some) == places(r for r in rows if r["event_type"] in types)
    one = rows[0]["aggregate_id"]
    of_one = [*subscription(pipeline, aggregate_id=one)]
    assert where(of_one) == places(r for r in rows if r["aggregate_id"] == one)
    both = [*subscription(pipeline, aggregate_id=one, types=["ProductAdded"])]
    assert {e.event_type for e in both} == {"ProductAdded"}
    assert len(both) < len(of_one)
    assert [*subscription(pipeline, aggregate_id="nobody's")] == []


def test_a_token_also_stands_for_what_was_passed_over(tmp_path: Path) -> None:
    pipeline = a_shops_log(tmp_path)
    passing = subscription(pipeline, types=["CheckedOut"])
    assert [*passing]
    ends = {p: pipeline.log.next_position(p) for p in range(PARTITIONS)}
    assert Token.parse(passing.token).positions == ends
    assert [*subscription(pipeline, passing.token)] == []


def test_from_a_time_on_comes_what_was_recorded_then_or_later(tmp_path: Path) -> None:
    pipeline = a_shops_log(tmp_path)
    rows = logged(pipeline)
    begun = datetime.fromtimestamp(LATE_2023_MS / 1000, UTC)
    for ms in (-1000, 0, 7, 20, 100_000):
        moment = begun + timedelta(milliseconds=ms)
        later = places(r for r in rows if r["recorded_at"].replace(tzinfo=UTC) >= moment)
        for said in (
            moment,
            moment.replace(tzinfo=None),
            moment.astimezone(timezone(timedelta(hours=5))),
            moment.isoformat(),
        ):
            assert where(subscription(pipeline, said)) == later
    first = next(iter(subscription(pipeline, begun + timedelta(milliseconds=20))))
    begun_there = Token.parse(first.token).positions
    assert len(begun_there) == PARTITIONS, "the other partition would begin anew"


def test_positions_may_be_written_by_hand(tmp_path: Path) -> None:
    pipeline = a_shops_log(tmp_path)
    rows = logged(pipeline)
    wanted = places(r for r in rows if r["position"] >= (50 if r["partition"] == 0 else 0))
    assert where(subscription(pipeline, "0:50")) == wanted
    assert where(subscription(pipeline, {0: 50})) == wanted


def test_a_token_that_is_not_of_this_log_is_refused(tmp_path: Path) -> None:
    pipeline, other = a_shops_log(tmp_path / "one"), a_shops_log(tmp_path / "other")
    token = next(iter(subscription(other))).token
    with pytest.raises(LogMismatch, match="the token is of another log"):
        subscription(pipeline, token)
    with pytest.raises(LogMismatch, match="the log ends at"):
        subscription(pipeline, "0:10000")
    with pytest.raises(LogMismatch, match="no position 3 of partition 9"):
        subscription(pipeline, "9:3")
    for nonsense in ("", "yesterday", "0:1,", "0:-1", "xyz@0:1", "²:1", f"0:{'1' * 5000}"):
        with pytest.raises(NotAvailable, match="is no token"):
            subscription(pipeline, nonsense)
    with pytest.raises(NotAvailable, match="no event Bought; there are ProductAdded"):
        subscription(pipeline, types=["Bought"])
    for beyond in ("0001-01-01T00:00+05:00", "9999-12-31T23:59-05:00"):
        with pytest.raises(NotAvailable, match="is outside the years 1 to 9999 in UTC"):
            subscription(pipeline, beyond)


class Listening:
    """A subscription that a thread follows."""

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        self.found: list[LoggedEvent] = []
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._follow)
        self._thread.start()

    def _follow(self) -> None:
        try:
            self.found += self.subscription
        except BaseException as error:
            self.error = error

    def until(self, count: int) -> list[LoggedEvent]:
        """What came, when at least so many came."""
        wait_for(lambda: len(self.found) >= count or self.error is not None, "events")
        self.subscription.stop()
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error
        return self.found


@pytest.mark.parametrize("seed", range(3 * MORE))
def test_compaction_while_following_loses_nothing_and_repeats_nothing(
    tmp_path: Path, seed: int
) -> None:
    pipeline = InProcess(tmp_path, partitions=PARTITIONS)
    listening = Listening(subscription(pipeline, follow=True))
    rnd, at, removed = random.Random(seed), 0, 0
    commands = shopping(400, seed=seed)
    try:
        while at < len(commands):
            batch = commands[at : at + rnd.randint(1, 6)]
            commit(pipeline, batch, at)
            at += len(batch)
            if rnd.random() < 0.2:
                merge(pipeline.log)
                removed += remove_covered(pipeline.log, 0)
    finally:
        found = listening.until(len(logged(pipeline)))
    assert removed > 100
    assert where(found) == places(logged(pipeline))


def test_who_can_hold_no_lock_looks_again_where_a_listed_file_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = a_shops_log(tmp_path)
    whole = Log.files
    removed: list[int] = []

    def gone_at_once(log: Log, partition: int, first: int = 0) -> list[LogFile]:
        listed = whole(log, partition, first)
        monkeypatch.setattr(Log, "files", whole)
        merge(log)
        removed.append(remove_covered(log, 0))
        return listed

    listening = subscription(pipeline)
    monkeypatch.setattr(Log, "reading", lambda _: nullcontext())
    monkeypatch.setattr(Log, "files", gone_at_once)
    assert where(listening) == places(logged(pipeline))
    assert removed[0] > 10


def test_whoever_leaves_a_loop_goes_on_after_the_last_event_with_the_next(tmp_path: Path) -> None:
    pipeline = a_shops_log(tmp_path)
    reading = subscription(pipeline)
    found = []
    for number in range(1000):
        for count, event in enumerate(reading):
            found.append(event)
            if count == number % 7:
                break
        assert not found or reading.token == found[-1].token or len(found) == len(logged(pipeline))
    assert where(found) == places(logged(pipeline))


def test_an_event_that_cannot_be_read_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = a_shops_log(tmp_path)
    reading = subscription(pipeline)
    found = [event for event, _ in zip(reading, range(5), strict=False)]
    monkeypatch.setattr("pipeline.feed.selection.PART_ROWS", 3)
    other = subscription(pipeline, found[-1].token)
    for _ in range(3):
        with monkeypatch.context() as patched:
            patched.setattr(Decoder, "events", unreadable)
            with pytest.raises(LogMismatch, match="no such value"):
                next(iter(other))
    assert where([*found, *other]) == places(logged(pipeline))


def unreadable(*_: object) -> None:
    raise LogMismatch("no such value")


def test_it_ends_where_the_log_ended_when_it_began(tmp_path: Path) -> None:
    pipeline = a_shops_log(tmp_path, 100)
    reading = subscription(pipeline)
    before = places(logged(pipeline))
    commit(pipeline, shopping(200)[100:], 100)
    merge(pipeline.log)
    assert where(reading) == before
    after = sorted(set(places(logged(pipeline))) - set(before))
    assert where(subscription(pipeline, reading.token)) == after


def test_now_is_after_the_last_event(tmp_path: Path) -> None:
    pipeline = a_shops_log(tmp_path, 100)
    before = places(logged(pipeline))
    listening = Listening(subscription(pipeline, "now", follow=True))
    commit(pipeline, shopping(200)[100:], 100)
    after = sorted(set(places(logged(pipeline))) - set(before))
    assert where(listening.until(len(after))) == after


def test_old_events_come_as_code_of_today_would_have_written_them(tmp_path: Path) -> None:
    pipeline = InProcess(tmp_path, old_shop, partitions=1)
    for number in range(5):
        pipeline.decide(0, [entry(number, sell(number, price=number + 0.25))])
    pipeline.writer.close()
    rows = Subscription(new_shop, pipeline.log, follow=False)
    assert [event.event for event in rows] == [
        Sold(name="TEA", cents=100 * number + 25) for number in range(5)
    ]
    rows = Subscription(new_shop, pipeline.log, "0:3", follow=False)
    lines = Lines(new_shop)
    shown = [json.loads(line) for part in rows.parts() for line in lines.of(part.rows)]
    assert [(line["name"], line["cents"], line["channel"]) for line in shown] == [
        ("TEA", 325, "web"),
        ("TEA", 425, "web"),
    ]


def test_a_file_that_is_missing_is_named_and_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listings, "PATIENCE_S", 0.0)
    pipeline = a_shops_log(tmp_path)
    lost = pipeline.log.files(0)[5]
    lost.path.unlink()
    found = []
    with pytest.raises(LogDamaged, match=f"partition 0: positions {lost.first} to"):
        found += [*subscription(pipeline, follow=True)]
    pipeline.log.files(1)[5].path.write_bytes(b"no Parquet")
    with pytest.raises(LogDamaged, match="cannot be read"):
        found += [*subscription(pipeline, "0:150")]


def test_another_log_in_its_place_is_noticed(tmp_path: Path) -> None:
    pipeline = a_shops_log(tmp_path)
    reading = subscription(pipeline, "now", follow=True)
    for partition in range(PARTITIONS):
        for file in pipeline.log.files(partition)[3:]:
            file.path.unlink()
    with pytest.raises(LogMismatch, match="another log is in its place, or an older copy"):
        next(iter(reading))


def test_a_large_file_comes_whole_whatever_its_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.log.encoding.ROW_GROUP", 7)
    monkeypatch.setattr("pipeline.feed.selection.PART_ROWS", 3)
    pipeline = a_shops_log(tmp_path)
    merge(pipeline.log)
    everything = [*subscription(pipeline)]
    assert where(everything) == places(logged(pipeline))
    for event in everything[::10]:
        left = [*subscription(pipeline, event.token)]
        assert where(left) == where(everything[everything.index(event) + 1 :])


def test_asyncio_gets_the_same_events_and_its_loop_is_not_blocked(tmp_path: Path) -> None:
    pipeline = a_shops_log(tmp_path)
    rows = logged(pipeline)

    async def everything() -> list[LoggedEvent]:
        found: list[LoggedEvent] = []
        ticks = 0
        following = subscription(pipeline, follow=True)

        async def read() -> None:
            async for event in following:
                found.append(event)

        reading = asyncio.create_task(read())
        while len(found) < len(rows):
            await asyncio.sleep(0.001)
            ticks += 1
        commit(pipeline, shopping(360)[300:], 300)
        while len(found) < len(logged(pipeline)):
            await asyncio.sleep(0.001)
            ticks += 1
        following.stop()
        await asyncio.wait_for(reading, DEADLINE_S)
        assert ticks > 1
        return found

    found = asyncio.run(asyncio.wait_for(everything(), DEADLINE_S))
    assert where(found) == places(logged(pipeline))


def test_a_cancelled_wait_loses_no_event(tmp_path: Path) -> None:
    pipeline = a_shops_log(tmp_path)
    rows = logged(pipeline)
    rnd = random.Random(1)

    async def impatient() -> list[LoggedEvent]:
        found: list[LoggedEvent] = []
        following = subscription(pipeline, follow=True)

        async def read() -> None:
            async for event in following:
                found.append(event)
                if rnd.random() < 0.2:
                    await asyncio.sleep(0)

        while len(found) < len(rows):
            reading = asyncio.create_task(read())
            await asyncio.sleep(rnd.random() * 0.02)
            reading.cancel()
            await asyncio.wait([reading])
        return found

    found = asyncio.run(asyncio.wait_for(impatient(), DEADLINE_S))
    assert where(found) == places(rows)


def test_a_line_is_what_a_query_prints_of_the_event_whatever_its_types(tmp_path: Path) -> None:
    pipeline = InProcess(tmp_path, clicks, partitions=1)
    pipeline.run(0, *generated(300))
    pipeline.publish()
    pipeline.writer.close()
    domain = "tests.domains.clicks:clicks"
    settings = Settings(data=tmp_path, domain=domain)
    asked = foldlog(settings, "query", "FROM events ORDER BY position", "--format", "json")
    made = Lines(clicks)
    parts = subscription(pipeline).parts()
    lines = [json.loads(line) for part in parts for line in made.of(part.rows)]
    assert {line["event_type"] for line in lines} == {*clicks.events}
    schema = validator(events_schema(clicks))
    for line, row in zip(lines, json.loads(asked.stdout), strict=True):
        schema.validate(line)
        assert {name: row[name] for name in line} == line
        assert all(value is None for name, value in row.items() if name not in line)


def lines_of(program: Program) -> list[dict[str, Any]]:
    """The whole lines that it has printed."""
    text = program.stdout.read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def subscriber(settings: Settings, *flags: str) -> Program:
    return Program("pipeline.cli", "subscribe", *flags, environment=settings.as_environment())


def test_a_subscriber_sees_what_a_running_pipeline_commits_and_goes_on_from_its_token(
    settings: Settings, up: Callable[..., Up]
) -> None:
    pipeline = up(settings)
    commands = shopping(400)
    with pipeline.ready() as producer:
        first = subscriber(settings)
        try:
            producer.send_many(commands[:100])
            wait_for(lambda: len(lines_of(first)) >= 20, "events of a running pipeline")
            first.send_signal(signal.SIGINT)
            assert first.wait(DEADLINE_S) == 0
            assert first.stderr.read_text() == ""
            seen = lines_of(first)
        finally:
            first.kill()
        second = subscriber(settings, "--since", seen[-1]["token"])
        try:
            producer.send_many(commands[100:250])
            pipeline.workers()[0].kill()
            producer.send_many(commands[250:])
            pipeline.settle()
            subscribed = foldlog(settings, "subscribe", "--no-follow")
            whole = [json.loads(line)["event"] for line in subscribed.stdout.splitlines()]
            wait_for(lambda: len(seen) + len(lines_of(second)) >= len(whole), "the other events")
            second.terminate()
            assert second.wait(DEADLINE_S) == 0
            assert second.stderr.read_text() == ""
            found = [line["event"] for line in (*seen, *lines_of(second))]
        finally:
            second.kill()
    asked = foldlog(settings, "query", "FROM events", "--format", "json")
    rows = json.loads(asked.stdout)
    assert len(rows) == len(whole) == len(found)
    assert sorted(places(found)) == sorted(places(whole)) == sorted(places(rows))
    for partition in range(4):
        mine = [e["position"] for e in found if e["partition"] == partition]
        assert mine == sorted(mine)


def test_a_reader_who_has_seen_enough_ends_it_without_a_word(tmp_path: Path) -> None:
    a_shops_log(tmp_path).writer.close()
    told, said = os.pipe()
    os.close(told)
    words = [sys.executable, "-P", "-m", "pipeline.cli", "subscribe", "--data", str(tmp_path)]
    ran = subprocess.run(words, stdout=said, stderr=subprocess.PIPE, timeout=DEADLINE_S)
    os.close(said)
    assert (ran.returncode, ran.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--since", "ffffffffffff@0:1"], "the token is of another log"),
        (["--since", "tomorrow"], "is no token"),
        (["--type", "Bought"], "there is no event Bought"),
        (["--data", "elsewhere"], "there is no log in elsewhere"),
    ],
)
def test_what_cannot_be_given_is_said_in_one_line(
    tmp_path: Path, flags: list[str], message: str
) -> None:
    a_shops_log(tmp_path, 10).writer.close()
    ran = foldlog(Settings(data=tmp_path), "subscribe", *flags)
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (1, "", 1)
    assert message in ran.stderr


def test_in_python_it_is_one_call(tmp_path: Path) -> None:
    pipeline = a_shops_log(tmp_path)
    settings = Settings(data=tmp_path)
    found = [*subscribe(types=["CheckedOut"], follow=False, settings=settings)]
    assert {type(event.event) for event in found} == {CheckedOut}
    assert where(found) == places(r for r in logged(pipeline) if r["event_type"] == "CheckedOut")
