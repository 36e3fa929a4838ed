"""Partitions that are read no more until the domain's code is mended, as Redis remembers them."""

from __future__ import annotations

from contextlib import suppress

import redis

from ingest.client import open_client
from ingest.keys import halted_key


def tell_halted(url: str, domain: str, partition: int, reason: str) -> None:
    """For `foldlog status`, from any host. Where Redis is away, only the log line says it."""
    with suppress(redis.RedisError), open_client(url) as client:
        client.hset(halted_key(domain), str(partition), reason)
