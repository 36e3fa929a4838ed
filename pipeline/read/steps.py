"""The steps of the read side, and what they remember."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import duckdb
import pyarrow as pa

from ingest.errors import NoRoom, one_line
from ingest.stop import Stop
from pipeline.deployment import Deployment
from pipeline.engine import metrics
from pipeline.engine.garbage import collect_when_due, give_back
from pipeline.engine.program import every, ready
from pipeline.read.compaction import compact
from pipeline.read.exports import export_changes
from pipeline.read.hand_over import take_over
from pipeline.read.source import Follower, Look, Rows
from pipeline.read.states import States
from pipeline.replay.states import Refold
from projections.model import sql_files
from projections.publish import Publisher
from projections.writer import Writer

logger = logging.getLogger("foldlog")

CATCH_UP_ROWS = 1_000_000
"""Rows of the log that are applied at a time while it is far behind."""


LOADED_ROWS = 10_000
"""A flush of so many rows, and the next can wait a little; see `projections.publish.BUSY_SHARE`."""


QUIET_S = 0.2
"""After so long without a new row, nothing waits for more of them."""


IDLE_LOOK_S = 0.5
"""How often it is seen whether the published file names files that compaction will remove."""


class Reader:
    """The steps, and what they remember: states, rows that wait for a flush, the DuckDB file."""

    def __init__(self, deployed: Deployment) -> None:
        self.rows_max = deployed.settings.flush_rows_max
        self._deployed = deployed
        self._settings = deployed.settings
        self._log = deployed.log
        self._waiting: list[Rows] = []
        self._flushed = False
        self._busy_s = 0.0
        self._found_at = 0.0
        self._look_at = 0.0
        self._lives = ExitStack()
        self.writer: Writer
        self._states: States
        self._publisher: Publisher

    def start(self, stop: Stop) -> Follower:
        """Open the file of read models, and bring it near the log's end."""
        settings, domain, log = self._settings, self._deployed.domain, self._log
        with _no_room():
            refold = Refold(domain, log)
            self.writer = Writer.open(
                settings.writers_file, domain, log, refold, memory_mb=settings.read_memory_mb
            )
            self.writer.migrate()
            if not sql_files(domain):
                where = domain.read_models or "the domain, which names no folder (read_models=…)"
                tables = ", ".join(kind.table for kind in domain.aggregates)
                logger.info("no read models but %s: no .sql files in %s", tables, where)
            self._publisher = Publisher(
                self.writer, settings.published, settings.publish_interval_ms / 1000
            )
            if self._publisher.first:
                self._publisher.publish()  # whoever has an outcome finds a file to ask
        ready()
        snapshots = self._deployed.snapshots(settings.states)
        self._states = States(domain, log, snapshots, self.writer.positions)
        self.writer.folded = self._states.between
        while not stop.requested and self._catch_up():
            pass
        self.writer.use_threads(max(1, (os.cpu_count() or 1) - (settings.workers or 1)))
        export, compaction = (
            partial(export_changes, self._deployed),
            partial(compact, settings, log),
        )
        self._lives.enter_context(every(settings.export_interval_s, export, at_end=True))
        self._lives.enter_context(every(settings.compact_interval_s, compaction))
        return Follower(domain, log, self.writer.positions)

    def _catch_up(self) -> bool:
        """Apply a large part of what is missing straight from the files; whether there was one."""
        held, log = self.writer.positions, self._log
        behind = {p: log.next_position(p) - at for p, at in held.items()}
        if sum(behind.values()) < self.rows_max:
            return False
        share = min(1.0, CATCH_UP_ROWS / sum(behind.values()))
        until = {p: at + int(behind[p] * share) for p, at in held.items()}
        with _no_room():
            self.writer.catch_up(until, self._states.moved)
            if time.monotonic() >= self._publisher.next_at:
                self._publish()
            else:
                self._hold()
        return True

    def _hold(self) -> None:
        """Bring what is applied to the disk, so that states may leave memory."""
        self.writer.checkpoint()
        self._states.held_durably()

    def fold(self, look: Look) -> Look:
        """Evolve the states by what is new; it waits for the next flush, since nobody sees it."""
        self._states.fold(look.found)
        self._waiting += look.found
        if look.found:
            self._found_at = time.monotonic()
            collect_when_due()
        return look

    def flush(self, look: Look) -> Look:
        """Apply all that waits, when readers are to see it or when it is much."""
        count = sum(len(rows.table) for rows in self._waiting)
        now = self._is_due() or self._settings.rebuilt.exists()
        if look.last:
            self.writer.use_threads(os.cpu_count() or 1)
        if not count or not (now or look.last or count >= self.rows_max):
            return look
        waiting, self._waiting = self._waiting, []
        until = self.writer.positions | {rows.partition: rows.end for rows in waiting}
        last_ids = {r.partition: str(r.table["stream_id"][-1].as_py()) for r in waiting}
        started = time.monotonic()
        with _no_room(), metrics.FLUSH.time():
            rows = pa.concat_tables(rows.table for rows in waiting)
            self.writer.apply(rows, self._states.touched(), until, last_ids)
            if self._states.are_many:
                self._hold()
        del waiting, rows
        give_back()
        self._flushed = True
        if count >= LOADED_ROWS:
            self._busy_s += time.monotonic() - started
        return look

    def publish(self, look: Look) -> None:
        """Let readers see what is applied, when it is time; and take rebuilt read models over."""
        changed = self._flushed or time.monotonic() >= self._look_at
        with _no_room():
            if self._settings.rebuilt.exists():
                take_over(self._settings, self.writer, self._publish)
            if look.last or (changed and self._is_due()):
                self._publish()

    def _is_due(self) -> bool:
        now, publisher = time.monotonic(), self._publisher
        loaded = now - self._found_at < QUIET_S
        return now >= (publisher.next_at if loaded else publisher.soon_at)

    def _publish(self) -> None:
        with metrics.PUBLISH.time():
            self._publisher.publish(self._busy_s)
        self._states.held_durably()
        self._flushed, self._busy_s = False, 0.0
        self._look_at = time.monotonic() + IDLE_LOOK_S

    def close(self, stop: Stop) -> None:
        """Called when everything has been handled."""
        if stop.error is None:
            self.writer.close()
            self._states.close()
        self._lives.close()


@contextmanager
def _no_room() -> Iterator[None]:
    """The machine's failure to write, as one line for the user."""
    try:
        yield
    except (duckdb.Error, OSError) as error:
        raise NoRoom(
            f"the read models cannot be written ({one_line(error)});"
            " nothing is lost: mend that, and start again"
        ) from None
