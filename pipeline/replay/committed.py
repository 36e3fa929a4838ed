"""Which of some entries of a stream the log has."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from ingest.entries import Compare, Entry, Standing
from ingest.stream_id import as_numbers
from pipeline.decide.batch import BatchDecider
from pipeline.decide.partition import Partition
from pipeline.log.log import Log
from pipeline.log.names import LogFile


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

    def begins(file: LogFile) -> tuple[int, int]:
        return as_numbers(log.read_file(file, ["stream_id"])["stream_id"][0].as_py())

    with log.reading():
        files = log.files(number)
        since = bisect_right(files, as_numbers(stream_ids[0]), key=begins)
        for file in files[max(0, since - 1) :]:
            rows = log.read_file(file, columns)
            found = rows.filter(pc.is_in(rows["stream_id"], asked))
            for row in found.to_pylist():
                command_id = row["command_id"]
                kept[row["stream_id"]] = command_id, None if command_id else row["payload"]
            if as_numbers(rows["stream_id"][-1].as_py()) >= as_numbers(stream_ids[-1]):
                break
    return kept
