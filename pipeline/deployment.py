"""One domain on one data directory and one Redis, as settings describe them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ingest.domain import Domain
from pipeline.decide.batch import BatchDecider
from pipeline.log.log import Log
from pipeline.replay.snapshots import Snapshots
from pipeline.settings import Settings


@dataclass(frozen=True, slots=True)
class Deployment:
    """What every program and every tool works on."""

    settings: Settings
    """Every knob, and every path below the data directory."""
    domain: Domain
    log: Log

    @classmethod
    def open(cls, settings: Settings) -> Deployment:
        """Raises `LogMismatch` where there is no log of the domain."""
        domain = settings.load_domain()
        return cls(settings, domain, Log.open(settings.events, domain=domain.name))

    @classmethod
    def create(cls, settings: Settings) -> Deployment:
        """The same, and a log is made where there is none. Raises `LogMismatch` where the log has
        another domain or another number of partitions.
        """
        domain = settings.load_domain()
        log = Log.create(settings.events, partitions=settings.partitions, domain=domain.name)
        return cls(settings, domain, log)

    def decider(self) -> BatchDecider:
        """What decides this domain's commands."""
        limit = self.settings.payload_bytes_max
        return BatchDecider(self.domain, partitions=self.log.partitions, payload_bytes_max=limit)

    def snapshots(self, folder: Path) -> Snapshots:
        """Snapshots of the log's aggregates, kept in a folder."""
        return Snapshots(
            folder,
            self.domain,
            self.log,
            rows=self.settings.snapshot_rows,
            in_memory=self.settings.aggregates_in_memory // self.log.partitions,
        )
