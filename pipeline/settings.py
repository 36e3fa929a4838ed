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
from ingest.domain import Domain, load_domain
from ingest.server import embedded_url
from pipeline.lock import alone


class Settings(BaseSettings):
    """`FOLDLOG_DATA=/srv/foldlog` in the environment sets `data`, and so on."""

    model_config = SettingsConfigDict(env_prefix="FOLDLOG_", env_file=".env", extra="ignore")

    data: Path = Path("data")
    """The data directory: the log in `events/`, and everything that comes back from it."""
    redis_url: str | None = None
    """A running Redis. Without it, Foldlog runs its own, with its data in `redis/`."""
    redis_server: Path | None = None
    """Another program for that own Redis than the bundled Valkey: the path of a redis-server."""
    domain: str = "ingest.cart:cart"
    """The domain, as module:attribute."""
    partitions: int | None = Field(None, ge=1, le=1024)
    """Fixed when the log is made; 4 then, where nothing is said, and what the log has later."""
    workers: int = Field(1, ge=1, le=64)
    """Processes of the write side; each owns some partitions, so no more than there are those."""
    batch_max: int = Field(8192, ge=1, le=1_000_000)
    """Commands in one commit. Larger batches cost less a command and hold more memory."""
    linger_ms: float = Field(2, ge=0, le=10_000)
    """Wait this long after a batch that was not full: fewer, larger files for a little latency."""
    payload_bytes_max: int = Field(65_536, ge=1)
    """A longer command is unreadable."""
    dedupe_window_s: float = Field(86_400, ge=0)
    """How long a command id is remembered, by the times in the log: a day."""
    dedupe_rows_max: int = Field(6_000_000, ge=0)
    """Nor further back than so many rows of the log, of all partitions together. It bounds memory:
    up to 90 bytes for each row within the window, 0.3 GB in all with this default."""
    publish_interval_ms: float = Field(500, ge=0)
    """From one publish to the next, at the least; longer when publishing takes long."""
    snapshot_rows: int = Field(250_000, ge=1)
    """Rows of a partition's log from one snapshot of its aggregates to the next."""
    aggregates_in_memory: int = Field(150_000, ge=0)
    """Of all partitions together; at most twice as many for as long as a snapshot is written."""
    compact_interval_s: float = Field(10, ge=0)
    """How often small files of the log are compacted; 0 for never."""
    compact_grace_s: float = Field(30, ge=0)
    """How long files that were compacted stay in the log, for who has listed them just before."""
    compact_kept_s: float = Field(86_400, ge=0)
    """How long they stay in `kept/`, for readers that have an older published file open."""
    compact_kept_bytes: int = Field(4 * 1024**3, ge=0)
    """Disk for those, and never more than is left free on it; the oldest go first."""
    export_interval_s: float = Field(600, ge=0)
    """How often read models are written as Parquet files, and once when stopping; 0 for never."""
    flush_rows_max: int = Field(500_000, ge=1)
    """Log rows that wait in memory for the read models; more are read from the log's files."""
    behind_rows_max: int = Field(0, ge=0)
    """The write side waits while readers miss more rows of the log than this; 0 for never."""

    group: str | None = None
    """A group that may read the log, the published file and the exports; else only the owner."""
    metrics_port: int = Field(0, ge=0, le=65_535)
    """Prometheus metrics: `read` serves on this port, worker `i` on it plus 1 plus `i`; 0: none."""
    metrics_host: str = "127.0.0.1"
    """The address that metrics are served on."""
    log_format: Literal["text", "json"] = "text"
    """How `foldlog up` writes its log, on standard error: one line a happening."""

    @property
    def errors(self) -> Path:
        """The last warnings and errors of the pipeline: a cache."""
        return self.data / "errors.jsonl"

    @property
    def lock(self) -> Path:
        """Held while `foldlog up` runs; names the programs that it keeps running."""
        return self.data / "lock"

    @property
    def programs(self) -> Path:
        """A file for each program that runs, which it holds a lock on."""
        return self.data / "programs"

    @property
    def events(self) -> Path:
        return self.data / "events"

    @property
    def published(self) -> Path:
        return self.data / "read_models.duckdb"

    @property
    def writers_file(self) -> Path:
        """The read models as their writer keeps them, of which the published file is a copy."""
        return self.data / "writer.duckdb"

    @property
    def kept(self) -> Path:
        """The log's files as published files name them: a cache; see `projections.kept`."""
        return self.data / "kept"

    @property
    def exported(self) -> Path:
        return self.data / "parquet"

    @property
    def rebuilt(self) -> Path:
        """Where rebuilt read models wait for the pipeline to take them over."""
        return self.data / "rebuilt.duckdb"

    @property
    def reachable_redis(self) -> str:
        """The Redis given, or else the one that a pipeline on this data directory runs."""
        return self.redis_url or embedded_url(self.data)

    def load_domain(self) -> Domain:
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
