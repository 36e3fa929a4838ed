"""Redis Streams: key names, connecting, what to make of errors.

{cart-3}:commands   a stream for each partition; one field, `command`, holds one JSON object.
                    The braces are a Redis Cluster hash tag.
{cart-3}:behind     commands that Redis gave ids which the log has passed; see `ingest.joining`.
                    An empty stream, as a rule.
cart:replies:ID     a stream for one sender; the field `outcome` holds one JSON object.
                    It expires an hour after the last outcome.
cart:partitions     how many partitions there are, for producers to compute theirs.
cart:repairs        a hash: partition → what was mended when its stream was found behind the log.
cart:halted         a hash: partition → why it is read no more, until it is read again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TypeAlias

import redis
from redis.exceptions import (
    BusyLoadingError,
    ClusterDownError,
    ConnectionError,
    ReadOnlyError,
    TimeoutError,
    TryAgainError,
)

from ingest.client import open_client

logger = logging.getLogger("foldlog")

Entry: TypeAlias = tuple[bytes, bytes | None, Sequence[bytes]]
"""Stream id, the field `command` (None where the entry has none), all fields and values."""

REPLY_EXPIRES_S = 3600
"""How long outcomes wait for a sender that does not come to read them."""

LOST = (
    ConnectionError, TimeoutError, BusyLoadingError, ReadOnlyError, ClusterDownError, TryAgainError,
)  # fmt: skip
"""What redis-py raises while Redis is away, not ready yet, or no longer the one to write to."""

RETRY_FIRST_S, RETRY_MAX_S = 0.05, 2.0
"""Pauses between two attempts to connect: the first one, and what doubling ends at."""


def command_stream(domain: str, partition: int) -> str:
    return f"{{{domain}-{partition}}}:commands"


def behind_stream(domain: str, partition: int) -> str:
    return f"{{{domain}-{partition}}}:behind"


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


def entry_of(stream_id: bytes, fields: Sequence[bytes]) -> Entry:
    """What Redis says of one entry, as an `Entry`."""
    if len(fields) == 2 and fields[0] == b"command":
        return stream_id, fields[1], fields
    named = dict(zip(fields[::2], fields[1::2], strict=True))
    return stream_id, named.get(b"command"), fields
