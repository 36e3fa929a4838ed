"""What comes back from the log: a partition's writer, and the folded rows of any range of it."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable

from ingest.domain import Domain
from ingest.errors import FoldlogError
from pipeline.decide.aggregates import Aggregates
from pipeline.decide.mistake import failed
from pipeline.decide.outcomes import Outcomes, Window
from pipeline.decide.partition import Partition
from pipeline.log.log import Log
from pipeline.replay.decode import Decoder
from pipeline.replay.snapshot_file import Saved, Snapshot
from pipeline.replay.states import fold_rows

logger = logging.getLogger("foldlog")


def restore(
    domain: Domain,
    log: Log,
    number: int,
    window: Window,
    snapshot: Snapshot | None = None,
    reached: Callable[[Partition, str], None] = lambda *_: None,
) -> tuple[Partition, str]:
    """A partition's writer as it was after its last commit, and the stream id to read after.

    From the snapshot and what the log has above it; from the log alone where that is of no use.
    `reached` is called with both as it goes.
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


def is_of(snapshot: Snapshot | Saved, log: Log, number: int) -> bool:
    """Whether the log has the snapshot's last row, and so is the one that it was made from."""
    if not snapshot.position:
        return True
    return log.stream_id(number, snapshot.position - 1) == snapshot.stream_id


def _restore(
    domain: Domain,
    log: Log,
    number: int,
    window: Window,
    snapshot: Snapshot | None,
    reached: Callable[[Partition, str], None],
) -> tuple[Partition, str]:
    partition = Partition(number, aggregates=Aggregates(snapshot))
    decoder = Decoder(domain)
    last_stream_id = "0-0"
    if snapshot is not None and snapshot.position:
        partition.next_position, last_stream_id = snapshot.position, snapshot.stream_id
    columns = decoder.columns_with("position", "stream_id")
    for rows in log.read(number, partition.next_position, columns):
        try:
            known = partition.aggregates
            known.update(fold_rows(domain, decoder, known.get, rows))
        except (FoldlogError, sqlite3.Error):
            raise
        except Exception as error:
            first = rows["position"][0].as_py()
            raise failed(f"evolving partition {number} from position {first}", error) from error
        partition.next_position = rows["position"][-1].as_py() + 1
        last_stream_id = rows["stream_id"][-1].as_py()
        reached(partition, last_stream_id)
    partition.outcomes = Outcomes(window, log, number, partition.next_position)
    return partition, last_stream_id
