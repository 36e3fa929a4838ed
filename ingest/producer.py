"""Send commands and learn what became of them: `Producer`, and `AsyncProducer` for asyncio.

A command is a domain's command model, or a mapping with the same fields. Without a `command_id` it
is given a random one. Everything here may be sent twice: a command id that already has an outcome
changes nothing, so a lost connection is answered by sending again.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Any, TypeAlias, TypeVar

import redis
import redis.asyncio
from redis.exceptions import NoPermissionError

from ingest.cart import cart
from ingest.client import explained, open_async_client, open_client
from ingest.domain import Domain
from ingest.errors import NotAvailable
from ingest.keys import partitions_key
from ingest.outage import LOST, RETRY_FIRST_S, RETRY_MAX_S
from ingest.outcome import Outcome
from ingest.replies import Asked, CommandLike, Replies, Sent, Wire, accepted, out_of_time

T = TypeVar("T")

PIPELINE_COMMANDS = 1000
"""Commands that `send_many` puts into one round trip."""

CONNECTIONS_MAX = 16
"""Of an `AsyncProducer`: one reads all replies, the others send."""

TRIM_AFTER = 1000
"""Replies that an `AsyncProducer` reads before it lets go of them in Redis."""

_Answers: TypeAlias = "asyncio.Queue[Outcome | Exception]"


def _pauses(seconds: float) -> Iterator[float | None]:
    """Doubling pauses between attempts, until `seconds` are over; None is after the last one."""
    deadline = time.monotonic() + seconds
    pause = RETRY_FIRST_S
    while time.monotonic() + pause < deadline:
        yield pause
        pause = min(RETRY_MAX_S, pause * 2)
    yield None


def _partitions(found: Any, domain: Domain) -> int:
    if found is None:
        raise NotAvailable(
            f"this Redis knows no pipeline for the domain {domain.name!r}; start `foldlog up` first"
        )
    return int(found)


def _put(pipe: Any, sent: Iterable[Sent]) -> Any:
    for stream, payload in sent:
        pipe.xadd(stream, {"command": payload})
    return pipe


class Producer:
    """Sends a domain's commands. Use it as a context manager, or `close` it.

    Every method raises `RedisUnreachable` when Redis stays away for longer than `retry_s` seconds
    or refuses the write (out of memory, say). What was sent by then stays sent; sending it all
    again is safe. A command that cannot be sent is a `CommandInvalid` before it, or what goes with
    it in one round trip, is.
    """

    def __init__(self, url: str, domain: Domain = cart, *, retry_s: float = 30.0) -> None:
        self._url = url
        self._retry_s = retry_s
        self._client = open_client(url)
        found = self._retry(lambda: self._client.get(partitions_key(domain.name)))
        self._wire = Wire(domain, _partitions(found, domain))

    def send(self, command: CommandLike) -> str:
        """Send one command; returns its command id when Redis has it."""
        command_id, sent = self._wire.encode(command)
        self._add([sent])
        return command_id

    def send_many(self, commands: Iterable[CommandLike]) -> int:
        """Send commands in order, many to a round trip; returns how many."""
        count = 0
        encoded = (self._wire.encode(command)[1] for command in commands)
        while chunk := list(itertools.islice(encoded, PIPELINE_COMMANDS)):
            self._add(chunk)
            count += len(chunk)
        return count

    def execute(self, command: CommandLike, timeout: float = 10.0) -> Outcome:
        """Send one command and wait for its outcome.

        Raises `Rejected` with the reason, or `OutcomeTimeout` after `timeout` seconds.
        """
        return accepted(next(self.execute_many([command], timeout)))

    def execute_many(
        self, commands: Iterable[CommandLike], timeout: float = 10.0
    ) -> Iterator[Outcome]:
        """Send commands and yield each one's outcome as it comes, accepted or not."""
        replies: Replies[None] = Replies(self._wire)
        encoded = [self._wire.encode(command, replies.key) for command in commands]
        asked = [replies.ask(command_id, sent, None) for command_id, sent in encoded]
        deadline = time.monotonic() + timeout
        try:
            self._add(sent for _, sent in encoded)
            replies.written(asked)
            while len(replies):
                left = deadline - time.monotonic()
                if left <= 0:
                    raise out_of_time(len(replies), timeout)
                block_ms = max(1, int(1000 * min(left, replies.wait_s())))
                try:
                    with explained(self._url, but=LOST):
                        response = self._client.xread({replies.key: replies.seen}, block=block_ms)
                except LOST:
                    time.sleep(RETRY_FIRST_S)
                    continue
                for _, outcome in replies.arrived(response):
                    yield outcome
                if again := replies.due_again():
                    self._add(command.sent for command in again)
                    replies.written(again)
        finally:
            with suppress(redis.RedisError):  # it expires by itself
                self._client.delete(replies.key)

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Producer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def _add(self, sent: Iterable[Sent]) -> None:
        if chunk := list(sent):
            self._retry(lambda: _put(self._client.pipeline(transaction=False), chunk).execute())

    def _retry(self, attempt: Callable[[], T]) -> T:
        for pause in _pauses(self._retry_s):
            try:
                with explained(self._url, but=LOST if pause else ()):
                    return attempt()
            except LOST:
                time.sleep(pause or 0)
        raise AssertionError("the last attempt returns or raises")


class AsyncProducer:
    """`Producer` for asyncio: the same methods. Make it with `await AsyncProducer.connect(url)`.

    However many wait for outcomes, one task reads them all, over one connection, while anybody
    waits.
    """

    def __init__(self, client: redis.asyncio.Redis, url: str, retry_s: float) -> None:
        self._client = client
        self._url = url
        self._retry_s = retry_s
        self._wire: Wire
        self._replies: Replies[_Answers]
        self._reading: asyncio.Task[None] | None = None
        self._read = 0

    @classmethod
    async def connect(
        cls, url: str, domain: Domain = cart, *, retry_s: float = 30.0
    ) -> AsyncProducer:
        producer = cls(open_async_client(url, CONNECTIONS_MAX), url, retry_s)
        try:
            key = partitions_key(domain.name)
            found = await producer._retry(lambda: producer._client.get(key))
            producer._wire = Wire(domain, _partitions(found, domain))
            producer._replies = Replies(producer._wire)
        except BaseException:
            await producer._client.aclose()
            raise
        return producer

    async def send(self, command: CommandLike) -> str:
        """Send one command; returns its command id when Redis has it."""
        command_id, sent = self._wire.encode(command)
        await self._add([sent])
        return command_id

    async def send_many(self, commands: Iterable[CommandLike]) -> int:
        """Send commands in order, many to a round trip; returns how many."""
        count = 0
        encoded = (self._wire.encode(command)[1] for command in commands)
        while chunk := list(itertools.islice(encoded, PIPELINE_COMMANDS)):
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
        """Send commands and yield each one's outcome as it comes, accepted or not."""
        answers: _Answers = asyncio.Queue()
        encoded = [self._wire.encode(command, self._replies.key) for command in commands]
        asked = [self._replies.ask(command_id, sent, answers) for command_id, sent in encoded]
        ends = asyncio.get_running_loop().time() + timeout
        try:
            await self._add(sent for _, sent in encoded)
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

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
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
            await _put(self._client.pipeline(transaction=False), (c.sent for c in again)).execute()
            replies.written(again)
            again.clear()
        block_ms = max(1, int(1000 * replies.wait_s()))
        response = await self._client.xread({replies.key: replies.seen}, block=block_ms)
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

    async def _add(self, sent: Iterable[Sent]) -> None:
        if chunk := list(sent):
            await self._retry(
                lambda: _put(self._client.pipeline(transaction=False), chunk).execute()
            )

    async def _retry(self, attempt: Callable[[], Awaitable[T]]) -> T:
        for pause in _pauses(self._retry_s):
            try:
                with explained(self._url, but=LOST if pause else ()):
                    return await attempt()
            except LOST:
                await asyncio.sleep(pause or 0)
        raise AssertionError("the last attempt returns or raises")
