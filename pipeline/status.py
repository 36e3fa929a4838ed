"""How far everything is: the log, the streams, the published file."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from ingest.schema import REJECTED, UNREADABLE
from ingest.streams import LOST, command_stream, entries_after, open_client, repairs_key
from pipeline.log import Log
from pipeline.settings import Settings


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
    """What was mended after Redis had lost entries; see `ingest.streams.rejoin`."""

    @property
    def lag(self) -> int | None:
        lags = [p.lag for p in self.partitions]
        return None if None in lags else sum(lag for lag in lags if lag)

    @property
    def unpublished(self) -> int:
        """Rows in the log that readers do not see yet."""
        return sum(p.position - p.published_position for p in self.partitions)


def status(settings: Settings) -> Status:
    """The state of things now. Raises `LogMismatch` where there is no log of this domain."""
    domain = settings.load_domain()
    log = Log.open(settings.events, domain=domain.name)
    published, age = _published(settings)
    client = open_client(settings.reachable_redis)
    partitions = []
    for number in range(log.partitions):
        tail = log.tail(number)
        try:
            lag = entries_after(client, command_stream(domain.name, number), tail.last_stream_id)
        except LOST:
            lag = None
        partitions.append(
            PartitionStatus(
                number, tail.last_stream_id, tail.next_position, published.get(number, 0), lag
            )
        )
    repairs: list[str] = []
    with suppress(*LOST):
        repairs = [bytes(t).decode() for t in client.hvals(repairs_key(domain.name))]  # type: ignore[arg-type]
    client.close()
    return Status(partitions, age, repairs)


def _published(settings: Settings) -> tuple[dict[int, int], float | None]:
    """Positions and age of the published file."""
    if not settings.published.exists():
        return {}, None
    age = max(0.0, time.time() - settings.published.stat().st_mtime)
    with duckdb.connect(str(settings.published), read_only=True) as db:
        return dict(
            db.execute("SELECT partition, next_position FROM live.positions").fetchall()
        ), age


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
