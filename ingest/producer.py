"""Send commands and learn what became of them: `Producer`.

A command is a domain's command model, or a mapping with the same fields. Without a `command_id` it
is given a random one. Everything here may be sent twice: a command id that already has an outcome
changes nothing, so a lost connection is answered by sending again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

import redis
from redis.retry import Retry

from ingest.client import open_client
from ingest.diagnosis import explained
from ingest.domain import Domain
from ingest.keys import partitions_key
from ingest.outage import LOST, PAUSES, RETRY_FIRST_S, giving_up
from ingest.outcome import Outcome
from ingest.replies import Replies
from ingest.shop import shop
from ingest.wire import CommandLike, Sent, Wire, accepted, out_of_time, put

T = TypeVar("T")


class Producer:
    """Sends a domain's commands. Use it as a context manager, or `close` it.

    Every method raises `RedisUnreachable` when Redis stays away for longer than `retry_s` seconds
    or refuses the write (out of memory, say). What was sent by then stays sent; sending it all
    again is safe. A command that cannot be sent is a `CommandInvalid` before it, or what goes with
    it in one round trip, is.
    """

    def __init__(self, url: str, domain: Domain = shop, *, retry_s: float = 30.0) -> None:
        """Raises `RedisUnreachable`, and `NotAvailable` where no pipeline has used this Redis."""
        self._url = url
        self._retry_s = retry_s
        self._client = open_client(url)
        found: Any = self._retry(lambda: self._client.get(partitions_key(domain.name)))
        self._wire = Wire(domain, found)

    def send(self, command: CommandLike) -> str:
        """Send one command; returns its command id when Redis has it."""
        command_id, sent = self._wire.encode(command)
        self._add([sent])
        return command_id

    def send_many(self, commands: Iterable[CommandLike]) -> int:
        """Send commands in order, many to a round trip; returns how many."""
        count = 0
        for chunk in self._wire.chunks(commands):
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
        """Send commands and yield each one's outcome as it comes, accepted or not.

        Raises `OutcomeTimeout` where some are missing after `timeout` seconds.
        """
        replies: Replies[None] = Replies(self._wire)
        asked, sent = replies.ask_all(commands, None)
        deadline = time.monotonic() + timeout
        try:
            self._add(sent)
            replies.written(asked)
            while len(replies):
                left = deadline - time.monotonic()
                if left <= 0:
                    raise out_of_time(len(replies), timeout)
                try:
                    with explained(self._url, but=LOST):
                        response = self._client.xread(
                            {replies.key: replies.seen}, block=replies.block_ms(left)
                        )
                except LOST:
                    time.sleep(RETRY_FIRST_S)
                    continue
                for _, outcome in replies.arrived(response):
                    yield outcome
                if again := replies.due_again():
                    self._add([command.sent for command in again])
                    replies.written(again)
        finally:
            with suppress(redis.RedisError):  # it expires by itself
                self._client.delete(replies.key)

    def close(self) -> None:
        """Hang up. What was sent stays sent."""
        self._client.close()

    def __enter__(self) -> Producer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _add(self, sent: list[Sent]) -> None:
        if sent:
            self._retry(lambda: put(self._client.pipeline(transaction=False), sent).execute())

    def _retry(self, attempt: Callable[[], T]) -> T:
        with explained(self._url):
            return Retry(PAUSES, -1, LOST).call_with_retry(attempt, giving_up(self._retry_s))
