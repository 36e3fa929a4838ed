"""Producers: what they send arrives once, and they learn what became of it."""

from __future__ import annotations

import asyncio
import gc
import json
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
import redis

from ingest.async_producer import CONNECTIONS_MAX, AsyncProducer
from ingest.errors import (
    CommandInvalid,
    CommandTooLarge,
    FoldlogError,
    NotAvailable,
    OutcomeTimeout,
    RedisUnreachable,
    Rejected,
)
from ingest.keys import command_stream, partitions_key
from ingest.producer import Producer
from ingest.server import EmbeddedServer
from ingest.shop import shop
from ingest.shop.cart import AddProduct, CheckOut
from ingest.wire import Wire
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


def test_a_command_that_was_made_without_an_id_is_sent_with_a_random_one() -> None:
    wire = Wire(shop, 4)
    for command in (CheckOut(cart_id="7"), {"type": "CheckOut", "cart_id": "7"}):
        ids = set()
        for _ in range(2):
            command_id, (_, payload) = wire.encode(command)
            assert json.loads(payload)["command_id"] == command_id
            ids.add(UUID(command_id))
        assert len(ids) == 2


@pytest.mark.parametrize("command_id", [7, "", None, "x" * 101, True])
def test_a_command_id_that_no_outcome_could_come_back_to_is_refused_before_anything_is_sent(
    redis_server: EmbeddedServer, command_id: object
) -> None:
    good = add("7").model_dump(exclude_none=True)
    bad = {**good, "command_id": command_id}
    with redis.Redis.from_url(redis_server.url) as client:
        client.set(partitions_key("shop"), 1)
        with Producer(redis_server.url) as producer:
            for refused in (
                lambda: producer.send(bad),
                lambda: producer.send_many([good, bad]),
                lambda: [*producer.execute_many([good, bad])],
                lambda: producer.execute(bad),
            ):
                with pytest.raises(CommandInvalid, match="a string of 1 to 100 characters"):
                    refused()
        assert client.keys() == [partitions_key("shop").encode()]


def unreadable_for_one(url: str) -> None:
    """A pipeline's answer to one command, of which it could not make out the id."""
    stream = command_stream("shop", 0)
    with redis.Redis.from_url(url) as client:
        ((_, ((_, fields),)),) = client.xread({stream: "0"}, block=30_000)
        found = json.loads(fields[b"command"])
        outcome = {"outcome": "unreadable", "command_id": None, "partition": 0, "position": 3}
        client.xadd(found["reply_to"], {"outcome": json.dumps({**outcome, "reason": "why not"})})
        client.delete(stream)


def test_an_outcome_without_a_command_id_ends_the_wait(redis_server: EmbeddedServer) -> None:
    url = redis_server.url
    with redis.Redis.from_url(url) as client:
        client.set(partitions_key("shop"), 1)

    async def execute() -> None:
        async with await AsyncProducer.connect(url) as producer:
            await producer.execute(add("7"), timeout=60)

    with ThreadPoolExecutor() as pool:
        answered = pool.submit(unreadable_for_one, url)
        with Producer(url) as producer, pytest.raises(Rejected, match="why not"):
            producer.execute(add("7"), timeout=60)
        answered.result()
        answered = pool.submit(unreadable_for_one, url)
        with pytest.raises(Rejected, match="why not"):
            asyncio.run(execute())
        answered.result()


def test_hundreds_wait_over_a_few_connections_and_nothing_is_left_of_them(
    pipeline: Up, producer: Producer
) -> None:
    url = pipeline.settings.reachable_redis

    async def run() -> int:
        with redis.Redis.from_url(url) as client:
            asynchronous = await AsyncProducer.connect(f"{url}?client_name=asynchronous")
            waiting = asyncio.gather(
                *(asynchronous.execute(add(f"c{i}", f"{i}"), timeout=60) for i in range(400))
            )
            most = 0
            while not waiting.done():
                names = [connected["name"] for connected in client.client_list()]
                most = max(most, names.count("asynchronous"))
                await asyncio.sleep(0.01)
            assert [o.command_id for o in await waiting] == [f"{i}" for i in range(400)]
            await asynchronous.close()
            assert client.keys("shop:replies:*") == []
            assert asyncio.all_tasks() == {asyncio.current_task()}
        return most

    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        most = asyncio.run(run())
        gc.collect()
    assert 1 < most <= CONNECTIONS_MAX


def test_one_command_executed_twice_at_once_has_an_outcome_for_both(
    pipeline: Up, producer: Producer
) -> None:
    async def run() -> None:
        async with await AsyncProducer.connect(pipeline.settings.reachable_redis) as asynchronous:
            one, other = await asyncio.gather(
                *(asynchronous.execute(add("7", "same"), timeout=30) for _ in range(2))
            )
            assert (one.command_id, one.position) == (other.command_id, other.position)

    asyncio.run(run())
    pipeline.settle()
    assert read(pipeline.settings.published, "cart_items")["cart_items"][0][2] == 1


def test_who_waits_when_the_producer_is_closed_is_told(redis_server: EmbeddedServer) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.set(partitions_key("shop"), 1)

        async def run() -> None:
            producer = await AsyncProducer.connect(redis_server.url)
            waiting = asyncio.create_task(producer.execute(add("7"), timeout=60))
            while not client.exists(command_stream("shop", 0)):
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            await producer.close()
            with pytest.raises(NotAvailable, match="was closed"):
                await waiting

        asyncio.run(run())


def test_a_producer_waits_for_a_redis_that_is_not_there_yet(redis_server: EmbeddedServer) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.set(partitions_key("shop"), 1)
    redis_server.stop()

    async def connect() -> None:
        await (await AsyncProducer.connect(redis_server.url)).close()

    with ThreadPoolExecutor() as pool:
        synchronous = pool.submit(lambda: Producer(redis_server.url).close())
        asynchronous = pool.submit(asyncio.run, connect())
        time.sleep(0.5)
        assert not synchronous.done()
        assert not asynchronous.done()
        redis_server.keep_running()
        synchronous.result()
        asynchronous.result()


def test_any_redis_client_can_send(pipeline: Up, producer: Producer) -> None:
    socket = pipeline.settings.reachable_redis.removeprefix("unix://")
    outcome = producer.execute(add("7"))
    stream = f"{{shop-{outcome.partition}}}:commands"
    command = '{"type": "CheckOut", "command_id": "by-hand", "cart_id": "7"}'
    assert b"-" in answer(socket, "XADD", stream, "*", "command", command)
    pipeline.settle()
    assert read(pipeline.settings.published, "carts")["carts"][0][1] == "checked out"
