"""One SELECT … GROUP BY … becomes a table that merges batch by batch, and a view that reads it.

Each distinct aggregate of the SELECT is kept as a component, a column of a hidden table with one
row a group. A batch's components come from the SELECT's own FROM, WHERE and GROUP BY; merging is a
function of two components; the view computes the SELECT's expressions, and its HAVING, from the
components. So the SELECT may say anything about aggregates that merge:

    sum, count, count(*), avg, min, max, bool_and, bool_or, bit_and, bit_or, bit_xor, histogram,
    any_value, arg_min, arg_max, first(x ORDER BY …), last(x ORDER BY …), each with FILTER

The same rows come out live and rebuilt, also where SQL leaves it open: `any_value` is the smallest
value; of events that tie, `first` and `arg_min` take the earliest in the log, `last` and `arg_max`
the latest, by `recorded_at`, then partition, then position. Only a `sum` or `avg` of floating-point
numbers may differ in its last digits, as it does between two runs of DuckDB.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import duckdb
import sqlglot
from sqlglot import exp

from ingest.errors import ReadModelInvalid, one_line
from projections.model import Select

EITHER = "CASE WHEN {t} IS NULL THEN {s} WHEN {s} IS NULL THEN {t} ELSE %s END"

MERGES = {
    "sum": EITHER % "{t} + {s}",
    "count": "{t} + {s}",
    "min": "least({t}, {s})",
    "max": "greatest({t}, {s})",
    "bool_and": EITHER % "{t} AND {s}",
    "bool_or": EITHER % "{t} OR {s}",
    "bit_and": EITHER % "{t} & {s}",
    "bit_or": EITHER % "{t} | {s}",
    "bit_xor": EITHER % "xor({t}, {s})",
    "histogram": EITHER
    % (
        "map_from_entries(list_transform("
        "list_sort(list_distinct(list_concat(map_keys({t}), map_keys({s})))), lambda k:"
        " {{'key': k, 'value': coalesce({t}[k], 0) + coalesce({s}[k], 0)}}))"
    ),
}
"""Aggregate → SQL for the merge of a stored component {t} with a batch's {s}."""

COMPUTED = {
    "avg": ("({0}::DOUBLE / {1})", "sum", "count"),
    "any_value": ("{0}", "min"),
}
"""Aggregate → how to compute it, and from which aggregates of the same argument."""

ORDERED = {"arg_min": "min", "first": "min", "arg_max": "max", "last": "max"}
"""Aggregate that picks a value by an order → the end of that order at which it is."""

NOT_LIVE = {
    "joins": "JOIN",
    "distinct": "DISTINCT",
    "limit": "LIMIT",
    "offset": "OFFSET",
    "order": "ORDER BY",
    "qualify": "QUALIFY",
    "windows": "WINDOW",
    "with_": "WITH",
    "laterals": "LATERAL",
}
"""Clause as sqlglot names it → the word that it begins with."""

INSTEAD = (
    "write that in a .sql file that reads from a read model instead of events (it may be any SQL),"
    " or when querying"
)


@dataclass(frozen=True, slots=True)
class Component:
    column: str
    sql: str
    merge: str


@dataclass(frozen=True, slots=True)
class LiveSelect:
    """A compiled SELECT. `batch` reads the relations of `projections.relations`."""

    name: str
    batch: str
    keys: list[str]
    components: list[Component]
    view: str
    aggregate: str | None
    """The key that is the aggregate's id, which no event is without."""

    def merge(self, table: str, batch: str) -> str:
        """SQL that merges the relation `batch` into `table`; both have the same columns."""
        same = " AND ".join(f"t.{k} IS NOT DISTINCT FROM s.{k}" for k in self.keys)
        sets = ", ".join(f"{c.column} = {c.merge}" for c in self.components)
        update = f" WHEN MATCHED THEN UPDATE SET {sets}" if sets else ""
        columns = [*self.keys, *(c.column for c in self.components)]
        values = ", ".join(f"s.{column}" for column in columns)
        source = batch
        if self.aggregate:
            # There are many aggregates, and most of them are not in the batch. For a single key
            # DuckDB leaves those out while it reads the table, by a Bloom filter; not for several.
            one = f"{self.aggregate} IN (SELECT {self.aggregate} FROM {batch})"
            few = f"SELECT rowid AS row, {', '.join(self.keys)} FROM {table} WHERE {one}"
            source = f"(SELECT s.*, t.row FROM {batch} s LEFT JOIN ({few}) t ON {same})"
            same = "t.rowid = s.row"
        return (
            f"MERGE INTO {table} t USING {source} s ON {same}{update}"
            f" WHEN NOT MATCHED THEN INSERT ({', '.join(columns)}) VALUES ({values})"
        )


def compile_select(select: Select, table: str, known: duckdb.DuckDBPyConnection) -> LiveSelect:
    """How to keep `select` live in `table`. Raises `ReadModelInvalid`, which says where.

    `known` is a connection in which the relations exist, empty, so that DuckDB checks names and
    types.
    """
    try:
        known.execute(f"EXPLAIN {select.sql}")
        tree = sqlglot.parse_one(select.sql, read="duckdb")
    except (duckdb.Error, sqlglot.errors.SqlglotError) as error:
        raise refused(select.path, error) from None
    return _Compiler(select, table, known).compile(tree)


def refused(path: Path, error: Exception) -> ReadModelInvalid:
    """What DuckDB or sqlglot says of a file, in one line that names the file and its line."""
    reason = one_line(error)
    line = re.search(r"\bLINE (\d+)", reason, re.IGNORECASE)
    return ReadModelInvalid(f"{path}{f':{line[1]}' if line else ''}: {reason}")


class _Compiler:
    def __init__(self, select: Select, table: str, known: duckdb.DuckDBPyConnection) -> None:
        self._select = select
        self._table = table
        self._source = ""
        self._components: dict[str, Component] = {}
        found = known.execute(
            "SELECT DISTINCT function_name FROM duckdb_functions()"
            " WHERE function_type = 'aggregate'"
        ).fetchall()
        self._aggregate_names = {str(name) for (name,) in found}

    def compile(self, tree: exp.Expr) -> LiveSelect:
        if not isinstance(tree, exp.Select):
            raise self._invalid(tree.key, f"a read model is one SELECT, not {tree.key.upper()}")
        for clause, word in NOT_LIVE.items():
            if tree.args.get(clause):
                raise self._invalid(word, f"{word} cannot be kept live; {INSTEAD}", last=True)
        window = tree.find(exp.Window)
        if window:
            name = _function(window.this)
            raise self._invalid(name, f"the window {name}() cannot be kept live; {INSTEAD}")
        if len(list(tree.find_all(exp.Select))) > 1:
            raise self._invalid("SELECT", f"a subquery cannot be kept live; {INSTEAD}", last=True)
        group = tree.args.get("group")
        if group is None:
            raise self._invalid(
                "SELECT",
                "a read model needs GROUP BY; GROUP BY ALL groups by all that is no aggregate",
            )

        source = tree.args["from_"].this.sql("duckdb")
        self._source = tree.args["from_"].this.name
        keys = self._keys(tree, group)
        key_columns = {sql: f"k{i}" for i, sql in enumerate(keys)}
        projections = []
        for projection in tree.expressions:
            if not isinstance(projection, exp.Alias | exp.Column):
                shown = projection.sql("duckdb")
                raise self._invalid(_function(projection), f"name the column: {shown} AS …")
            body = projection.unalias().copy()
            shown = self._from_components(body, key_columns)
            projections.append(f'{shown} AS "{projection.alias_or_name}"')
        having = tree.args.get("having")
        condition = (
            f" WHERE {self._from_components(having.this.copy(), key_columns)}" if having else ""
        )

        where = f" {tree.args['where'].sql('duckdb')}" if tree.args.get("where") else ""
        selected = [f"{sql} AS {column}" for sql, column in key_columns.items()]
        selected += [f"{c.sql} AS {c.column}" for c in self._components.values()]
        return LiveSelect(
            name=self._select.name,
            batch=f"SELECT {', '.join(selected)} FROM {source}{where} GROUP BY {', '.join(keys)}",
            keys=list(key_columns.values()),
            components=list(self._components.values()),
            view=f"SELECT {', '.join(projections)} FROM {self._table}{condition}",
            aggregate=key_columns.get("aggregate_id") if self._source == "events" else None,
        )

    def _keys(self, tree: exp.Select, group: exp.Expr) -> list[str]:
        """The grouping expressions as SQL: written out, by an alias, by a number, or ALL."""
        plain = [p for p in tree.expressions if not self._aggregates(p)]
        if group.args.get("all"):
            return [p.unalias().sql("duckdb") for p in plain]
        if any(group.args.get(a) for a in ("grouping_sets", "rollup", "cube")):
            raise self._invalid(
                "GROUP BY", "grouping sets cannot be kept live; write one read model for each"
            )
        aliases = {p.alias: p.unalias() for p in plain if isinstance(p, exp.Alias)}
        keys = []
        for key in group.expressions:
            if isinstance(key, exp.Literal) and key.is_int:
                key = tree.expressions[int(key.name) - 1].unalias()
            elif isinstance(key, exp.Column) and key.name in aliases:
                key = aliases[key.name]
            keys.append(key.sql("duckdb"))
        return list(dict.fromkeys(keys))

    def _aggregates(self, node: exp.Expr) -> list[exp.Expr]:
        """The outermost aggregates in an expression, with their FILTER where they have one."""
        if self._is_aggregate(node):
            return [node]
        return [a for child in node.iter_expressions() for a in self._aggregates(child)]

    def _is_aggregate(self, node: exp.Expr) -> bool:
        return isinstance(node, exp.Filter) or (
            isinstance(node, exp.Func | exp.IgnoreNulls)
            and _function(node) in self._aggregate_names
        )

    def _from_components(self, node: exp.Expr, key_columns: dict[str, str]) -> str:
        """An expression's SQL, with keys and aggregates replaced by the hidden table's columns."""

        def replaced(part: exp.Expr) -> exp.Expr:
            column = key_columns.get(part.sql("duckdb"))
            if column:
                return exp.column(column)
            if self._is_aggregate(part):
                return self._component_of(part)
            for name, child in part.args.items():
                if isinstance(child, exp.Expr):
                    part.set(name, replaced(child))
                elif isinstance(child, list):
                    part.set(name, [replaced(c) if isinstance(c, exp.Expr) else c for c in child])
            return part

        return replaced(node).sql("duckdb")

    def _component_of(self, node: exp.Expr) -> exp.Expr:
        """Keep what an aggregate needs; gives the expression that computes it from that."""
        filtered = isinstance(node, exp.Filter)
        call = node.this if filtered else node
        conditions = [node.expression.this.sql("duckdb")] if filtered else []
        name = _function(call)
        if name in ORDERED:
            return self._ordered(name, call, conditions)
        argument = call.sql("duckdb").partition("(")[2].removesuffix(")")
        computed, *needed = COMPUTED.get(name, ("{0}", name))
        if call.find(exp.Distinct):
            raise self._invalid(
                "DISTINCT",
                f"{name}(DISTINCT …) cannot be merged batch by batch: group by"
                " that value as well, and count the rows of this read model in another .sql file",
            )
        if not MERGES.keys() >= set(needed) or call.find(exp.Order) or _arguments(call) > 1:
            can = {*MERGES, *COMPUTED, *ORDERED}
            written = self._calls_beyond(can) or name
            raise self._invalid(
                written,
                f"{written} cannot be merged batch by batch, {', '.join(sorted(can))} can;"
                f" {INSTEAD}",
            )
        kept = [self._kept(part, f"{part}({argument})", conditions) for part in needed]
        return sqlglot.parse_one(computed.format(*kept), read="duckdb")

    def _ordered(self, name: str, call: exp.Expr, conditions: list[str]) -> exp.Expr:
        """Keep the value at one end of an order, beside what decides between rows that tie.

        As in DuckDB, arg_min and arg_max pass over rows in which the value or the order is NULL.
        """
        if name.startswith("arg_"):
            if _arguments(call) > 2:
                raise self._invalid(
                    name, f"{name} of more than one row cannot be kept live; {INSTEAD}"
                )
            value, orders = call.this, [call.args["expression"]]
            conditions = [
                *conditions,
                *(f"({e.sql('duckdb')}) IS NOT NULL" for e in (value, *orders)),
            ]
        else:
            order = call.find(exp.Order)
            if order is None:
                raise self._invalid(
                    name, f"say which is {name}: {name}({call.this.sql('duckdb')} ORDER BY …)"
                )
            if any(o.args.get("desc") or o.args.get("nulls_first") for o in order.expressions):
                other = "last" if name == "first" else "first"
                raise self._invalid(
                    name,
                    f"{name} takes an ascending order, NULLs last;"
                    f" for a descending one use {other}",
                )
            value, orders = order.this, [o.this for o in order.expressions]
        position = "last_position" if self._source == "outcomes" else "position"
        parts = [e.sql("duckdb") for e in orders] + ["recorded_at", "partition", position]
        fields = [f"'o{i}': {sql}" for i, sql in enumerate(parts)]
        struct = f"{{{', '.join(fields)}, 'value': {value.sql('duckdb')}}}"
        end = ORDERED[name]
        column = self._kept(end, f"{end}({struct})", conditions)
        return sqlglot.parse_one(f"{column}.value", read="duckdb")

    def _kept(self, aggregate: str, call: str, conditions: list[str]) -> str:
        """The column of the component `call`, over the rows that meet all conditions."""
        met = " AND ".join(f"({condition})" for condition in conditions)
        sql = f"{call} FILTER ({met})" if met else call
        column = f"c{len(self._components)}"
        merge = MERGES[aggregate].format(t=f"t.{column}", s=f"s.{column}")
        return self._components.setdefault(sql, Component(column, sql, merge)).column

    def _calls_beyond(self, can: set[str]) -> str | None:
        """The first aggregate called in the text, as written there, that is none of `can`."""
        tokens = sqlglot.tokenize(self._select.sql, read="duckdb")
        called = (t.text for t, after in pairwise(tokens) if after.text == "(")
        beyond = self._aggregate_names - can
        return next((name for name in called if name.lower() in beyond), None)

    def _invalid(self, word: str, reason: str, last: bool = False) -> ReadModelInvalid:
        """`reason`, at the first (or last) line where `word` stands."""
        tokens = sqlglot.tokenize(self._select.sql, read="duckdb")
        lines = [t.line for t in tokens if t.text.upper() == word.upper()]
        line = f":{lines[-1 if last else 0]}" if lines else ""
        return ReadModelInvalid(f"{self._select.path}{line}: {reason}")


def _function(node: exp.Expr) -> str:
    """The name that DuckDB knows a function by."""
    return node.sql("duckdb").partition("(")[0].lower()


def _arguments(call: exp.Expr) -> int:
    """How many arguments a call has."""
    given = [*call.args.values()] if not isinstance(call, exp.Anonymous) else [call.expressions]
    return sum(len(a) if isinstance(a, list) else isinstance(a, exp.Expr) for a in given)
