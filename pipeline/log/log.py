"""The event log: one folder a partition, one Parquet file a commit, names as the manifest.

    events/_log.json                                   identity, partitions, domain: for ever
    events/partition=3/00000000000000000120.parquet    the commit whose first position is 120
    events/partition=3/00000000000000000000-00000000000000000119.parquet    compacted: both included
    events/_schemas/0.json                             the events' fields; see `log.schemas`

A file is written beside, fsynced, and linked to its name, which fails if that name exists; then the
folder is fsynced. So a file is in the log whole or not at all, and of two writers only one gets a
name. A reader takes the widest file for each position and passes over those that it covers, which
are removed later; see `pipeline.log.compaction`.
"""

from __future__ import annotations

import json
import os
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from ingest import crash, rights
from ingest.durable import fsync_folder, replace, write_exclusively
from ingest.errors import LogDamaged, LogMismatch, Superseded
from pipeline.lock import if_free, shared
from pipeline.log.disk import MEND, told
from pipeline.log.encoding import _run_of, encoded, encoded_compacted
from pipeline.log.inputs import Inputs
from pipeline.log.names import LogFile, at, needed, spans
from pipeline.log.pieces import head, joined, pieces_of, schema_of, unreadable
from pipeline.log.tail import Tail, end_of, runs_of

FORMAT = 2
"""Of the layout described above, and of the rows."""

PARTITIONS_DEFAULT = 4

ABOUT = "_log.json"
"""Tools that read Parquet folders pass over names that begin with `_`."""

READERS = "_readers.lock"

REMOVED = "_removed"
"""In a partition's folder: the first position of the last file that was removed as covered."""

COMPACTING = ".compacting"
"""Of a compacted file that is being written; a partition's writer leaves those alone."""


class Log:
    """A log on disk. Reading takes no lock; appending to a partition is for its one writer."""

    def __init__(self, folder: Path, partitions: int, identity: str) -> None:
        self.folder = folder
        self.partitions = partitions
        self.identity = identity
        """Of no other log: drawn when it was made. Copies of a log share it."""

    @classmethod
    def create(cls, folder: Path, *, partitions: int | None, domain: str) -> Log:
        """Make the log if it is not there. Raises `LogMismatch` where it is another's."""
        count = partitions or PARTITIONS_DEFAULT
        about = {"format": FORMAT, "id": uuid4().hex, "partitions": count, "domain": domain}
        made = [folder, *(folder / f"partition={partition}" for partition in range(count))]
        if not (folder / ABOUT).exists():
            for path in made:  # first: whoever finds the log looks into them
                path.mkdir(parents=True, exist_ok=True)
                rights.share(path)
        with shared(folder / READERS):
            rights.share(folder / READERS)
        if not (folder / ABOUT).exists():
            # Where another start is first, it may clear what this one has written beside.
            with suppress(FileExistsError, FileNotFoundError):
                write_exclusively(folder / ABOUT, json.dumps(about).encode())
        log = cls.open(folder, domain=domain)
        if partitions is not None and log.partitions != partitions:
            raise LogMismatch(
                f"the log in {folder} has {log.partitions} partitions, not {partitions};"
                f" run with --partitions {log.partitions}"
            )
        for left in (*folder.glob("*.tmp"), *folder.glob("_schemas/*.tmp")):
            left.unlink(missing_ok=True)  # a killed start or writer has left it
        for around in (folder, folder.parent, folder.parent.parent):
            with suppress(PermissionError):  # the last may be another user's
                crash.point("create.to_fsync_folder")
                fsync_folder(around)
                crash.point("create.done")
        return log

    @classmethod
    def open(cls, folder: Path, *, domain: str) -> Log:
        """The log in `folder`. Raises `LogMismatch` where there is none, or not this domain's."""
        try:
            about = json.loads((folder / ABOUT).read_bytes())
        except FileNotFoundError:
            raise LogMismatch(
                f"there is no log in {folder}; start `foldlog up`, or name another with --data"
            ) from None
        if about["format"] > FORMAT:
            raise LogMismatch(f"the log in {folder} was written by a newer Foldlog; upgrade")
        if about["format"] < FORMAT:
            raise LogMismatch(
                f"the log in {folder} has format {about['format']}, of before a release, and"
                f" this Foldlog reads format {FORMAT}; begin a new log with --data"
            )
        if about["domain"] != domain:
            raise LogMismatch(
                f"the log in {folder} belongs to the domain {about['domain']!r}, not {domain!r};"
                " set FOLDLOG_DOMAIN or --data"
            )
        return cls(folder, about["partitions"], about["id"])

    def partition_folder(self, partition: int) -> Path:
        return self.folder / f"partition={partition}"

    def all_files(self, partition: int) -> list[LogFile]:
        """Every file, those that others cover as well; of one first position the widest first."""
        folder = self.partition_folder(partition)
        return at(folder, spans(folder))

    def files(self, partition: int, first: int = 0) -> list[LogFile]:
        """The files that hold the positions from `first` on, in order, none twice."""
        folder = self.partition_folder(partition)
        return at(folder, needed(spans(folder), first))

    def tail(self, partition: int) -> Tail:
        """Where the partition ends now. Raises `LogDamaged` where its last file cannot be read."""
        files = self.files(partition)
        return end_of(files[-1]) if files else Tail()

    def next_position(self, partition: int) -> int:
        return self.tail(partition).next_position

    def stream_id(self, partition: int, position: int) -> str | None:
        """Of the row at a position; None where the log has no such row."""
        rows = next(self.read(partition, position, ["position", "stream_id"]), None)
        if rows is None or rows["position"][0].as_py() != position:
            return None
        return str(rows["stream_id"][0].as_py())

    def read_file(self, file: LogFile, columns: list[str] | None = None) -> pa.Table:
        """The rows of one file. Raises `LogDamaged`, which names it."""
        try:
            parquet = pq.ParquetFile(file.path, page_checksum_verification=True)
            held = set(parquet.schema_arrow.names)
            wanted = None if columns is None else [c for c in columns if c in held]
            return parquet.read(wanted, use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise unreadable(file, error) from None

    def read(
        self, partition: int, first: int = 0, columns: list[str] | None = None
    ) -> Iterator[pa.Table]:
        """The rows from position `first` on, in order, a table for each row group of each file.

        Raises `LogDamaged` where the positions of two files do not join.
        """
        expected = None
        for file in self.files(partition, first):
            if expected is not None and file.first != expected:
                raise LogDamaged(
                    f"partition {partition}: positions {expected} to {file.first - 1} are missing"
                    f" before {file.path}; {MEND}"
                )
            expected = file.first
            for table in pieces_of(file, columns):
                rows = table.slice(max(0, first - expected))
                expected += len(table)
                if len(rows):
                    yield rows

    def near(self, partition: int, position: int, columns: list[str]) -> pa.Table:
        """The row at a position, and those around it that are read with it.

        Raises `LogDamaged` where it cannot be read, or is not there.
        """
        file = next(iter(self.files(partition, position)), LogFile(position + 1, self.folder))
        left = position - file.first
        try:
            with pq.ParquetFile(file.path, page_checksum_verification=True) as parquet:
                for group in range(parquet.num_row_groups):
                    count = parquet.metadata.row_group(group).num_rows
                    if 0 <= left < count:
                        return parquet.read_row_group(group, columns, use_threads=False)
                    left -= count
        except (OSError, pa.ArrowException) as error:
            raise unreadable(file, error) from None
        raise LogDamaged(f"partition {partition}: position {position} is missing; {MEND}")

    def position_before(self, partition: int, recorded_at: datetime, first: int = 0) -> int:
        """A position before which no row from `first` on has that time or a later one.

        It is the first one of a file, or else `first`.
        """
        files = self.files(partition, first)
        later = bisect_left(files, recorded_at, key=self._begun_at)
        return max(first, files[max(0, later - 1)].first) if files else first

    def _begun_at(self, file: LogFile) -> Any:
        return self.read_file(file, ["recorded_at"])["recorded_at"][0].as_py()

    def append(
        self,
        partition: int,
        first: int,
        rows: pa.Table,
        run: str = "",
        inputs: Inputs | None = None,
    ) -> None:
        """Commit rows at position `first`, durably or not at all.

        `run` names the writer; without, the commit has a run of its own. `inputs` is how far what
        they come from was read; without, to the last row's entry. Raises `Superseded` when another
        writer has already committed that position.
        """
        path = self.partition_folder(partition) / f"{first:020}.parquet"
        read = inputs or Inputs(rows["stream_id"][-1].as_py())
        try:
            with told(path):
                write_exclusively(path, encoded(rows, read, run or uuid4().hex))
        except FileExistsError:
            raise _superseded(partition, first, _run_of(path)) from None
        # The name is free again once the commit that had it is compacted and removed.
        if first <= self._removed(partition) and self._is_compacted(partition, first):
            crash.point("append.to_take_back")
            path.unlink()
            crash.point("append.taken_back")
            raise _superseded(partition, first)

    def _is_compacted(self, partition: int, first: int) -> bool:
        return any(file.covers(first) for file in self.all_files(partition))

    def append_compacted(
        self, partition: int, files: Sequence[LogFile], until: Tail | None = None
    ) -> LogFile:
        """Write adjacent files once more, as one; what they have from `until` on is left out.

        Raises `LogDamaged` where they do not join.
        """
        end = until or end_of(files[-1])
        first, last = files[0].first, end.next_position - 1
        rows = head(joined(files), end.next_position - first)
        runs = {at: run for at, run in runs_of(files).items() if at <= last}
        content = encoded_compacted(schema_of(files), rows, end.inputs, runs)
        path = self.partition_folder(partition) / f"{first:020}-{last:020}.parquet"
        try:
            with told(path):
                write_exclusively(path, content, COMPACTING)
        except FileExistsError:  # it is the same: a compaction was killed after its link
            crash.point("compact.to_fsync_folder")
            fsync_folder(path.parent)
            crash.point("compact.fsynced")
        return LogFile(first, path, last)

    def remove(self, partition: int, files: Sequence[LogFile]) -> None:
        """Remove files that others cover; each writer knows of it before a name is free again."""
        path = self.partition_folder(partition) / REMOVED
        until = max(self._removed(partition), *(file.first for file in files))
        with told(path):
            replace(path, str(until).encode(), COMPACTING)
        for file in files:
            crash.point("compact.to_remove")
            os.unlink(file.path)
            crash.point("compact.removed")

    def _removed(self, partition: int) -> int:
        """No file that began above this position was ever removed. Cheap: for each commit."""
        try:
            return int((self.partition_folder(partition) / REMOVED).read_bytes())
        except FileNotFoundError:
            return -1

    def settle(self, partition: int) -> None:
        """What is listed from now on stays, and nothing is half done.

        For a partition's writer, at its start: whatever rests on the log, as the trim of a stream
        does, must not rest on a name that a killed writer had not brought to the disk yet.
        """
        self.clear_unfinished(partition)
        crash.point("settle.to_fsync_folder")
        fsync_folder(self.partition_folder(partition))
        crash.point("settle.done")

    def clear_unfinished(self, partition: int, suffix: str = ".tmp") -> None:
        """Remove what a killed process left beside the log; a slow one finds out, and stops."""
        for left in self.partition_folder(partition).glob(f"*{suffix}"):
            left.unlink(missing_ok=True)

    def reading(self) -> AbstractContextManager[None]:
        """Files that are listed stay there until this ends: for whoever reads for long."""
        return shared(self.folder / READERS)

    def removing(self) -> AbstractContextManager[bool]:
        """Whether files may be removed now: nobody is `reading`."""
        return if_free(self.folder / READERS)


def _superseded(partition: int, first: int, run: str = "another writer") -> Superseded:
    return Superseded(
        f"{run} has committed position {first} of partition {partition}, and so has taken it over"
    )
