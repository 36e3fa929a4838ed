"""`AsyncProducer`: the methods of `Producer`, to await."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing, suppress
from typing import Any, TypeAlias, TypeVar

import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.exceptions import NoPermissionError

from ingest.client import open_async_client
from ingest.diagnosis import explained
from ingest.domain import Domain
from ingest.errors import NotAvailable
from ingest.keys import partitions_key
from ingest.outage import LOST, PAUSES, RETRY_FIRST_S, giving_up
from ingest.outcome import Outcome
from ingest.replies import Asked, Replies
from ingest.shop import shop
from ingest.wire import CommandLike, Sent, Wire, accepted, out_of_time, put

T = TypeVar("T")

CONNECTIONS_MAX = 16
"""Of an `AsyncProducer`: one reads all replies, the others send."""

TRIM_AFTER = 1000
"""Replies that an `AsyncProducer` reads before it lets go of them in Redis."""

_Answers: TypeAlias = "asyncio.Queue[Outcome | Exception]"


class AsyncProducer:
    """`Producer` for asyncio: the same methods. Make it with `await AsyncProducer.connect(url)`.

    However many wait for outcomes, one task reads them all, over one connection, while anybody
    waits.
    """

    def __init__(self, client: redis.asyncio.Redis, url: str, wire: Wire, retry_s: float) -> None:
        """`connect` has what this needs."""
        self._client = client
        self._url = url
        self._wire = wire
        self._retry_s = retry_s
        self._replies: Replies[_Answers] = Replies(wire)
        self._reading: asyncio.Task[None] | None = None
        self._read = 0

    @classmethod
    async def connect(
        cls, url: str, domain: Domain = shop, *, retry_s: float = 30.0
    ) -> AsyncProducer:
        """A producer for a domain; raises and retries as `Producer` does."""
        client = open_async_client(url, CONNECTIONS_MAX)
        try:
            found: Any = await _retry(url, retry_s, lambda: client.get(partitions_key(domain.name)))
            return cls(client, url, Wire(domain, found), retry_s)
        except BaseException:
            await client.aclose()
            raise

    async def send(self, command: CommandLike) -> str:
        """Send one command; returns its command id when Redis has it."""
        command_id, sent = self._wire.encode(command)
        await self._add([sent])
        return command_id

    async def send_many(self, commands: Iterable[CommandLike]) -> int:
        """Send commands in order, many to a round trip; returns how many."""
        count = 0
        for chunk in self._wire.chunks(commands):
            await self._add(chunk)
            count += len(chunk)
        return count

    async def execute(self, command: CommandLike, timeout: float = 10.0) -> Outcome:
        """Send one command and wait for its outcome.

        Raises `Rejected` with the reason, or `OutcomeTimeout` after `timeout` seconds.
        """
        async with aclosing(self.execute_many([command], timeout)) as outcomes:
            return accepted(await anext(outcomes))

    async def execute_many(
        self, commands: Iterable[CommandLike], timeout: float = 10.0
    ) -> AsyncGenerator[Outcome, None]:
        """Send commands and yield each one's outcome as it comes, accepted or not.

        Raises `OutcomeTimeout` where some are missing after `timeout` seconds.
        """
        answers: _Answers = asyncio.Queue()
        asked, sent = self._replies.ask_all(commands, answers)
        ends = asyncio.get_running_loop().time() + timeout
        try:
            await self._add(sent)
            self._replies.written(asked)
            self._keep_reading()
            for left in range(len(asked), 0, -1):
                try:
                    async with asyncio.timeout_at(ends):
                        answer = await answers.get()
                except TimeoutError:
                    raise out_of_time(left, timeout) from None
                if isinstance(answer, Exception):
                    raise answer
                yield answer
        finally:
            self._replies.forget(asked, answers)

    async def close(self) -> None:
        """Leave nothing behind. Who still waits for an outcome is told."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])
            self._tell(NotAvailable("the producer was closed before the outcome came"))
            with suppress(redis.RedisError):  # it expires by itself
                await self._client.delete(self._replies.key)
        await self._client.aclose()

    async def __aenter__(self) -> AsyncProducer:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _keep_reading(self) -> None:
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read_replies())

    async def _read_replies(self) -> None:
        """Hand out outcomes while anybody waits for one; whatever goes wrong, they are told."""
        try:
            again: list[Asked[_Answers]] = []
            while len(self._replies):
                try:
                    with explained(self._url, but=LOST):
                        await self._read_once(again)
                except LOST:
                    await asyncio.sleep(RETRY_FIRST_S)
        except Exception as error:
            self._tell(error)

    async def _read_once(self, again: list[Asked[_Answers]]) -> None:
        replies = self._replies
        again += replies.due_again()
        if again:
            await put(self._client.pipeline(transaction=False), (c.sent for c in again)).execute()
            replies.written(again)
            again.clear()
        response = await self._client.xread({replies.key: replies.seen}, block=replies.block_ms())
        for answers, outcome in replies.arrived(response):
            answers.put_nowait(outcome)
            self._read += 1
        if self._read >= TRIM_AFTER:
            self._read = 0
            with suppress(NoPermissionError):  # then they go when it is closed
                await self._client.xtrim(replies.key, minid=replies.seen)

    def _tell(self, error: Exception) -> None:
        for answers in self._replies.tickets():
            answers.put_nowait(error)

    async def _add(self, sent: list[Sent]) -> None:
        if sent:
            await _retry(
                self._url, self._retry_s,
                lambda: put(self._client.pipeline(transaction=False), sent).execute(),
            )  # fmt: skip


async def _retry(url: str, retry_s: float, attempt: Callable[[], Awaitable[T]]) -> T:
    give_up = giving_up(retry_s)

    async def failed(error: Exception) -> None:
        give_up(error)

    with explained(url):
        return await Retry(PAUSES, -1, LOST).call_with_retry(attempt, failed)
