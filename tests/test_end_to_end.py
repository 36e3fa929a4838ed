"""Real processes and a real redis-server: killed, stopped, started again."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from ingest.errors import FoldlogError
from ingest.server import EmbeddedServer, find_server
from ingest.streams import command_stream
from pipeline.log import Log
from pipeline.settings import Settings
from pipeline.status import status
from tests import oracle
from tests.running import Up, foldlog, read, wait_for
from tests.shopping import check, shopping


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_half_way_and_started_again_it_loses_nothing_and_doubles_nothing(
    settings: Settings, up: Callable[..., Up], workers: int
) -> None:
    settings = settings.model_copy(update={"workers": workers, "batch_max": 200})
    commands = shopping(12_000)
    pipeline = up(settings)
    producer = pipeline.ready()
    producer.send_many(commands[:9_000])
    wait_for(lambda: any(settings.events.glob("*/*.parquet")), "the first commit")
    pipeline.kill()
    half_way = sum(p.position for p in status(settings).partitions)
    assert half_way < len(oracle.expect(commands[:9_000]).outcomes), "it was killed too late"

    producer.send_many(commands[9_000:])
    pipeline.start()
    pipeline.settle()
    assert pipeline.stop() == 0, pipeline.errors()
    check(settings, commands)
    producer.close()


def test_a_worker_that_is_killed_takes_its_group_along_and_all_start_again(
    settings: Settings, up: Callable[..., Up]
) -> None:
    settings = settings.model_copy(update={"workers": 2, "batch_max": 100})
    commands = shopping(6_000)
    pipeline = up(settings)
    producer = pipeline.ready()
    wait_for(lambda: len(pipeline.workers()) == 2, "two workers")
    producer.send_many(commands[:3_000])
    wait_for(lambda: any(settings.events.glob("*/*.parquet")), "the first commit")
    before = {p.pid for p in pipeline.workers()}
    pipeline.workers()[1].kill()
    wait_for(lambda: not before & {p.pid for p in pipeline.workers()}, "the group to end", 5)
    wait_for(lambda: len(pipeline.workers()) == 2, "the group to start again")
    producer.send_many(commands[3_000:])
    pipeline.settle()
    assert pipeline.stop() == 0
    check(settings, commands)
    producer.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_signal_finishes_the_batch_in_hand_publishes_and_exits_0(
    settings: Settings, up: Callable[..., Up], number: int, workers: int
) -> None:
    settings = settings.model_copy(update={"workers": workers})
    pipeline = up(settings)
    producer = pipeline.ready()
    pipeline.settle()
    producer.send_many(shopping(5_000))
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
        left = [client.xlen(command_stream("cart", p)) for p in range(4)]
    assert left == [0, 0, 0, 0]
    producer.close()


def test_redis_may_go_away_and_come_back_without_loss(
    settings: Settings, redis_server: EmbeddedServer, up: Callable[..., Up]
) -> None:
    commands = shopping(4_000)
    pipeline = up(settings)
    producer = pipeline.ready()
    producer.send_many(commands[:2_000])
    wait_for(lambda: any(settings.events.glob("*/*.parquet")), "the first commit")
    workers = pipeline.workers()
    redis_server.stop()
    time.sleep(3)
    assert status(settings).lag is None
    redis_server.keep_running()
    producer.send_many(commands[2_000:])
    pipeline.settle()
    check(settings, commands)
    assert pipeline.workers() == workers, "the same processes have lived through it"
    assert pipeline.stop() == 0
    said = pipeline.errors()
    assert "Redis is away" in said
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
    assert not any(p.is_running() for p in family)
    check(settings, commands)
    producer.close()


def test_nothing_is_left_running_when_the_pipeline_itself_is_killed(
    tmp_path: Path, up: Callable[..., Up]
) -> None:
    pipeline = up(Settings(data=tmp_path / "data"))
    pipeline.ready().close()
    family = pipeline.family()
    pipeline.process.kill()
    wait_for(lambda: not any(p.is_running() for p in family), "all of it to end")


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
    commands = shopping(2_000)
    pipeline = up(settings)
    producer = pipeline.ready()
    producer.send_many(commands)
    pipeline.settle()
    pipeline.stop()
    for path in [*settings.data.glob("*.duckdb*"), settings.data / "lock"]:
        path.unlink()
    assert Log.open(settings.events, domain="cart").partitions == 4
    pipeline.start()
    pipeline.settle()
    check(settings, commands)
    producer.close()
