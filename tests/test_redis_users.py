"""The users in the docs have the rights that they need, and none to spare."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from ingest.acl import try_rights
from ingest.async_producer import AsyncProducer
from ingest.client import connect
from ingest.diagnosis import explained
from ingest.errors import RedisUnreachable
from ingest.keys import command_stream, partitions_key
from ingest.producer import Producer
from ingest.shop.cart import AddProduct
from pipeline.health.status import status
from pipeline.settings import Settings
from tests.running import DEADLINE_S, Up, foldlog, wait_for
from tests.servers import Server, server
from tests.shopping import shopping

PAGE = (Path(__file__).parent.parent / "docs" / "howto" / "redis-users.md").read_text()
PIPELINE, PRODUCER = (block.split() for block in re.findall(r"```acl\n(.*?)```", PAGE, re.DOTALL))


@pytest.fixture
def running() -> Iterator[Server]:
    with server() as found:
        yield found


def user(running: Server, line: list[str], *more: str) -> str:
    """Make the user of a line in the docs; the URL to log in."""
    with running.client() as client:
        client.execute_command(*line, *more)
    return running.url(f"{line[2]}:PASSWORD")


def test_a_pipeline_and_producers_need_no_more_rights_than_the_docs_give_them(
    tmp_path: Path, running: Server, up: Callable[..., Up]
) -> None:
    url = user(running, PIPELINE)
    settings = Settings(
        data=tmp_path / "data", redis_url=url, export_interval_s=0, events_stream_max=1000
    )
    sender = user(running, PRODUCER)
    commands = shopping(400)
    pipeline = up(settings)
    pipeline.ready().close()

    async def execute() -> None:
        async with await AsyncProducer.connect(sender) as producer:
            await producer.execute(an_add("a"))

    with Producer(sender) as producer:
        producer.send_many(commands[:300])
        producer.execute(an_add("b"))
        asyncio.run(execute())
        pipeline.settle()
        assert status(settings).redis_memory_bytes
        with running.client() as admin:
            admin.flushall()
            wait_for(lambda: admin.get(partitions_key("shop")) == b"4", "the number of partitions")
            # As with a Redis that lost everything, its clock set back.
            admin.flushall()
            admin.set(partitions_key("shop"), 4)
            for number, command in enumerate(commands[300:], 1):
                stream, payload = producer._wire.encode(command)[1]
                admin.xadd(stream, {"command": payload}, id=f"5-{number}")
            admin.xadd("{shop--2}:commands", {"command": "stray"})
            admin.execute_command("CLIENT", "KILL", "TYPE", "normal")
        wait_for(lambda: bool(status(settings).repairs), "the streams to be mended")
    moved = foldlog(settings, "resubmit", "--stray", "--yes")
    assert moved.stdout.endswith("moved 1 commands\n"), moved.stderr
    pipeline.settle()
    assert pipeline.stop() == 0
    said = pipeline.errors()
    assert "NOPERM" not in said
    assert "does not allow" not in said
    assert foldlog(settings, "verify").returncode == 0


def an_add(cart_id: str) -> AddProduct:
    return AddProduct(
        command_id=cart_id, cart_id=cart_id, product_id="milk", quantity=1, unit_price_cents=89
    )


NEEDED = ["xread", "xadd", "xrange", "xtrim", "xdel", "xlen", "xinfo|stream", "eval", "expire"]


@pytest.mark.parametrize("command", NEEDED)
def test_a_right_that_a_pipeline_lacks_is_named_at_the_start(running: Server, command: str) -> None:
    url = user(running, PIPELINE, f"-{command}")
    name = command.upper().replace("|", " ")
    expected = rf"to run {name}; .* \+{re.escape(command)} "
    with connect(url) as client, pytest.raises(RedisUnreachable, match=expected), explained(url):
        try_rights(client, "shop", 4)


def test_a_key_that_a_pipeline_may_not_use_is_told_at_the_start(running: Server) -> None:
    url = user(running, PIPELINE, "resetkeys", "~shop:*")
    expected = "does not allow this user to use a key"
    with connect(url) as client, pytest.raises(RedisUnreachable, match=expected), explained(url):
        try_rights(client, "shop", 4)


def test_trying_the_rights_leaves_nothing_behind(running: Server) -> None:
    with running.client() as admin:
        admin.xadd(command_stream("shop", 2), {"command": "waits"}, id="1-1")
        with connect(user(running, PIPELINE)) as client:
            try_rights(client, "shop", 4)
        assert admin.keys() == [command_stream("shop", 2).encode()]
        assert admin.xrange(command_stream("shop", 2)) == [(b"1-1", {b"command": b"waits"})]


@pytest.mark.parametrize("command", ["get", "xadd", "xread"])
def test_a_right_that_a_producer_lacks_is_named(running: Server, command: str) -> None:
    with running.client() as admin:
        admin.set(partitions_key("shop"), 4)
    url = user(running, PRODUCER, f"-{command}")
    expected = f"to run {command.upper()}; allow it with ACL SETUSER … \\+{command}"

    async def execute() -> None:
        async with await AsyncProducer.connect(url) as producer:
            await producer.execute(an_add("a"), timeout=5)

    with pytest.raises(RedisUnreachable, match=expected), Producer(url) as producer:
        producer.execute(an_add("a"), timeout=5)
    with pytest.raises(RedisUnreachable, match=expected):
        asyncio.run(execute())


def test_a_right_that_is_taken_away_is_named_and_when_it_is_given_back_all_goes_on(
    tmp_path: Path, running: Server, up: Callable[..., Up]
) -> None:
    url = user(running, PIPELINE)
    settings = Settings(data=tmp_path / "data", redis_url=url, export_interval_s=0)
    pipeline = up(settings)
    pipeline.ready().close()
    pipeline.settle()
    wait_for(lambda: len(status(settings).programs) == 2, "both programs")
    user(running, PIPELINE, "-xread")
    wait_for(settings.errors.exists, "a warning")
    wait_for(lambda: "to run XREAD" in settings.errors.read_text(), "the right to be named")
    wait_for(lambda: status(settings).missing == ["work"], "the worker to end")
    user(running, PIPELINE)
    with Producer(user(running, PRODUCER)) as producer:
        producer.execute(an_add("a"), timeout=DEADLINE_S)
    assert pipeline.stop() == 0


def test_a_producer_may_not_do_what_a_pipeline_does(running: Server) -> None:
    with redis.Redis.from_url(user(running, PRODUCER), protocol=2) as client:
        for refused in (
            lambda: client.set(partitions_key("shop"), 1),
            lambda: client.xtrim(command_stream("shop", 1), maxlen=0),
            lambda: client.xadd("another", {"a": "b"}),
            lambda: client.flushall(),
        ):
            with pytest.raises(redis.exceptions.NoPermissionError):
                refused()
