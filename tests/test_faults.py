"""Full disks, a Redis that forgets, writers that wake too late, damaged files."""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Callable
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
import redis

from ingest.entries import Batch
from ingest.keys import command_stream, partitions_key
from ingest.producer import Producer
from ingest.server import EmbeddedServer
from ingest.stream_id import as_numbers
from pipeline.decide.batch import BatchDecider
from pipeline.decide.outcomes import A_DAY
from pipeline.engine.program import TOLD
from pipeline.health.status import status
from pipeline.log.log import Log
from pipeline.replay.restore import restore
from pipeline.settings import Settings
from tests.processes import Program
from tests.running import DEADLINE_S, Up, foldlog, read, wait_for
from tests.shopping import check, shopping

Started = Callable[..., Program]


@pytest.fixture
def log(announced: Settings) -> Log:
    """A new log, announced on the test's Redis."""
    return Log.open(announced.events, domain="shop")


def test_a_disk_that_is_full_at_a_commit_stops_it_in_one_line_and_with_room_it_goes_on(
    settings: Settings,
    log: Log,
    up: Callable[..., Up],
    started: Started,
    redis_server: EmbeddedServer,
) -> None:
    noise = random.Random(1)
    with redis.Redis.from_url(redis_server.url) as client:
        for _ in range(
            400
        ):  # kept in the log, since they are no commands; and not to be compressed
            client.xadd(command_stream("shop", 2), {"command": noise.randbytes(4096)})
    stopped = started("work", settings, file_bytes_max=900_000)
    _, errors = stopped.communicate(timeout=DEADLINE_S)
    assert stopped.returncode == TOLD, errors
    assert "cannot write" in errors.splitlines()[-1]
    assert "File too large" in errors.splitlines()[-1]
    pipeline = up(settings)
    pipeline.settle()
    shown = read(settings.published, "outcomes")["outcomes"]
    assert [row[5] for row in shown] == ["unreadable"] * 400
    assert pipeline.stop() == 0
    assert foldlog(settings, "verify").returncode == 0


def ended(started: Started, settings: Settings, log: Log, rows: int) -> None:
    """The write side has committed so many rows, and has stopped."""
    writing = started("work", settings)
    wait_for(lambda: sum(log.next_position(p) for p in range(4)) >= rows, "the commits")
    writing.terminate()
    _, errors = writing.communicate(timeout=DEADLINE_S)
    assert writing.returncode == 0, errors


def outcomes_of(commands: list[dict[str, Any]]) -> int:
    return len({command["command_id"] for command in commands})


@pytest.mark.parametrize(
    ("side", "count", "file_bytes_max", "what"),
    [
        ("read", 4_000, 280_000, "the read models cannot be written"),
        ("work", 1_000, 5_000, "nothing is lost: make room"),
    ],
    ids=["flush", "start"],
)
def test_a_disk_that_is_full_stops_either_side_in_one_line_and_with_room_it_goes_on(
    settings: Settings,
    log: Log,
    up: Callable[..., Up],
    started: Started,
    side: str,
    count: int,
    file_bytes_max: int,
    what: str,
) -> None:
    commands = shopping(count)
    with Producer(settings.reachable_redis) as producer:
        producer.send_many(commands)
    if side == "read":
        ended(started, settings, log, outcomes_of(commands))
    stopped = started(side, settings, file_bytes_max=file_bytes_max)
    _, errors = stopped.communicate(timeout=DEADLINE_S)
    assert stopped.returncode == TOLD, errors
    assert what in errors.splitlines()[-1]
    assert "start again" in errors.splitlines()[-1]
    for partition in range(4):
        assert all(len(t) for t in log.read(partition))
    pipeline = up(settings)
    pipeline.settle()
    check(settings, commands)


def test_a_disk_that_is_full_when_publishing_stops_it_in_one_line(
    settings: Settings, log: Log, up: Callable[..., Up], started: Started
) -> None:
    commands = shopping(500)
    with Producer(settings.reachable_redis) as producer:
        producer.send_many(commands)
    ended(started, settings, log, outcomes_of(commands))
    (settings.data / "read_models.next").symlink_to("/dev/full")
    stopped = started("read", settings)
    _, errors = stopped.communicate(timeout=DEADLINE_S)
    assert stopped.returncode == TOLD, errors
    assert "No space left on device" in errors.splitlines()[-1]
    (settings.data / "read_models.next").unlink()
    pipeline = up(settings)
    pipeline.settle()
    check(settings, commands)


def test_a_writer_that_slept_through_a_takeover_loses_and_nothing_doubles(
    settings: Settings,
    log: Log,
    up: Callable[..., Up],
    started: Started,
    redis_server: EmbeddedServer,
) -> None:
    commands = shopping(2_000)
    sleeper = started("work", settings)
    with Producer(settings.reachable_redis) as producer:
        producer.send_many(commands[:500])
        wait_for(lambda: sum(log.next_position(p) for p in range(4)) >= 480, "its commits")
        sleeper.send_signal(signal.SIGSTOP)
        producer.send_many(commands[500:1_500])
        take_over(settings, log, redis_server.url)
        sleeper.send_signal(signal.SIGCONT)
        producer.send_many(commands[1_500:])
    wait_for(settings.errors.exists, "a warning")
    wait_for(lambda: "the test has committed" in settings.errors.read_text(), "it to notice")
    sleeper.terminate()
    _, errors = sleeper.communicate(timeout=DEADLINE_S)
    assert sleeper.returncode == 0, errors
    assert "trying again in 10 s" in errors
    pipeline = up(settings)
    pipeline.settle()
    check(settings, commands)


def take_over(settings: Settings, log: Log, url: str) -> None:
    """Commit what waits in the streams, as another writer would; without trimming."""
    domain = settings.load_domain()
    fold = BatchDecider(domain, partitions=4, payload_bytes_max=settings.payload_bytes_max)
    with redis.Redis.from_url(url, protocol=2) as client:
        for number in range(4):
            partition = restore(domain, log, number, A_DAY)
            last_id = partition.inputs.stream_id
            found = client.xrange(command_stream("shop", number), f"({last_id}")
            entries = [(i, f[b"command"], []) for i, f in found]
            decided = fold.decide(partition, Batch(number, entries))
            log.append(number, decided.first, decided.rows, "the test")


def test_a_redis_that_forgot_everything_goes_on_after_the_log_and_is_mentioned(
    settings: Settings, redis_server: EmbeddedServer, up: Callable[..., Up]
) -> None:
    commands = shopping(2_000)
    pipeline = up(settings)
    with pipeline.ready() as producer:
        producer.send_many(commands[:1_000])
    pipeline.settle()
    redis_server.stop()
    shutil.rmtree(settings.data.parent / "own" / "redis" / "appendonlydir")
    redis_server.keep_running()
    with redis.Redis.from_url(redis_server.url) as client:
        wait_for(lambda: client.get(partitions_key("shop")) == b"4", "the pipeline to come back")
        for p in status(settings).partitions:
            wait_for(
                lambda p=p: bool(client.exists(command_stream("shop", p.partition))), "its streams"
            )
            info = client.xinfo_stream(command_stream("shop", p.partition))
            assert as_numbers(info["last-generated-id"].decode()) >= as_numbers(p.last_stream_id)
    with Producer(redis_server.url) as producer:
        producer.send_many(commands[1_000:])
    pipeline.settle()
    check(settings, commands)
    assert "Redis has lost entries" in foldlog(settings, "status").stdout


def test_entries_that_a_forgetful_redis_numbered_too_low_are_handled(
    settings: Settings, redis_server: EmbeddedServer, up: Callable[..., Up]
) -> None:
    commands = shopping(400)
    pipeline = up(settings)
    with pipeline.ready() as producer:
        producer.send_many(commands[:300])
        pipeline.settle()
        pipeline.stop()
        with redis.Redis.from_url(redis_server.url) as client:
            client.flushall()
            client.set(partitions_key("shop"), 4)
            for number, command in enumerate(commands[300:], 1):  # as with a clock set back
                stream, payload = producer._wire.encode(command)[1]
                client.xadd(stream, {"command": payload}, id=f"5-{number}")
    pipeline.start()
    pipeline.settle()
    check(settings, commands)


@pytest.mark.usefixtures("handled")
def test_verify_says_in_one_line_that_all_is_well_and_finds_a_row_that_the_log_does_not_say(
    settings: Settings,
) -> None:
    verified = foldlog(settings, "verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert verified.stdout.startswith("all is well: ")
    assert verified.stdout.endswith(" read models equal the log\n")
    with duckdb.connect(str(settings.published)) as db:
        db.execute("UPDATE live.carts SET units = units + 1 WHERE cart_id = 'cart-1'")
    verified = foldlog(settings, "verify")
    assert verified.returncode == 1
    assert "read model carts: 2 rows differ from the log" in verified.stdout


@pytest.mark.parametrize("damage", ["flipped", "truncated", "missing"])
@pytest.mark.usefixtures("handled")
def test_damage_is_found_named_and_not_built_upon(
    settings: Settings, up: Callable[..., Up], damage: str
) -> None:
    log = Log.open(settings.events, domain="shop")
    _, file, after = log.files(2)[-3:]
    content = bytearray(file.path.read_bytes())
    if damage == "flipped":
        names = pq.ParquetFile(file.path).schema_arrow.names
        column = pq.ParquetFile(file.path).metadata.row_group(0).column(names.index("stream_id"))
        content[column.data_page_offset + column.total_compressed_size - 3] ^= 1
        file.path.write_bytes(content)
    elif damage == "truncated":
        file.path.write_bytes(content[: len(content) // 2])
    else:
        file.path.unlink()

    verified = foldlog(settings, "verify")
    assert verified.returncode == 1
    assert f"partition 2: positions {file.first} to {after.first - 1}" in verified.stdout
    assert (after if damage == "missing" else file).path.name in verified.stdout

    shutil.rmtree(settings.data / "snapshots")  # with them, a start reads only the log's tail
    pipeline = up(settings)
    assert pipeline.process.wait(timeout=DEADLINE_S) == 1
    errors = pipeline.errors()
    assert "Traceback" not in errors
    assert file.path.name in errors or f"positions {file.first} to" in errors
    assert log.files(2)[-1] == after


def test_rejected_commands_can_be_tried_again_once(
    settings: Settings, up: Callable[..., Up]
) -> None:
    pipeline = up(settings)
    with pipeline.ready() as producer:
        too_early = {"type": "CheckOut", "command_id": "early", "cart_id": "7"}
        producer.send_many([too_early, {**too_early, "command_id": "other", "cart_id": "8"}])
        add = {"type": "AddProduct", "cart_id": "7", "product_id": "m", "quantity": 1}
        producer.execute({**add, "unit_price_cents": 5})
    pipeline.settle()
    words = ["resubmit", "--where", "reason = 'the cart is empty'"]
    dry = foldlog(settings, *words)
    assert "2 commands would be sent; add --yes" in dry.stdout
    for _ in range(2):
        assert foldlog(settings, *words, "--yes").returncode == 0
        pipeline.settle()
    shown = foldlog(settings, "query", "FROM carts", "--format", "csv").stdout
    assert "7,checked out,1,5" in shown
    sql = "SELECT causation_id, event_type FROM live.log WHERE causation_id IS NOT NULL ORDER BY 1"
    answers = foldlog(settings, "query", sql, "--format", "csv").stdout.split()
    assert answers.count("early,CheckedOut") == 1
    assert answers.count("other,CommandRejected") == 1


def test_a_wrong_condition_is_one_line(settings: Settings, up: Callable[..., Up]) -> None:
    up(settings).settle()
    for where in ("no such thing", "1; DROP TABLE x"):
        failed = foldlog(settings, "resubmit", "--where", where)
        assert failed.returncode == 1
        assert failed.stderr.count("\n") == 1
