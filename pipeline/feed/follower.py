"""The log's rows as they come, in parts that fit into memory, from each partition in turn.

No file and no lock is held from one look to the next, so a reader may take its time between them:
each lists the files anew, and what was compacted meanwhile has the same rows at their positions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from ingest.errors import LogMismatch
from pipeline.log.listings import Listings
from pipeline.log.log import Log
from pipeline.log.names import LogFile
from pipeline.log.pieces import unreadable
from projections.relations import Positions

ROWS = 8192
"""Where files are small, so many rows are read with one look."""


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of one partition, up to but not including position `end`."""

    partition: int
    end: int
    rows: pa.Table


class Follower:
    """Gives every row of some partitions from `positions` on, once, in each partition's order."""

    def __init__(
        self,
        log: Log,
        positions: Positions,
        columns: Sequence[str] | None,
        until: Positions | None = None,
    ) -> None:
        """`columns` are those to read, None for all. With `until` there is nothing beyond it."""
        self._log = log
        self._positions = dict(positions)
        self._columns = None if columns is None else set(columns)
        self._until = until
        self._turns = deque(positions)
        self._listings = Listings(log)

    @property
    def ended(self) -> bool:
        """Whether everything up to `until` was given."""
        until = self._until
        return until is not None and all(n >= until[p] for p, n in self._positions.items())

    def look(self) -> Part | None:
        """The next rows of the partition whose turn it is; None where no partition has any now.

        Raises `LogDamaged` where a file cannot be read, and `LogMismatch` where the log does not
        reach as far as it did.
        """
        for _ in range(len(self._turns)):
            partition = self._turns[0]
            self._turns.rotate(-1)
            if found := self._read_on(partition):
                self._listings.again(partition)
                self._listings.joined(partition)
                rows = pa.concat_tables(found, promote_options="default")
                end = self._positions[partition] + len(rows)
                if self._until is not None and end > self._until[partition]:
                    end = self._until[partition]
                    rows = rows.slice(0, end - self._positions[partition])
                self._positions[partition] = end
                if len(rows):
                    return Part(partition, end, rows)
        return None

    def _read_on(self, partition: int) -> list[pa.Table]:
        if not self._listings.due(partition):
            return []
        found: list[pa.Table] = []
        first = at = self._positions[partition]
        with self._log.reading():
            files = self._log.files(partition, at)
            if at and not files:
                raise self._fell_behind(partition, at)
            for file in files:
                if file.first > at:
                    why = f"positions {at} to {file.first - 1} are missing"
                    break
                try:
                    rows = self._rows(partition, file, at)
                except FileNotFoundError:
                    why = f"{file.path} is gone"
                    break
                at += sum(map(len, rows))
                found += rows
                if at - first >= ROWS:
                    return found
            else:
                return found
        if not found:
            self._listings.stuck(partition, why)
        return found

    def _rows(self, partition: int, file: LogFile, at: int) -> list[pa.Table]:
        """A file's rows from a position on, up to the end of a row group; none at its end."""
        skip = at - file.first
        try:
            with pq.ParquetFile(file.path, page_checksum_verification=True) as parquet:
                names = parquet.schema_arrow.names
                columns = [n for n in names if self._columns is None or n in self._columns]
                for group in range(parquet.num_row_groups):
                    count = parquet.metadata.row_group(group).num_rows
                    if skip < count:
                        rows = parquet.read_row_group(group, columns, use_threads=False)
                        return [rows.slice(skip)]
                    skip -= count
        except FileNotFoundError:
            raise
        except (OSError, pa.ArrowException) as error:
            raise unreadable(file, error) from None
        if skip:
            raise self._fell_behind(partition, at)
        return []

    def _fell_behind(self, partition: int, at: int) -> LogMismatch:
        return LogMismatch(
            f"the log in {self._log.folder} ends before position {at} of partition {partition},"
            " which was read: another log is in its place, or an older copy"
        )
