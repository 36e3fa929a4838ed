"""A domain's read models as tables and views of one DuckDB database.

    live.NAME       a hidden table for each aggregate and each SELECT, without indexes or keys
    live.models     which declaration each of these was built for: `name`, `digest`
    live.trials     what need not be tried again: `proof`, see `projections.declarations`
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
from projections.declarations import declarations
from projections.folded import LiveFolded, states_of
from projections.held import Held
from projections.model import Folded, Stored, View, hidden_table
from projections.relations import (
    Files,
    LogFiles,
    Positions,
    definitions,
    empty_rows,
    sent,
    with_relations,
)
from projections.sql import named, quoted
from projections.upcast import current_rows

FORMAT = "4"
"""Of the hidden tables, and a part of each model's digest."""

States: TypeAlias = Mapping[str, pa.Table]
"""Kind of aggregate → rows of some: `aggregate_id`, `version`, and the columns of its table."""

FoldedBetween: TypeAlias = Callable[[Positions, Positions], States]
"""(since, until) → the rows, as of `until`, of aggregates with events from `since` on."""

_FILES = pa.schema(
    {"partition": pa.int32(), "first": pa.int64(), "last": pa.int64(), "name": pa.string()}
)


class Tables:
    """The tables and views of one domain in the database that `db` is in."""

    def __init__(
        self,
        db: duckdb.DuckDBPyConnection,
        domain: Domain,
        only: Collection[str] | None = None,
    ) -> None:
        """All declarations are checked, and with `only` none but the models so named are made.

        Raises `ReadModelInvalid` where one does not hold, before anything is written.
        """
        self._db = db
        self.held = Held(db)
        self._domain = domain
        self._declared = declarations(domain, self.held.proofs())
        made = [m for m in self._declared.models if only is None or m.name in only]
        self.stored: list[Stored] = [m for m in made if not isinstance(m, View)]
        self.views = [m for m in made if isinstance(m, View)]

    def prepare(self, partitions: int) -> None:
        """Make what every database of read models has, where it is not there yet."""
        self._db.execute("CREATE SCHEMA IF NOT EXISTS live")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS live.positions"
            " (partition INTEGER, next_position BIGINT, stream_id VARCHAR)"
        )
        self._db.execute("ALTER TABLE live.positions ADD COLUMN IF NOT EXISTS stream_id VARCHAR")
        self._db.execute("CREATE TABLE IF NOT EXISTS live.models (name VARCHAR, digest VARCHAR)")
        self._db.execute("CREATE TABLE IF NOT EXISTS live.trials (proof VARCHAR)")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS live.origin (identity VARCHAR, folder VARCHAR)"
        )
        if self.held.proofs() != (proofs := self._declared.proofs):
            self._db.execute("DELETE FROM live.trials")
            self._db.execute("INSERT INTO live.trials SELECT unnest(?)", [sorted(proofs)])
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
        """Remove a read model's hidden table, of whichever declaration."""
        self._db.execute(f"DROP TABLE IF EXISTS {hidden_table(name)}")
        self._db.execute("DELETE FROM live.models WHERE name = ?", [name])

    def copy(self, database: str) -> list[Stored]:
        """Take the tables from another database that were built for these declarations; which."""
        built = Held(self._db, database).models()
        found = [model for model in self.stored if (model.name, digest(model)) in built]
        for model in found:
            self.drop(model.name)
            self._db.execute(f"CREATE TABLE {model.table} AS FROM {database}.{model.table}")
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
        live, schema = self._declared.live[model.name], self._domain.schema
        if isinstance(live, LiveFolded):
            query = live.empty
        else:
            query = with_relations(schema, empty_rows(schema), live.batch, live.source)
        self._db.execute(f"CREATE TABLE {model.table} AS {query}")

    def show(self) -> None:
        """Make the views in `main` anew: the relations over `live.log`, and every read model."""
        shown = "SELECT view_name FROM duckdb_views() WHERE schema_name = 'main' AND NOT internal"
        for (name,) in self._db.execute(
            f"{shown} AND database_name = current_database()"
        ).fetchall():
            self._db.execute(f"DROP VIEW main.{named(name)}")
        for name, sql in definitions(self._domain.schema, "live.log").items():
            self._view(name, sql)
        for name, sql in sent(self._domain.schema, "live.log").items():
            self._view(name, sql)
        for model in (*self.stored, *self.views):
            shown = model.sql if isinstance(model, View) else self._declared.live[model.name].view
            self._view(model.name, shown)
            comment = f"COMMENT ON VIEW main.{named(model.name)} IS {quoted(model.description)}"
            self._db.execute(comment)

    def _view(self, name: str, sql: str) -> None:
        self._db.execute(f"CREATE VIEW main.{named(name)} AS {sql}")

    def apply(self, models: Sequence[Stored], log: str, states: States) -> None:
        """Merge the rows of the SELECT `log` into the models' tables.

        Where an aggregate's table is among the models, `states` has the row of every one that has
        events there.
        """
        with self.seen(**{states_of(kind): table for kind, table in states.items()}):
            for model in models:
                if not isinstance(model, Folded) or len(states[model.aggregate]):
                    self._apply(model, log)

    def _apply(self, model: Stored, log: str) -> None:
        live = self._declared.live[model.name]
        query = with_relations(self._domain.schema, log, live.batch, live.source)
        (held,) = self._db.execute(f"SELECT count(*) FROM {model.table}").fetchone() or (0,)
        if not held:
            self._db.execute(f"INSERT INTO {model.table} {query}")
            return
        made = self._db.execute(f"CREATE OR REPLACE TEMP TABLE batch AS {query}").fetchone()
        if made != (0,):  # a merge of nothing takes as long as one of a little
            self._db.execute(live.merge("batch"))
        self._db.execute("DROP TABLE batch")

    def build(
        self,
        models: Sequence[Stored],
        log: LogFiles,
        until: Positions,
        folded: FoldedBetween,
        where: str = "true",
        files: Files | None = None,
    ) -> None:
        """Make the models' tables, and fill them from the log's rows up to `until`.

        This is how read models are built: when they are new, rebuilt, compared, or of a moment.
        For the rest see `apply_range`.
        """
        for model in models:
            self.create(model)
        if models and any(until.values()):
            self.apply_range(models, log, {}, until, folded, where, files)

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

        `files` are those that hold them, where they have been listed already.
        """
        with log.reading():
            rows = current_rows(self._domain, log, since, until, files)
            asked = any(isinstance(model, Folded) for model in models)
            states = folded(since, until) if asked else {}
            self.apply(models, f"SELECT * FROM ({rows}) WHERE {where}", states)

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
