"""Commands a second: into the streams, and from there to the log and the published read models."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import to_json

from ingest.domain import Domain
from ingest.entries import Batch, Entry
from ingest.shop import shop
from pipeline.decide.batch import BatchDecider
from pipeline.decide.partition import Partition
from pipeline.engine.garbage import not_now
from pipeline.extras.bench.load import (
    PARTITIONS,
    READ_COUNT,
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


@dataclass(frozen=True, slots=True)
class Drained:
    """What it took a pipeline to bring all commands that waited to readers."""

    rate: float
    """Commands a second, from just before the first commit to the publish that holds everything."""
    write_us: float
    """CPU a command of the write side, and of the read side."""
    read_us: float
    memory_mib: float
    """Of both sides, the most that each held."""


def measure(folder: Path, count: int) -> list[Figure]:
    """The producer, one worker and two, with the demo's first `count` commands."""
    sent = [*baskets(count)]
    with own_redis(folder / "one") as settings:
        packed = fill_packed(settings.reachable_redis, sent)
        filled = fill(settings.reachable_redis, sent)
        bare = drain(settings.reachable_redis)
        one = drained(settings.model_copy(update={"workers": 1}), sent)
        size = _size(settings)
        whole, from_the_log = _rebuilt_s(settings), _rebuilt_s(settings, "--from-the-log")
    with own_redis(folder / "two") as settings:
        fill(settings.reachable_redis, sent)
        two = drained(settings.model_copy(update={"workers": 2}), sent)
    at_random = [*random_carts(RANDOM_SHARE * count // 100)]
    with own_redis(folder / "random") as settings:
        fill(settings.reachable_redis, at_random)
        random = drained(settings.model_copy(update={"workers": 1}), at_random)
    payloads = [to_json(command) for command in sent]
    return [
        Figure("send_many, commands", filled, "/s", "packed XADDs", packed, "≥ 0.5"),
        Figure("stream to read models, one worker", one.rate, "/s", "bare XREAD drain", bare,
               "≥ 0.2, ≥ 120,000/s"),
        Figure("stream to read models, two workers", two.rate, "/s", "one worker", one.rate,
               "≥ 1.6"),
        Figure("the same, one worker, carts at random", random.rate, "/s", "one worker", one.rate,
               "≥ 0.75"),
        Figure("deciding alone", decided_rate(payloads), "/s", "validating alone",
               _validated(payloads)),
        Figure("CPU a command, carts in order", one.write_us + one.read_us, "µs", "the write side",
               one.write_us, "≤ 16 µs"),
        Figure("CPU a command, carts at random", random.write_us + random.read_us, "µs",
               "the write side", random.write_us, "≤ 22 µs"),
        Figure("memory of both sides", one.memory_mib, "MiB", goal="≤ 450 MiB"),
        Figure("foldlog rebuild --all", whole, "s", "with --from-the-log", from_the_log),
        Figure("log for a command, UUIDs as ids", size / count, "bytes", "its JSON",
               sum(map(len, payloads)) / count, "≤ 30 bytes"),
    ]  # fmt: skip


def drained(settings: Settings, sent: list[dict[str, Any]]) -> Drained:
    """Run a pipeline that finds them all waiting, and stop it when all is published."""
    before = _positions(settings)
    with Pipeline(settings) as pipeline:
        while True:
            # Before each look: after a slow one there may be nothing left to measure.
            started, cpu = time.time(), pipeline.cpu_s()
            if _positions(settings) != before:
                break
            pipeline.check()
            time.sleep(0.01)
        while status(settings).lag != 0:
            time.sleep(LOOK_S)
            pipeline.check()
        spent = {name: s - cpu.get(name, 0) for name, s in pipeline.cpu_s().items()}
        memory = pipeline.memory_bytes("VmHWM")
    assert status(settings).unpublished == 0
    read = spent.pop("read")
    spent.pop("up", None)
    return Drained(
        len(sent) / (settings.published.stat().st_mtime - started),
        sum(spent.values()) / len(sent) * 1e6,
        read / len(sent) * 1e6,
        memory / 2**20,
    )


def decided_rate(payloads: list[bytes], domain: Domain = shop) -> float:
    """Commands a second that one partition decides, without Redis and without a log."""
    decider = BatchDecider(domain, partitions=1, payload_bytes_max=max(map(len, payloads)))
    partition = Partition(0)
    entries: list[Entry] = [(b"%d-0" % at, payload, []) for at, payload in enumerate(payloads, 1)]
    with not_now():  # as in a program
        started = time.perf_counter()
        for first in range(0, len(entries), READ_COUNT):
            batch = Batch(0, [*entries[first : first + READ_COUNT]])
            partition.apply(decider.decide(partition, batch))
        return len(payloads) / (time.perf_counter() - started)


def _validated(payloads: list[bytes]) -> float:
    """Commands a second that pydantic validates."""
    started = time.perf_counter()
    for payload in payloads:
        with suppress(ValidationError):
            shop.validate_json(payload)
    return len(payloads) / (time.perf_counter() - started)


def _rebuilt_s(settings: Settings, *flags: str) -> float:
    """Seconds of the whole command."""
    words = [sys.executable, "-P", "-m", "pipeline.cli", "rebuild", "--all", *flags]
    environment = {**os.environ, **settings.as_environment()}
    started = time.perf_counter()
    subprocess.run(words, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def _size(settings: Settings) -> int:
    """Bytes of the log once the small files of the run are merged."""
    log = Log.open(settings.events, domain=shop.name)
    compact(settings, log)
    return sum(f.path.stat().st_size for p in range(PARTITIONS) for f in log.files(p))


def _positions(settings: Settings) -> dict[int, int]:
    if not (settings.events / ABOUT).exists():
        return {}
    log = Log.open(settings.events, domain=shop.name)
    return {p: end for p in range(PARTITIONS) if (end := log.next_position(p))}
