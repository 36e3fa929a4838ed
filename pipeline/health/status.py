"""How far everything is: the log, the streams, the published file."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from ingest import strays
from pipeline.deployment import Deployment
from pipeline.engine.programs import Program, running
from pipeline.health.in_redis import ask
from pipeline.health.sent import SentStatus, sent_status
from pipeline.lock import is_held
from pipeline.log.log import Log
from pipeline.messages import last_errors
from pipeline.read.compaction import kept_for_readers
from pipeline.settings import Settings
from projections.held import positions_in

REDIS_TIMEOUT_S = 2.0
"""How long Redis may take for what is asked of it here."""


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """How far one partition is."""

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
    """How far everything is, and what is wrong."""

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
    sent: SentStatus
    """What policies have sent, and the deadlines."""
    errors: list[dict[str, str]]
    """The last warnings and errors, oldest first; see `pipeline.messages`."""

    @property
    def lag(self) -> int | None:
        """Commands that wait in all streams; None where one stream's lag is not known."""
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
        if self.sent.failed:
            found.append(
                f"{self.sent.failed:,} command(s) of policies were rejected within a day, a mistake"
                " in the domain; SELECT * FROM sends WHERE state NOT IN ('waiting', 'accepted'),"
                " or FROM deadlines"
            )
        return found

    def as_json(self, reasons: list[str]) -> dict[str, Any]:
        """What `foldlog status --json` prints."""
        return {
            "healthy": not reasons,
            "reasons": reasons,
            **asdict(self),
            "lag": self.lag,
            "unpublished": self.unpublished,
            "sent": {**asdict(self.sent), "next_due_at": _text(self.sent.next_due_at)},
        }


def status(settings: Settings, timeout_s: float = REDIS_TIMEOUT_S) -> Status:
    """The state of things now, and what Redis says within `timeout_s` seconds.

    Raises `LogMismatch` where there is no log of this domain.
    """
    deployed = Deployment.open(settings)
    log = deployed.log
    published = positions_in(settings.published)
    before = [log.tail(number) for number in range(log.partitions)]
    in_redis = ask(deployed, [tail.inputs.stream_id for tail in before], timeout_s)
    # Once more: what has been committed since then waits for readers, and no longer in Redis.
    tails = [log.tail(number) for number in range(log.partitions)]
    partitions = [
        PartitionStatus(
            number,
            tail.inputs.stream_id,
            tail.next_position,
            published.get(number, 0),
            in_redis.lags.get(number),
        )
        for number, tail in enumerate(tails)
    ]
    with log.reading():
        waiting_since = _waiting_since(log, partitions, in_redis.waiting_since)
    kept = kept_for_readers(settings)
    programs = running(settings)
    wanted = settings.lock.read_text().splitlines() if is_held(settings.lock) else []
    names = [program.name for program in programs]
    return Status(
        partitions,
        _published_age_s(settings),
        in_redis.repairs,
        [f"partition {p} is halted: {why}" for p, why in sorted(in_redis.halted.items())],
        running=bool(programs or wanted),
        programs=programs,
        missing=[name for name in wanted if name not in names],
        freshness_s=max(0.0, time.time() - waiting_since) if waiting_since else 0.0,
        files=sum(len(log.files(number)) for number in range(log.partitions)),
        kept_files=kept.files,
        kept_bytes=kept.bytes,
        redis_memory_bytes=in_redis.memory_bytes,
        redis_error=in_redis.error,
        strays=in_redis.strays,
        sent=sent_status(deployed.domain, log),
        errors=last_errors(settings),
    )


def _text(at: datetime | None) -> str | None:
    return None if at is None else f"{at.isoformat()}Z"


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
