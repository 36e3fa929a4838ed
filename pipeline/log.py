"""The event log: one folder a partition, one Parquet file a commit, names as the manifest.

    events/log.json                                    partitions and domain, fixed for ever
    events/partition=3/00000000000000000120.parquet    the commit whose first position is 120

A commit is written beside, fsynced, and linked to its name, which fails if that name exists; then
the folder is fsynced. So a file is in the log whole or not at all, and of two writers only one gets
a name.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ingest import crash
from ingest.errors import LogDamaged, LogMismatch, NoRoom, Superseded
from ingest.schema import ENVELOPE

FORMAT = 1
"""Of the layout described above. Newer code reads older formats; older code refuses newer ones."""

PARTITIONS_DEFAULT = 4

_DELTA = {
    "position": "DELTA_BINARY_PACKED",
    "stream_id": "DELTA_BYTE_ARRAY",
    "recorded_at": "DELTA_BINARY_PACKED",
    "occurred_at": "DELTA_BINARY_PACKED",
}
_UNLIKELY_TO_REPEAT = {"command_id", "payload"}


MEND = "restore it from a backup, and check with `foldlog verify`"


@dataclass(frozen=True, slots=True, order=True)
class LogFile:
    """One file and the first position in it."""

    first: int
    path: Path


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
        with suppress(FileExistsError):
            _write_exclusively(folder / "log.json", json.dumps(about).encode())
        log = cls.open(folder, domain=domain)
        if partitions is not None and log.partitions != partitions:
            raise LogMismatch(
                f"the log in {folder} has {log.partitions} partitions, not {partitions};"
                f" run with --partitions {log.partitions}"
            )
        for partition in range(log.partitions):
            log._partition_folder(partition).mkdir(exist_ok=True)
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

    def files(self, partition: int, first: int = 0) -> list[LogFile]:
        """The files that hold the positions from `first` on, in order."""
        names = os.listdir(self._partition_folder(partition))
        found = sorted(
            LogFile(int(name.removesuffix(".parquet")), self._partition_folder(partition) / name)
            for name in names
            if name.endswith(".parquet")
        )  # fmt: skip
        after = [i for i, file in enumerate(found) if file.first > first]
        start = (after[0] if after else len(found)) - 1
        return found[max(0, start) :]

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
            reason = " ".join(str(error).split())
            raise LogDamaged(f"{file.path} cannot be read ({reason}); {MEND}") from None

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
            raise Superseded(
                f"another writer has committed position {first} of partition {partition};"
                " this one stops"
            ) from None
        except OSError as error:
            raise NoRoom(
                f"cannot write {folder / name}: {error.strerror};"
                " nothing is lost: make room, and start again"
            ) from None

    def clear_unfinished(self, partition: int) -> None:
        """Remove what a killed writer left beside the log. For a writer, at its start."""
        for left in self._partition_folder(partition).glob("*.tmp"):
            left.unlink()


def encoded(rows: pa.Table) -> bytes:
    """Encoded for size: a command id takes 20 of the 27 bytes that an event of the cart needs."""
    names = rows.schema.names
    buffer = io.BytesIO()
    options: dict[str, Any] = {
        "compression": "zstd",
        "compression_level": 1,
        "use_dictionary": [n for n in names if n not in _DELTA and n not in _UNLIKELY_TO_REPEAT],
        "column_encoding": {n: e for n, e in _DELTA.items() if n in ENVELOPE.names},
        "write_page_checksum": True,
        "store_schema": False,
    }
    pq.write_table(rows, buffer, **options)
    return buffer.getvalue()


def _write_exclusively(path: Path, content: bytes) -> None:
    """Durably make `path` with `content`. Raises `FileExistsError` where it exists."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
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
