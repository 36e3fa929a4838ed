"""One SELECT … GROUP BY … becomes a table that merges batch by batch, and a view that reads it.

Each distinct aggregate of the SELECT is kept as a component, a column of a hidden table with one
row a group. A batch's components come from the SELECT's own FROM, WHERE and GROUP BY; merging is a
function of two components; the view computes the SELECT's expressions, and its HAVING, from the
components. So the SELECT may say anything about aggregates that merge; `projections.merges` has
them, and `projections.allowed` what else it may say.

The same rows come out live and rebuilt, also where SQL leaves it open. Only a `sum` or `avg` of
floating-point numbers may differ in its last digits, as it does between two runs of DuckDB.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import duckdb

from projections.allowed import check
from projections.functions import is_aggregate
from projections.merges import Component, Components
from projections.model import Select
from projections.names import Names
from projections.refusal import invalid, refused
from projections.sql import named
from projections.syntax import (
    Node,
    NotOneSelect,
    Syntax,
    column,
    everything,
    in_place_of,
    name_of,
    same,
    with_parts,
)


@dataclass(frozen=True, slots=True)
class LiveSelect:
    """A compiled SELECT: SQL that makes and merges the rows of its hidden table, and shows them."""

    table: str
    source: str
    """The relation of `projections.relations` that it reads."""
    batch: str
    """SELECT of rows as `table` has them, from that."""
    keys: list[str]
    components: list[Component]
    view: str
    """SELECT of what the user's SELECT shows, from `table`."""
    aggregate: str | None
    """The key that is the aggregate's id, which no event is without."""

    def merge(self, batch: str) -> str:
        """SQL that merges the relation `batch` into `table`; both have the same columns."""
        table = self.table
        same = " AND ".join(f"t.{k} IS NOT DISTINCT FROM s.{k}" for k in self.keys)
        sets = ", ".join(f"{c.column} = {c.merge}" for c in self.components)
        update = f" WHEN MATCHED THEN UPDATE SET {sets}" if sets else ""
        columns = [*self.keys, *(c.column for c in self.components)]
        values = ", ".join(f"s.{column}" for column in columns)
        # In the order of the table's rows: DuckDB then updates each of its row groups once, and
        # not, for keys in random order, again and again.
        rows = f"SELECT rowid AS row, {', '.join(self.keys)} FROM {table}"
        if self.aggregate:
            # There are many aggregates, and most of them are not in the batch. For a single key
            # DuckDB leaves those out while it reads the table, by a Bloom filter; not for several.
            rows += f" WHERE {self.aggregate} IN (SELECT {self.aggregate} FROM {batch})"
        source = f"(SELECT s.*, t.row FROM {batch} s LEFT JOIN ({rows}) t ON {same} ORDER BY t.row)"
        return (
            f"MERGE INTO {table} t USING {source} s ON t.rowid = s.row{update}"
            f" WHEN NOT MATCHED THEN INSERT ({', '.join(columns)}) VALUES ({values})"
        )


def compile_select(select: Select, known: duckdb.DuckDBPyConnection) -> LiveSelect:
    """How to keep `select` live in its table. Raises `ReadModelInvalid`, which says where.

    `known` is a connection in which the relations exist. There `select` becomes a view, so that
    DuckDB checks names and types.
    """
    syntax = Syntax(known)
    try:
        tree = syntax.parse(select.sql)
    except NotOneSelect as error:
        raise invalid(select, error.byte, str(error)) from None
    try:
        known.execute(f"CREATE VIEW {named(select.name)} AS {select.sql}")
    except duckdb.Error as error:
        raise refused(select, error) from None
    check(select, syntax, tree)
    return _Compiler(select, known, syntax, tree).compile()


class _Compiler:
    def __init__(
        self,
        select: Select,
        known: duckdb.DuckDBPyConnection,
        syntax: Syntax,
        tree: Node,
    ) -> None:
        self._select = select
        self._syntax = syntax
        self._tree = tree
        self._source = tree["from_table"]["table_name"].lower()
        self._names = Names(select, tree["from_table"], _columns(known, self._source))
        self._components = Components(select, syntax, self._source, known)
        self._shown = _columns(known, named(select.name))
        self._keys: dict[str, str] = {}
        """A grouping expression, as `same` writes it → its column in the hidden table."""

    def compile(self) -> LiveSelect:
        """Raises `ReadModelInvalid` where an expression cannot be computed from components."""
        bodies = self._bodies()
        outputs = {name.lower(): body for name, body in zip(self._shown, bodies, strict=True)}
        keys = {same(key): key for key in self._grouped(bodies, outputs)}
        self._keys = {key: f"k{i}" for i, key in enumerate(keys)}
        shown = [self._from_components(body) for body in bodies]
        if not keys:
            raise invalid(self._select, "GROUP", "a read model needs a column to group by")
        having = self._tree["having"]
        if having:
            having = self._from_components(self._names.in_having(having, outputs, self._keys))

        where = self._tree["where_clause"]
        selected = [
            *zip(keys.values(), self._keys.values(), strict=True),
            *((c.call, c.column) for c in self._components.kept),
        ]
        batch = {
            **self._from(self._source, selected),
            "where_clause": where and self._names.columns_first(where, outputs),
            "group_expressions": [self._syntax.expression(str(i + 1)) for i in range(len(keys))],
            "group_sets": [list(range(len(keys)))],
        }
        view = self._from(self._select.table, zip(shown, self._shown, strict=True))
        return LiveSelect(
            table=self._select.table,
            source=self._source,
            batch=self._syntax.written(batch),
            keys=list(self._keys.values()),
            components=self._components.kept,
            view=self._syntax.written({**view, "where_clause": having}),
            aggregate=self._keys.get(same(column("aggregate_id")))
            if self._source == "events"
            else None,
        )

    def _from(self, source: str, selected: Iterable[tuple[Node, str]]) -> Node:
        """SELECT these expressions, under these names, FROM that."""
        listed = [{**node, "alias": name} for node, name in selected]
        return {**self._syntax.parse(f"SELECT 1 FROM {source}"), "select_list": listed}

    def _bodies(self) -> list[Node]:
        """What is selected, over columns of the relation."""
        bodies: list[Node] = []
        before: dict[str, Node] = {}
        for item, name in zip(self._tree["select_list"], self._shown, strict=True):
            if not item["alias"] and item["class"] != "COLUMN_REF":
                shown = self._syntax.text(item)
                raise invalid(self._select, item, f"name the column: {shown} AS …")
            body = {**self._names.columns_first(item, before), "alias": ""}
            bodies.append(body)
            before[name.lower()] = body
        return bodies

    def _grouped(self, bodies: list[Node], outputs: Mapping[str, Node]) -> list[Node]:
        """What is grouped by: written out, by the name of an output, by a number, or ALL."""
        if self._tree["aggregate_handling"] == "FORCE_AGGREGATES":
            return [
                body
                for body in bodies
                if any(self._names.is_column(part) for part in _whole(body))
                and not any(is_aggregate(part) for part in _whole(body))
            ]
        found = []
        for key in self._tree["group_expressions"]:
            number = _integer(key)
            if number is not None:
                found.append(bodies[number - 1])
            elif key["class"] == "COLUMN_REF":
                found.append({**self._names.columns_first(key, outputs), "alias": ""})
            else:
                found.append(self._names.columns_first(key, {}))
        return found

    def _from_components(self, node: Node) -> Node:
        """An expression, with keys and aggregates replaced by the hidden table's columns."""
        key = self._keys.get(same(node))
        if key:
            return in_place_of(node, column(key))
        if is_aggregate(node):
            return in_place_of(node, self._components.of(node))
        if self._names.is_column(node):
            raise invalid(
                self._select, node, f"{name_of(node)} is neither in GROUP BY nor in an aggregate"
            )
        return with_parts(node, self._from_components)


def _columns(known: duckdb.DuckDBPyConnection, relation: str) -> list[str]:
    return [name for name, *_ in known.execute(f"DESCRIBE {relation}").fetchall()]


def _whole(node: Node) -> Iterator[Node]:
    yield node
    yield from everything(node)


def _integer(node: Node) -> int | None:
    """The number that a constant is, if it is a whole one."""
    if node["class"] != "CONSTANT":
        return None
    if "literal" in node:
        kind, text = node["literal"]["kind"], node["literal"]["text"]
    else:
        kind, text = node["value"]["type"]["id"], str(node["value"].get("value"))
    return int(text) if kind in ("INTEGER", "BIGINT") and text.isdecimal() else None
