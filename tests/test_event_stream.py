"""Events on Redis Streams: each once and in order, whatever is killed, and whatever Redis loses."""

from __future__ import annotations

import json
import logging
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from ingest import crash
from ingest.client import connect
from ingest.contract import asyncapi
from ingest.keys import events_stream, partitions_key
from ingest.producer import Producer
from ingest.server import EmbeddedServer
from ingest.shop import shop
from ingest.stop import Stop
from pipeline.deployment import Deployment
from pipeline.health.status import status
from pipeline.log.log import Log
from pipeline.settings import Settings
from pipeline.work.publish import Publisher
from tests.contracts import validator
from tests.processes import Program
from tests.running import DEADLINE_S, InProcess, Up, foldlog, wait_for
from tests.shopping import shopping
from tests.test_subscribe import PARTITIONS, a_shops_log, commit, logged

MAX = 100_000


@pytest.fixture
def client(redis_server: EmbeddedServer) -> Iterator[redis.Redis]:
    with connect(redis_server.url) as found:
        yield found


def publisher(pipeline: InProcess, settings: Settings, events_max: int = MAX) -> Publisher:
    with_streams = settings.model_copy(
        update={"data": pipeline.folder, "events_stream_max": events_max}
    )
    deployed = Deployment(with_streams, pipeline.domain, pipeline.log)
    return Publisher(deployed, range(pipeline.log.partitions), Stop())


def ids(client: redis.Redis, partitions: int = PARTITIONS) -> list[tuple[int, str]]:
    """Partition and id of each entry, stream by stream in its order."""
    found: list[tuple[int, str]] = []
    for partition in range(partitions):
        entries: Any = client.xrange(events_stream("shop", partition))
        found += [(partition, stream_id.decode()) for stream_id, _ in entries]
    return found


def wanted(rows: list[dict[str, Any]]) -> list[tuple[int, str]]:
    return [(row["partition"], f"{row['position'] + 1}-0") for row in rows]


def test_a_running_pipeline_publishes_each_event_as_the_contract_says(
    settings: Settings, client: redis.Redis, up: Callable[..., Up]
) -> None:
    settings = settings.model_copy(update={"events_stream_max": MAX})
    pipeline = up(settings)
    with pipeline.ready() as producer:
        producer.send_many(shopping(200))
        pipeline.settle()
        pipeline.workers()[0].kill()
        producer.send_many(shopping(400)[200:])
        pipeline.settle()
    rows = json.loads(foldlog(settings, "query", "FROM events", "--format", "json").stdout)
    rows.sort(key=lambda row: (row["partition"], row["position"]))
    wait_for(lambda: len(ids(client, 4)) >= len(rows), "the events in Redis")
    assert ids(client, 4) == wanted(rows)
    document = asyncapi(shop)
    schema = validator({**document["components"]["schemas"]["CloudEvent"],
                        "components": document["components"]})  # fmt: skip
    for row in rows:
        stream = events_stream("shop", row["partition"])
        stream_id = f"{row['position'] + 1}-0"
        ((_, fields),) = client.xrange(stream, stream_id, stream_id)
        event = json.loads(fields[b"event"])
        schema.validate(event)
        assert event["data"] == {name: row[name] for name in event["data"]}
        assert (event["type"], event["subject"]) == (row["event_type"], row["aggregate_id"])
        assert event["id"] == f"{row['partition']}:{row['position']}"
        assert event["time"].replace("T", " ") == f"{row['occurred_at']}Z"
        assert not schema.is_valid({**event, "data": {**event["data"], "version": None}})
    assert pipeline.stop() == 0
    assert "events are" not in pipeline.errors()


def test_without_the_setting_there_is_no_such_stream(
    settings: Settings, client: redis.Redis, up: Callable[..., Up]
) -> None:
    pipeline = up(settings)
    with pipeline.ready() as producer:
        producer.send_many(shopping(100))
        pipeline.settle()
    assert pipeline.stop() == 0
    assert client.keys("*:events") == []


@pytest.mark.parametrize("point", ["event_stream.to_add", "event_stream.added"])
def test_a_kill_around_a_step_of_redis_loses_nothing_and_doubles_nothing(
    settings: Settings,
    client: redis.Redis,
    started: Callable[..., Program],
    point: str,
) -> None:
    settings = settings.model_copy(update={"events_stream_max": MAX, "batch_max": 20})
    log = Log.create(settings.events, partitions=PARTITIONS, domain="shop")
    client.set(partitions_key("shop"), PARTITIONS)
    commands = shopping(600)
    for life in range(3):
        with Producer(settings.reachable_redis) as producer:
            producer.send_many(commands[200 * life : 200 * (life + 1)])
        dying = started("work", settings, environment={crash.VARIABLE: f"{point}:2"})
        assert dying.wait(DEADLINE_S) == crash.EXIT_CODE
    last = started("work", settings)
    wait_for(lambda: status(settings).lag == 0, "the commits")
    last.terminate()
    assert last.wait(DEADLINE_S) == 0, last.stderr.read_text()
    pipeline = InProcess(settings.data, partitions=PARTITIONS)
    assert log.identity == pipeline.log.identity
    assert ids(client) == wanted(logged(pipeline))


def test_a_stream_holds_the_newest_events_up_to_its_bound(
    tmp_path: Path, settings: Settings, client: redis.Redis
) -> None:
    pipeline = a_shops_log(tmp_path)
    publish = publisher(pipeline, settings, events_max=10)
    publish()
    commit(pipeline, shopping(400)[300:], 300)
    publish()
    rows = logged(pipeline)
    newest = [[r for r in rows if r["partition"] == p][-10:] for p in range(PARTITIONS)]
    assert ids(client) == wanted([row for some in newest for row in some])


def test_an_empty_stream_begins_with_the_newest_positions_that_it_could_hold(
    tmp_path: Path, settings: Settings, client: redis.Redis
) -> None:
    pipeline = a_shops_log(tmp_path)
    publisher(pipeline, settings, events_max=50)()
    ends = {p: pipeline.log.next_position(p) for p in range(PARTITIONS)}
    newest = [r for r in logged(pipeline) if r["position"] >= ends[r["partition"]] - 50]
    assert ids(client) == wanted(newest)


def test_a_consumer_gets_each_event_once_also_where_redis_loses_some_or_all(
    tmp_path: Path, settings: Settings, client: redis.Redis
) -> None:
    pipeline = InProcess(tmp_path, partitions=PARTITIONS)
    publish = publisher(pipeline, settings)
    commands, seen = shopping(500), dict.fromkeys(range(PARTITIONS), "0-0")
    found: list[tuple[int, str]] = []
    for at in range(0, len(commands), 20):
        commit(pipeline, commands[at : at + 20], at)
        publish()
        for partition in range(PARTITIONS):
            stream = events_stream("shop", partition)
            for _, entries in client.xread({stream: seen[partition]}) or []:  # type: ignore[union-attr]
                for stream_id, _ in entries:
                    seen[partition] = stream_id.decode()
                    found.append((partition, seen[partition]))
        if at % 60 == 0:
            client.flushall()
        elif at % 60 == 20:  # an older copy, which lacks the last ones
            for partition in range(PARTITIONS):
                stream = events_stream("shop", partition)
                kept: Any = client.xrange(stream, count=5)
                client.delete(stream)
                for stream_id, fields in kept:
                    client.xadd(stream, fields, stream_id)
    in_order = sorted(found, key=lambda place: place[0])
    assert in_order == wanted(logged(pipeline))


def test_two_publishers_of_a_partition_double_nothing(
    tmp_path: Path, settings: Settings, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.work.publish.ADDED_TOGETHER", 3)
    pipeline = a_shops_log(tmp_path, 600)
    publishers = [publisher(pipeline, settings) for _ in range(3)]
    threads = [threading.Thread(target=publish) for publish in publishers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert ids(client) == wanted(logged(pipeline))


def test_what_is_wrong_with_one_stream_is_said_once_and_the_others_go_on(
    tmp_path: Path,
    settings: Settings,
    client: redis.Redis,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipeline.work.publish.PAUSES.compute", lambda _: 0.0)
    pipeline = a_shops_log(tmp_path)
    rows = logged(pipeline)
    publish = publisher(pipeline, settings)
    client.set(events_stream("shop", 0), "no stream")
    with caplog.at_level(logging.INFO, "foldlog"):
        for _ in range(3):
            publish()
        assert ids_of_one(client) == wanted([r for r in rows if r["partition"] == 1])
        client.delete(events_stream("shop", 0))
        client.xadd(events_stream("shop", 0), {"event": "of another log"}, "5000-0")
        for _ in range(3):
            publish()
        client.delete(events_stream("shop", 0))
        publish()
    said = [record.getMessage() for record in caplog.records]
    assert ["WRONGTYPE" in line for line in said] == [True, False, False]
    assert "{shop-0}:events goes on at position 5000, and the log" in said[1]
    assert "redis-cli DEL '{shop-0}:events'" in said[1]
    assert said[2] == "events are published again"
    assert ids(client) == wanted(rows)


def test_a_stream_of_another_log_or_of_a_longer_one_is_told_also_when_the_log_has_grown_beyond_it(
    tmp_path: Path,
    settings: Settings,
    client: redis.Redis,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipeline.work.publish.PAUSES.compute", lambda _: 0.0)
    first = a_shops_log(tmp_path / "first", 200)
    shutil.copytree(tmp_path / "first", tmp_path / "older")
    commit(first, shopping(500)[200:], 200)
    publisher(first, settings)()
    before = ids(client)
    older = InProcess(tmp_path / "older", partitions=PARTITIONS)
    other = InProcess(tmp_path / "other", partitions=PARTITIONS)
    for pipeline, seed in ((older, 1), (other, 2)):
        commit(pipeline, shopping(1500, seed=seed), 1000)
        caplog.clear()
        with caplog.at_level(logging.INFO, "foldlog"):
            publisher(pipeline, settings)()
        assert ids(client) == before
        said = [record.getMessage() for record in caplog.records]
        assert ["holds another event at position" in line for line in said] == [True] * PARTITIONS
        assert "redis-cli DEL '{shop-0}:events'" in said[0]
    commit(first, shopping(600)[500:], 500)
    publisher(first, settings)()
    assert ids(client) == wanted(logged(first))


def ids_of_one(client: redis.Redis) -> list[tuple[int, str]]:
    entries: Any = client.xrange(events_stream("shop", 1))
    return [(1, stream_id.decode()) for stream_id, _ in entries]


def test_a_redis_that_is_away_is_said_once_and_loses_no_event(
    tmp_path: Path,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipeline.work.publish.PAUSES.compute", lambda _: 0.0)
    pipeline = a_shops_log(tmp_path / "log", 100)
    server = EmbeddedServer(tmp_path / "server")
    server.keep_running()
    publish = publisher(pipeline, settings.model_copy(update={"redis_url": server.url}))
    publish()
    server.stop()
    with caplog.at_level(logging.INFO, "foldlog"):
        commit(pipeline, shopping(200)[100:], 100)
        for _ in range(3):
            publish()
        server.keep_running()
        publish()
    with connect(server.url) as client:
        assert ids(client) == wanted(logged(pipeline))
    server.stop()
    said = [record.getMessage() for record in caplog.records]
    assert ["does not answer" in line for line in said if "events" in line] == [True, False]
