"""What concerns the whole system, looked up when it is scraped."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from ingest.errors import FoldlogError
from pipeline.health.status import status
from pipeline.settings import Settings


class Gauges(Collector):
    """What `foldlog status` says. Where it cannot, the gauges are absent."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def describe(self) -> list[GaugeMetricFamily]:
        """None: without this, registering would already look everything up."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Called by the metrics' server, in a thread of its own, at each scrape."""
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
