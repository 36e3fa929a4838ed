"""Reading one partition's stream without ever waiting for it, and answering what was read."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import chain, takewhile
from typing import Any

import redis
from redis.exceptions import TimeoutError

from ingest.answers import Answers
from ingest.diagnosis import unreachable
from ingest.entries import Compare, Entry, entry_of
from ingest.joining import Read, join, trim
from ingest.keys import behind_stream, command_stream, halted_key, partitions_key, repairs_key
from ingest.line import ANSWER_S, Line
from ingest.outage import LOST, RETRY_FIRST_S, Backoff, is_mistake
from ingest.outcome import Outcome
from ingest.redis_clock import RedisClock
from ingest.scripts import Changed
from ingest.stream_id import as_numbers

logger = logging.getLogger("foldlog")

BLOCK_MS = 1000
"""How long Redis holds a request for more entries, and how often an idle stream is looked at."""

READ_BYTES_TARGET = 8 * 1024 * 1024
"""A read asks for fewer entries when the last ones were large, so that memory stays bounded."""

_MISTAKES = ("WRONGTYPE", "ACL failure", "can't run this command")
"""What Redis says, also in a script, where trying again is of no use."""


class StreamReader:
    """Reads one stream in order, from after `last_id`, without ever waiting for new entries.

    A request is always on its way while the last batch is being handled. After a batch that was not
    full, the next request goes out `linger_ms` later, so that commands that trickle in are
    committed a few at a time instead of one by one.

    Every batch comes back by `respond` when the log has it, in order. `ingest.joining` says how
    the stream is joined and trimmed; when, is decided here.
    """

    def __init__(
        self,
        url: str,
        domain: str,
        partition: int,
        last_id: str,
        *,
        partitions: int,
        batch_max: int,
        linger_ms: float,
        compare: Compare,
    ) -> None:
        """The log has all up to `last_id`; `compare` says what else it has of some entries."""
        self._url = url
        self._domain = domain
        self._partition = partition
        self._partitions = partitions
        self._set_partitions = "SET", partitions_key(domain), partitions
        self._stream = command_stream(domain, partition)
        self._behind = behind_stream(domain, partition)
        self._compare = compare
        self._last_id = last_id
        self._batch_max = batch_max
        self._linger_s = linger_ms / 1000
        self._pool = redis.ConnectionPool.from_url(url, protocol=2, socket_timeout=ANSWER_S)
        self._connection: Any = None
        """Requests for entries; Redis may hold their answers back."""
        self._line: Line | None = None
        """All else. Both are there, or neither is."""
        self._from: tuple[str, ...] = (self._stream,)
        self._handed_out: deque[Read] = deque()
        self._committed: list[Read] = []
        """Handed out, answered, and not trimmed yet."""
        self._trimming = False
        self._read: set[bytes] = set()
        """First ids of the batches that may not have been trimmed yet when it was asked."""
        self._asked_for = 0
        self._asked_at = 0.0
        self._ask_at = 0.0
        self._count = min(batch_max, 256)
        self._backoff = Backoff(self._stream)
        self._answers = Answers(self._stream)
        self._closed = False
        self.clock = RedisClock()

    def poll(self) -> list[Entry]:
        """The entries that have arrived; often none. Raises `RedisUnreachable` if it refuses."""
        now = time.monotonic()
        if now < self._backoff.not_before:
            return []
        try:
            if self._line is not None:
                self._line.receive()
                self._trim(self._line)
            if not self._asked_for:
                if now < self._ask_at or not self._joined():
                    return []
                self._ask(now)
            if not self._connection.can_read():
                if now > self._asked_at + BLOCK_MS / 1000 + ANSWER_S:
                    raise TimeoutError(f"no answer for {now - self._asked_at:.0f} s")
                return []
            response, *begins, partitions, clock = [
                self._connection.read_response(disable_decoding=True) for _ in range(5)
            ]
            self.clock.set(*clock)
            if partitions is None and self._line is not None:  # Redis was emptied
                self._line.send([self._set_partitions], lambda _: None)
            self._backoff.succeeded()
            asked_for, self._asked_for = self._asked_for, 0
            self._check_below(begins)
            if not response:
                return []
        except redis.RedisError as error:
            self._failed(error)
            return []
        entries = self._arrived(response)
        if len(entries) == asked_for:
            try:
                self._ask(now)
            except LOST as error:  # for the next poll; these entries are here
                self._failed(error)
        else:
            self._ask_at = now + self._linger_s
        return entries

    @property
    def due_at(self) -> float:
        """When `poll` has something to do by itself, by `time.monotonic`."""
        if self._asked_for:
            return self._asked_at + BLOCK_MS / 1000 + ANSWER_S
        return max(self._ask_at, self._backoff.not_before)

    @property
    def sockets(self) -> list[Any]:
        """Where answers arrive that Redis owes."""
        owed = [self._connection] if self._asked_for else []
        if self._line is not None and self._line.waits:
            owed.append(self._line.connection)
        return [connection._sock for connection in owed]

    def _arrived(self, response: list[Any]) -> list[Entry]:
        """The entries of a response; where it has some of `behind`, those alone."""
        name, found = response[0]
        stream = name.decode()
        self._from = self._from[self._from.index(stream) :]
        entries = [entry_of(stream_id, fields) for stream_id, fields in found]
        last_id, _, last_fields = entries[-1]
        self._last_id = last_id.decode()
        self._handed_out.append(Read(stream, entries[0][0], last_id, last_fields))
        size = sum(map(len, chain.from_iterable(fields for _, fields in found)))
        self._count = max(1, min(self._batch_max, len(entries) * READ_BYTES_TARGET // (size + 1)))
        return entries

    def _ask(self, now: float) -> None:
        """Send the next request. Raises what redis-py does while Redis is away."""
        ids = [self._last_id] * len(self._from)
        request = [
            ("XREAD", "COUNT", self._count, "BLOCK", BLOCK_MS, "STREAMS", *self._from, *ids),
            ("XRANGE", self._behind, "-", "+", "COUNT", 1),
            ("XRANGE", self._stream, "-", "+", "COUNT", 1),
            ("GET", partitions_key(self._domain)),
            ("TIME",),
        ]
        self.clock.ask()
        self._connection.send_packed_command(self._connection.pack_commands(request))
        self._read = {batch.first_id for batch in (*self._committed, *self._handed_out)}
        self._asked_for = self._count
        self._asked_at = now

    def _check_below(self, begins: Sequence[list[Any]]) -> None:
        """Raises `Changed` where a stream begins with something that was passed over."""
        for entries in begins:
            for stream_id, _ in entries:
                below = as_numbers(stream_id.decode()) <= as_numbers(self._last_id)
                if below and stream_id not in self._read:
                    raise Changed(f"{stream_id.decode()} stands below what was read")

    def _joined(self) -> bool:
        """Whether the stream is joined; joins it, as soon as all that was read is committed."""
        if self._line is not None:
            return True
        if self._handed_out:
            return False
        line = self._line = Line(self._pool.get_connection())
        self.clock.ask()
        partitions, clock = line.ask(("GET", partitions_key(self._domain)), ("TIME",))
        self.clock.forget()
        self.clock.set(*clock)
        line.send([("HDEL", halted_key(self._domain), self._partition)], lambda _: None)
        if partitions != b"%d" % self._partitions:
            line.ask(self._set_partitions)
        joined = join(line, self._stream, self._behind, self._last_id, self._compare)
        if joined.mended:
            logger.warning(joined.mended)
            mended = ("HSET", repairs_key(self._domain), self._partition, joined.mended)
            line.send([mended], lambda _: None)  # a full Redis refuses it
        self._from = (self._behind, self._stream) if joined.behind else (self._stream,)
        self._connection = self._pool.get_connection()
        return True

    def respond(self, replies: Sequence[tuple[str, Outcome]]) -> None:
        """Tell the senders of the oldest batch that was handed out, and let go of its entries.

        Call it when the log has the batch. Waits for nothing: the answers come with a later `poll`.
        """
        batch = self._handed_out.popleft()
        if self._line is None:
            self._answers.lost("Redis is away", len(replies))
        else:
            self._committed.append(batch)
            self._exchange(lambda line: self._answers.send(line, replies))
            self._exchange(self._trim)
        if self._closed:
            self._finish()

    def _trim(self, line: Line) -> None:
        """Let go of what is committed, as soon as that is done for what was before."""
        if self._trimming or not self._committed:
            return
        stream = self._committed[0].stream
        batches = [*takewhile(lambda batch: batch.stream == stream, self._committed)]

        def trimmed() -> None:
            del self._committed[: len(batches)]
            self._trimming = False

        self._trimming = True
        trim(line, batches, trimmed)

    def _exchange(self, what: Callable[[Line], None]) -> None:
        """Do that where there is a line."""
        if self._line is not None:
            try:
                what(self._line)
            except redis.RedisError as error:
                self._failed(error)

    def _failed(self, error: redis.RedisError) -> None:
        """Join anew, after a pause. Raises `RedisUnreachable` where that would not help."""
        self._hang_up()
        self._answers.lost(error)
        if isinstance(error, Changed):
            logger.info("%s: joined anew: %s", self._stream, error)
            self._ask_at = time.monotonic() + RETRY_FIRST_S
        elif is_mistake(error) or any(words in str(error) for words in _MISTAKES):
            raise unreachable(self._url, error) from None
        else:
            self._backoff.failed(error)

    def respond_in_part(self, replies: Sequence[tuple[str, Outcome]]) -> None:
        """Tell senders of the oldest batch, of which the log has only a part: nothing is let go of.

        Reads no more.
        """
        self._exchange(lambda line: self._answers.send(line, replies))
        self._exchange(lambda line: line.receive(wait=True))
        self.abandon()

    def abandon(self) -> None:
        """Read no more, and leave what was handed out as it is in Redis."""
        self._handed_out.clear()
        self._hang_up()

    def close(self) -> None:
        """Read no more. What was handed out is still answered."""
        self._closed = True
        self._finish()

    def _finish(self) -> None:
        """Hang up when all that was handed out is answered and trimmed."""
        while self._committed and self._line is not None:
            self._exchange(self._trim)
            self._exchange(lambda line: line.receive(wait=True))
        if not self._handed_out:
            self._hang_up()

    def _hang_up(self) -> None:
        self._asked_for = 0
        self._committed.clear()  # the next join lets go of them
        self._trimming = False
        connections = [self._connection, self._line and self._line.connection]
        self._connection = self._line = None
        for connection in connections:
            if connection is not None:
                with suppress(redis.RedisError):
                    connection.disconnect()
                self._pool.release(connection)
