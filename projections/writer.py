"""The read models' one writer: its own DuckDB file, one transaction a flush, positions included.

The file is a cache; `projections.tables` says what is in it. Its positions move in the same
transaction as its rows, so after a kill it goes on from the log at just the place where it was.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path

import duckdb
import pyarrow as pa

from ingest import crash
from ingest.domain import Domain
from ingest.errors import ReadModelInvalid, one_line
from projections.held import Held
from projections.kept import Kept
from projections.relations import Files, LogFiles, Positions, files_between
from projections.sql import quoted
from projections.tables import FoldedBetween, States, Tables
from projections.upcast import current_rows
from projections.writer_file import failed, opened_or_new, set_aside

logger = logging.getLogger("foldlog")


class Writer:
    """Keeps a domain's read models in the file `path`: `open` it, `migrate`, then `apply` flushes.

    `folded` gives the rows of the aggregates' tables for any range of the log. `positions` are
    those of the log that the file holds: partition → the next one.
    """

    def __init__(
        self,
        path: Path,
        domain: Domain,
        log: LogFiles,
        folded: FoldedBetween,
        memory_mb: int | None = None,
    ) -> None:
        """As `open` makes it."""
        self.path = path
        self.folded = folded
        self.positions: dict[int, int] = {}
        self._domain = domain
        self._log = log
        self._kept = Kept(log, path.parent / "kept")
        self._memory_mb = memory_mb
        self._adopted = 0
        self._db: duckdb.DuckDBPyConnection
        self._tables: Tables

    @classmethod
    def open(
        cls,
        path: Path,
        domain: Domain,
        log: LogFiles,
        folded: FoldedBetween,
        only: Collection[str] | None = None,
        *,
        memory_mb: int | None = None,
    ) -> Writer:
        """The file at `path`, or a new one where that is broken or not of this log. Close it.

        With `only`, no other tables than those of the models so named. `memory_mb` limits what
        DuckDB takes. Raises `ReadModelInvalid` where a declaration does not hold, `DataInUse` while
        another process writes to the file, and `ReadModelFailed`.
        """
        writer = cls(path, domain, log, folded, memory_mb)
        if not writer._is_open(only):
            writer.close()
            set_aside(path, "it holds what the log does not, which an older one has replaced")
            writer._is_open(only)
        return writer

    def _is_open(self, only: Collection[str] | None) -> bool:
        """Open the file; whether it is of this log, and the log has all that it holds."""
        self._db = opened_or_new(self.path, self._memory_mb)
        try:
            self._tables = Tables(self._db, self._domain, only)
            self._transaction(lambda: self._tables.prepare(self._log.partitions))
            held = self._tables.held
            self.positions = held.positions()
            identity, _ = held.origin() or (self._log.identity, "")
            return identity == self._log.identity and all(
                self._log.stream_id(p, self.positions[p] - 1) == last_id
                for p, last_id in held.last_ids().items()
            )
        except duckdb.Error as error:
            raise failed(self.path, "while opening", error) from None
        except ReadModelInvalid:
            self._db.close()
            raise

    def migrate(self) -> None:
        """Build what is new or changed up to the positions held, and drop what is no more."""
        self._attempt("while opening", self._migrate)

    def _migrate(self) -> None:
        tables = self._tables
        for name in tables.stale():
            tables.drop(name)
        new = tables.missing()
        if new and any(self.positions.values()):
            names = ", ".join(model.name for model in new)
            logger.info("building %s from %s rows of the log", names, sum(self.positions.values()))
        tables.build(new, self._log, self.positions, self.folded)
        tables.show()

    @property
    def moment(self) -> tuple[int, Positions, Files]:
        """Equal only while every read model holds the same rows, and the log the same files.

        How often rebuilt read models were taken over, up to where the log is in, and its files, by
        names that stay for readers; see `projections.kept`.
        """
        return self._adopted, self.positions, files_between(self._kept, {}, self.positions)

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
            self._tables.prepare(self._log.partitions)
            self._migrate()

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
        self, rows: pa.Table, states: States, until: Positions, last_ids: Mapping[int, str]
    ) -> None:
        """One flush: the log's rows from the positions held up to `until`, in one transaction.

        `states` has the row of every aggregate that has events among them, and `last_ids` the
        stream ids of the last rows, of the partitions that move. Raises `ReadModelFailed` with
        the positions and the reason; nothing of the flush is in then.
        """

        def work() -> None:
            self._tables.apply(self._tables.stored, "SELECT * FROM flush_rows", states)
            self._tables.move_to(until, last_ids)

        spans = ", ".join(
            f"partition {p} positions {self.positions[p]}-{until[p] - 1}" for p in last_ids
        )
        with self._tables.seen(flush_rows=rows):
            self._attempt(f"at {spans}", work)
        self.positions = dict(until)

    def _attempt(self, where: str, work: Callable[[], None]) -> None:
        try:
            self._transaction(work)
        except duckdb.Error as error:
            raise failed(self.path, where, error) from None

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
        """Close the file, which then holds everything applied."""
        self._db.close()
