"""One SELECT … GROUP BY … becomes a table that merges batch by batch, and a view that reads it.

Each distinct aggregate of the SELECT is kept as a component, a column of a hidden table with one
row a group. A batch's components come from the SELECT's own FROM, WHERE and GROUP BY; merging is a
function of two components; the view computes the SELECT's expressions, and its HAVING, from the
components. So the SELECT may say anything about aggregates that merge:

    sum, count, count(*), avg, min, max, bool_and, bool_or, bit_and, bit_or, bit_xor, any_value,
    each with FILTER

`any_value` is the smallest value, so that it is the same whichever batch came first.
"""

from __future__ import annotations

from dataclasses import dataclass

import duckdb
import sqlglot
from sqlglot import exp

from ingest.errors import ReadModelInvalid
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
}
"""Aggregate → SQL for the merge of a stored component {t} with a batch's {s}."""

COMPUTED = {
    "avg": ("({0}::DOUBLE / {1})", "sum", "count"),
    "any_value": ("{0}", "min"),
}
"""Aggregate → how to compute it, and from which aggregates of the same argument."""

NOT_LIVE = (
    "joins",
    "distinct",
    "limit",
    "offset",
    "order",
    "qualify",
    "windows",
    "with_",
    "laterals",
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

    def merge(self, table: str, batch: str) -> str:
        """SQL that merges the relation `batch` into `table`; both have the same columns."""
        same = " AND ".join(f"t.{k} IS NOT DISTINCT FROM s.{k}" for k in self.keys)
        sets = ", ".join(f"{c.column} = {c.merge}" for c in self.components)
        update = f" WHEN MATCHED THEN UPDATE SET {sets}" if sets else ""
        columns = [*self.keys, *(c.column for c in self.components)]
        values = ", ".join(f"s.{column}" for column in columns)
        return (
            f"MERGE INTO {table} t USING {batch} s ON {same}{update}"
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
        raise ReadModelInvalid(f"{select.path}: {' '.join(str(error).split())}") from None
    return _Compiler(select, table, known).compile(tree)


class _Compiler:
    def __init__(self, select: Select, table: str, known: duckdb.DuckDBPyConnection) -> None:
        self._select = select
        self._table = table
        self._components: dict[str, Component] = {}
        found = known.execute(
            "SELECT DISTINCT function_name FROM duckdb_functions()"
            " WHERE function_type = 'aggregate'"
        ).fetchall()
        self._aggregate_names = {str(name) for (name,) in found}

    def compile(self, tree: exp.Expr) -> LiveSelect:
        if not isinstance(tree, exp.Select):
            raise self._invalid(tree, "a read model is one SELECT")
        for clause in NOT_LIVE:
            if tree.args.get(clause):
                raise self._invalid(
                    tree, f"{clause.rstrip('_').upper()} cannot be kept live; use it when querying"
                )
        if len(list(tree.find_all(exp.Select))) > 1 or tree.find(exp.Window):
            raise self._invalid(
                tree, "subqueries and windows cannot be kept live; use them when querying"
            )
        group = tree.args.get("group")
        if group is None:
            raise self._invalid(tree, "a read model needs GROUP BY")

        keys = self._keys(tree, group)
        key_columns = {sql: f"k{i}" for i, sql in enumerate(keys)}
        projections = []
        for projection in tree.expressions:
            if not isinstance(projection, exp.Alias | exp.Column):
                raise self._invalid(projection, f"name the column: {projection.sql('duckdb')} AS …")
            body = projection.unalias().copy()
            shown = self._from_components(body, key_columns)
            projections.append(f'{shown} AS "{projection.alias_or_name}"')
        having = tree.args.get("having")
        condition = (
            f" WHERE {self._from_components(having.this.copy(), key_columns)}" if having else ""
        )

        where = f" {tree.args['where'].sql('duckdb')}" if tree.args.get("where") else ""
        source = tree.args["from_"].this.sql("duckdb")
        selected = [f"{sql} AS {column}" for sql, column in key_columns.items()]
        selected += [f"{c.sql} AS {c.column}" for c in self._components.values()]
        return LiveSelect(
            name=self._select.name,
            batch=f"SELECT {', '.join(selected)} FROM {source}{where} GROUP BY {', '.join(keys)}",
            keys=list(key_columns.values()),
            components=list(self._components.values()),
            view=f"SELECT {', '.join(projections)} FROM {self._table}{condition}",
        )

    def _keys(self, tree: exp.Select, group: exp.Expr) -> list[str]:
        """The grouping expressions as SQL: written out, by an alias, by a number, or ALL."""
        plain = [p for p in tree.expressions if not self._aggregates(p)]
        if group.args.get("all"):
            return [p.unalias().sql("duckdb") for p in plain]
        if any(group.args.get(a) for a in ("grouping_sets", "rollup", "cube")):
            raise self._invalid(
                group, "grouping sets cannot be kept live; write one read model for each"
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
        call = node.this if isinstance(node, exp.Filter) else node
        name = _function(call)
        argument = call.sql("duckdb").partition("(")[2].removesuffix(")")
        condition = (
            f" FILTER ({node.expression.sql('duckdb')})" if isinstance(node, exp.Filter) else ""
        )
        computed, *needed = COMPUTED.get(name, ("{0}", name))
        if not MERGES.keys() >= set(needed) or call.find(exp.Distinct, exp.Order):
            raise self._invalid(
                node,
                f"{call.sql('duckdb')} cannot be merged batch by batch; use it when querying,"
                f" and here one of {', '.join([*MERGES, *COMPUTED])}",
            )
        columns = [self._kept(part, f"{part}({argument}){condition}") for part in needed]
        return sqlglot.parse_one(computed.format(*columns), read="duckdb")

    def _kept(self, aggregate: str, sql: str) -> str:
        """The column of the component `sql`."""
        column = f"c{len(self._components)}"
        merge = MERGES[aggregate].format(t=f"t.{column}", s=f"s.{column}")
        return self._components.setdefault(sql, Component(column, sql, merge)).column

    def _invalid(self, node: exp.Expr, reason: str) -> ReadModelInvalid:
        lines = [part.meta["line"] for part in node.walk() if "line" in part.meta]
        line = f":{min(lines)}" if lines else ""
        return ReadModelInvalid(f"{self._select.path}{line}: {reason}")


def _function(node: exp.Expr) -> str:
    """The name that DuckDB knows a function by."""
    return node.sql("duckdb").partition("(")[0].lower()
