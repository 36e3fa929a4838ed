"""The event log: one folder a partition, one Parquet file a commit, names as the manifest.

    events/log.json                                    partitions and domain, fixed for ever
    events/partition=3/00000000000000000120.parquet    the commit whose first position is 120
    events/partition=3/00000000000000000000-00000000000000000119.parquet    compacted: both included

A file is written beside, fsynced, and linked to its name, which fails if that name exists; then the
folder is fsynced. So a file is in the log whole or not at all, and of two writers only one gets a
name. A reader takes the widest file for each position and passes over those that it covers, which
are removed later; see `pipeline.compaction`.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from ingest import crash
from ingest.errors import LogDamaged, LogMismatch, NoRoom, Superseded, one_line
from ingest.schema import ENVELOPE

FORMAT = 1
"""Of the layout described above. Newer code reads older formats; older code refuses newer ones."""

PARTITIONS_DEFAULT = 4

COMPACTING = ".compacting"
"""Of a compacted file that is being written; a partition's writer leaves those alone."""

ROW_GROUP = 131_072

_DELTA = {
    "position": "DELTA_BINARY_PACKED",
    "stream_id": "DELTA_BYTE_ARRAY",
    "recorded_at": "DELTA_BINARY_PACKED",
    "occurred_at": "DELTA_BINARY_PACKED",
}
_UNLIKELY_TO_REPEAT = {"command_id", "payload"}


MEND = "restore it from a backup, and check with `foldlog verify`"


@dataclass(frozen=True, slots=True)
class LogFile:
    """One file, the first position in it, and where it is compacted the last one."""

    first: int
    path: Path
    last: int | None = None

    def covers(self, first: int) -> bool:
        return self.last is not None and self.first <= first <= self.last


_Span: TypeAlias = tuple[int, int | None, str]
"""First position, last one where the name says it, name: cheaper than a `LogFile`."""


@dataclass(frozen=True, slots=True)
class Tail:
    """Where a partition ends: the next position, and the last command that has its outcome."""

    next_position: int = 0
    last_stream_id: str = "0-0"


class Log:
    """A log on disk. Reading takes no lock; appending to a partition is for its one writer."""

    def __init__(self, folder: Path, partitions: int) -> None:
        self.folder = folder
        self.partitions = partitions

    @classmethod
    def create(cls, folder: Path, *, partitions: int | None, domain: str) -> Log:
        """Make the log if it is not there. Raises `LogMismatch` where it is another's."""
        count = partitions or PARTITIONS_DEFAULT
        about = {"format": FORMAT, "partitions": count, "domain": domain}
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "log.json").exists():
            for partition in range(count):  # first: whoever finds the log looks into them
                (folder / f"partition={partition}").mkdir(exist_ok=True)
        with suppress(FileExistsError):
            _write_exclusively(folder / "log.json", json.dumps(about).encode())
        log = cls.open(folder, domain=domain)
        if partitions is not None and log.partitions != partitions:
            raise LogMismatch(
                f"the log in {folder} has {log.partitions} partitions, not {partitions};"
                f" run with --partitions {log.partitions}"
            )
        crash.point("create.to_fsync_folder")
        _fsync_folder(folder)
        crash.point("create.done")
        return log

    @classmethod
    def open(cls, folder: Path, *, domain: str) -> Log:
        """The log in `folder`. Raises `LogMismatch` where there is none, or not this domain's."""
        try:
            about = json.loads((folder / "log.json").read_bytes())
        except FileNotFoundError:
            raise LogMismatch(
                f"there is no log in {folder}; start `foldlog up`, or name another with --data"
            ) from None
        if about["format"] > FORMAT:
            raise LogMismatch(f"the log in {folder} was written by a newer Foldlog; upgrade")
        if about["domain"] != domain:
            raise LogMismatch(
                f"the log in {folder} belongs to the domain {about['domain']!r}, not {domain!r};"
                " set FOLDLOG_DOMAIN or --data"
            )
        return cls(folder, about["partitions"])

    def _partition_folder(self, partition: int) -> Path:
        return self.folder / f"partition={partition}"

    def all_files(self, partition: int) -> list[LogFile]:
        """Every file, those that others cover as well; of one first position the widest first."""
        return self._at(partition, self._spans(partition))

    def _compacted_files(self, partition: int) -> list[LogFile]:
        """Far fewer than all, and so cheaper to look at with each commit."""
        return self._at(partition, self._spans(partition, "-"))

    def files(self, partition: int, first: int = 0) -> list[LogFile]:
        """The files that hold the positions from `first` on, in order, none twice."""
        found: list[_Span] = []
        held = -1
        for span in self._spans(partition):
            begin, end, _ = span
            if begin > held:
                if begin <= first:
                    found.clear()
                found.append(span)
                held = begin if end is None else end
        return self._at(partition, found)

    def _spans(self, partition: int, having: str = "") -> list[_Span]:
        """What the names of the partition's files say, of those that have `having` in theirs."""
        found: list[_Span] = []
        for name in os.listdir(self._partition_folder(partition)):
            if having in name and name.endswith(".parquet"):
                first, _, last = name.removesuffix(".parquet").partition("-")
                found.append((int(first), int(last) if last else None, name))
        return sorted(found, key=lambda span: (span[0], -1 if span[1] is None else -span[1]))

    def _at(self, partition: int, spans: Iterable[_Span]) -> list[LogFile]:
        folder = self._partition_folder(partition)
        return [LogFile(first, folder / name, last) for first, last, name in spans]

    def tail(self, partition: int) -> Tail:
        """Where the partition ends now. Raises `LogDamaged` where its last file cannot be read."""
        files = self.files(partition)
        if not files:
            return Tail()
        last = self.read_file(files[-1], ["stream_id"])
        return Tail(files[-1].first + len(last), last["stream_id"][-1].as_py())

    def next_position(self, partition: int) -> int:
        return self.tail(partition).next_position

    def read_file(self, file: LogFile, columns: list[str] | None = None) -> pa.Table:
        """The rows of one file. Raises `LogDamaged`, which names it."""
        try:
            parquet = pq.ParquetFile(file.path, page_checksum_verification=True)
            held = set(parquet.schema_arrow.names)
            wanted = None if columns is None else [c for c in columns if c in held]
            return parquet.read(wanted, use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise LogDamaged(f"{file.path} cannot be read ({one_line(error)}); {MEND}") from None

    def read(
        self, partition: int, first: int = 0, columns: list[str] | None = None
    ) -> Iterator[pa.Table]:
        """The rows from position `first` on, a table for each file.

        Raises `LogDamaged` where the positions of two files do not join.
        """
        expected = None
        for file in self.files(partition, first):
            if expected is not None and file.first != expected:
                raise LogDamaged(
                    f"partition {partition}: positions {expected} to {file.first - 1} are missing"
                    f" before {file.path}; {MEND}"
                )
            table = self.read_file(file, columns)
            expected = file.first + len(table)
            table = table.slice(max(0, first - file.first))
            if len(table):
                yield table

    def append(self, partition: int, first: int, rows: pa.Table) -> None:
        """Commit rows at position `first`, durably or not at all.

        Raises `Superseded` when another writer has already committed that position.
        """
        folder = self._partition_folder(partition)
        name = f"{first:020}.parquet"
        try:
            _write_exclusively(folder / name, encoded(rows))
        except FileExistsError:
            raise _superseded(partition, first) from None
        except OSError as error:
            raise NoRoom(
                f"cannot write {folder / name}: {error.strerror};"
                " nothing is lost: make room, and start again"
            ) from None
        # The name is free again once the commit that had it is compacted and removed.
        if any(file.covers(first) for file in self._compacted_files(partition)):
            (folder / name).unlink()
            raise _superseded(partition, first)

    def append_compacted(self, partition: int, files: Sequence[LogFile]) -> LogFile:
        """Write adjacent files once more, as one. Raises `LogDamaged` where they do not join."""
        tables = []
        expected = files[0].first
        for file in files:
            if file.first != expected:
                raise LogDamaged(f"positions are missing before {file.path}; {MEND}")
            tables.append(self.read_file(file))
            expected += len(tables[-1])
        rows = pa.concat_tables(tables, promote_options="default")
        first, last = files[0].first, expected - 1
        path = self._partition_folder(partition) / f"{first:020}-{last:020}.parquet"
        with suppress(FileExistsError):  # it is the same: a compaction was killed after its link
            _write_exclusively(path, encoded(rows, compacted=True), COMPACTING)
        return LogFile(first, path, last)

    def clear_unfinished(self, partition: int, suffix: str = ".tmp") -> None:
        """Remove what a killed writer left beside the log. For that writer, at its start."""
        for left in self._partition_folder(partition).glob(f"*{suffix}"):
            left.unlink()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Files that are listed stay there until this ends: for whoever reads for long."""
        with open(self.folder / "readers.lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            yield

    @contextmanager
    def removing(self) -> Iterator[bool]:
        """Whether files may be removed now: nobody is `reading`."""
        with open(self.folder / "readers.lock", "a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True


def _superseded(partition: int, first: int) -> Superseded:
    return Superseded(
        f"another writer has committed position {first} of partition {partition}; this one stops"
    )


def encoded(rows: pa.Table, *, compacted: bool = False) -> bytes:
    """Encoded for size: a command id takes 20 of the 27 bytes that an event of the cart needs.

    Rows are in the order of time, so a reader of some time skips the other row groups by their
    ranges; a reader of one aggregate skips those of compacted files by their Bloom filters.
    """
    names = rows.schema.names
    buffer = io.BytesIO()
    options: dict[str, Any] = {
        "compression": "zstd",
        "compression_level": 1,
        "use_dictionary": [n for n in names if n not in _DELTA and n not in _UNLIKELY_TO_REPEAT],
        "column_encoding": {n: e for n, e in _DELTA.items() if n in ENVELOPE.names},
        "row_group_size": ROW_GROUP,
        "bloom_filter_options": {"aggregate_id": {"ndv": ROW_GROUP}} if compacted else None,
        "write_page_checksum": True,
        "store_schema": False,
    }
    pq.write_table(rows, buffer, **options)
    return buffer.getvalue()


def _write_exclusively(path: Path, content: bytes, suffix: str = ".tmp") -> None:
    """Durably make `path` with `content`. Raises `FileExistsError` where it exists."""
    beside = path.with_name(f"{path.name}.{os.getpid()}{suffix}")
    try:
        with open(beside, "wb") as file:
            file.write(content)
            crash.point("commit.to_write")
            file.flush()  # all of it, or an error: an unbuffered write may end half-way without one
            crash.point("commit.written")
            os.fsync(file.fileno())
            crash.point("commit.fsynced")
        crash.point("commit.to_link")
        os.link(beside, path)
        crash.point("commit.linked")
    finally:
        beside.unlink(missing_ok=True)
    crash.point("commit.to_fsync_folder")
    _fsync_folder(path.parent)
    crash.point("commit.done")


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
