"""Each SELECT is tried before it is kept live: some rows of the log, merged in two batches.

What cannot be run is found here, and not in a running pipeline; and a SELECT whose live rows are
not those that DuckDB gives for it over all rows is refused. The rows are made from the log's
schema: every column has several values, and NULL where events may have it.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

import duckdb
import pyarrow as pa

from ingest.errors import ReadModelInvalid, one_line
from ingest.schema import OUTCOME_TYPES
from projections.functions import is_aggregate
from projections.merges import ORDERED, aggregate_of, order_in_log
from projections.model import Select
from projections.refusal import invalid
from projections.relations import definitions, empty_rows
from projections.select import LiveSelect
from projections.session import session
from projections.sql import named
from projections.syntax import Node, Syntax, arguments, everything, in_place_of, with_parts

ROWS = 24
BATCHES = (1, 0)
"""The order in which halves of the rows are merged: any must do."""

TEXTS = (
    ["a", "A", "b", "", None],
    ["1", "2", "30", None],
    ["2017-01-31 10:00:00", "2018-02-01", None],
    ['{"a": 1}', '{"a": [2]}', None],
)
"""Values for text; the later ones are for a SELECT that casts it to something."""

OF_THE_DATA = (duckdb.ConversionException, duckdb.OutOfRangeException, duckdb.InvalidInputException)
"""What a SELECT may do wrong with these rows, and right with those of the domain."""


class Trial:
    """A place to try SELECTs of a domain with this log and these event types. Close it."""

    def __init__(self, schema: pa.Schema, event_types: Sequence[str]) -> None:
        self._schema = schema
        self._event_types = [*event_types, *OUTCOME_TYPES]
        self._texts: Sequence[str | None] = ()
        self.known = session()
        """A connection in which the relations exist."""
        self.known.execute("SET threads = 1")  # there is too little to share
        self.known.execute("CREATE SCHEMA live; CREATE SCHEMA trial")
        self.known.execute(f"CREATE TABLE trial.rows AS {empty_rows(schema)}")
        self._show("false")
        for name, sql in definitions(schema).items():
            self.known.execute(f"CREATE VIEW {name} AS {sql}")

    def __enter__(self) -> Trial:
        return self

    def __exit__(self, *_: object) -> None:
        self.known.close()

    def check(self, select: Select, live: LiveSelect, table: str) -> None:
        """Raises `ReadModelInvalid` where `live` does not come out as `select` says.

        `select` is a view of its name.
        """
        try:
            self._show("false")
            self.known.execute(f"CREATE TABLE {table} AS {live.batch}")
            shown, said = (
                [tuple(row[:2]) for row in self.known.execute(f"DESCRIBE {relation}").fetchall()]
                for relation in (live.view, named(select.name))
            )
        except duckdb.Error as error:
            raise _refused(select, one_line(error)) from None
        if shown != said:
            raise _refused(select, f"its columns would be {shown}, not {said}")
        for texts in TEXTS:
            self._fill(texts)
            if self._has_run(select, live, table):
                return

    def _has_run(self, select: Select, live: LiveSelect, table: str) -> bool:
        """Whether DuckDB could compute the SELECT itself from these rows; then `live` has to."""
        self._show("true")
        plain = _settled(Syntax(self.known), select) or f"FROM {named(select.name)}"
        try:
            self.known.execute(f"CREATE OR REPLACE TABLE trial.expected AS {plain}")
        except OF_THE_DATA:
            return False
        except duckdb.Error as error:
            raise _refused(select, one_line(error)) from None
        try:
            self.known.execute(f"DELETE FROM {table}")
            for batch in BATCHES:
                self._merge(live, table, f"position // {ROWS // len(BATCHES)} = {batch}")
            self.known.execute(f"CREATE OR REPLACE TABLE trial.found AS {live.view}")
        except duckdb.Error as error:
            raise _refused(select, one_line(error)) from None
        differ = self._differ("FROM trial.found", "FROM trial.expected")
        if differ and not self._adds_floats(live, table):
            raise _refused(select, "its rows would not be those of the SELECT over all events")
        self.known.execute("SET TimeZone = 'Asia/Tokyo'")
        elsewhere = self._differ("FROM trial.found", live.view)
        self.known.execute("SET TimeZone = 'UTC'")
        if elsewhere:
            raise _refused(
                select, "each reader's time zone would give other rows; name one, by AT TIME ZONE"
            )
        return True

    def _show(self, condition: str) -> None:
        """Let the log have the rows that meet this."""
        self.known.execute(f"CREATE OR REPLACE VIEW log AS FROM trial.rows WHERE {condition}")

    def _merge(self, live: LiveSelect, table: str, condition: str) -> None:
        self._show(condition)
        self.known.execute(f"CREATE OR REPLACE TABLE trial.batch AS {live.batch}")
        self.known.execute(live.merge(table, "trial.batch"))

    def _differ(self, ours: str, theirs: str) -> bool:
        (found,) = self.known.execute(
            f"SELECT count(*) FROM (({ours}) EXCEPT ALL ({theirs})"
            f" UNION ALL (({theirs}) EXCEPT ALL ({ours})))"
        ).fetchone() or (0,)
        return bool(found)

    def _adds_floats(self, live: LiveSelect, table: str) -> bool:
        """Whether there is a sum that may differ in its last digits."""
        types = {row[0]: row[1] for row in self.known.execute(f"DESCRIBE {table}").fetchall()}
        return any(
            types[c.column] in ("DOUBLE", "FLOAT") and c.call["function_name"] == "sum"
            for c in live.components
        )

    def _fill(self, texts: Sequence[str | None]) -> None:
        if texts == self._texts:
            return
        self._texts = texts
        made = pa.table(
            {
                field.name: pa.array(
                    self._column(field, number, texts), field.type, from_pandas=False
                )
                for number, field in enumerate(self._schema)
            }
        )
        self.known.register("made", made)
        self.known.execute("DELETE FROM trial.rows; INSERT INTO trial.rows FROM made")
        self.known.unregister("made")

    def _column(self, field: pa.Field, number: int, texts: Sequence[str | None]) -> list[Any]:
        """Two rows are one command, and a batch has whole commands."""
        always: dict[str, list[Any]] = {
            "partition": [row // 2 % 2 for row in range(ROWS)],
            "position": list(range(ROWS)),
            "stream_id": [f"{row // 2}-0" for row in range(ROWS)],
            "command_id": [f"c{row // 2}" for row in range(ROWS)],
            "schema_version": [1] * ROWS,
        }
        if field.name in always:
            return always[field.name]
        values = list(texts) if pa.types.is_string(field.type) else _values(field.type)
        if field.name == "event_type":
            values = self._event_types
        elif field.name in ("aggregate_id", "recorded_at", "occurred_at"):
            values = [value for value in values if value is not None]
        return [values[(row * (1 + number % 3) + row // 5) % len(values)] for row in range(ROWS)]


def _refused(select: Select, reason: str) -> ReadModelInvalid:
    return invalid(select, "SELECT", f"this cannot be kept live: {reason}")


def _settled(syntax: Syntax, select: Select) -> str | None:
    """The SELECT as SQL that leaves nothing open; None where it never does."""
    tree = syntax.parse(select.sql)
    source = tree["from_table"]["table_name"].lower()
    last_orders = {f"l{i}": one for i, one in enumerate(order_in_log(source))}

    def settled(node: Node) -> Node:
        node = with_parts(node, settled)
        name = aggregate_of(node) if is_aggregate(node) else ""
        condition = node["filter"] if name else None
        stand = {"f": condition or syntax.expression("true"), **last_orders}
        if name == "any_value":
            call = syntax.expression("min(x) FILTER (WHERE f)", x=arguments(node)[0], **stand)
        elif name in ("first", "last"):
            orders = [order["expression"] for order in node["order_bys"]["orders"]]
            by = ", ".join([*(f"o{i}" for i in range(len(orders))), *last_orders])
            call = syntax.expression(
                f"{name}(x ORDER BY {by}) FILTER (WHERE f)",
                x=arguments(node)[0],
                **stand,
                **{f"o{i}": order for i, order in enumerate(orders)},
            )
        elif name in ORDERED:
            end = "first" if name == "arg_min" else "last"
            value, order = arguments(node)
            call = syntax.expression(
                f"{end}(x ORDER BY o, {', '.join(last_orders)})"
                " FILTER (WHERE f AND x IS NOT NULL AND o IS NOT NULL)",
                x=value,
                o=order,
                **stand,
            )
        else:
            return node
        return in_place_of(node, call)

    if not any(
        is_aggregate(part) and aggregate_of(part) in ("any_value", *ORDERED)
        for part in everything(tree)
    ):
        return None
    return syntax.written(with_parts(tree, settled))


def _values(kind: pa.DataType) -> list[Any]:
    """Some values of a column type, and None."""
    found: list[Any] = []
    if pa.types.is_boolean(kind):
        found = [True, False]
    elif pa.types.is_integer(kind):
        found = [1, 2, -3, 7]
    elif pa.types.is_floating(kind):
        found = [0.5, -1.25, 4.0]  # sums of these are exact
    elif pa.types.is_decimal(kind):
        found = [Decimal(number).scaleb(-kind.scale) for number in (5, -7, 11)]
    elif pa.types.is_timestamp(kind):
        found = [
            datetime.datetime(2017, 1, 31, 23, 30, 5),
            datetime.datetime(2017, 2, 1, 0, 15),
            datetime.datetime(2018, 6, 30, 12, 0, 0, 250_000),
        ]
    elif pa.types.is_date(kind):
        found = [datetime.date(2017, 1, 31), datetime.date(2017, 2, 1), datetime.date(2018, 6, 30)]
    elif pa.types.is_time(kind):
        found = [datetime.time(10), datetime.time(23, 59, 59)]
    elif pa.types.is_duration(kind):
        found = [datetime.timedelta(days=1), datetime.timedelta(seconds=5)]
    elif pa.types.is_binary(kind):
        found = [b"a", b"\x00\xff"]
    elif isinstance(kind, pa.UuidType):
        found = [UUID(int=1), UUID(int=2)]
    elif pa.types.is_list(kind):
        inner = _values(kind.value_type)
        found = [inner[:1], inner, []]
    elif pa.types.is_struct(kind):
        found = [{f.name: _values(f.type)[i] for f in kind} for i in (0, -1)]
    return [*found, None]
