"""Every knob: from a flag, else `FOLDLOG_…` in the environment, else in `.env`, else the default.

`.env` is a file in the current folder, with a line `NAME=VALUE` for each.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from ingest import rights
from ingest.command import COMMAND_BYTES_MAX
from ingest.domain import Domain
from ingest.loading import load_domain
from ingest.server_socket import embedded_url
from pipeline.lock import alone
from pipeline.paths import Paths


class Settings(Paths, BaseSettings):
    """`FOLDLOG_DATA=/srv/foldlog` in the environment sets `data`, and so on."""

    model_config = SettingsConfigDict(env_prefix="FOLDLOG_", env_file=".env", extra="ignore")

    data: Path = Path("data")
    """The data directory: the log in `events/`, and everything that comes back from it."""
    redis_url: str | None = None
    """A running Redis. Without it, Foldlog runs its own, with its data in `redis/`."""
    redis_server: Path | None = None
    """Another program for that own Redis than the bundled Valkey: the path of a redis-server."""
    domain: str = "ingest.shop:shop"
    """The domain, as module:attribute."""
    partitions: int | None = Field(None, ge=1, le=1024)
    """Partitions of a new log, 4 by default; fixed from then on. For an existing log it may be left
    out, and another number is an error."""
    workers: int = Field(0, ge=0, le=64)
    """Processes of the write side. Each owns some partitions, so there are at most as many; 0 for
    one on each core but one, which the read side takes."""
    batch_max: int = Field(8192, ge=1, le=1_000_000)
    """Commands in one commit. Larger batches cost less a command and hold more memory."""
    linger_ms: float = Field(2, ge=0, le=10_000)
    """Wait this long after a batch that was not full: fewer, larger files for a little latency."""
    payload_bytes_max: int = Field(COMMAND_BYTES_MAX, ge=1)
    """A longer command is unreadable."""
    dedupe_window_s: float = Field(86_400, ge=0)
    """How long a command id is remembered, by the times in the log: a day."""
    dedupe_rows_max: int = Field(6_000_000, ge=0)
    """Limit of the log's rows, over all partitions, whose command ids are remembered. It bounds
    memory: up to 90 bytes for each row within the window, 0.3 GB in all with this default."""
    publish_interval_ms: float = Field(500, ge=0)
    """The least time from one publish to the next; it is longer when publishing takes long."""
    snapshot_rows: int = Field(250_000, ge=1)
    """Rows of a partition's log from one snapshot of its aggregates to the next."""
    aggregates_in_memory: int = Field(75_000, ge=0)
    """Limit over all partitions. While a snapshot is written, memory may hold twice as many."""
    compact_interval_s: float = Field(10, ge=0)
    """How often small files of the log are compacted; 0 for never."""
    compact_grace_s: float = Field(30, ge=0)
    """How long compacted files stay in the log, for readers that have just listed them."""
    compact_kept_s: float = Field(86_400, ge=0)
    """How long compacted files stay in `kept/`, for readers with an older published file open."""
    compact_kept_bytes: int = Field(4 * 1024**3, ge=0)
    """Limit of the disk that `kept/` takes, which is never more than what is free; the oldest
    files go first."""
    export_interval_s: float = Field(600, ge=0)
    """How often read models are written as Parquet files, and once when stopping; 0 for never."""
    flush_rows_max: int = Field(100_000, ge=1)
    """Log rows that wait in memory for the read models. What is beyond is read from files."""
    read_memory_mb: int = Field(512, ge=256)
    """Limit in MiB of what DuckDB takes in the read side. What does not fit is read again from the
    file of the read models, or waits in `writer.duckdb.tmp` in the data directory."""
    behind_rows_max: int = Field(0, ge=0)
    """The write side waits while readers miss more rows of the log than this; 0 for never."""
    events_stream_max: int = Field(0, ge=0)
    """Events on the Redis Stream of each partition, the newest ones, as CloudEvents; 0 for no such
    streams."""

    group: str | None = None
    """A Unix group that may read the log, the published file and the exports. Without it only the
    owner may."""
    metrics_port: int = Field(0, ge=0, le=65_535)
    """Prometheus metrics: `read` serves on this port, worker `i` on it plus 1 plus `i`; 0: none."""
    metrics_host: str = "127.0.0.1"
    """The address that metrics are served on."""
    log_format: Literal["text", "json"] = "text"
    """How `foldlog up` writes its log, on standard error: one line a happening."""

    @property
    def reachable_redis(self) -> str:
        """The Redis given, or else the one that a pipeline on this data directory runs."""
        return self.redis_url or embedded_url(self.data)

    def load_domain(self) -> Domain:
        """Import the domain. Raises `DomainInvalid`."""
        return load_domain(self.domain)

    def protect(self) -> None:
        """Make the data directory, closed to all but its owner and the group. For each process that
        writes there, at its start.

        Raises `FoldlogError` where the group cannot be let in.
        """
        shared = [
            self.events, self.kept, self.published, self.exported, self.lock, self.programs
        ]  # fmt: skip
        rights.protect(self.data, self.group, shared)
        self.lock.touch()  # whoever may ask whether a pipeline runs needs it
        rights.share(self.lock)

    def alone(self, wait_s: float = 0) -> AbstractContextManager[int]:
        """Only one pipeline on a data directory, until the last process that inherits this is gone.

        Raises `DataInUse` where another one still runs after `wait_s` seconds.
        """
        self.protect()
        refusal = (
            f"another pipeline runs on {self.data}; stop it, or name another folder with --data"
        )
        return alone(self.lock, refusal, wait_s)

    def as_environment(self) -> dict[str, str]:
        """The same settings for a child process."""
        given = self.model_dump(mode="json", exclude_none=True)
        return {f"FOLDLOG_{name.upper()}": str(value) for name, value in given.items()}
