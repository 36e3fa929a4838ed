"""Connecting to Redis, and whether it keeps what it is given."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, ReadOnlyError
from redis.retry import Retry

from ingest.diagnosis import WRONG_MODE, explained, shown, unreachable
from ingest.errors import RedisUnreachable

ANSWER_TIMEOUT_S = 10.0
"""A Redis that takes longer is taken for frozen."""


def open_client(url: str, timeout_s: float = ANSWER_TIMEOUT_S) -> redis.Redis:
    """A client that connects when it is used, and tries everything once.

    Waiting for an answer ends after `timeout_s` seconds. Raises `RedisUnreachable` where the URL
    is none.
    """
    try:
        client = redis.Redis.from_url(
            url,
            protocol=2,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
        )
        client.connection_pool.make_connection()
    except (ValueError, TypeError, AttributeError) as error:
        raise unreachable(url, error) from None
    return client


def open_async_client(url: str, connections_max: int) -> redis.asyncio.Redis:
    """`open_client` for asyncio; who needs a connection beyond the last one waits for it."""
    open_client(url).close()  # for its opinion of the URL
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        url,
        max_connections=connections_max,
        timeout=None,
        protocol=2,
        socket_timeout=ANSWER_TIMEOUT_S,
        socket_connect_timeout=ANSWER_TIMEOUT_S,
        retry=AsyncRetry(NoBackoff(), 0),
    )
    return redis.asyncio.Redis.from_pool(pool)


def connect(url: str, timeout_s: float = ANSWER_TIMEOUT_S) -> redis.Redis:
    """A client of a Redis that lets us in and takes writes; needs no rights beyond logging in.

    Raises `RedisUnreachable`, which says what is wrong, also for a cluster or a replica.
    """
    client = open_client(url, timeout_s)
    try:
        with explained(url):
            found = _hello(client)
            if wrong := WRONG_MODE.get(found.get("mode", "")):
                raise RedisUnreachable(f"Redis at {shown(url)} {wrong}")
            if found.get("role") in ("replica", "slave"):
                raise ReadOnlyError(_primary(client))
    except RedisUnreachable:
        client.close()
        raise
    return client


def _hello(client: Any) -> dict[str, Any]:
    """What the server says of itself; every user may ask. Nothing where it knows no HELLO."""
    try:
        found = client.execute_command("HELLO")
    except (AuthenticationError, NoPermissionError):
        raise
    except redis.ResponseError:
        return {}
    pairs = found.items() if isinstance(found, dict) else zip(found[::2], found[1::2], strict=True)
    return {_text(name): _text(value) for name, value in pairs}


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def _primary(client: redis.Redis) -> str:
    """Of whom a replica is one, if it tells us."""
    with suppress(redis.ResponseError):
        found: Any = client.info("replication")
        return f"of {found['master_host']}:{found['master_port']}"
    return ""


def durability_warning(client: redis.Redis) -> str | None:
    """What in the server's settings weakens the promise to keep commands, in one line."""
    wanted = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
    try:
        found = {name: client.config_get(name).get(name) for name in wanted}
    except redis.ResponseError:
        return (
            "this Redis does not show its settings; commands are as durable as its AOF makes them"
        )
    weak = [f"{name} {found[name]} (not {best})" for name, best in wanted.items()
            if found[name] != best]  # fmt: skip
    return f"Redis may lose commands that it has accepted: {', '.join(weak)}" if weak else None
