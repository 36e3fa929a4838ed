"""Snapshots: what a partition's writer remembers, so that a restart reads one and the log's tail.

    snapshots/3.sqlite    partition 3: aggregates by id, and up to where they hold the log

A snapshot is a cache: one that is damaged, of other code or of another log is thrown away, and the
log is folded. It is also where aggregates wait that are not in memory; see
`pipeline.decide.aggregates`. SQLite does the rest: it finds a row among millions, writes only what
changed, and keeps a moment whole through a kill.

States are pickled, and loading one runs whatever code it names. So a snapshot is used only where no
other user can have written it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TypeAlias

from ingest import crash
from ingest.code_digest import module_digest
from ingest.domain import Domain
from ingest.errors import NoRoom
from pipeline.decide.aggregates import Key, Versioned
from pipeline.decide.partition import Partition
from pipeline.decide.sends import Send
from pipeline.log.log import Log
from pipeline.replay.matching import run_at
from pipeline.replay.snapshot_file import Saved, Snapshot, saved

logger = logging.getLogger("foldlog")

FORMAT = "4"

SET_ASIDE = ".set-aside"

IN_MEMORY_MIN = 1000
"""Fewer aggregates of a partition are no reason for a snapshot."""


_Changed: TypeAlias = tuple[dict[Key, Versioned], Mapping[int, Send | None]]
"""Aggregates, and deadlines by their position."""


class Snapshots:
    """Takes a process' snapshots, one at a time, in a thread of its own."""

    def __init__(
        self, folder: Path, domain: Domain, log: Log, *, rows: int, in_memory: int
    ) -> None:
        """A snapshot is due after `rows` more rows of a partition, or when it has half as many more
        aggregates than `in_memory`; so many stay then. With twice as many, commits wait for it.
        """
        self._folder = folder
        self._code = code_of(domain)
        self._log = log
        self._rows = rows
        self._in_memory = in_memory
        self._open: dict[int, Snapshot] = {}
        self._partitions: dict[int, Partition] = {}
        self._writing: tuple[Partition, _Changed, Future[None]] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="snapshots")
        _keep_to_ourselves(folder)

    def open(self, number: int) -> Snapshot:
        self._open[number] = Snapshot(self._folder / f"{number}.sqlite", self._code)
        return self._open[number]

    def committed(self, partition: Partition, end: int) -> None:
        """The log holds the partition's rows below `end`; perhaps it is time for a snapshot."""
        if end != partition.next_position:
            return  # the next batch is decided already, and not committed
        self._partitions[partition.number] = partition
        self._settle(wait=self._above(2 * self._in_memory, partition))
        rows = end - self._open[partition.number].position
        if self._writing is None and (rows >= self._rows or self.too_many(partition)):
            self._take(partition)

    def reached(self, partition: Partition) -> None:
        """A start has folded the log up to here; waits for a snapshot, if memory needs one."""
        self._partitions[partition.number] = partition
        if self.too_many(partition):
            self._take(partition)
            self._settle(wait=True)

    def too_many(self, partition: Partition) -> bool:
        """Whether so many aggregates are in memory that a snapshot is due."""
        return self._above(self._in_memory * 3 // 2, partition)

    @staticmethod
    def _above(most: int, partition: Partition) -> bool:
        return len(partition.aggregates) > max(most, IN_MEMORY_MIN)

    def _take(self, partition: Partition) -> None:
        snapshot = self._open[partition.number]
        run = run_at(self._log, partition.number, partition.next_position - 1)
        changed = partition.aggregates.take_changed(), partition.deadlines.take_changed()
        end = partition.next_position
        written = self._thread.submit(snapshot.write, end, run, *changed)
        self._writing = partition, changed, written

    def _settle(self, *, wait: bool) -> None:
        """See how the one that is being written went."""
        if self._writing is None or not (wait or self._writing[2].done()):
            return
        partition, changed, written = self._writing
        self._writing = None
        try:
            written.result()
        except sqlite3.Error as error:
            aggregates, deadlines = changed
            partition.aggregates.put_back(aggregates)
            partition.deadlines.put_back(deadlines)
            logger.warning(
                "no snapshot of partition %s (%s); the next start folds more of the log",
                partition.number, error,
            )  # fmt: skip
        else:
            partition.aggregates.forget(self._in_memory)

    def drop(self, number: int) -> None:
        """Forget a partition that another writer has taken over; its snapshot stays as it is."""
        self._settle(wait=True)
        self._partitions.pop(number, None)
        self._open.pop(number).close()

    def close(self) -> None:
        """Take the last ones: what is committed, and not in a snapshot yet."""
        self._settle(wait=True)
        for partition in self._partitions.values():
            snapshot = self._open[partition.number]
            if partition.next_position > snapshot.position:
                self._take(partition)
                self._settle(wait=True)
        self._thread.shutdown()
        for snapshot in self._open.values():
            snapshot.close()


@contextmanager
def saved_states(folder: Path, number: int, code: str) -> Iterator[Saved]:
    """A partition's snapshot by this code, for a tool to read beside the program that writes it.

    None of it where another user could have written it: to load a state runs what it names.
    """
    path = folder / f"{number}.sqlite"
    if path.exists() and _only_ours(folder) and _only_ours(path):
        with saved(path, code) as found:
            yield found
    else:
        yield Saved()


def _keep_to_ourselves(folder: Path) -> None:
    """Make the folder, for this user alone; what another user can have put there is set aside.

    Raises `NoRoom` where the folder cannot be taken from the other user.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # of two workers, one looks after the other is done
        open_to_others = not _only_ours(folder)
        files = [path for path in folder.glob("*.sqlite*") if path.suffix != SET_ASIDE]
        suspect = [path for path in files if open_to_others or not _only_ours(path)]
        for path in suspect:
            crash.point("distrust.to_rename")
            os.replace(path, f"{path}{SET_ASIDE}")
            crash.point("distrust.renamed")
        if open_to_others:
            os.chown(folder, os.geteuid(), -1)
            os.chmod(folder, 0o700)
    except OSError as error:
        raise NoRoom(
            f"another user can write {folder} ({error.strerror}): it is a cache; remove it, and"
            " start again"
        ) from None
    finally:
        os.close(descriptor)
    if suspect:
        logger.warning(
            "%d files in %s may have been written by another user; they are now *%s, and the log"
            " is folded", len(suspect), folder, SET_ASIDE,
        )  # fmt: skip


def _only_ours(path: Path) -> bool:
    """Whether this user owns it and nobody else may write it."""
    found = path.stat()
    return found.st_uid == os.geteuid() and not found.st_mode & 0o022


def code_of(domain: Domain) -> str:
    """A digest of the code that a snapshot depends on: the domain's, and how rows become states."""
    decoding = (
        "pipeline.decide.deadlines", "pipeline.decide.sends", "pipeline.replay.decode",
        "pipeline.replay.states", "projections.upcast",
    )  # fmt: skip
    ours = [module_digest(name) for name in decoding]
    return sha256("\0".join([FORMAT, domain.code_digest, *ours]).encode()).hexdigest()
