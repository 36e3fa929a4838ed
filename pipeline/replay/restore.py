"""What comes back from the log: a partition's writer, and the folded rows of any range of it."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from ingest.domain import Domain
from ingest.envelope import DEFERRED
from ingest.errors import FoldlogError
from pipeline.decide.aggregates import Aggregates
from pipeline.decide.deadlines import Deadlines
from pipeline.decide.mistake import failed
from pipeline.decide.outcomes import Outcomes, Window
from pipeline.decide.partition import Partition
from pipeline.decide.sends import COLUMNS as SENDS_COLUMNS
from pipeline.decide.sends import sends_in
from pipeline.log.log import Log
from pipeline.log.tail import end_of
from pipeline.replay.decode import Decoder
from pipeline.replay.matching import is_of
from pipeline.replay.snapshot_file import Snapshot
from pipeline.replay.states import fold_rows

logger = logging.getLogger("foldlog")


def restore(
    domain: Domain,
    log: Log,
    number: int,
    window: Window,
    snapshot: Snapshot | None = None,
    reached: Callable[[Partition], None] = lambda _: None,
) -> Partition:
    """A partition's writer as it was after its last commit.

    From the snapshot and what the log has above it; from the log alone where that is of no use.
    `reached` is called with it as it goes.
    """
    log.settle(number)
    with log.reading():
        if snapshot is not None:
            try:
                if not is_of(snapshot, log, number):
                    snapshot.discard()
                return _restore(domain, log, number, window, snapshot, reached)
            except sqlite3.DatabaseError as error:
                logger.warning("the snapshot of partition %s is of no use (%s)", number, error)
                snapshot.discard()
        return _restore(domain, log, number, window, snapshot, reached)


def _restore(
    domain: Domain,
    log: Log,
    number: int,
    window: Window,
    snapshot: Snapshot | None,
    reached: Callable[[Partition], None],
) -> Partition:
    partition = Partition(number, aggregates=Aggregates(snapshot))
    decoder = Decoder(domain)
    if snapshot is not None and snapshot.position:
        partition.next_position = snapshot.position
        partition.deadlines = Deadlines(snapshot.deadlines())
    columns = decoder.columns_with("position", "stream_id", *SENDS_COLUMNS)
    for rows in log.read(number, partition.next_position, columns):
        try:
            known = partition.aggregates
            known.update(fold_rows(domain, decoder, known.get, rows))
        except (FoldlogError, sqlite3.Error):
            raise
        except Exception as error:
            first = rows["position"][0].as_py()
            raise failed(f"evolving partition {number} from position {first}", error) from error
        _fold_deadlines(partition, rows)
        partition.next_position = rows["position"][-1].as_py() + 1
        reached(partition)
    partition.outcomes = Outcomes(window, log, number, partition.next_position)
    if files := log.files(number):
        partition.inputs = end_of(files[-1]).inputs
        recorded_at = pc.max(log.read_file(files[-1], ["recorded_at"])["recorded_at"])
        partition.recorded_us = recorded_at.cast(pa.int64()).as_py()
    return partition


def _fold_deadlines(partition: Partition, rows: pa.Table) -> None:
    """Those that rows of the partition's log have asked for, and handled."""
    for send in sends_in(partition.number, rows.filter(pc.equal(rows["event_type"], DEFERRED))):
        partition.deadlines.add(send)
    own = f"{partition.number}/"
    sources = rows["stream_id"].filter(pc.starts_with(rows["stream_id"], own))
    for source in sources.to_pylist():
        partition.deadlines.handled(int(source.removeprefix(own)))
