"""From XADD to the durable outcome, and to the row in the published file."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import redis
from pydantic_core import to_json

from ingest.command import partition_of
from ingest.keys import command_stream, reply_prefix
from ingest.outcome import Outcome
from ingest.producer import Producer
from ingest.shop import shop
from pipeline.extras.bench.load import PARTITIONS, baskets, own_redis
from pipeline.extras.bench.table import Figure
from pipeline.extras.driven import Pipeline
from pipeline.health.status import status
from pipeline.log.log import Log
from pipeline.settings import Settings
from projections.held import held_in

STEADY_RATE = 1_000
"""Commands a second of a system that is not busy."""

WARM_UP_S = 3.0
"""Left out of the figures: a pipeline has just started."""

BACKLOG = 20_000
"""Commands that wait in Redis under full load: enough that the pipeline always has a batch."""

SENT_AT_ONCE = 2_000

REPLY_KEY = reply_prefix(shop.name) + "bench"
WRITTEN_BYTES = 4096
FSYNCS = 300
POLL_S = 0.005


def measure(folder: Path, seconds: float) -> list[Figure]:
    """Latency and freshness, each for so many seconds."""
    with running(folder / "latency") as settings:  # alone: to watch publishes takes time from it
        latencies, disk = _latencies(settings, seconds), _fsyncs(folder)
    with running(folder / "steady") as settings:
        published = Publishes(settings)
        _latencies(settings, seconds)
        steady = published.freshness(settings)
    with running(folder / "full") as settings:
        published = Publishes(settings)
        _full_load(settings, seconds)
        full = published.freshness(settings)
    interval_s = settings.publish_interval_ms / 1000
    figures = []
    for share, goal in (50, "≤ 10 ms"), (99, "≤ 50 ms"):
        figures.append(
            Figure(f"XADD to outcome, {STEADY_RATE:,}/s, p{share}",
                   1000 * quantile(latencies, share), "ms",
                   f"fsync of 4 KiB, p{share}", 1000 * quantile(disk, share), goal)
        )  # fmt: skip
    for load, found in (f"{STEADY_RATE:,}/s", steady), ("full load", full):
        figures.append(
            Figure(f"XADD to published, {load}, p99", quantile(found, 99), "s",
                   "publish period", interval_s, "≤ 1.5 s")
        )  # fmt: skip
    return figures


@contextmanager
def running(data: Path, workers: int | None = None) -> Iterator[Settings]:
    """A pipeline that is up, and a Redis of its own."""
    with own_redis(data) as found:
        settings = found.model_copy(update={"workers": workers or found.workers})
        with Pipeline(settings) as pipeline:
            pipeline.wait_until_ready()
            yield settings


def quantile(values: list[float], percent: int) -> float:
    """What so many percent of the values are below."""
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def _latencies(settings: Settings, seconds: float) -> list[float]:
    """Seconds from before XADD to the outcome at the sender, one by one at a steady rate."""
    count = int(STEADY_RATE * (seconds + WARM_UP_S))
    added: dict[str, float] = {}
    told: dict[str | None, float] = {}

    def listen() -> None:
        with redis.Redis.from_url(settings.reachable_redis, protocol=2) as client:
            last: Any = b"0"
            while len(told) < count:
                for _, entries in client.xread({REPLY_KEY: last}, block=1000):
                    now = time.perf_counter()
                    for _, fields in entries:
                        told[Outcome.from_json(fields[b"outcome"]).command_id] = now
                    last = entries[-1][0]

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    with redis.Redis.from_url(settings.reachable_redis, protocol=2) as client:
        started = time.perf_counter()
        for number, command in enumerate(baskets(count)):
            payload = to_json({**command, "reply_to": REPLY_KEY})
            time.sleep(max(0.0, started + number / STEADY_RATE - time.perf_counter()))
            added[command["command_id"]] = time.perf_counter()
            client.xadd(_stream(command), {"command": payload})
    listener.join(timeout=60)
    warm = [*added][int(STEADY_RATE * WARM_UP_S) :]
    return [told[command_id] - added[command_id] for command_id in warm]


def _stream(command: dict[str, Any]) -> str:
    return command_stream(shop.name, partition_of(command["cart_id"], PARTITIONS))


def _fsyncs(folder: Path) -> list[float]:
    """Seconds of writing 4 KiB and waiting until it is on the disk."""
    found = []
    with open(folder / "fsync", "wb", buffering=0) as file:
        for _ in range(FSYNCS):
            started = time.perf_counter()
            file.write(bytes(WRITTEN_BYTES))
            os.fsync(file.fileno())
            found.append(time.perf_counter() - started)
    return found


def _full_load(settings: Settings, seconds: float) -> None:
    """Keep the streams filled, but not more and more."""
    streams = [command_stream(shop.name, partition) for partition in range(PARTITIONS)]
    client = redis.Redis.from_url(settings.reachable_redis, protocol=2)
    until = time.monotonic() + seconds + WARM_UP_S
    with client, Producer(settings.reachable_redis) as producer:
        commands = baskets()
        while time.monotonic() < until:
            while sum(map(client.xlen, streams)) > BACKLOG:
                time.sleep(POLL_S)
            producer.send_many([*islice(commands, SENT_AT_ONCE)])


class Publishes:
    """Watches the published file: when it was replaced, and what each new one holds.

    That takes time from the pipeline.
    """

    def __init__(self, settings: Settings) -> None:
        self._path = settings.published
        self._found: list[tuple[float, dict[int, int]]] = []
        self._done = False
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        seen = 0.0
        while not self._done:
            time.sleep(POLL_S)
            if not self._path.exists() or (made := self._path.stat().st_mtime) == seen:
                continue
            seen = made  # before it is opened: the next one may come meanwhile
            with held_in(self._path) as held:
                now = time.time()
                positions = held.positions()
            self._found.append((now, positions))

    def all(self, settings: Settings) -> list[tuple[float, dict[int, int]]]:
        """When each file was there, and where each partition ended in it; the last has it all."""
        while status(settings).lag != 0:
            time.sleep(0.1)
        log = Log.open(settings.events, domain=shop.name)
        ends = {p: log.next_position(p) for p in range(PARTITIONS)}
        while self._thread.is_alive() and (not self._found or self._found[-1][1] != ends):
            time.sleep(POLL_S)
        self._done = True
        self._thread.join()
        return self._found

    def freshness(self, settings: Settings) -> list[float]:
        """Of each row of the log but the first: seconds from its XADD to the file that has it."""
        warm = int(STEADY_RATE * WARM_UP_S) // PARTITIONS
        published = self.all(settings)
        log = Log.open(settings.events, domain=shop.name)
        found: list[float] = []
        for partition in range(PARTITIONS):
            parts = [*log.read(partition, 0, ["position", "recorded_at"])]
            rows = pa.concat_tables(parts)["recorded_at"].cast(pa.int64())
            added = pc.divide(rows.cast(pa.float64()), 1e6).to_pylist()
            first = warm
            for when, held in published:
                end = held.get(partition, 0)
                found += [when - at for at in added[first:end]]
                first = max(first, end)
        return found
