"""Commands a second: into the streams, and from there to the log and the published read models."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from ingest.cart import cart
from pipeline.extras.bench.load import (
    PARTITIONS,
    baskets,
    drain,
    fill,
    fill_packed,
    own_redis,
    random_carts,
)
from pipeline.extras.bench.table import Figure
from pipeline.extras.driven import Pipeline
from pipeline.health.status import status
from pipeline.log.log import ABOUT, Log
from pipeline.read.compaction import compact
from pipeline.settings import Settings

RANDOM_SHARE = 60
"""Per cent of the commands that are sent to carts at random."""

LOOK_S = 0.25
"""How often a run looks whether it is done; more often would take time from what it measures."""


def measure(folder: Path, count: int) -> list[Figure]:
    """The producer, one worker and two, with the demo's first `count` commands."""
    sent = [*baskets(count)]
    with own_redis(folder / "one") as settings:
        packed = fill_packed(settings.reachable_redis, sent)
        filled = fill(settings.reachable_redis, sent)
        bare = drain(settings.reachable_redis)
        one = rate(settings.model_copy(update={"workers": 1}), sent)
        size = _size(settings)
    with own_redis(folder / "two") as settings:
        fill(settings.reachable_redis, sent)
        two = rate(settings.model_copy(update={"workers": 2}), sent)
    at_random = [*random_carts(RANDOM_SHARE * count // 100)]
    with own_redis(folder / "random") as settings:
        fill(settings.reachable_redis, at_random)
        random_rate = rate(settings.model_copy(update={"workers": 1}), at_random)
    sent_bytes = sum(len(to_json(command)) for command in sent)
    return [
        Figure("send_many, commands", filled, "/s", "packed XADDs", packed, "≥ 0.5"),
        Figure("stream to read models, one worker", one, "/s", "bare XREAD drain", bare,
               "≥ 0.2, ≥ 120,000/s"),
        Figure("stream to read models, two workers", two, "/s", "one worker", one, "≥ 1.6"),
        Figure("the same, carts at random", random_rate, "/s", "one worker", one, "≥ 0.75"),
        Figure("log for a command, UUIDs as ids", size / count, "bytes", "its JSON",
               sent_bytes / count, "≤ 30 bytes"),
    ]  # fmt: skip


def rate(settings: Settings, sent: list[dict[str, Any]]) -> float:
    """Commands a second of a pipeline that finds them all waiting, and is stopped when it is done.

    The clock runs from the first new commit to the publish that holds everything.
    """
    before = _positions(settings)
    with Pipeline(settings) as pipeline:
        while (after := _positions(settings)) == before:
            pipeline.check()
            time.sleep(0.01)
        started = time.time()
        counted = len(sent) - (sum(after.values()) - sum(before.values()))
        while status(settings).lag:
            time.sleep(LOOK_S)
            pipeline.check()
    assert status(settings).unpublished == 0
    return counted / (settings.published.stat().st_mtime - started)


def _size(settings: Settings) -> int:
    """Bytes of the log once the small files of the run are merged."""
    log = Log.open(settings.events, domain=cart.name)
    compact(settings, log)
    return sum(f.path.stat().st_size for p in range(PARTITIONS) for f in log.files(p))


def _positions(settings: Settings) -> dict[int, int]:
    if not (settings.events / ABOUT).exists():
        return {}
    log = Log.open(settings.events, domain=cart.name)
    return {p: end for p in range(PARTITIONS) if (end := log.next_position(p))}
