"""Redis Streams in and out: key names, reading without waiting, replying, trimming.

{cart-3}:commands   a stream for each partition; one field, `command`, holds one JSON object.
                    The braces are a Redis Cluster hash tag.
cart:replies:ID     a stream for one sender; the field `outcome` holds one JSON object.
                    It expires an hour after the last outcome.
cart:partitions     how many partitions there are, for producers to compute theirs.
cart:repairs        a hash: partition → what was mended when its stream was found behind the log.
cart:halted         a hash: partition → why it is read no more, until it is read again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

import redis
from redis.exceptions import BusyLoadingError, ConnectionError, TimeoutError

from ingest import crash
from ingest.client import open_client
from ingest.outcome import Outcome

logger = logging.getLogger("foldlog")

Entry: TypeAlias = tuple[bytes, bytes | None, Sequence[bytes]]
"""Stream id, the field `command` (None where the entry has none), all fields and values."""

REPLY_EXPIRES_S = 3600
"""How long outcomes wait for a sender that does not come to read them."""

LOST = (ConnectionError, TimeoutError, BusyLoadingError)
"""What redis-py raises while Redis is away or not ready yet."""

RETRY_FIRST_S, RETRY_MAX_S = 0.05, 2.0
"""Pauses between two attempts to connect: the first one, and what doubling ends at."""

BLOCK_MS = 1000
"""How long Redis holds a request for more entries; only bounds how stale a lost one may be."""

READ_BYTES_TARGET = 8 * 1024 * 1024
"""A read asks for fewer entries when the last ones were large, so that memory stays bounded."""


def command_stream(domain: str, partition: int) -> str:
    return f"{{{domain}-{partition}}}:commands"


def reply_prefix(domain: str) -> str:
    """What every `reply_to` begins with: a producer cannot make the pipeline write elsewhere."""
    return f"{domain}:replies:"


def partitions_key(domain: str) -> str:
    return f"{domain}:partitions"


def repairs_key(domain: str) -> str:
    return f"{domain}:repairs"


def halted_key(domain: str) -> str:
    return f"{domain}:halted"


def tell_halted(url: str, domain: str, partition: int, reason: str) -> None:
    """For `foldlog status`, from any host. Where Redis is away, only the log line says it."""
    with suppress(redis.RedisError), open_client(url) as client:
        client.hset(halted_key(domain), str(partition), reason)


class Backoff:
    """When to try again, after how many failures in a row; says so once for each outage."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._pause_s = 0.0
        self.not_before = 0.0

    def failed(self, error: Exception) -> None:
        if not self._pause_s:
            logger.warning(
                "%s: Redis is away (%s); trying again until it is back", self._what, error
            )
        self._pause_s = min(RETRY_MAX_S, self._pause_s * 2 or RETRY_FIRST_S)
        self.not_before = time.monotonic() + self._pause_s

    def succeeded(self) -> None:
        if self._pause_s:
            logger.info("%s: Redis is back", self._what)
        self._pause_s = 0.0


class StreamReader:
    """Reads one stream in order, from after `last_id`, without ever waiting for Redis.

    A request is always on its way while the last batch is being handled. After a batch that was not
    full, the next request goes out `linger_ms` later, so that commands that trickle in are
    committed a few at a time instead of one by one.
    """

    def __init__(
        self,
        url: str,
        stream: str,
        last_id: str,
        *,
        batch_max: int,
        linger_ms: float,
        on_connect: Callable[[redis.Redis, str], None],
    ) -> None:
        """`on_connect` is called with a client and the last id read, before each first request."""
        self.last_id: bytes | str = last_id
        self._stream = stream
        self._batch_max = batch_max
        self._linger_s = linger_ms / 1000
        self._on_connect = on_connect
        self._pool = redis.ConnectionPool.from_url(url, protocol=2)
        self._connection: Any = None
        self._asked_for = 0
        self._count = min(batch_max, 256)
        self._ask_at = 0.0
        self._backoff = Backoff(stream)

    def poll(self) -> list[Entry]:
        """The entries that have arrived; often none."""
        now = time.monotonic()
        if now < self._backoff.not_before:
            return []
        try:
            if not self._asked_for:
                if now < self._ask_at:
                    return []
                self._ask()
            if not self._connection.can_read():
                return []
            response = self._connection.read_response(disable_decoding=True)
        except LOST as error:
            self._lost(error)
            return []
        self._backoff.succeeded()
        asked_for, self._asked_for = self._asked_for, 0
        if not response:
            return []
        entries = [_entry(stream_id, fields) for stream_id, fields in response[0][1]]
        self.last_id = entries[-1][0]
        size = sum(len(payload) for _, payload, _ in entries if payload)
        self._count = max(1, min(self._batch_max, len(entries) * READ_BYTES_TARGET // (size + 1)))
        if len(entries) == asked_for:
            try:
                self._ask()
            except LOST as error:  # for the next poll; these entries are here
                self._lost(error)
        else:
            self._ask_at = now + self._linger_s
        return entries

    def _ask(self) -> None:
        """Send the next request. Raises what redis-py does while Redis is away."""
        if self._connection is None:
            last_id = self.last_id if isinstance(self.last_id, str) else self.last_id.decode()
            self._on_connect(redis.Redis(connection_pool=self._pool), last_id)
            self._connection = self._pool.get_connection()
        self._connection.send_command(
            "XREAD", "COUNT", self._count, "BLOCK", BLOCK_MS, "STREAMS", self._stream, self.last_id
        )
        self._asked_for = self._count

    def _lost(self, error: Exception) -> None:
        self._backoff.failed(error)
        self.close()

    def close(self) -> None:
        self._asked_for = 0
        if self._connection is not None:
            self._connection.disconnect()
            self._pool.release(self._connection)
            self._connection = None


def _entry(stream_id: bytes, fields: Sequence[bytes]) -> Entry:
    if len(fields) == 2 and fields[0] == b"command":
        return stream_id, fields[1], fields
    named = dict(zip(fields[::2], fields[1::2], strict=True))
    return stream_id, named.get(b"command"), fields


def reply_and_trim(
    client: redis.Redis, replies: Iterable[tuple[str, Outcome]], stream: str, last_id: str
) -> None:
    """Tell the senders, and let go of every entry up to `last_id`: the log has their outcomes."""
    pipe = client.pipeline(transaction=False)
    for reply_to, outcome in replies:
        pipe.xadd(reply_to, {"outcome": outcome.to_json()})
        pipe.expire(reply_to, REPLY_EXPIRES_S)
    pipe.xtrim(stream, minid=_next_id(last_id), approximate=False)
    crash.point("respond.to_send")
    pipe.execute(raise_on_error=False)
    crash.point("respond.sent")


def rejoin(
    client: redis.Redis, stream: str, last_id: str, committed: Callable[[], set[str]]
) -> str | None:
    """Keep a stream's ids ahead of the log; says what was mended, or None where nothing had to be.

    A Redis that has lost its tail, or everything, may give out ids that the log has passed already.
    Then the stream goes on after `last_id`, and entries below it that are not among the `committed`
    stream ids are added once more: for a reader after `last_id` they would not be there.
    """
    found = _last_generated_id(client, stream)
    if not _behind(found, last_id):
        return None
    done = committed()
    entries: Any = client.xrange(stream)
    below = [fields for stream_id, fields in entries if stream_id.decode() not in done]
    pipe = client.pipeline(transaction=True)
    pipe.xadd(stream, {"raised": ""}, id=last_id)
    for fields in below:
        pipe.xadd(stream, fields)
    pipe.xtrim(stream, minid=_next_id(last_id), approximate=False)
    crash.point("rejoin.to_send")
    pipe.execute()
    crash.point("rejoin.sent")
    return (
        f"{stream} ended at {found}, before the log's {last_id}: Redis has lost entries that the"
        f" log has; its ids go on after the log's, {len(below)} entries were added again"
    )


def _last_generated_id(client: redis.Redis, stream: str) -> str:
    try:
        found: str = client.xinfo_stream(stream)["last-generated-id"].decode()
        return found
    except redis.ResponseError:  # there is no such key
        return "0-0"


def _behind(stream_id: str, other: str) -> bool:
    return _as_numbers(stream_id) < _as_numbers(other)


def _as_numbers(stream_id: str) -> tuple[int, int]:
    milliseconds, _, sequence = stream_id.partition("-")
    return int(milliseconds), int(sequence)


def _next_id(stream_id: str) -> str:
    milliseconds, sequence = _as_numbers(stream_id)
    return f"{milliseconds}-{sequence + 1}"


def entries_after(client: redis.Redis, stream: str, last_id: str) -> int:
    """How many entries of a stream the log has not committed yet."""
    if _behind(_last_generated_id(client, stream), last_id):
        return int(client.xlen(stream))  # none is surely in; see `rejoin`
    done = client.xrange(stream, "-", last_id)
    return int(client.xlen(stream)) - len(done)  # type: ignore[arg-type]
