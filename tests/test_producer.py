"""Producers: what they send arrives once, and they learn what became of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from ingest.cart import AddProduct, CheckOut
from ingest.errors import (
    CommandTooLarge,
    FoldlogError,
    NotAvailable,
    OutcomeTimeout,
    RedisUnreachable,
    Rejected,
)
from ingest.producer import AsyncProducer, Producer
from ingest.server import EmbeddedServer
from pipeline.settings import Settings
from tests.redis_cli import answer
from tests.running import Up, read


@pytest.fixture
def pipeline(settings: Settings, up: Callable[..., Up]) -> Up:
    return up(settings)


@pytest.fixture
def producer(pipeline: Up) -> Iterator[Producer]:
    with pipeline.ready() as found:
        yield found


def add(cart_id: str, command_id: str = "1", **more: object) -> AddProduct:
    fields = {"product_id": "milk", "quantity": 1, "unit_price_cents": 89, **more}
    return AddProduct(command_id=command_id, cart_id=cart_id, **fields)  # type: ignore[arg-type]


def test_execute_gives_the_outcome_with_its_place_in_the_log(producer: Producer) -> None:
    first = producer.execute(add("7", "1"))
    second = producer.execute(add("7", "2", expected_version=1))
    assert (first.outcome, first.position, first.duplicate) == ("accepted", 0, False)
    assert (second.partition, second.position) == (first.partition, 1)


def test_execute_raises_the_reason_of_a_rejection(producer: Producer) -> None:
    with pytest.raises(Rejected, match=r"^the cart is empty$"):
        producer.execute(CheckOut(command_id="0", cart_id="7"))
    with pytest.raises(Rejected, match="quantity: Input should be greater than 0"):
        producer.execute({**add("7").model_dump(exclude_none=True), "quantity": 0})


def test_the_same_command_again_changes_nothing_and_tells_where_it_was(
    producer: Producer, pipeline: Up
) -> None:
    first = producer.execute(add("7"))
    again = producer.execute(add("7", quantity=5))
    assert again.duplicate
    assert again.position == first.position
    pipeline.settle()
    assert read(pipeline.settings.published, "cart_items")["cart_items"][0][2] == 1


def test_outcomes_of_many_commands_come_as_they_are_decided(producer: Producer) -> None:
    commands = [add(f"cart-{i % 5}", f"c{i}") for i in range(300)]
    outcomes = {o.command_id: o.outcome for o in producer.execute_many(commands, timeout=30)}
    assert outcomes == {f"c{i}": "accepted" for i in range(300)}


def test_the_asyncio_producer_has_the_same_methods(pipeline: Up, producer: Producer) -> None:
    async def run() -> None:
        async with await AsyncProducer.connect(pipeline.settings.reachable_redis) as asynchronous:
            await asynchronous.send(add("a", "1"))
            assert await asynchronous.send_many(add("a", f"2-{i}") for i in range(50)) == 50
            several = await asyncio.gather(
                *(asynchronous.execute(add(f"b{i}", f"3-{i}")) for i in range(20))
            )
            assert [outcome.outcome for outcome in several] == ["accepted"] * 20
            with pytest.raises(Rejected, match="the cart is empty"):
                await asynchronous.execute(CheckOut(command_id="4", cart_id="c"))

    asyncio.run(run())
    pipeline.settle()
    carts = {row[0]: row[2] for row in read(pipeline.settings.published, "carts")["carts"]}
    assert carts["a"] == 51
    assert len(carts) == 21


def test_execute_outlives_an_outage_of_redis(
    pipeline: Up, producer: Producer, redis_server: EmbeddedServer
) -> None:
    producer.execute(add("7", "0"))
    redis_server.stop()
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(producer.execute, add("7", "1"), timeout=30)
        time.sleep(1)
        redis_server.keep_running()
        assert waiting.result().outcome == "accepted"
    pipeline.settle()
    assert read(pipeline.settings.published, "cart_items")["cart_items"][0][2] == 2


def test_without_a_pipeline_the_outcome_times_out_and_the_command_is_handled_later(
    pipeline: Up, producer: Producer
) -> None:
    pipeline.stop()
    with pytest.raises(OutcomeTimeout, match=r"no outcome for 1 command\(s\) within 0.5 s"):
        producer.execute(add("7", "later"), timeout=0.5)
    pipeline.start()
    assert producer.execute(add("7", "later"), timeout=30).outcome == "accepted"
    pipeline.settle()
    assert read(pipeline.settings.published, "cart_items")["cart_items"][0][2] == 1


def test_a_redis_that_stays_away_is_named(pipeline: Up, redis_server: EmbeddedServer) -> None:
    with pipeline.ready() as patient:
        patient._retry_s = 0.3
        redis_server.stop()
        started = time.monotonic()
        with pytest.raises(RedisUnreachable, match=redis_server.url):
            patient.send(add("7"))
        assert time.monotonic() - started < 20


def test_a_redis_without_memory_is_a_clear_error(
    producer: Producer, redis_server: EmbeddedServer, settings: Settings
) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.config_set("maxmemory", "1")
        with pytest.raises(RedisUnreachable, match=r"refused the command: .*maxmemory"):
            producer.send(add("7"))
        client.config_set("maxmemory", "0")
    assert producer.execute(add("7")).outcome == "accepted"


def test_a_redis_that_no_pipeline_has_announced_itself_on_is_named(
    redis_server: EmbeddedServer,
) -> None:
    with pytest.raises(NotAvailable, match="start `foldlog up` first"):
        Producer(redis_server.url, retry_s=0.1)


def test_what_cannot_be_sent_is_refused_before_it_is(producer: Producer) -> None:
    with pytest.raises(CommandTooLarge, match="the limit is 65536"):
        producer.send({"type": "AddProduct", "cart_id": "7", "product_id": "x" * 70_000})
    with pytest.raises(FoldlogError, match="cart_id, a string"):
        producer.send({"type": "CheckOut", "cart_id": 7})


def test_any_redis_client_can_send(pipeline: Up, producer: Producer) -> None:
    socket = pipeline.settings.reachable_redis.removeprefix("unix://")
    outcome = producer.execute(add("7"))
    stream = f"{{cart-{outcome.partition}}}:commands"
    command = '{"type": "CheckOut", "command_id": "by-hand", "cart_id": "7"}'
    assert b"-" in answer(socket, "XADD", stream, "*", "command", command)
    pipeline.settle()
    assert read(pipeline.settings.published, "carts")["carts"][0][1] == "checked out"
