"""Each SELECT is tried before it is kept live: some rows of the log, merged in two batches.

What cannot be run is found here, and not in a running pipeline; and a SELECT whose live rows are
not those that DuckDB gives for it over all rows is refused. `projections.made_rows` has the rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import duckdb
import pyarrow as pa

from ingest.errors import ReadModelInvalid, one_line
from projections.made_rows import ROWS, TEXTS, made_rows
from projections.model import Select
from projections.refusal import invalid
from projections.relations import definitions, empty_rows
from projections.select import LiveSelect
from projections.session import session
from projections.settled import settled
from projections.sql import named
from projections.syntax import Syntax

BATCHES = (1, 0)
"""The order in which halves of the rows are merged: any must do."""

OF_THE_DATA = (duckdb.ConversionException, duckdb.OutOfRangeException, duckdb.InvalidInputException)
"""What a SELECT may do wrong with these rows, and right with those of the domain."""


@contextmanager
def with_known_relations(schema: pa.Schema) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection to a database of its own in which the relations exist, without any rows."""
    with session() as known:
        known.execute("SET threads = 1")  # there is too little to share
        known.execute("CREATE SCHEMA live; CREATE SCHEMA trial")
        known.execute(f"CREATE TABLE trial.rows AS {empty_rows(schema)}")
        _show(known, "false")
        for name, sql in definitions(schema).items():
            known.execute(f"CREATE VIEW {name} AS {sql}")
        yield known


def _show(known: duckdb.DuckDBPyConnection, condition: str) -> None:
    """Let the log have the rows that meet this."""
    known.execute(f"CREATE OR REPLACE VIEW log AS FROM trial.rows WHERE {condition}")


class Trial:
    """A place to try SELECTs in, with rows of these event types.

    `known` is a connection of `with_known_relations`, for the same schema.
    """

    def __init__(
        self, known: duckdb.DuckDBPyConnection, schema: pa.Schema, event_types: Sequence[str]
    ) -> None:
        self._known = known
        self._schema = schema
        self._event_types = event_types
        self._texts: Sequence[str | None] = ()

    def check(self, select: Select, live: LiveSelect) -> None:
        """Raises `ReadModelInvalid` where `live` does not come out as `select` says.

        `select` is a view of its name.
        """
        try:
            _show(self._known, "false")
            self._known.execute(f"CREATE TABLE {live.table} AS {live.batch}")
            shown, said = (
                [tuple(row[:2]) for row in self._known.execute(f"DESCRIBE {relation}").fetchall()]
                for relation in (live.view, named(select.name))
            )
        except duckdb.Error as error:
            raise _refused(select, one_line(error)) from None
        if shown != said:
            raise _refused(select, f"its columns would be {shown}, not {said}")
        for texts in TEXTS:
            self._fill(texts)
            if self._has_run(select, live):
                return

    def _has_run(self, select: Select, live: LiveSelect) -> bool:
        """Whether DuckDB could compute the SELECT itself from these rows; then `live` has to."""
        _show(self._known, "true")
        plain = settled(Syntax(self._known), select) or f"FROM {named(select.name)}"
        try:
            self._known.execute(f"CREATE OR REPLACE TABLE trial.expected AS {plain}")
        except OF_THE_DATA:
            return False
        except duckdb.Error as error:
            raise _refused(select, one_line(error)) from None
        try:
            self._known.execute(f"DELETE FROM {live.table}")
            for batch in BATCHES:
                self._merge(live, f"position // {ROWS // len(BATCHES)} = {batch}")
            self._known.execute(f"CREATE OR REPLACE TABLE trial.found AS {live.view}")
        except duckdb.Error as error:
            raise _refused(select, one_line(error)) from None
        differ = self._differ("FROM trial.found", "FROM trial.expected")
        if differ and not self._adds_floats(live):
            raise _refused(select, "its rows would not be those of the SELECT over all events")
        self._known.execute("SET TimeZone = 'Asia/Tokyo'")
        elsewhere = self._differ("FROM trial.found", live.view)
        self._known.execute("SET TimeZone = 'UTC'")
        if elsewhere:
            raise _refused(
                select, "each reader's time zone would give other rows; name one, by AT TIME ZONE"
            )
        return True

    def _merge(self, live: LiveSelect, condition: str) -> None:
        _show(self._known, condition)
        self._known.execute(f"CREATE OR REPLACE TABLE trial.batch AS {live.batch}")
        self._known.execute(live.merge("trial.batch"))

    def _differ(self, ours: str, theirs: str) -> bool:
        (found,) = self._known.execute(
            f"SELECT count(*) FROM (({ours}) EXCEPT ALL ({theirs})"
            f" UNION ALL (({theirs}) EXCEPT ALL ({ours})))"
        ).fetchone() or (0,)
        return bool(found)

    def _adds_floats(self, live: LiveSelect) -> bool:
        """Whether there is a sum that may differ in its last digits."""
        types = {row[0]: row[1] for row in self._known.execute(f"DESCRIBE {live.table}").fetchall()}
        return any(
            types[c.column] in ("DOUBLE", "FLOAT") and c.call["function_name"] == "sum"
            for c in live.components
        )

    def _fill(self, texts: Sequence[str | None]) -> None:
        if texts == self._texts:
            return
        self._texts = texts
        self._known.register("made", made_rows(self._schema, self._event_types, texts))
        self._known.execute("DELETE FROM trial.rows; INSERT INTO trial.rows FROM made")
        self._known.unregister("made")


def _refused(select: Select, reason: str) -> ReadModelInvalid:
    return invalid(select, "SELECT", f"this cannot be kept live: {reason}")
