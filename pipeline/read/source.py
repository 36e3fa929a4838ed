"""Following the log: the rows that partitions have got since the last look, as any reader can.

Commits come in order, but a listing may show one without its predecessor, which was linked while
the folder was read: then the rows after the gap wait for the next look.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa
from bytewax.inputs import DynamicSource, StatelessSourcePartition

from ingest.domain import Domain
from ingest.stop import Stop
from pipeline.log.listings import Listings
from pipeline.log.log import Log
from pipeline.replay.decode import Decoder
from projections.relations import Positions

LOOK_S = 0.025
"""From one look at an idle log to the next."""

LAST_ROWS_MAX = 500_000
"""After so many rows a program that is to stop leaves the others for the next start."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one partition, from position `first` on."""

    partition: int
    first: int
    table: pa.Table

    @property
    def end(self) -> int:
        """The position after the last row."""
        return self.first + len(self.table)


@dataclass(frozen=True, slots=True)
class Look:
    """What moves through the read side: what one look at the log has found, often nothing."""

    found: list[Rows]
    last: bool = False
    """No other follows, as the program ends."""


class Follower:
    """Gives every row of every partition above `positions`, once, in each partition's order."""

    def __init__(self, domain: Domain, log: Log, positions: Positions) -> None:
        self._decoder = Decoder(domain)
        self._log = log
        self.positions = dict(positions)
        self._listings = Listings(log)

    def look(self, rows_max: int) -> list[Rows]:
        """What is new, as code of today would have written it; whole files, up to `rows_max` rows.

        Raises `LogDamaged` where a file cannot be read.
        """
        found: list[Rows] = []
        for partition, at in self.positions.items():
            if self._listings.due(partition) and (tables := self._new(partition, rows_max)):
                table = pa.concat_tables(tables, promote_options="default")
                found.append(Rows(partition, at, self._decoder.current(table)))
                rows_max -= len(table)
        return found

    def _new(self, partition: int, rows_max: int) -> list[pa.Table]:
        found: list[pa.Table] = []
        with self._log.reading():
            for file in self._log.files(partition, self.positions[partition]):
                at = self.positions[partition]
                if rows_max <= 0 or file.first > at:
                    self._listings.again(partition)
                    break
                rows = self._log.read_file(file).slice(at - file.first)
                if len(rows):
                    found.append(rows)
                    self.positions[partition] += len(rows)
                    rows_max -= len(rows)
        return found


class _LogPart(StatelessSourcePartition[Look]):
    def __init__(self, follower: Callable[[], Follower], rows_max: int, stop: Stop) -> None:
        self._open = follower
        self._follower: Follower | None = None
        self._rows_max = rows_max
        self._stop = stop
        self._last_rows = 0
        self._ended = False

    def next_batch(self) -> list[Look]:
        """A look, also where it finds nothing: time passes for what follows. Then the last one."""
        if self._ended or self._stop.error is not None:
            raise StopIteration
        try:
            self._follower = self._follower or self._open()
            last = self._stop.requested  # before the look: whoever stops has written all it will
            found = self._follower.look(self._rows_max)
        except BaseException as error:
            self._stop.failed(error)
            raise StopIteration from None
        if last:
            self._last_rows += sum(len(rows.table) for rows in found)
            self._ended = not found or self._last_rows >= LAST_ROWS_MAX
        if not found and not last:
            time.sleep(LOOK_S)
        return [Look(found, last=self._ended)]

    def next_awake(self) -> datetime:
        """At once: a look that finds nothing waits by itself."""
        return datetime.now(UTC)


class LogSource(DynamicSource[Look]):
    """The Bytewax source of the read side: looks at the log until the process is to stop.

    `follower` is called when the dataflow begins. For a dataflow of one worker.
    """

    def __init__(self, follower: Callable[[], Follower], rows_max: int, stop: Stop) -> None:
        self._follower = follower
        self._rows_max = rows_max
        self._stop = stop

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _LogPart:
        """Called by Bytewax."""
        return _LogPart(self._follower, self._rows_max, self._stop)
