"""A domain's read models as tables and views of one DuckDB database.

    live.NAME       a hidden table for each folded model and each SELECT, without indexes or keys
    live.models     which declaration each of these was built for: `name`, `digest`
    live.positions  up to where they hold the log: `partition`, `next_position`, and the
                    `stream_id` of the row before that, which tells one log from another
    live.log        a view: rows of the log
    live.files      the files that it reads: `partition`, `first`, `last`, `name`
    live.origin     which log that is, and where its files are kept: `identity`, `folder`
    main.NAME       a view for each read model and relation, which is what readers see

Nothing here begins or ends a transaction.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

import duckdb
import pyarrow as pa

from ingest.domain import Domain
from projections.held import Held
from projections.model import Folded, Select, View, read_models
from projections.refusal import refused
from projections.relations import (
    Files,
    LogFiles,
    Positions,
    definitions,
    empty_rows,
    with_relations,
)
from projections.select import LiveSelect, compile_select
from projections.sql import named, quoted, sql_type
from projections.trial import Trial
from projections.upcast import current_rows

FORMAT = "3"
"""Of the hidden tables, and a part of each model's digest."""

Stored: TypeAlias = Folded | Select
"""A read model that has rows of its own."""

FoldedBetween: TypeAlias = Callable[[Positions, Positions], pa.Table]
"""(since, until) → the folded rows, as of `until`, of aggregates with events from `since` on."""


_FILES = pa.schema(
    {"partition": pa.int32(), "first": pa.int64(), "last": pa.int64(), "name": pa.string()}
)


class Tables:
    """Raises `ReadModelInvalid` where a declaration does not hold, before anything is written.

    All are checked, and with `only` none but the models so named are made.
    """

    def __init__(
        self,
        db: duckdb.DuckDBPyConnection,
        domain: Domain,
        only: Collection[str] | None = None,
    ) -> None:
        self._db = db
        self.held = Held(db)
        self._domain = domain
        models = read_models(domain)
        self.stored: list[Stored] = [m for m in models if not isinstance(m, View)]
        self._views = [m for m in models if isinstance(m, View)]
        self._compiled: dict[str, LiveSelect] = {}
        self._compile()
        if only is not None:
            self.stored = [m for m in self.stored if m.name in only]
            self._views = [v for v in self._views if v.name in only]

    def _compile(self) -> None:
        """Try every declaration on some rows."""
        with Trial(self._domain.schema, [*self._domain.events]) as trial:
            known = trial.known
            for model in self.stored:
                if isinstance(model, Select):
                    live = compile_select(model, table(model.name), known)
                    trial.check(model, live, table(model.name))
                    self._compiled[model.name] = live
                else:
                    known.execute(f"CREATE TABLE {named(model.name)} ({_columns(model)})")
            for view in self._views:
                try:
                    known.execute(f"CREATE VIEW {named(view.name)} AS {view.sql}")
                except duckdb.Error as error:
                    raise refused(view, error) from None

    def prepare(self, partitions: int) -> None:
        """Make what every database of read models has, where it is not there yet."""
        self._db.execute("CREATE SCHEMA IF NOT EXISTS live")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS live.positions"
            " (partition INTEGER, next_position BIGINT, stream_id VARCHAR)"
        )
        self._db.execute("ALTER TABLE live.positions ADD COLUMN IF NOT EXISTS stream_id VARCHAR")
        self._db.execute("CREATE TABLE IF NOT EXISTS live.models (name VARCHAR, digest VARCHAR)")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS live.origin (identity VARCHAR, folder VARCHAR)"
        )
        for partition in set(range(partitions)) - self.held.positions().keys():
            self._db.execute("INSERT INTO live.positions VALUES (?, 0, NULL)", [partition])
        self.set_log(empty_rows(self._domain.schema))

    def move_to(self, until: Positions, last_ids: Mapping[int, str]) -> None:
        """Note what the tables hold now; `last_ids` of the partitions that have moved."""
        for partition, stream_id in last_ids.items():
            self._db.execute(
                "UPDATE live.positions SET next_position = ?, stream_id = ? WHERE partition = ?",
                [until[partition], stream_id, partition],
            )

    def stale(self) -> list[str]:
        """The tables that no declaration of now was built into."""
        wanted = {(model.name, digest(model)) for model in self.stored}
        return sorted(name for name, built in self.held.models() if (name, built) not in wanted)

    def missing(self) -> list[Stored]:
        """The declarations that no table was built for."""
        built = self.held.models()
        return [model for model in self.stored if (model.name, digest(model)) not in built]

    def drop(self, name: str) -> None:
        self._db.execute(f"DROP TABLE IF EXISTS {table(name)}")
        self._db.execute("DELETE FROM live.models WHERE name = ?", [name])

    def copy(self, database: str) -> list[Stored]:
        """Take the tables from another database that were built for these declarations; which."""
        built = Held(self._db, database).models()
        found = [model for model in self.stored if (model.name, digest(model)) in built]
        for model in found:
            self.drop(model.name)
            rows = f"SELECT * FROM {database}.{table(model.name)}"
            self._db.execute(f"CREATE TABLE {table(model.name)} AS {rows}")
            self._note(model)
        return found

    def _note(self, model: Stored) -> None:
        self._db.execute("INSERT INTO live.models VALUES (?, ?)", [model.name, digest(model)])

    def set_log(self, rows: str) -> None:
        """Let the relations show the rows of the SELECT `rows`."""
        self._db.execute(f"CREATE OR REPLACE VIEW live.log AS {rows}")

    def set_files(self, identity: str, kept: Path, files: Files) -> None:
        """Say which log, and which of its files, `live.log` reads."""
        listed = pa.Table.from_pylist(
            [
                {"partition": p, "first": f.first, "last": f.last, "name": os.path.basename(f.path)}
                for p, held in files.items()
                for f in held
            ],
            _FILES,
        )
        with self.seen(listed=listed):
            self._db.execute("CREATE OR REPLACE TABLE live.files AS FROM listed")
        self._db.execute("DELETE FROM live.origin")
        origin = [identity, os.path.abspath(kept)]
        self._db.execute("INSERT INTO live.origin VALUES (?, ?)", origin)

    def create(self, model: Stored) -> None:
        """The model's hidden table, empty."""
        self._note(model)
        if isinstance(model, Folded):
            self._db.execute(f"CREATE TABLE {table(model.name)} ({_columns(model)})")
        else:
            log = empty_rows(self._domain.schema)
            query = with_relations(self._domain.schema, log, self._compiled[model.name].batch)
            self._db.execute(f"CREATE TABLE {table(model.name)} AS {query}")

    def show(self) -> None:
        """Make the views in `main` anew: the relations over `live.log`, and every read model."""
        shown = "SELECT view_name FROM duckdb_views() WHERE schema_name = 'main' AND NOT internal"
        for (name,) in self._db.execute(
            f"{shown} AND database_name = current_database()"
        ).fetchall():
            self._db.execute(f"DROP VIEW main.{named(name)}")
        for name, sql in definitions(self._domain.schema).items():
            self._view(name, sql.replace("FROM log", "FROM live.log"))
        for model in (*self.stored, *self._views):
            if isinstance(model, View):
                sql = model.sql
            elif isinstance(model, Select):
                sql = self._compiled[model.name].view
            else:
                sql = f"SELECT * FROM {table(model.name)}"
            self._view(model.name, sql)
            comment = f"COMMENT ON VIEW main.{named(model.name)} IS {quoted(model.description)}"
            self._db.execute(comment)

    def _view(self, name: str, sql: str) -> None:
        self._db.execute(f"CREATE VIEW main.{named(name)} AS {sql}")

    def apply(self, models: Sequence[Stored], log: str, states: str) -> None:
        """Merge the rows of the SQL relation `log` into the models' tables.

        `states` names a relation with the folded rows of every aggregate that has events in it.
        """
        for model in models:
            target = table(model.name)
            if isinstance(model, Folded):
                batch, merge = _folded_batch(model, states), _folded_merge(model)
            else:
                compiled = self._compiled[model.name]
                batch, merge = compiled.batch, compiled.merge(target, "batch")
            query = with_relations(self._domain.schema, log, batch)
            (held,) = self._db.execute(f"SELECT count(*) FROM {target}").fetchone() or (0,)
            if held:
                self._db.execute(f"CREATE OR REPLACE TEMP TABLE batch AS {query}")
                self._db.execute(merge)
                self._db.execute("DROP TABLE batch")
            else:
                self._db.execute(f"INSERT INTO {target} {query}")

    def apply_range(
        self,
        models: Sequence[Stored],
        log: LogFiles,
        since: Positions,
        until: Positions,
        folded: FoldedBetween,
        where: str = "true",
        files: Files | None = None,
    ) -> None:
        """Merge the log's rows from `since` up to `until` that meet a condition.

        `files` are those that hold them, where they have been listed already. This is how read
        models are built: when they are new, rebuilt, far behind, or of a moment.
        """
        with log.reading():
            rows = current_rows(self._domain, log, since, until, files)
            asked = any(isinstance(model, Folded) for model in models)
            states = {"states": folded(since, until)} if asked else {}
            with self.seen(**states):
                self.apply(models, f"SELECT * FROM ({rows}) WHERE {where}", "states")

    @contextmanager
    def seen(self, **tables: pa.Table) -> Iterator[None]:
        """Let SQL read Arrow tables by these names."""
        for name, rows in tables.items():
            self._db.register(name, rows)
        try:
            yield
        finally:
            for name in tables:
                with suppress(duckdb.Error):  # after a failure DuckDB may refuse, and need not
                    self._db.unregister(name)


def digest(model: Stored) -> str:
    """What a model's table was built for: with another digest it has to be built anew."""
    return FORMAT + model.digest


def table(model: str) -> str:
    """The hidden table of a read model."""
    return f"live.{named(model)}"


def _columns(model: Folded) -> str:
    columns = "".join(f"{named(n)} {sql_type(t)}, " for n, t in model.columns.items())
    return (
        f"{named(model.key)} VARCHAR, {columns}"
        "version BIGINT, first_at TIMESTAMP, last_at TIMESTAMP"
    )


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


def _folded_merge(model: Folded) -> str:
    """As `LiveSelect.merge`: in the order of the table's rows, of which only some are looked at."""
    key, target = named(model.key), table(model.name)
    columns = [key, *map(named, model.columns), "version", "first_at", "last_at"]
    rows = f"SELECT rowid AS row, {key} FROM {target} WHERE {key} IN (SELECT {key} FROM batch)"
    updated = "".join(f"{name} = s.{name}, " for name in columns[1:-2])
    return (
        f"MERGE INTO {target} t USING (SELECT s.*, t.row FROM batch s LEFT JOIN ({rows}) t"
        f" ON t.{key} = s.{key} ORDER BY t.row) s ON t.rowid = s.row"
        f" WHEN MATCHED THEN UPDATE SET {updated}"
        "first_at = least(t.first_at, s.first_at), last_at = greatest(t.last_at, s.last_at)"
        f" WHEN NOT MATCHED THEN INSERT ({', '.join(columns)})"
        f" VALUES ({', '.join(f's.{name}' for name in columns)})"
    )
