"""The read side's states: each aggregate as of the read models' positions, folded from the log.

The rows of the aggregates' tables come from states, which the log does not hold. So the read side
folds for itself, with a cold store of its own, as the write side has one. Those snapshots never run
ahead of the read models: one is taken only of positions that their file holds durably.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from ingest.domain import Domain
from ingest.errors import FoldlogError
from pipeline.decide.aggregates import Aggregates, Key, Versioned
from pipeline.decide.folded_rows import FoldedRows
from pipeline.decide.mistake import failed
from pipeline.decide.partition import Partition
from pipeline.log.log import Log
from pipeline.read.source import Rows
from pipeline.replay.decode import Decoder
from pipeline.replay.matching import is_of
from pipeline.replay.snapshots import Snapshots
from pipeline.replay.states import Refold, fold_rows
from projections.relations import Positions


class States:
    """Every aggregate of the log below `positions`; `fold` moves on.

    With `snapshots` those that are not touched leave memory. Raises `LogDamaged` where the log
    cannot be read.
    """

    def __init__(self, domain: Domain, log: Log, snapshots: Snapshots, since: Positions) -> None:
        self._domain = domain
        self._log = log
        self._snapshots = snapshots
        self._decoder = Decoder(domain)
        self._rows = FoldedRows(domain)
        self._from_the_log = Refold(domain, log)
        self._touched: dict[Key, Versioned] = {}
        self._partitions = {p: self._restored(p, end) for p, end in since.items()}
        self._touched.clear()

    def _restored(self, number: int, end: int) -> Partition:
        """A partition as of `end`: from its snapshot, and what the log has from there on."""
        snapshot = self._snapshots.open(number)
        with self._log.reading():
            if snapshot.position > end or not is_of(snapshot, self._log, number):
                snapshot.discard()
            partition = Partition(number, snapshot.position, Aggregates(snapshot))
            for rows in self._read(number, snapshot.position, end):
                self._move(partition, rows)
                self._snapshots.reached(partition)
        return partition

    @property
    def positions(self) -> dict[int, int]:
        """Partition → the next position to fold."""
        return {number: p.next_position for number, p in self._partitions.items()}

    def fold(self, found: Iterable[Rows]) -> None:
        """Evolve by rows that follow those so far."""
        for rows in found:
            self._move(self._partitions[rows.partition], rows.table)

    def _move(self, partition: Partition, rows: pa.Table) -> None:
        known = partition.aggregates
        try:
            changed = fold_rows(self._domain, self._decoder, known.get, rows)
        except (FoldlogError, sqlite3.Error):
            raise
        except Exception as error:
            where = f"partition {partition.number} from position {partition.next_position}"
            raise failed(f"evolving {where}", error) from error
        known.update(changed)
        self._touched |= changed
        partition.next_position += len(rows)

    def touched(self) -> dict[str, pa.Table]:
        """The rows of the aggregates that have changed since this was last called, by kind."""
        rows = self._rows.tables(self._touched)
        self._touched = {}
        return rows

    def between(self, since: Positions, until: Positions) -> dict[str, pa.Table]:
        """The rows of aggregates with events from `since` on; `until` are our positions.

        See `projections.tables.FoldedBetween`.
        """
        assert until == self.positions
        if not any(since.values()):
            return self._from_the_log(since, until)
        found: dict[Key, Versioned] = {}
        for p, partition in self._partitions.items():
            columns = ["position", "aggregate", "aggregate_id", "version"]
            for rows in self._log.read(p, since[p], columns) if since[p] < until[p] else ():
                changed = rows.slice(0, until[p] - rows["position"][0].as_py())
                events = changed.filter(pc.is_valid(changed["version"]))
                names = (events[name].to_pylist() for name in ("aggregate", "aggregate_id"))
                for key in {*zip(*names, strict=True)}:
                    if versioned := partition.aggregates.get(key):
                        found[key] = versioned
        return self._rows.tables(found)

    def moved(self, since: Positions, until: Positions) -> dict[str, pa.Table]:
        """The same where `since` are our positions: move on to `until`, from the log's files."""
        for p, end in until.items():
            partition = self._partitions[p]
            for rows in self._read(p, partition.next_position, end):
                self._move(partition, rows)
        return self.touched()

    def _read(self, partition: int, since: int, end: int) -> Iterator[pa.Table]:
        """The log's rows from `since` up to `end`: what is needed to fold."""
        columns = self._decoder.columns_with("position")
        for rows in self._log.read(partition, since, columns) if since < end else ():
            at = rows["position"][0].as_py()
            if at >= end:
                break
            yield rows.slice(0, end - at)

    @property
    def are_many(self) -> bool:
        """Whether memory needs snapshots now; see `held_durably`."""
        return any(self._snapshots.too_many(p) for p in self._partitions.values())

    def held_durably(self) -> None:
        """The read models' file has all that was folded: snapshots may be taken of it."""
        for partition in self._partitions.values():
            self._snapshots.committed(partition, partition.next_position)

    def close(self) -> None:
        """Take the last snapshots; after `held_durably`."""
        self._snapshots.close()
