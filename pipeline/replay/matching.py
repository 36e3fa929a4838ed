"""Is a snapshot of this log? The run that wrote the last row before its position says so.

That is Raft's log matching property, with runs for terms: a run offers one row for a position,
after the rows that it has read, so logs that have a row of the same run there are equal up to it.
The row alone would not do. Where a backup has taken the log's place, what was sent to the partition
may be handled in another order: other states, from as many rows, of which the last is the same.
"""

from __future__ import annotations

from pipeline.log.log import Log
from pipeline.log.tail import end_of, runs_of
from pipeline.replay.snapshot_file import Saved, Snapshot


def run_at(log: Log, number: int, position: int) -> str | None:
    """Which run wrote the row at a position; None where there is no row, or nothing says it."""
    with log.reading():
        for file in log.files(number, position)[:1]:
            if file.first <= position < end_of(file).next_position:
                runs = runs_of([file])
                return runs[max(first for first in runs if first <= position)] or None
    return None


def is_of(snapshot: Snapshot | Saved, log: Log, number: int) -> bool:
    """Whether the snapshot is the fold of this partition's log up to the snapshot's position."""
    if not snapshot.position:
        return True
    return run_at(log, number, snapshot.position - 1) == snapshot.run is not None
