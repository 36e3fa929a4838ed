"""Which of some entries of a stream the log has."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from ingest.entries import Compare, Entry, Standing
from ingest.stream_id import as_numbers
from pipeline.decide.batch import BatchDecider
from pipeline.decide.partition import Partition
from pipeline.log.log import Log
from pipeline.log.names import LogFile
from pipeline.log.tail import end_of


def comparison(
    log: Log, number: int, decider: BatchDecider, partition: Partition | None = None
) -> Compare:
    """Which of some entries of a partition's stream the log has; see `ingest.entries.Standing`.

    Those whose command `partition` remembers from another entry are duplicates.
    """

    def compare(entries: Sequence[Entry]) -> list[Standing]:
        kept = _kept(log, number, [entry[0].decode() for entry in entries])
        found: list[Standing] = []
        for entry in entries:
            known_by = decider.known_by(entry)
            if kept.get(entry[0].decode()) == known_by:
                found.append("committed")
            else:
                again = partition is not None and partition.has_outcome(entry[0], known_by[0])
                found.append("duplicate" if again else "new")
        return found

    return compare


def _kept(
    log: Log, number: int, stream_ids: Sequence[str]
) -> dict[str, tuple[str | None, bytes | None]]:
    """Of those stream ids that the log has: the command's id, or where it has none its payload.

    Reads only the files from the first of the ids, which ascend, to the last.
    """
    columns = ["stream_id", "command_id", "payload"]
    asked = pa.array(stream_ids, pa.string())
    kept: dict[str, tuple[str | None, bytes | None]] = {}

    def ends(file: LogFile) -> tuple[int, int]:
        return as_numbers(end_of(file).inputs.stream_id)

    with log.reading():
        files = log.files(number)
        for file in files[bisect_left(files, as_numbers(stream_ids[0]), key=ends) :]:
            rows = log.read_file(file, columns)
            found = rows.filter(pc.is_in(rows["stream_id"], asked))
            for row in found.to_pylist():
                command_id = row["command_id"]
                known_by = command_id, None if command_id else row["payload"]
                kept.setdefault(row["stream_id"], known_by)  # what follows from it comes after
            if ends(file) >= as_numbers(stream_ids[-1]):
                break
    return kept
