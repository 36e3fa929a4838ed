"""What waits in Redis and what is noted there, as far as Redis answers in time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import redis

from ingest import strays
from ingest.client import open_client
from ingest.diagnosis import unreachable
from ingest.joining import waiting
from ingest.keys import behind_stream, command_stream, halted_key, repairs_key
from ingest.stream_id import recorded_us
from pipeline.deployment import Deployment
from pipeline.replay.committed import comparison

STRAYS_WITHIN_S = 0.5
"""How long to look for stray commands, where no running pipeline has."""


@dataclass(slots=True)
class InRedis:
    """What Redis has answered; less than all where there is an error."""

    lags: dict[int, int] = field(default_factory=dict)
    """By partition: commands in the stream that the log has not committed."""
    waiting_since: dict[int, float] = field(default_factory=dict)
    """By partition: when the first of those was recorded, as a Unix time."""
    repairs: list[str] = field(default_factory=list)
    """What was mended after Redis had lost entries."""
    halted: dict[int, str] = field(default_factory=dict)
    """By partition: why it is read no more."""
    strays: dict[str, int] = field(default_factory=dict)
    """By stream: commands that no partition reads."""
    memory_bytes: int | None = None
    error: str | None = None


def ask(deployed: Deployment, last_stream_ids: Sequence[str], timeout_s: float) -> InRedis:
    """Ask about what comes after these stream ids, the last of each partition in the log."""
    said, name, log = InRedis(), deployed.domain.name, deployed.log
    decider = deployed.decider()
    deadline = time.monotonic() + timeout_s
    url = deployed.settings.reachable_redis
    with open_client(url, timeout_s) as client:
        try:
            for number, last_id in enumerate(last_stream_ids):
                if time.monotonic() > deadline:
                    raise redis.TimeoutError("no answer in time")
                stream, behind = command_stream(name, number), behind_stream(name, number)
                compare = comparison(log, number, decider)
                said.lags[number] = waiting(client, stream, behind, last_id, compare)
                if said.lags[number]:
                    entries: Any = client.xrange(stream, f"({last_id}", count=1)
                    for stream_id, _ in entries:
                        said.waiting_since[number] = recorded_us(stream_id) / 1e6
            with suppress(redis.ResponseError):  # rights that only this page needs
                said.memory_bytes = int(client.info("memory")["used_memory"])
            with suppress(redis.ResponseError):
                repairs: Any = client.hvals(repairs_key(name))
                said.repairs = [text.decode() for text in repairs]
            with suppress(redis.ResponseError):
                halted: Any = client.hgetall(halted_key(name))
                said.halted = {int(p): why.decode() for p, why in halted.items()}
            with suppress(redis.ResponseError):
                said.strays = strays.found(client, name, len(last_stream_ids), STRAYS_WITHIN_S)
        except redis.RedisError as error:
            said.error = str(unreachable(url, error))
    return said
