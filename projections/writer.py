"""The read models' one writer: its own DuckDB file, one transaction a flush, positions included.

The file is a cache. The schema `live` holds the hidden tables, without indexes or keys; the views
in `main` are what readers see; `live.positions` says up to where each partition is in, and moves in
the same transaction as the rows. A flush applies only what lies above those positions, and a gap is
read from the log, so it never matters what was handed over in memory, or twice.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import duckdb
import pyarrow as pa

from ingest import crash
from ingest.domain import Domain
from ingest.errors import DataInUse, ReadModelFailed
from projections.model import Folded, Select, read_models
from projections.relations import (
    LogFiles,
    Positions,
    definitions,
    empty_rows,
    named,
    quoted,
    rows_between,
    sql_type,
    with_relations,
)
from projections.select import LiveSelect, compile_select
from projections.upcast import upcast

logger = logging.getLogger("foldlog")

STORAGE_VERSION = "v1.4.0"
"""Analysts' tools open this; the newest format would lock out all but the newest DuckDB."""

FORMAT = "1"
"""Of the hidden tables. Part of each model's digest, so that another format is built anew."""

Refold: TypeAlias = Callable[[Positions, Positions], pa.Table]
"""(since, until) → the folded rows, as of `until`, of aggregates with events from `since` on."""


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit of a partition, on its way in memory from the log's writer to this one."""

    partition: int
    first: int
    rows: pa.Table
    states: pa.Table


class Writer:
    """Keeps a domain's read models in `path`. Opening it brings them up to the log's end.

    With `until`, up to those positions instead.
    """

    def __init__(
        self,
        path: Path,
        domain: Domain,
        log: LogFiles,
        refold: Refold,
        until: Positions | None = None,
    ) -> None:
        self.path = path
        self._domain = domain
        self._log = log
        self._refold = refold
        self._models = read_models(domain)
        self._compiled: dict[str, LiveSelect] = {}
        self._compile()
        self.positions: dict[int, int] = {}
        self._db = self._connect()
        try:
            self._open()
            if any(self._log.next_position(p) < held for p, held in self.positions.items()):
                self._db.close()
                self._set_aside("it holds more than the log, which an older one has replaced")
                self._db = self._connect()
                self._open()
            self.catch_up(until)
        except duckdb.Error as error:
            raise self._failed("while catching up with the log", error) from None

    def _open(self) -> None:
        self._transaction(self._prepare)
        held = self._db.execute("SELECT partition, next_position FROM live.positions")
        self.positions = dict(held.fetchall())

    def _compile(self) -> None:
        """Check every declaration before anything is written."""
        with duckdb.connect() as known:
            known.execute(f"CREATE TABLE log AS {empty_rows(self._domain.schema)}")
            for name, sql in definitions(self._domain.schema).items():
                known.execute(f"CREATE VIEW {name} AS {sql}")
            for model in self._models:
                if isinstance(model, Select):
                    self._compiled[model.name] = compile_select(model, _table(model.name), known)

    def _connect(self) -> duckdb.DuckDBPyConnection:
        """The file, or a new one in its place if it cannot be opened."""
        config: dict[str, Any] = {
            "storage_compatibility_version": STORAGE_VERSION,
            "preserve_insertion_order": False,
        }
        try:
            return duckdb.connect(str(self.path), config=config)
        except duckdb.Error as error:
            if "Could not set lock" in str(error):
                raise DataInUse(
                    f"another process has {self.path} open for writing; stop it, and start again"
                ) from None
            if self.path.exists():
                self._set_aside(error)
        try:
            return duckdb.connect(str(self.path), config=config)
        except duckdb.Error as error:
            raise self._failed("before they began", error) from None

    def _set_aside(self, reason: object) -> None:
        aside = self.path.with_suffix(f".broken-{time.time_ns()}")
        # First, so that it is never found beside the next file.
        self.path.with_name(self.path.name + ".wal").unlink(missing_ok=True)
        crash.point("aside.to_rename")
        os.replace(self.path, aside)
        crash.point("aside.renamed")
        logger.warning(
            "the read models' file cannot be used (%s); it is now %s; a new one is built",
            " ".join(str(reason).split()), aside,
        )  # fmt: skip

    def _failed(self, where: str, error: duckdb.Error) -> ReadModelFailed:
        """What to tell the user; a file that DuckDB gives up on is out of the next start's way."""
        if isinstance(error, duckdb.FatalException | duckdb.InternalException):
            self._set_aside(error)
        reason = " ".join(str(error).split())
        return ReadModelFailed(
            f"read models stopped {where}: {reason};"
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
        """Make the tables, build what is new or changed up to the positions held, drop the rest."""
        db = self._db
        db.execute("CREATE SCHEMA IF NOT EXISTS live")
        db.execute(
            "CREATE TABLE IF NOT EXISTS live.positions (partition INTEGER, next_position BIGINT)"
        )
        db.execute("CREATE TABLE IF NOT EXISTS live.models (name VARCHAR, digest VARCHAR)")
        held = dict(db.execute("SELECT partition, next_position FROM live.positions").fetchall())
        for partition in range(self._log.partitions):
            if partition not in held:
                db.execute("INSERT INTO live.positions VALUES (?, 0)", [partition])
        found = dict(db.execute("SELECT name, digest FROM live.models").fetchall())
        wanted = {model.name: FORMAT + model.digest for model in self._models}
        for name in found:
            if wanted.get(name) != found[name]:
                db.execute(f"DROP VIEW IF EXISTS main.{named(name)}")
                db.execute(f"DROP TABLE IF EXISTS {_table(name)}")
                db.execute("DELETE FROM live.models WHERE name = ?", [name])
        new = [model for model in self._models if found.get(model.name) != wanted[model.name]]
        for model in new:
            self._create(model)
            db.execute("INSERT INTO live.models VALUES (?, ?)", [model.name, wanted[model.name]])
        if any(held.values()):
            self._apply_range(new, {}, held)

    def _create(self, model: Folded | Select) -> None:
        table = _table(model.name)
        if isinstance(model, Folded):
            columns = "".join(f"{named(n)} {sql_type(t)}, " for n, t in model.columns.items())
            self._db.execute(
                f"CREATE TABLE {table} ({named(model.key)} VARCHAR, {columns}version BIGINT,"
                " first_at TIMESTAMP, last_at TIMESTAMP)"
            )
            view = f"SELECT * FROM {table}"
        else:
            compiled = self._compiled[model.name]
            log = empty_rows(self._domain.schema)
            self._db.execute(
                f"CREATE TABLE {table} AS"
                f" {with_relations(self._domain.schema, log, compiled.batch)}"
            )
            view = compiled.view
        self._db.execute(f"CREATE VIEW main.{named(model.name)} AS {view}")
        self._db.execute(f"COMMENT ON VIEW main.{named(model.name)} IS {quoted(model.description)}")

    def catch_up(self, to: Positions | None = None) -> None:
        """Apply what the log has above the positions held, up to its end now."""
        until = dict(to or {p: self._log.next_position(p) for p in range(self._log.partitions)})
        if until == self.positions:
            return

        def work() -> None:
            self._apply_range(self._models, self.positions, until)
            self._move_to(until)

        self._transaction(work)
        self.positions = until

    def apply(self, commits: Sequence[Commit]) -> None:
        """One flush: commits in order, into every read model, in one transaction.

        Raises `ReadModelFailed` with the positions and the reason; nothing of the flush is in then.
        """
        until = dict(self.positions)
        fresh = []
        for commit in commits:
            if commit.first > until[commit.partition]:
                self.catch_up()
                return self.apply(commits)
            if commit.first == until[commit.partition] and len(commit.rows):
                fresh.append(commit)
                until[commit.partition] += len(commit.rows)
        if not fresh:
            return None

        def work() -> None:
            self._apply(self._models, "SELECT * FROM flush_rows", "flush_states")
            self._move_to(until)

        rows = pa.concat_tables(c.rows for c in fresh)
        states = pa.concat_tables(c.states for c in fresh)
        try:
            with self._seen(flush_rows=rows, flush_states=states):
                self._transaction(work)
        except duckdb.Error as error:
            spans = ", ".join(
                f"partition {p} positions {self.positions[p]}-{end - 1}"
                for p, end in until.items()
                if end > self.positions[p]
            )
            raise self._failed(f"at {spans}", error) from None
        self.positions = until
        return None

    def _apply_range(
        self, models: Sequence[Folded | Select], since: Positions, until: Positions
    ) -> None:
        """Apply rows of the log itself."""
        log = self._rows_between(since, until)
        folded = any(isinstance(model, Folded) for model in models)
        with self._seen(**({"refolded": self._refold(since, until)} if folded else {})):
            self._apply(models, log, "refolded")

    @contextmanager
    def _seen(self, **tables: pa.Table) -> Iterator[None]:
        """Let SQL read Arrow tables by these names."""
        for name, table in tables.items():
            self._db.register(name, table)
        try:
            yield
        finally:
            for name in tables:
                with suppress(duckdb.Error):  # after a failure DuckDB may refuse, and need not
                    self._db.unregister(name)

    def _apply(self, models: Sequence[Folded | Select], log: str, states: str) -> None:
        for model in models:
            table = _table(model.name)
            if isinstance(model, Folded):
                batch, merge = self._folded_batch(model, states), self._folded_merge(model)
            else:
                compiled = self._compiled[model.name]
                batch, merge = compiled.batch, compiled.merge(table, "batch")
            query = with_relations(self._domain.schema, log, batch)
            (held,) = self._db.execute(f"SELECT count(*) FROM {table}").fetchone() or (0,)
            if held:
                self._db.execute(f"CREATE OR REPLACE TEMP TABLE batch AS {query}")
                self._db.execute(merge)
                self._db.execute("DROP TABLE batch")
            else:
                self._db.execute(f"INSERT INTO {table} {query}")

    @staticmethod
    def _folded_batch(model: Folded, states: str) -> str:
        """One row an aggregate: its newest state, and the times of its events in the batch."""
        columns = "".join(f"{named(name)}, " for name in model.columns)
        return (
            f"SELECT aggregate_id AS {named(model.key)}, {columns}version, first_at, last_at FROM"
            f" (SELECT * FROM {states}"
            " QUALIFY row_number() OVER (PARTITION BY aggregate_id ORDER BY version DESC) = 1)"
            " JOIN (SELECT aggregate_id, min(occurred_at) AS first_at, max(occurred_at) AS last_at"
            " FROM events GROUP BY aggregate_id) USING (aggregate_id)"
        )

    @staticmethod
    def _folded_merge(model: Folded) -> str:
        columns = "".join(f"{n} = s.{n}, " for n in map(named, [*model.columns, "version"]))
        key = named(model.key)
        return (
            f"MERGE INTO {_table(model.name)} t USING batch s ON t.{key} = s.{key}"
            f" WHEN MATCHED THEN UPDATE SET {columns}"
            "first_at = least(t.first_at, s.first_at), last_at = greatest(t.last_at, s.last_at)"
            " WHEN NOT MATCHED THEN INSERT"
        )

    def _move_to(self, until: Positions) -> None:
        for partition, position in until.items():
            if self.positions.get(partition) != position:
                self._db.execute(
                    "UPDATE live.positions SET next_position = ? WHERE partition = ?",
                    [position, partition],
                )

    def _rows_between(self, since: Positions, until: Positions) -> str:
        schema = self._domain.stored_schema
        return upcast(self._domain, rows_between(self._log, schema, since, until))

    def publish_views(self) -> None:
        """Point the views over the log at the files that hold exactly the positions applied."""
        log = self._rows_between({}, self.positions)

        def work() -> None:
            self._db.execute(f"CREATE OR REPLACE VIEW live.log AS {log}")
            for name, sql in definitions(self._domain.schema).items():
                shown = sql.replace("FROM log", "FROM live.log")
                self._db.execute(f"CREATE OR REPLACE VIEW main.{name} AS {shown}")

        self._transaction(work)

    def checkpoint(self) -> None:
        """Everything applied is in the file itself, and nothing in a WAL beside it."""
        crash.point("publish.to_checkpoint")
        self._db.execute("CHECKPOINT")
        crash.point("publish.checkpointed")

    def close(self) -> None:
        self._db.close()


def _table(model: str) -> str:
    """The hidden table of a read model."""
    return f"live.{named(model)}"
