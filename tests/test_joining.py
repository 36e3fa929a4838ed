"""What may leave a stream, and when: each moment at which an entry could be lost is forced."""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import redis

from ingest import line as line_module
from ingest import reader, repair
from ingest.entries import Batch, Compare, Entry, Standing
from ingest.errors import RedisUnreachable
from ingest.joining import join, waiting
from ingest.line import Line
from ingest.outcome import Outcome
from ingest.producer import Producer
from ingest.reader import StreamReader
from ingest.scripts import Changed
from ingest.server import EmbeddedServer
from ingest.shop import shop
from pipeline.decide.batch import BatchDecider
from pipeline.decide.partition import Partition
from pipeline.log.log import Log
from pipeline.replay.committed import comparison
from pipeline.settings import Settings
from tests.running import Up, start, wait_for
from tests.shopping import check, shopping

STREAM, BEHIND = "{shop-0}:commands", "{shop-0}:behind"


def add(number: int, **more: Any) -> dict[str, str]:
    command = {"type": "AddProduct", "command_id": f"c{number}", "cart_id": "7", "product_id": "p"}
    return {"command": json.dumps({**command, "quantity": 1, "unit_price_cents": 5, **more})}


@pytest.fixture
def client(redis_server: EmbeddedServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_server.url, decode_responses=True) as client:
        yield client


@pytest.fixture
def line(redis_server: EmbeddedServer) -> Iterator[Line]:
    pool = redis.ConnectionPool.from_url(redis_server.url, protocol=2)
    connection = pool.get_connection()
    yield Line(connection)
    connection.disconnect()


@pytest.fixture
def log(settings: Settings) -> Log:
    return Log.create(settings.events, partitions=1, domain="shop")


def commit(log: Log, *entries: Entry) -> Partition:
    """Those entries, decided and in the log; what its writer then remembers."""
    partition, fold = Partition(0), BatchDecider(shop, partitions=1, payload_bytes_max=65_536)
    decided = fold.decide(partition, Batch(0, list(entries)))
    partition.apply(decided)
    log.append(0, 0, decided.rows)
    return partition


def entry(stream_id: str, fields: dict[str, str]) -> Entry:
    flat = [part.encode() for pair in fields.items() for part in pair]
    return stream_id.encode(), fields.get("command", "").encode() or None, flat


def compared(log: Log, partition: Partition | None = None) -> Compare:
    return comparison(log, 0, BatchDecider(shop, partitions=1, payload_bytes_max=65_536), partition)


def none_committed(entries: Sequence[Entry]) -> list[Standing]:
    return ["new"] * len(entries)


def held(client: redis.Redis) -> list[tuple[str, dict[str, str]]]:
    """All that is still to be read, in the order of reading."""
    return [*client.xrange(BEHIND), *client.xrange(STREAM)]  # type: ignore[misc]


def test_what_the_log_has_goes_and_what_it_has_not_comes_first_in_the_order_of_its_ids(
    client: redis.Redis, line: Line, log: Log
) -> None:
    commit(log, entry("50-1", add(1)), entry("50-2", add(2)))
    for stream_id, number in [("40-0", 3), ("50-1", 1), ("50-2", 4), ("50-7", 5), ("60-0", 6)]:
        client.xadd(STREAM, add(number), id=stream_id)
    joined = join(line, STREAM, BEHIND, "50-2", compared(log))
    assert joined.behind
    assert "held 2 entries up to the log's last id 50-2" in str(joined.mended)
    assert [fields for _, fields in held(client)] == [add(3), add(4), add(5), add(6)]
    ids = [tuple(map(int, i.split("-"))) for i, _ in held(client)]
    assert ids == sorted(ids)
    assert ids[0] > (50, 2)


def test_an_id_that_was_given_out_again_does_not_count_as_committed(
    client: redis.Redis, line: Line, log: Log
) -> None:
    commit(log, entry("50-1", add(1)), entry("50-2", {"command": "garbage"}))
    client.xadd(STREAM, add(9), id="50-1")
    client.xadd(STREAM, {"command": "other garbage"}, id="50-2")
    join(line, STREAM, BEHIND, "50-2", compared(log))
    assert [fields for _, fields in held(client)] == [add(9), {"command": "other garbage"}]


def test_the_same_bytes_without_a_command_id_have_one_outcome(
    client: redis.Redis, line: Line, log: Log
) -> None:
    fields = {"a": "1", "b": "2"}
    commit(log, entry("50-1", {"command": "garbage"}), entry("50-2", fields))
    client.xadd(STREAM, {"command": "garbage"}, id="50-1")
    client.xadd(STREAM, fields, id="50-2")
    assert join(line, STREAM, BEHIND, "50-2", compared(log)).mended is None
    assert held(client) == []


def test_a_duplicate_that_a_kill_left_is_answered_and_no_alarm(
    client: redis.Redis, line: Line, log: Log
) -> None:
    partition = commit(log, entry("50-1", add(1)), entry("50-2", add(1)), entry("50-3", add(2)))
    for stream_id, number in [("50-1", 1), ("50-2", 1), ("50-3", 2)]:
        client.xadd(STREAM, add(number), id=stream_id)
    assert join(line, STREAM, BEHIND, "50-3", compared(log, partition)).mended is None
    assert [fields for _, fields in held(client)] == [add(1)]


def test_what_a_compacted_log_of_many_files_has_is_found(
    client: redis.Redis, line: Line, settings: Settings, log: Log
) -> None:
    fold, partition = BatchDecider(shop, partitions=1, payload_bytes_max=65_536), Partition(0)
    for number in range(30):
        decided = fold.decide(partition, Batch(0, [entry(f"50-{number}", add(number))]))
        partition.apply(decided)
        log.append(0, decided.first, decided.rows)
    log.append_compacted(0, log.files(0)[:20])
    for number in (3, 17, 19, 20, 28):
        client.xadd(STREAM, add(number), id=f"50-{number}")
    join(line, STREAM, BEHIND, "50-29", compared(log))
    assert held(client) == []


def test_ids_go_on_after_the_logs_and_none_is_added_below_once_it_has_been_looked_at(
    client: redis.Redis, line: Line
) -> None:
    client.xadd(STREAM, add(1), id="5-1")
    refused = []

    def compare(entries: Sequence[Entry]) -> list[Standing]:
        client.xadd(STREAM, add(3))  # acknowledged between the look and the mend
        try:
            client.xadd(STREAM, add(2), id="40-0")
        except redis.ResponseError as error:
            refused.append(str(error))
        return none_committed(entries)

    joined = join(line, STREAM, BEHIND, "50-2", compare)
    assert "ended at 5-1, before the log's 50-2" in str(joined.mended)
    assert refused
    assert [fields for _, fields in held(client)] == [add(1), add(3)]


def test_what_the_log_has_is_not_removed_where_its_id_says_something_else_by_then(
    client: redis.Redis, line: Line
) -> None:
    client.xadd(STREAM, add(1), id="50-1")

    def compare(entries: Sequence[Entry]) -> list[Standing]:
        client.flushall()
        client.xadd(STREAM, add(2), id="50-1")
        return ["committed"] * len(entries)

    with pytest.raises(Changed):
        join(line, STREAM, BEHIND, "50-1", compare)
    assert [fields for _, fields in held(client)] == [add(2)]


def test_an_entry_of_very_many_fields_is_no_obstacle(client: redis.Redis, line: Line) -> None:
    client.xadd(STREAM, {**add(1), **{f"f{i}": "" for i in range(20_000)}}, id="50-1")
    assert join(line, STREAM, BEHIND, "50-1", none_committed).behind
    ((_, fields),) = held(client)
    assert fields["command"] == add(1)["command"]


def test_a_mend_that_was_killed_half_way_is_taken_up_where_it_was(
    client: redis.Redis, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repair, "PAGE", 2)
    for number in range(1, 8):
        client.xadd(STREAM, add(number), id=f"50-{number}")
    pages = []

    def compare(entries: Sequence[Entry]) -> list[Standing]:
        pages.append(entries)
        if len(pages) == 3:
            raise KeyboardInterrupt
        return none_committed(entries)

    with pytest.raises(KeyboardInterrupt):
        join(line, STREAM, BEHIND, "50-5", compare)
    assert client.xlen(BEHIND) == 4
    assert join(line, STREAM, BEHIND, "50-5", none_committed).behind
    assert [fields for _, fields in held(client)] == [add(number) for number in range(1, 8)]


class Reading:
    """A reader, and batches of it by and by."""

    def __init__(self, url: str, last_id: str = "0-0", compare: Any = none_committed) -> None:
        self.reader = StreamReader(
            url, "shop", 0, last_id, partitions=1, batch_max=100, linger_ms=0, compare=compare
        )

    def batch(self) -> list[Entry]:
        found: list[Entry] = []

        def polled() -> bool:
            found.extend(self.reader.poll())
            return bool(found)

        wait_for(polled, "a batch")
        return found

    def polls(self, until: Callable[[], bool], what: str) -> None:
        def polled() -> bool:
            assert self.reader.poll() == []
            return until()

        wait_for(polled, what)


@pytest.fixture
def reading(redis_server: EmbeddedServer) -> Iterator[Reading]:
    reading = Reading(redis_server.url)
    yield reading
    reading.reader.close()


def test_a_batch_leaves_the_stream_when_it_is_answered_and_its_sender_is_told(
    client: redis.Redis, reading: Reading
) -> None:
    client.xadd(STREAM, add(1), id="50-1")
    assert [i for i, _, _ in reading.batch()] == [b"50-1"]
    assert client.xlen(STREAM) == 1
    reading.reader.respond([("shop:replies:x", Outcome("accepted", "c1", 0, 0))])
    reading.polls(lambda: client.xlen(STREAM) == 0, "the trim")
    assert client.xlen("shop:replies:x") == 1
    assert client.ttl("shop:replies:x") > 0


def test_nothing_is_trimmed_from_a_stream_that_is_not_the_one_that_was_read(
    client: redis.Redis, reading: Reading
) -> None:
    for number in (1, 2, 3):
        client.xadd(STREAM, add(number), id=f"50-{number}")
    assert len(reading.batch()) == 3
    client.delete(STREAM)
    for number in (4, 5, 6):  # the same ids say something else now
        client.xadd(STREAM, add(number), id=f"50-{number - 3}")
    reading.reader.respond([])
    assert [p for _, p, _ in reading.batch()] == [
        add(number)["command"].encode() for number in (4, 5, 6)
    ]


def test_what_stands_below_is_read_before_what_stands_above(
    client: redis.Redis, reading: Reading
) -> None:
    client.xadd(STREAM, add(1), id="50-1")
    assert len(reading.batch()) == 1
    reading.reader.respond([])
    reading.polls(lambda: client.xlen(STREAM) == 0, "the trim")
    with client.pipeline() as at_once:
        at_once.flushall()
        at_once.xadd(STREAM, add(2), id="40-0")
        at_once.xadd(STREAM, add(3), id="60-0")
        at_once.execute()
    payloads: list[bytes | None] = []
    while len(payloads) < 2:
        payloads += [payload for _, payload, _ in reading.batch()]
        reading.reader.respond([])
    assert payloads == [add(2)["command"].encode(), add(3)["command"].encode()]


def test_while_nothing_else_arrives_what_stands_below_is_found(
    client: redis.Redis, reading: Reading
) -> None:
    client.xadd(STREAM, add(1), id="50-1")
    assert len(reading.batch()) == 1
    reading.reader.respond([])
    reading.polls(lambda: client.xlen(STREAM) == 0, "the trim")
    with client.pipeline() as at_once:
        at_once.delete(STREAM)
        at_once.xadd(STREAM, add(2), id="40-0")
        at_once.execute()
    assert [p for _, p, _ in reading.batch()] == [add(2)["command"].encode()]


def test_when_an_idle_redis_is_emptied_producers_soon_find_the_number_of_partitions_again(
    client: redis.Redis, reading: Reading
) -> None:
    reading.polls(lambda: client.get("shop:partitions") == "1", "the number")
    connected = client.info("stats")["total_connections_received"]
    client.flushall()
    reading.polls(lambda: client.get("shop:partitions") == "1", "the number again")
    assert client.info("stats")["total_connections_received"] == connected


def test_all_fields_of_an_entry_count_towards_the_size_of_a_read(
    client: redis.Redis, reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "READ_BYTES_TARGET", 10_000)
    for _ in range(120):
        client.xadd(STREAM, {**add(1), "more": "x" * 1000})
    assert len(reading.batch()) == 100
    reading.reader.respond([])
    assert len(reading.batch()) < 10


@pytest.mark.parametrize("right", ["xinfo", "xdel", "eval", "xtrim"])
def test_without_a_right_it_says_which_and_changes_nothing(
    client: redis.Redis, redis_server: EmbeddedServer, right: str
) -> None:
    client.xadd(STREAM, add(1), id="50-1")
    rights = ["+@all", f"-{right}"]
    client.acl_setuser("worker", enabled=True, nopass=True, keys=["*"], commands=rights)
    url = redis_server.url.replace("unix://", "unix://worker:any@")
    for _ in range(2):
        with pytest.raises(RedisUnreachable, match="does not allow this user"):
            Reading(url, "60-0", lambda entries: ["committed"] * len(entries)).reader.poll()
    assert client.xlen(STREAM) == 1


def test_replies_that_a_full_redis_refuses_are_told_and_the_stream_is_trimmed(
    client: redis.Redis, reading: Reading, caplog: pytest.LogCaptureFixture
) -> None:
    replies = [("shop:replies:x", Outcome("accepted", "c1", 0, 0))]
    for number in (1, 2):
        client.xadd(STREAM, add(number))
        assert len(reading.batch()) == 1
        client.config_set("maxmemory", 1)
        reading.reader.respond(replies)
        reading.polls(lambda: client.xlen(STREAM) == 0, "the trim")
        client.config_set("maxmemory", 0)
    (said,) = [m for m in caplog.messages if "replies were lost" in m]
    assert said.startswith(f"{STREAM}: 1 replies were lost (")
    assert "maxmemory" in said


def test_a_frozen_redis_is_said_to_be_away_once_and_then_to_be_back(
    client: redis.Redis,
    reading: Reading,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "foldlog")
    monkeypatch.setattr(reader, "BLOCK_MS", 100)
    for module in (reader, line_module):
        monkeypatch.setattr(module, "ANSWER_S", 0.2)
    reading.reader._pool.connection_kwargs["socket_timeout"] = 0.2
    client.xadd(STREAM, add(1))
    assert len(reading.batch()) == 1
    caplog.clear()  # where this machine stalled, Redis was away as well
    server = client.info("server")["process_id"]
    os.kill(server, signal.SIGSTOP)
    try:
        reading.reader.respond([("shop:replies:x", Outcome("accepted", "c1", 0, 0))])
        reading.polls(lambda: reading.reader._backoff._failures > 2, "some attempts")
    finally:
        os.kill(server, signal.SIGCONT)
    reading.reader._compare = lambda entries: ["committed"] * len(entries)
    reading.polls(lambda: "Redis is back" in caplog.text, "it to come back")
    wait_for(lambda: client.xlen(STREAM) == 0, "the mend")
    for once in ("Redis is away", "Redis is back", "replies were lost"):
        assert sum(once in message for message in caplog.messages) == 1


def test_a_worker_lives_through_a_redis_that_is_a_replica_for_a_while(
    settings: Settings, client: redis.Redis, up: Callable[..., Up]
) -> None:
    log = Log.create(settings.events, partitions=4, domain="shop")
    commands = shopping(300)
    worker = start("work", settings)
    try:
        # Redis throws it out of its waiting for entries.
        wait_for(lambda: client.info("clients")["blocked_clients"] == 4, "the worker to wait")
        client.replicaof("127.0.0.1", "1")
        wait_for(lambda: "Redis is away" in worker.stderr.read_text(), "it to notice")
        client.replicaof("NO", "ONE")
        with Producer(settings.reachable_redis) as producer:
            producer.send_many(commands)
        wait_for(lambda: sum(log.next_position(p) for p in range(4)) > 250, "its commits")
        assert worker.poll() is None
    finally:
        worker.kill()
        _, errors = worker.communicate()
    assert "Traceback" not in errors
    pipeline = up(settings)
    pipeline.settle()
    check(settings, commands)


def test_what_stands_below_counts_as_waiting(client: redis.Redis, line: Line, log: Log) -> None:
    commit(log, entry("50-1", add(1)), entry("50-2", add(2)))
    for stream_id, number in [("40-0", 3), ("50-1", 1), ("50-2", 4), ("60-0", 5)]:
        client.xadd(STREAM, add(number), id=stream_id)
    client.xadd(BEHIND, add(6), id="50-3")
    with redis.Redis.from_url(str(client_url(client)), protocol=2) as plain:
        assert waiting(plain, STREAM, BEHIND, "50-2", compared(log)) == 4


def client_url(client: redis.Redis) -> str:
    return f"unix://{client.connection_pool.connection_kwargs['path']}"
