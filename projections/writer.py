"""The read models' one writer: its own DuckDB file, one transaction a flush, positions included.

The file is a cache; `projections.tables` says what is in it. Its positions move in the same
transaction as its rows, so after a kill it goes on from the log at just the place where it was.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from ingest import crash
from ingest.domain import Domain
from ingest.errors import DataInUse, ReadModelFailed, ReadModelInvalid, one_line
from projections.held import Held
from projections.kept import Kept
from projections.relations import Files, LogFiles, Positions, files_between
from projections.session import session
from projections.sql import quoted
from projections.tables import FoldedBetween, Tables
from projections.upcast import current_rows

logger = logging.getLogger("foldlog")

STORAGE_VERSION = "v1.4.0"
"""Analysts' tools open the files; the newest format would lock out all but the newest DuckDB."""


def opened(path: Path) -> duckdb.DuckDBPyConnection:
    """A connection to the file of read models at `path`, or to a new one, for writing.

    What is committed is in the file from the next checkpoint on. There is no WAL: after a kill the
    log has what the file has not, and a WAL would write every row twice. A commit makes no
    checkpoint by itself: before a publish it would only write what the next one writes again.
    """
    config: dict[str, Any] = {
        "preserve_insertion_order": False,
        "temp_directory": f"{path}.tmp",
        "checkpoint_threshold": "1TB",
    }
    db = session(config=config)
    try:
        db.execute(
            f"ATTACH {quoted(str(path))} AS read_models"
            f" (RECOVERY_MODE no_wal_writes, STORAGE_VERSION {quoted(STORAGE_VERSION)})"
        )
    except duckdb.Error:
        db.close()
        raise
    db.execute("USE read_models")
    return db


class Writer:
    """Keeps a domain's read models in `path`. What is new or changed is built when it is opened.

    With `only`, no others than the models so named. `folded` gives the folded read model's rows for
    any range of the log.
    """

    def __init__(
        self,
        path: Path,
        domain: Domain,
        log: LogFiles,
        folded: FoldedBetween,
        only: Collection[str] | None = None,
    ) -> None:
        self.path = path
        self.folded = folded
        self._domain = domain
        self._log = log
        self._kept = Kept(log, path.parent / "kept")
        self.positions: dict[int, int] = {}
        self._adopted = 0
        self._db = self._connect()
        try:
            self._open(only)
            if not self._is_of_the_log():
                self._db.close()
                self._set_aside("it holds what the log does not, which an older one has replaced")
                self._db = self._connect()
                self._open(only)
        except duckdb.Error as error:
            raise self._failed("while opening", error) from None
        except ReadModelInvalid:
            self._db.close()
            raise

    def _open(self, only: Collection[str] | None) -> None:
        self._tables = Tables(self._db, self._domain, only)
        self._transaction(self._prepare)
        self.positions = self._tables.held.positions()

    def _is_of_the_log(self) -> bool:
        """Whether it is this log, and has the last row that is held of each partition."""
        held = self._tables.held
        identity, _ = held.origin() or (self._log.identity, "")
        return identity == self._log.identity and all(
            self._log.stream_id(p, self.positions[p] - 1) == i for p, i in held.last_ids().items()
        )

    @property
    def moment(self) -> tuple[int, Positions, Files]:
        """Equal only while every read model holds the same rows, and the log the same files.

        How often rebuilt read models were taken over, up to where the log is in, and its files, by
        names that stay for readers; see `projections.kept`.
        """
        return self._adopted, self.positions, files_between(self._kept, {}, self.positions)

    def _connect(self) -> duckdb.DuckDBPyConnection:
        """The file, or a new one in its place if it cannot be opened."""
        try:
            return opened(self.path)
        except duckdb.Error as error:
            if "Could not set lock" in str(error):
                raise DataInUse(
                    f"another process has {self.path} open for writing; stop it, and start again"
                ) from None
            if self.path.exists():
                self._set_aside(error)
        try:
            return opened(self.path)
        except duckdb.Error as error:
            raise self._failed("before they began", error) from None

    def _set_aside(self, reason: object) -> None:
        aside = self.path.with_suffix(f".broken-{time.time_ns()}")
        crash.point("aside.to_rename")
        os.replace(self.path, aside)
        crash.point("aside.renamed")
        logger.warning(
            "the read models' file cannot be used (%s); it is now %s; a new one is built",
            one_line(reason), aside,
        )  # fmt: skip

    def _failed(self, where: str, error: duckdb.Error) -> ReadModelFailed:
        """What to tell the user; a file that DuckDB gives up on is out of the next start's way."""
        if isinstance(error, duckdb.FatalException | duckdb.InternalException):
            self._set_aside(error)
        return ReadModelFailed(
            f"read models stopped {where}: {one_line(error)};"
            " no event is skipped: mend that, and start again"
        )

    def _transaction(self, work: Callable[[], None]) -> None:
        self._db.execute("BEGIN")
        try:
            work()
        except BaseException:
            with suppress(duckdb.Error):  # what has failed may have ended the transaction
                self._db.execute("ROLLBACK")
            raise
        crash.point("flush.to_commit")
        self._db.execute("COMMIT")
        crash.point("flush.committed")

    def _prepare(self) -> None:
        """Build what is new or changed up to the positions held, drop what is no more."""
        tables = self._tables
        tables.prepare(self._log.partitions)
        for name in tables.stale():
            tables.drop(name)
        new = tables.missing()
        for model in new:
            tables.create(model)
        tables.show()
        held = tables.held.positions()
        if new and any(held.values()):
            names = ", ".join(model.name for model in new)
            logger.info("building %s from %s rows of the log", names, sum(held.values()))
            tables.apply_range(new, self._log, {}, held, self.folded)

    def adopt(self, path: Path) -> bool:
        """Take over the read models in `path`, another writer's file, and the declarations of now.

        False, and nothing is done, where that file holds more of the log than this one. Raises
        `ReadModelInvalid` where those do not hold, or that is no such file; everything stays as it
        was then.
        """
        before, after = self._tables, Tables(self._db, self._domain)
        try:
            self._db.execute(f"ATTACH {quoted(str(path))} AS rebuilt (READ_ONLY)")
        except duckdb.Error as error:
            raise ReadModelInvalid(f"{path}: {one_line(error)}") from None
        since = Held(self._db, "rebuilt").positions()
        if any(since[p] > held for p, held in self.positions.items()):
            self._db.execute("DETACH rebuilt")
            return False
        self._tables = after

        def work() -> None:
            for model in self._tables.copy("rebuilt"):
                self._tables.apply_range([model], self._log, since, self.positions, self.folded)
            self._prepare()

        try:
            self._transaction(work)
        except BaseException:
            self._tables = before
            raise
        finally:
            self._db.execute("DETACH rebuilt")
        self._adopted += 1
        return True

    def catch_up(self, to: Positions | None = None, folded: FoldedBetween | None = None) -> None:
        """Apply what the log has above the positions held, up to its end now, or up to `to`."""
        until = dict(to or {p: self._log.next_position(p) for p in range(self._log.partitions)})
        moved = [p for p, end in until.items() if end > self.positions[p]]
        last_ids = {p: self._log.stream_id(p, until[p] - 1) or "" for p in moved}
        if not moved:
            return

        def work() -> None:
            tables = self._tables
            tables.apply_range(
                tables.stored, self._log, self.positions, until, folded or self.folded
            )
            tables.move_to(until, last_ids)

        self._attempt("while catching up with the log", work)
        self.positions = until

    def apply(
        self, rows: pa.Table, states: pa.Table, until: Positions, last_ids: Mapping[int, str]
    ) -> None:
        """One flush: the log's rows from the positions held up to `until`, in one transaction.

        `states` are the folded rows of every aggregate that has events among them, and `last_ids`
        the stream ids of the last rows, of the partitions that move. Raises `ReadModelFailed` with
        the positions and the reason; nothing of the flush is in then.
        """

        def work() -> None:
            self._tables.apply(self._tables.stored, "SELECT * FROM flush_rows")
            self._tables.move_to(until, last_ids)

        spans = ", ".join(
            f"partition {p} positions {self.positions[p]}-{until[p] - 1}" for p in last_ids
        )
        with self._tables.seen(flush_rows=rows, states=states):
            self._attempt(f"at {spans}", work)
        self.positions = dict(until)

    def _attempt(self, where: str, work: Callable[[], None]) -> None:
        try:
            self._transaction(work)
        except duckdb.Error as error:
            raise self._failed(where, error) from None

    def publish_log(self, until: Positions, files: Files) -> None:
        """Point the relations at the rows of a `moment`, in the files that hold them."""
        rows = current_rows(self._domain, self._log, {}, until, files, self._kept.folder)

        def work() -> None:
            self._tables.set_log(rows)
            self._tables.set_files(self._log.identity, self._kept.folder, files)

        self._transaction(work)

    def use_threads(self, count: int) -> None:
        """From now on. It begins with all cores, as nothing else wants them while it catches up."""
        self._db.execute(f"SET threads = {count}")

    def checkpoint(self) -> None:
        """Everything applied is in the file."""
        crash.point("publish.to_checkpoint")
        self._db.execute("CHECKPOINT")
        crash.point("publish.checkpointed")

    def close(self) -> None:
        self._db.close()
