"""Metrics for Prometheus: counted once for each batch, flush and publish, never for each command.

The read side serves on `metrics_port`, worker `i` on `metrics_port + 1 + i`. What concerns all of
them (lag, freshness, files, Redis) the read side looks up when it is scraped, in the server's
thread.
"""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import REGISTRY, Counter, Histogram, start_http_server
from prometheus_client.registry import Collector

from ingest.errors import NotAvailable
from pipeline.settings import Settings

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


def decided(partition: int, commands: int, not_accepted: Mapping[str, int]) -> None:
    """Count a batch: so many commands, and of what kind those were that changed nothing."""
    if not commands:
        return
    COMMANDS.labels(str(partition)).inc(commands)
    BATCH.observe(commands)
    OUTCOMES.labels("accepted").inc(commands - sum(not_accepted.values()))
    for kind, count in not_accepted.items():
        OUTCOMES.labels(kind).inc(count)


def serve(settings: Settings, offset: int, *more: Collector) -> None:
    """Serve a program's metrics, so far above the port that is set. Raises `NotAvailable`."""
    if not settings.metrics_port:
        return
    for collector in more:
        REGISTRY.register(collector)
    port = settings.metrics_port + offset
    try:
        start_http_server(port, settings.metrics_host)
    except (OSError, OverflowError) as error:
        raise NotAvailable(
            f"metrics cannot be served on {settings.metrics_host}:{port} ({error});"
            " name a free port with --metrics-port"
        ) from None
