"""Real processes and a real redis-server: killed, stopped, started again."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import redis

from ingest.errors import FoldlogError
from ingest.keys import command_stream, partitions_key
from ingest.producer import Producer
from ingest.server import EmbeddedServer, find_server
from pipeline.engine.programs import running
from pipeline.health.status import status
from pipeline.log.log import Log
from pipeline.settings import Settings
from tests import oracle
from tests.processes import Program
from tests.running import DEADLINE_S, Up, foldlog, lives, read, wait_for
from tests.shopping import check, shopping


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_half_way_and_started_again_it_loses_nothing_and_doubles_nothing(
    settings: Settings, up: Callable[..., Up], workers: int
) -> None:
    settings = settings.model_copy(update={"workers": workers, "batch_max": 50})
    commands = shopping(6_000)
    pipeline = up(settings, cold=True)
    producer = pipeline.ready()
    producer.send_many(commands[:3_000])
    wait_for(lambda: any(settings.events.glob("*/*.parquet")), "the first commit")
    for worker in pipeline.workers():
        worker.suspend()  # wherever it is, or it might have done all before it is killed
    producer.send_many(commands[3_000:4_500])
    pipeline.kill()
    half_way = sum(p.position for p in status(settings).partitions)
    assert half_way < len(oracle.expect(commands[:4_500]).outcomes)

    producer.send_many(commands[4_500:])
    pipeline.start()
    pipeline.settle()
    assert pipeline.stop() == 0, pipeline.errors()
    check(settings, commands)
    producer.close()


def test_a_process_that_is_killed_is_started_again_alone(
    settings: Settings, up: Callable[..., Up]
) -> None:
    settings = settings.model_copy(update={"workers": 2, "batch_max": 100})
    commands = shopping(2_000)
    pipeline = up(settings, cold=True)
    producer = pipeline.ready()
    wait_for(lambda: len(pipeline.workers()) == 2, "two workers")
    producer.send_many(commands[:1_000])
    wait_for(lambda: any(settings.events.glob("*/*.parquet")), "the first commit")
    first, second = pipeline.workers()
    (reader,) = pipeline.readers()
    second.kill()
    wait_for(lambda: len(pipeline.workers()) == 2 and second not in pipeline.workers(), "a worker")
    assert first in pipeline.workers()
    assert pipeline.readers() == [reader]
    reader.kill()
    wait_for(lambda: len(pipeline.readers()) == 1 and not reader.is_running(), "a reader")
    assert first in pipeline.workers()
    producer.send_many(commands[1_000:])
    pipeline.settle()
    assert pipeline.stop() == 0
    check(settings, commands)
    said = pipeline.errors()
    assert "read has ended (exit code -9); it is started again" in said
    assert all("T" in line.split()[0] for line in said.splitlines()), "one line a happening"
    producer.close()


def test_while_the_read_side_stands_still_outcomes_come_and_then_it_catches_up(
    settings: Settings, up: Callable[..., Up]
) -> None:
    pipeline = up(settings.model_copy(update={"flush_rows_max": 1_000}))
    commands = shopping(4_000)
    with pipeline.ready() as producer:
        (reader,) = pipeline.readers()
        reader.suspend()
        producer.send_many(commands[:2_500])
        assert len([*producer.execute_many(commands[2_500:2_600], timeout=60)]) >= 90
        assert status(settings).unpublished > 1_000
        assert "behind" in foldlog(settings, "status").stdout
        reader.kill()  # it comes back far behind, and has to read files
        producer.send_many(commands[2_600:])
    pipeline.settle()
    check(settings, commands)


def test_the_write_side_waits_for_readers_where_a_setting_says_so(
    settings: Settings, up: Callable[..., Up]
) -> None:
    pipeline = up(settings.model_copy(update={"behind_rows_max": 500, "batch_max": 50}))
    commands = shopping(2_500)
    with pipeline.ready() as producer:
        pipeline.settle()
        (reader,) = pipeline.readers()
        reader.suspend()
        producer.send_many(commands[:1_500])
        wait_for(lambda: "waiting for the read side" in pipeline.errors(), "the worker to wait")
        assert status(settings).unpublished > 500
        producer.send_many(commands[1_500:])
        time.sleep(1)
        assert status(settings).lag, "the rest waits in Redis"
        reader.resume()
    pipeline.settle()
    check(settings, commands)


def test_two_workers_on_the_same_partitions_double_nothing(
    settings: Settings, up: Callable[..., Up], started: Callable[..., Program]
) -> None:
    commands = shopping(3_000)
    pipeline = up(settings.model_copy(update={"batch_max": 100}))
    with pipeline.ready() as producer:
        beside = started("work", settings)
        wait_for(lambda: len(running(settings)) == 3, "the other worker")
        for at in range(0, 3_000, 250):
            producer.send_many(commands[at : at + 250])
            time.sleep(0.1)
        pipeline.settle()
        beside.terminate()
        assert beside.wait(DEADLINE_S) == 0
    check(settings, commands)


def test_no_process_listens_on_any_port(tmp_path: Path, up: Callable[..., Up]) -> None:
    pipeline = up(Settings(data=tmp_path / "data", workers=2))
    pipeline.ready().close()
    pipeline.settle()
    wait_for(lambda: len(status(pipeline.settings).programs) == 3, "all programs")
    kinds = [c.status for p in pipeline.family() for c in p.net_connections("inet")]
    assert len(pipeline.family()) == 4
    assert psutil.CONN_LISTEN not in kinds


def test_a_share_is_worked_on_alone_and_a_wrong_one_is_one_line(
    settings: Settings, redis_server: EmbeddedServer
) -> None:
    log = Log.create(settings.events, partitions=4, domain="shop")
    with redis.Redis.from_url(redis_server.url) as client:
        client.set(partitions_key("shop"), 4)
    with Producer(redis_server.url) as producer:
        producer.send_many(shopping(500))
    words = ["pipeline.cli", "work", "--share", "1/2"]
    alone = Program(*words, environment=settings.as_environment())
    try:
        wait_for(lambda: all(log.next_position(p) > 50 for p in (1, 3)), "its partitions")
        assert [p.name for p in status(settings).programs] == ["work 1/2"]
    finally:
        alone.terminate()
        alone.wait()
    assert [log.next_position(p) for p in (0, 2)] == [0, 0]
    wrong = foldlog(settings, "work", "--share", "2/2")
    assert wrong.returncode == 1
    assert wrong.stderr.count("\n") == 1
    assert "'2/2' is no share" in wrong.stderr


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGTERM, 1), (signal.SIGINT, 2)])
def test_a_signal_finishes_the_batch_in_hand_publishes_and_exits_0(
    settings: Settings, up: Callable[..., Up], number: int, workers: int
) -> None:
    settings = settings.model_copy(update={"workers": workers})
    pipeline = up(settings)
    producer = pipeline.ready()
    pipeline.settle()
    producer.send_many(shopping(3_000))
    time.sleep(0.3)
    assert pipeline.stop(number) == 0, pipeline.errors()
    assert status(settings).unpublished == 0
    producer.close()


def test_committed_commands_leave_the_streams_and_the_rest_stays(
    settings: Settings, redis_server: EmbeddedServer, up: Callable[..., Up]
) -> None:
    pipeline = up(settings)
    producer = pipeline.ready()
    producer.send_many(shopping(500))
    pipeline.settle()
    with redis.Redis.from_url(redis_server.url) as client:
        wait_for(
            lambda: not any(client.xlen(command_stream("shop", p)) for p in range(4)),
            "the streams to be empty",
        )
    producer.close()


def test_redis_may_go_away_and_come_back_without_loss(
    settings: Settings, redis_server: EmbeddedServer, up: Callable[..., Up]
) -> None:
    commands = shopping(2_000)
    pipeline = up(settings)
    producer = pipeline.ready()
    producer.send_many(commands[:1_000])
    wait_for(lambda: any(settings.events.glob("*/*.parquet")), "the first commit")
    workers = pipeline.workers()
    redis_server.stop()
    wait_for(lambda: "Redis is away" in pipeline.errors(), "the outage to be noticed")
    assert status(settings).lag is None
    redis_server.keep_running()
    producer.send_many(commands[1_000:])
    pipeline.settle()
    check(settings, commands)
    assert pipeline.workers() == workers, "the same processes have lived through it"
    assert pipeline.stop() == 0
    said = pipeline.errors()
    assert "Redis is back" in said
    assert "Traceback" not in said
    producer.close()


def test_the_embedded_server_comes_and_goes_with_the_pipeline(
    tmp_path: Path, up: Callable[..., Up]
) -> None:
    settings = Settings(data=tmp_path / "data")
    pipeline = up(settings)
    producer = pipeline.ready()
    commands = shopping(300)
    producer.send_many(commands)
    pipeline.settle()
    family = pipeline.family()
    assert find_server().name in [p.name() for p in family]
    assert pipeline.stop() == 0
    assert not any(map(lives, family))
    check(settings, commands)
    producer.close()


def test_nothing_is_left_running_when_the_pipeline_itself_is_killed(
    tmp_path: Path, up: Callable[..., Up]
) -> None:
    pipeline = up(Settings(data=tmp_path / "data"))
    pipeline.ready().close()
    family = pipeline.family()
    pipeline.process.kill()
    wait_for(lambda: not any(map(lives, family)), "all of it to end")


def test_a_second_pipeline_on_the_same_data_is_one_line_and_exit_1(
    settings: Settings, up: Callable[..., Up]
) -> None:
    pipeline = up(settings)
    pipeline.ready().close()
    second = foldlog(settings, "up")
    assert second.returncode == 1
    assert second.stderr.count("\n") == 1
    assert "another pipeline runs on" in second.stderr


def test_redis_that_is_not_there_is_one_line_with_the_url_and_exit_1(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path / "data", redis_url="redis://127.0.0.1:1")
    failed = foldlog(settings, "up")
    assert failed.returncode == 1
    assert failed.stderr.count("\n") == 1
    assert "redis://127.0.0.1:1" in failed.stderr


def test_another_domain_runs_through_the_same_pipeline(
    settings: Settings, up: Callable[..., Up]
) -> None:
    settings = settings.model_copy(update={"domain": "tests.domains.bank:bank"})
    pipeline = up(settings)
    with pipeline.ready() as producer:
        producer.execute({"type": "Deposit", "account_id": "ann", "cents": 150_000})
        transfer = {"type": "Transfer", "account_id": "ann", "to_account": "bob"}
        with pytest.raises(FoldlogError, match="over the daily limit"):
            producer.execute({**transfer, "cents": 100_001})
        producer.execute({**transfer, "cents": 100_000})
        producer.execute({"type": "Touch", "account_id": "ann"})
    pipeline.settle()
    shown = read(settings.published, "accounts", "flows", "rejections")
    assert shown["accounts"][0][:2] == ("ann", 50_000)
    assert [(row[0], row[1], row[2]) for row in shown["flows"]] == [
        ("Deposited", 1, 150_000),
        ("Transferred", 1, 100_000),
    ]
    assert len(shown["rejections"]) == 1


def test_the_log_is_the_only_truth_all_else_may_be_deleted(
    settings: Settings, up: Callable[..., Up]
) -> None:
    commands = shopping(1_000)
    pipeline = up(settings)
    producer = pipeline.ready()
    producer.send_many(commands)
    pipeline.settle()
    pipeline.stop()
    for path in [*settings.data.glob("*.duckdb*"), settings.data / "lock"]:
        path.unlink()
    for folder in ("snapshots", "states", "programs"):
        shutil.rmtree(settings.data / folder)
    assert Log.open(settings.events, domain="shop").partitions == 4
    pipeline.start()
    pipeline.settle()
    check(settings, commands)
    producer.close()
