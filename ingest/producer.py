"""Send commands and learn what became of them: `Producer`, and `AsyncProducer` for asyncio.

A command is a domain's command model, or a mapping with the same fields. Without a `command_id` it
is given a random one. Everything here may be sent twice: a command id that already has an outcome
changes nothing, so a lost connection is answered by sending again.
"""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, TypeAlias, TypeVar

import redis
import redis.asyncio
from pydantic_core import PydanticSerializationError, to_json

from ingest.cart import cart
from ingest.client import explained, open_client
from ingest.command import Command, partition_of
from ingest.domain import Domain
from ingest.errors import (
    CommandTooLarge,
    FoldlogError,
    NotAvailable,
    OutcomeTimeout,
    Rejected,
    one_line,
)
from ingest.outcome import Outcome
from ingest.streams import (
    LOST,
    RETRY_FIRST_S,
    RETRY_MAX_S,
    command_stream,
    partitions_key,
    reply_prefix,
)

CommandLike: TypeAlias = Command | Mapping[str, Any]
T = TypeVar("T")

PIPELINE_COMMANDS = 1000
"""Commands that `send_many` puts into one round trip."""

COMMAND_BYTES_MAX = 65_536
"""As the pipeline's default setting `payload_bytes_max`."""

SEND_AGAIN_AFTER_S = 2.0
"""An outcome that takes longer was lost with its connection, or the pipeline is behind."""

Sent: TypeAlias = tuple[str, bytes]
"""A stream's key and the payload for it."""


class _Wire:
    """The pure part of both producers: from a command to a stream's key and a payload."""

    def __init__(self, domain: Domain, partitions: int) -> None:
        self._id_field = domain.id_field
        self._streams = [command_stream(domain.name, p) for p in range(partitions)]
        self._reply_prefix = reply_prefix(domain.name)

    def encode(self, command: CommandLike, reply_to: str | None = None) -> tuple[str, Sent]:
        """The command's id, and what goes where."""
        fields: dict[str, Any]
        if isinstance(command, Command):
            fields = command.model_dump(mode="json", exclude_none=True)
        else:
            fields = {**command}
            if "command_id" not in fields:
                fields["command_id"] = str(uuid.uuid4())
        if reply_to is not None:
            fields["reply_to"] = reply_to
        aggregate_id = fields.get(self._id_field)
        if not isinstance(aggregate_id, str):
            raise FoldlogError(f"a command needs the field {self._id_field}, a string")
        try:
            payload = to_json(fields)
        except PydanticSerializationError as error:
            raise FoldlogError(f"the command cannot be JSON: {one_line(error)}") from None
        if len(payload) > COMMAND_BYTES_MAX:
            raise CommandTooLarge(
                f"the command has {len(payload)} bytes; the limit is {COMMAND_BYTES_MAX}"
            )
        stream = self._streams[partition_of(aggregate_id, len(self._streams))]
        return str(fields["command_id"]), (stream, payload)

    def reply_key(self) -> str:
        return self._reply_prefix + uuid.uuid4().hex


class _Waiting:
    """Commands whose outcome has not come back yet."""

    def __init__(self, sent: dict[str, Sent], timeout: float) -> None:
        self.sent = sent
        self.seen = b"0-0"
        self._deadline = time.monotonic() + timeout
        self._timeout = timeout
        self._send_again_at = time.monotonic() + SEND_AGAIN_AFTER_S

    def block_ms(self) -> int:
        """How long to wait for the next outcome. Raises `OutcomeTimeout` when time is up."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise OutcomeTimeout(
                f"no outcome for {len(self.sent)} command(s) within {self._timeout:g} s;"
                " is the pipeline running? They are sent, and will be handled"
            )
        return max(1, int(1000 * min(left, SEND_AGAIN_AFTER_S)))

    def due_again(self) -> list[Sent]:
        """What to send once more, because its outcome should have come by now."""
        if time.monotonic() < self._send_again_at:
            return []
        self._send_again_at = time.monotonic() + SEND_AGAIN_AFTER_S
        return list(self.sent.values())

    def arrived(self, response: Any) -> Iterator[Outcome]:
        for _, entries in response or []:
            for stream_id, fields in entries:
                self.seen = stream_id
                outcome = Outcome.from_json(fields[b"outcome"])
                if outcome.command_id and self.sent.pop(outcome.command_id, None):
                    yield outcome


def _retry_pauses(timeout: float) -> Iterator[float]:
    """Doubling pauses that end when `timeout` seconds are over."""
    deadline = time.monotonic() + timeout
    pause = RETRY_FIRST_S
    while time.monotonic() + pause < deadline:
        yield pause
        pause = min(RETRY_MAX_S, pause * 2)


def _partitions(found: Any, domain: Domain) -> int:
    if found is None:
        raise NotAvailable(
            f"this Redis knows no pipeline for the domain {domain.name!r}; start `foldlog up` first"
        )
    return int(found)


def _accepted(outcome: Outcome) -> Outcome:
    if outcome.outcome != "accepted":
        raise Rejected(outcome.reason or outcome.outcome)
    return outcome


class Producer:
    """Sends a domain's commands. Use it as a context manager, or `close` it.

    Every method raises `RedisUnreachable` when Redis stays away for longer than `retry_s` seconds
    or refuses the write (out of memory, say). What was sent by then stays sent; sending it all
    again is safe.
    """

    def __init__(self, url: str, domain: Domain = cart, *, retry_s: float = 30.0) -> None:
        self._url = url
        self._domain = domain
        self._retry_s = retry_s
        self._client = open_client(url)
        found = self._retry(lambda: self._client.get(partitions_key(domain.name)))
        self._wire = _Wire(domain, _partitions(found, domain))

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
        return _accepted(next(self.execute_many([command], timeout)))

    def execute_many(
        self, commands: Iterable[CommandLike], timeout: float = 10.0
    ) -> Iterator[Outcome]:
        """Send commands and yield each one's outcome as it comes, accepted or not."""
        reply_to = self._wire.reply_key()
        waiting = _Waiting(dict(self._wire.encode(c, reply_to) for c in commands), timeout)
        try:
            self._add(list(waiting.sent.values()))
            while waiting.sent:
                block_ms = waiting.block_ms()
                try:
                    with explained(self._url, but=LOST):
                        response = self._client.xread({reply_to: waiting.seen}, block=block_ms)
                except LOST:
                    time.sleep(RETRY_FIRST_S)
                    continue
                yield from waiting.arrived(response)
                self._add(waiting.due_again())
        finally:
            self._forget(reply_to)

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

    def _add(self, sent: list[Sent]) -> None:
        if not sent:
            return

        def add() -> None:
            pipe = self._client.pipeline(transaction=False)
            for stream, payload in sent:
                pipe.xadd(stream, {"command": payload})
            pipe.execute()

        self._retry(add)

    def _retry(self, attempt: Callable[[], T]) -> T:
        for pause in itertools.chain(_retry_pauses(self._retry_s), [None]):
            try:
                with explained(self._url, but=LOST if pause else ()):
                    return attempt()
            except LOST:
                time.sleep(pause or 0)
        raise AssertionError("the last attempt returns or raises")

    def _forget(self, reply_to: str) -> None:
        with suppress(redis.RedisError):  # it expires by itself
            self._client.delete(reply_to)


class AsyncProducer:
    """`Producer` for asyncio: the same methods. Make it with `await AsyncProducer.connect(url)`."""

    def __init__(self, client: redis.asyncio.Redis, wire: _Wire, url: str, retry_s: float) -> None:
        self._client = client
        self._wire = wire
        self._url = url
        self._retry_s = retry_s

    @classmethod
    async def connect(
        cls, url: str, domain: Domain = cart, *, retry_s: float = 30.0
    ) -> AsyncProducer:
        open_client(url).close()  # for its opinion of the URL
        client = redis.asyncio.Redis.from_url(url, protocol=2)
        try:
            with explained(url):
                found = await client.get(partitions_key(domain.name))
            return cls(client, _Wire(domain, _partitions(found, domain)), url, retry_s)
        except FoldlogError:
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
        encoded = (self._wire.encode(command)[1] for command in commands)
        while chunk := list(itertools.islice(encoded, PIPELINE_COMMANDS)):
            await self._add(chunk)
            count += len(chunk)
        return count

    async def execute(self, command: CommandLike, timeout: float = 10.0) -> Outcome:
        """Send one command and wait for its outcome.

        Raises `Rejected` with the reason, or `OutcomeTimeout` after `timeout` seconds.
        """
        async for outcome in self.execute_many([command], timeout):
            return _accepted(outcome)
        raise AssertionError("one command has one outcome")

    async def execute_many(
        self, commands: Iterable[CommandLike], timeout: float = 10.0
    ) -> AsyncIterator[Outcome]:
        """Send commands and yield each one's outcome as it comes, accepted or not."""
        reply_to = self._wire.reply_key()
        waiting = _Waiting(dict(self._wire.encode(c, reply_to) for c in commands), timeout)
        try:
            await self._add(list(waiting.sent.values()))
            while waiting.sent:
                block_ms = waiting.block_ms()
                try:
                    with explained(self._url, but=LOST):
                        response = await self._client.xread(
                            {reply_to: waiting.seen}, block=block_ms
                        )
                except LOST:
                    await asyncio.sleep(RETRY_FIRST_S)
                    continue
                for outcome in waiting.arrived(response):
                    yield outcome
                await self._add(waiting.due_again())
        finally:
            with suppress(redis.RedisError):  # it expires by itself
                await self._client.delete(reply_to)

    async def close(self) -> None:
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

    async def _add(self, sent: list[Sent]) -> None:
        if not sent:
            return
        for pause in itertools.chain(_retry_pauses(self._retry_s), [None]):
            pipe = self._client.pipeline(transaction=False)
            for stream, payload in sent:
                pipe.xadd(stream, {"command": payload})
            try:
                with explained(self._url, but=LOST if pause else ()):
                    await pipe.execute()
                return
            except LOST:
                await asyncio.sleep(pause or 0)
