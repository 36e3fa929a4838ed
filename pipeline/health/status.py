"""How far everything is: the log, the streams, the published file."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import redis

from ingest import strays
from ingest.client import open_client
from ingest.diagnosis import unreachable
from ingest.domain import Domain
from ingest.envelope import REJECTED, UNREADABLE
from ingest.joining import waiting
from ingest.keys import behind_stream, command_stream, halted_key, repairs_key
from ingest.stream_id import recorded_us
from pipeline.decide.batch import BatchDecider
from pipeline.engine.programs import Program, running
from pipeline.lock import is_held
from pipeline.log.log import Log
from pipeline.messages import last_errors
from pipeline.read.compaction import kept_for_readers
from pipeline.replay.committed import comparison
from pipeline.settings import Settings
from projections.held import positions_in

REDIS_TIMEOUT_S = 2.0
"""How long Redis may take for what is asked of it here."""

STRAYS_WITHIN_S = 0.5
"""How long to look for stray commands, where no running pipeline has."""


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    partition: int
    last_stream_id: str
    """Of the last command that has its outcome in the log."""
    position: int
    """Rows in the log."""
    published_position: int
    """Rows in the published read models."""
    lag: int | None
    """Commands in the stream that the log has not committed; None where Redis does not answer."""


@dataclass(frozen=True, slots=True)
class Status:
    partitions: list[PartitionStatus]
    published_age_s: float | None
    """Since the last publish; None where there was none."""
    repairs: list[str]
    """What was mended after Redis had lost entries; see `ingest.joining`."""
    halted: list[str]
    """Partitions that are read no more until the domain's code is mended, each with the reason."""
    running: bool
    """Whether anything runs on this data directory."""
    programs: list[Program]
    """What runs: `work` for shares of the partitions, and `read`; by name."""
    missing: list[str]
    """Programs that should run and do not."""
    freshness_s: float
    """Age of the oldest command that readers do not see yet; 0 where they see all."""
    files: int
    """Of the log."""
    kept_files: int
    """Of the log before it was compacted, kept for readers of older published files."""
    kept_bytes: int
    """Disk that those take."""
    redis_memory_bytes: int | None
    """None where Redis does not say."""
    redis_error: str | None
    """What is wrong with Redis, and what to do; None where it answers."""
    strays: dict[str, int]
    """Commands in streams that no partition has: nobody reads them; see `ingest.strays`."""
    errors: list[dict[str, str]]
    """The last warnings and errors, oldest first; see `pipeline.messages`."""

    @property
    def lag(self) -> int | None:
        lags = [p.lag for p in self.partitions]
        return None if None in lags else sum(lag for lag in lags if lag)

    @property
    def rows(self) -> int:
        """Of the log."""
        return sum(p.position for p in self.partitions)

    @property
    def unpublished(self) -> int:
        """Rows in the log that readers do not see yet."""
        return sum(p.position - p.published_position for p in self.partitions)

    def reasons(self, lag_max: int | None, freshness_max_s: float | None) -> list[str]:
        """Why this is not healthy, and what to do; empty where it is."""
        found = []
        if not self.running:
            found.append("no pipeline runs; start it with `foldlog up`")
        found += [f"{name} does not run; see the pipeline's log" for name in self.missing]
        found += self.halted
        if self.redis_error is not None:
            found.append(self.redis_error)
        elif lag_max is not None and self.lag is not None and self.lag > lag_max:
            found.append(f"lag {self.lag} is above {lag_max}; see which partition waits")
        if freshness_max_s is not None and self.freshness_s > freshness_max_s:
            found.append(
                f"freshness {self.freshness_s:.1f} s is above {freshness_max_s:g} s;"
                " see the pipeline's log"
            )
        found += [strays.warning(*stray) for stray in self.strays.items()]
        return found

    def as_json(self, reasons: list[str]) -> dict[str, Any]:
        return {
            "healthy": not reasons,
            "reasons": reasons,
            **asdict(self),
            "lag": self.lag,
            "unpublished": self.unpublished,
        }


def status(settings: Settings, timeout_s: float = REDIS_TIMEOUT_S) -> Status:
    """The state of things now, and what Redis says within `timeout_s` seconds.

    Raises `LogMismatch` where there is no log of this domain.
    """
    domain = settings.load_domain()
    log = Log.open(settings.events, domain=domain.name)
    published = positions_in(settings.published)
    tails = [log.tail(number) for number in range(log.partitions)]
    redis_says = _ask_redis(settings, domain, log, [t.last_stream_id for t in tails], timeout_s)
    partitions = [
        PartitionStatus(
            number,
            tail.last_stream_id,
            tail.next_position,
            published.get(number, 0),
            redis_says.lags.get(number),
        )
        for number, tail in enumerate(tails)
    ]
    with log.reading():
        waiting_since = _waiting_since(log, partitions, redis_says.waiting_since)
    kept = kept_for_readers(settings)
    programs = running(settings)
    wanted = settings.lock.read_text().splitlines() if is_held(settings.lock) else []
    names = [program.name for program in programs]
    return Status(
        partitions,
        _published_age_s(settings),
        redis_says.repairs,
        [f"partition {p} is halted: {why}" for p, why in sorted(redis_says.halted.items())],
        running=bool(programs or wanted),
        programs=programs,
        missing=[name for name in wanted if name not in names],
        freshness_s=max(0.0, time.time() - waiting_since) if waiting_since else 0.0,
        files=sum(len(log.files(number)) for number in range(log.partitions)),
        kept_files=kept.files,
        kept_bytes=kept.bytes,
        redis_memory_bytes=redis_says.memory_bytes,
        redis_error=redis_says.error,
        strays=redis_says.strays,
        errors=last_errors(settings),
    )


@dataclass(slots=True)
class _RedisSays:
    """What Redis could be asked; less than all where there is an error."""

    lags: dict[int, int] = field(default_factory=dict)
    waiting_since: dict[int, float] = field(default_factory=dict)
    """When the first command was recorded that the log does not have, as a Unix time."""
    repairs: list[str] = field(default_factory=list)
    halted: dict[int, str] = field(default_factory=dict)
    strays: dict[str, int] = field(default_factory=dict)
    memory_bytes: int | None = None
    error: str | None = None


def _ask_redis(
    settings: Settings, domain: Domain, log: Log, last_stream_ids: list[str], timeout_s: float
) -> _RedisSays:
    said, name = _RedisSays(), domain.name
    decider = BatchDecider(
        domain, partitions=log.partitions, payload_bytes_max=settings.payload_bytes_max
    )
    deadline = time.monotonic() + timeout_s
    url = settings.reachable_redis
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


def _waiting_since(
    log: Log, partitions: list[PartitionStatus], in_redis: dict[int, float]
) -> float | None:
    """When the oldest command that readers do not see was recorded, as a Unix time."""
    times = []
    for p in partitions:
        if p.position > p.published_position:
            rows = next(iter(log.read(p.partition, p.published_position, ["recorded_at"])))
            times.append(rows["recorded_at"][0].as_py().replace(tzinfo=UTC).timestamp())
        elif p.partition in in_redis:
            times.append(in_redis[p.partition])
    return min(times, default=None)


def _published_age_s(settings: Settings) -> float | None:
    if not settings.published.exists():
        return None
    return max(0.0, time.time() - settings.published.stat().st_mtime)


class Tally:
    """Counts outcomes in the log as it grows, reading each file once."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._next = dict.fromkeys(range(log.partitions), 0)
        self.commands = 0
        self.rejected = 0

    def update(self) -> None:
        for partition, first in self._next.items():
            for rows in self._log.read(partition, first, ["position", "stream_id", "event_type"]):
                self.commands += pc.count_distinct(rows["stream_id"]).as_py()
                turned_down = pc.is_in(rows["event_type"], pa.array([REJECTED, UNREADABLE]))
                self.rejected += pc.sum(turned_down).as_py()
                self._next[partition] = rows["position"][-1].as_py() + 1
