"""Metrics for Prometheus: counted once for each batch, flush and publish, never for each command.

The read side serves on `metrics_port`, worker `i` on `metrics_port + 1 + i`. What concerns all of
them (lag, freshness, files, Redis) the read side looks up when it is scraped, in the server's
thread.
"""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from prometheus_client import REGISTRY, Counter, Histogram, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from ingest.errors import FoldlogError, NotAvailable
from ingest.schema import REJECTED, UNREADABLE
from pipeline.settings import Settings
from pipeline.status import status

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

COMMANDS = Counter("foldlog_commands", "Commands read and decided.", ["partition"])
OUTCOMES = Counter("foldlog_outcomes", "Commands by what they came to.", ["kind"])
BATCH = Histogram(
    "foldlog_batch_commands",
    "Commands in one commit.",
    buckets=(1, 4, 16, 64, 256, 1024, 4096, 16384, 65536),
)
COMMIT = Histogram("foldlog_commit_seconds", "Writing one commit to the log.", buckets=SECONDS)
FLUSH = Histogram("foldlog_flush_seconds", "Applying commits to read models.", buckets=SECONDS)
PUBLISH = Histogram("foldlog_publish_seconds", "Publishing the read models.", buckets=SECONDS)
for _kind in ("accepted", "rejected", "unreadable", "duplicate"):
    OUTCOMES.labels(_kind)


def decided(partition: int, commands: int, rows: pa.Table) -> None:
    """Count a batch. `rows` are those of the log; a duplicate command has none."""
    if not commands:
        return
    types = rows["event_type"]
    rejected = pc.sum(pc.equal(types, REJECTED)).as_py() or 0
    unreadable = pc.sum(pc.equal(types, UNREADABLE)).as_py() or 0
    handled = pc.count_distinct(rows["stream_id"]).as_py()
    COMMANDS.labels(str(partition)).inc(commands)
    BATCH.observe(commands)
    OUTCOMES.labels("rejected").inc(rejected)
    OUTCOMES.labels("unreadable").inc(unreadable)
    OUTCOMES.labels("accepted").inc(handled - rejected - unreadable)
    OUTCOMES.labels("duplicate").inc(commands - handled)


class _Whole(Collector):
    """What `foldlog status` says. Where it cannot, the gauges are absent."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def describe(self) -> list[GaugeMetricFamily]:
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        try:
            found = status(self._settings)
        except (FoldlogError, OSError, duckdb.Error):
            return
        lag = GaugeMetricFamily(
            "foldlog_lag_commands", "Commands that wait in Redis.", labels=["partition"]
        )
        rows = GaugeMetricFamily("foldlog_log_rows", "Rows in the log.", labels=["partition"])
        for p in found.partitions:
            rows.add_metric([str(p.partition)], p.position)
            if p.lag is not None:
                lag.add_metric([str(p.partition)], p.lag)
        yield lag
        yield rows
        yield GaugeMetricFamily(
            "foldlog_unpublished_rows", "Rows of the log that readers miss.", found.unpublished
        )
        yield GaugeMetricFamily("foldlog_log_files", "Files in the log.", found.files)
        yield GaugeMetricFamily(
            "foldlog_freshness_seconds",
            "Age of the oldest command that readers do not see yet.",
            found.freshness_s,
        )
        if found.redis_memory_bytes is not None:
            yield GaugeMetricFamily(
                "foldlog_redis_memory_bytes", "Memory that Redis uses.", found.redis_memory_bytes
            )


def serve(settings: Settings, offset: int) -> None:
    """Serve a program's metrics, so far above the port that is set. Raises `NotAvailable`."""
    if not settings.metrics_port:
        return
    if offset == 0:
        REGISTRY.register(_Whole(settings))
    port = settings.metrics_port + offset
    try:
        start_http_server(port, settings.metrics_host)
    except (OSError, OverflowError) as error:
        raise NotAvailable(
            f"metrics cannot be served on {settings.metrics_host}:{port} ({error});"
            " name a free port with --metrics-port"
        ) from None
