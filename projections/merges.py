"""How aggregates are kept: as components that merge batch by batch, and what is computed of them.

    sum, count, count(*), avg, min, max, bool_and, bool_or, bit_and, bit_or, bit_xor, histogram,
    any_value, arg_min, arg_max, first(x ORDER BY …), last(x ORDER BY …), each with FILTER

`any_value` is the smallest value; of events that tie, `first` and `arg_min` take the earliest in
the log, `last` and `arg_max` the latest, by `recorded_at`, then partition, then position.
"""

from __future__ import annotations

from dataclasses import dataclass

import duckdb

from ingest.errors import ReadModelInvalid
from projections.allowed import INSTEAD
from projections.model import Select
from projections.refusal import invalid
from projections.syntax import Node, Syntax, arguments, column, same

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

ORDERED = {"arg_min": "min", "first": "min", "arg_max": "max", "last": "max"}
"""Aggregate that picks a value by an order → the end of that order at which it is."""

OTHER_NAMES = {
    "argmax": "arg_max",
    "argmin": "arg_min",
    "count_star": "count",
    "max_by": "arg_max",
    "mean": "avg",
    "min_by": "arg_min",
}

MERGEABLE = sorted({*MERGES, *ORDERED, "avg", "any_value"})


@dataclass(frozen=True, slots=True)
class Component:
    """What is kept of an aggregate: a column of the hidden table."""

    column: str
    call: Node
    """What it is in a batch."""
    merge: str
    """SQL for the merge of `t`'s with `s`'s."""


def aggregate_of(call: Node) -> str:
    """Which aggregate a call is of, whatever it is called by."""
    name = str(call["function_name"]).lower()
    return OTHER_NAMES.get(name, name)


def order_in_log(source: str) -> list[Node]:
    """What decides between rows of a relation that tie."""
    position = "last_position" if source == "outcomes" else "position"
    return [column(name) for name in ("recorded_at", "partition", position)]


class Components:
    """The components that a SELECT's aggregates need, each once.

    `source` is the relation that it reads; `known` a connection in which that exists.
    """

    def __init__(
        self, select: Select, syntax: Syntax, source: str, known: duckdb.DuckDBPyConnection
    ) -> None:
        self._select = select
        self._syntax = syntax
        self._source = source
        self._known = known
        self._kept: dict[str, Component] = {}

    @property
    def kept(self) -> list[Component]:
        """The components so far, as the columns of the hidden table, `c0`, `c1` …"""
        return list(self._kept.values())

    def of(self, call: Node) -> Node:
        """Keep what an aggregate needs; gives the expression that computes it from that.

        Its arguments are columns of the relation. Raises `ReadModelInvalid`.
        """
        name, given = aggregate_of(call), arguments(call)
        orders, condition = call["order_bys"]["orders"], call["filter"]
        if call["distinct"]:
            raise self._invalid(
                call,
                f"{name}(DISTINCT …) cannot be merged batch by batch: group by"
                " that value as well, and count the rows of this read model in another .sql file",
            )
        if name.startswith("arg_") and name in ORDERED and len(given) == 2 and not orders:
            # As in DuckDB: not the rows in which one of them is NULL.
            either = self._syntax.expression(
                "x IS NOT NULL AND o IS NOT NULL", x=given[0], o=given[1]
            )
            return self._picked(name, given[0], given[1:], self._both(condition, either))
        if name in ("first", "last"):
            return self._picked(name, given[0], self._ascending(call, name), condition)
        if name not in MERGEABLE or name in ORDERED or orders or len(given) > 1:
            raise self._invalid(
                call,
                f"{name} as it is called here cannot be merged batch by batch"
                if name in MERGEABLE
                else f"{name} cannot be merged batch by batch, {', '.join(MERGEABLE)} can",
                INSTEAD,
            )
        if name == "avg":
            return self._mean(call, given[0], condition)
        return self._keep("min" if name == "any_value" else name, given, condition)

    def _mean(self, call: Node, value: Node, condition: Node | None) -> Node:
        """As DuckDB divides: of a DECIMAL the whole number that it is stored as."""
        shown = self._syntax.parse(f"SELECT 1 FROM {self._source}")
        shown["select_list"] = [
            self._syntax.expression(f"{aggregate}(x)", x=value) for aggregate in ("avg", "sum")
        ]
        try:
            described = self._known.execute(f"DESCRIBE {self._syntax.written(shown)}").fetchall()
        except duckdb.Error:
            described = []
        if not described or described[0][1] != "DOUBLE":
            raise self._invalid(call, "avg can be kept live of numbers only", INSTEAD)
        digits = described[1][1].partition(",")[2].removesuffix(")") or "0"
        total, count = (self._keep(part, [value], condition) for part in ("sum", "count"))
        if digits == "0":
            return self._syntax.expression("(s::DOUBLE / n)", s=total, n=count)
        whole = "replace(s::VARCHAR, '.', '')::HUGEINT::DOUBLE"
        return self._syntax.expression(f"({whole} / (n * 1{'0' * int(digits)}))", s=total, n=count)

    def _ascending(self, call: Node, name: str) -> list[Node]:
        """What a `first` or `last` is ordered by."""
        orders = call["order_bys"]["orders"]
        if not orders:
            shown = self._syntax.text(arguments(call)[0])
            raise self._invalid(call, f"say which is {name}: {name}({shown} ORDER BY …)")
        if any("DESC" in o["type"] or "FIRST" in o["null_order"] for o in orders):
            other = "last" if name == "first" else "first"
            raise self._invalid(
                call,
                f"{name} takes an ascending order, NULLs last; for a descending one use {other}",
            )
        return [order["expression"] for order in orders]

    def _picked(self, name: str, value: Node, orders: list[Node], condition: Node | None) -> Node:
        """Keep the value at one end of an order, beside what decides between rows that tie."""
        by = [*orders, *order_in_log(self._source)]
        fields = ", ".join(f"'o{i}': o{i}" for i in range(len(by)))
        ordered = self._syntax.expression(
            f"{{{fields}, 'value': x}}", x=value, **{f"o{i}": one for i, one in enumerate(by)}
        )
        return self._syntax.expression(
            "(x).value", x=self._keep(ORDERED[name], [ordered], condition)
        )

    def _keep(self, aggregate: str, given: list[Node], condition: Node | None) -> Node:
        """The column of a component, over the rows that meet the condition."""
        stand = dict(zip("x", given, strict=False))
        sql = f"{aggregate}({'x' if given else '*'})"
        if condition:
            sql, stand["y"] = f"{sql} FILTER (WHERE y)", condition
        call = self._syntax.expression(sql, **stand)
        name = f"c{len(self._kept)}"
        merge = MERGES[aggregate].format(t=f"t.{name}", s=f"s.{name}")
        return column(self._kept.setdefault(same(call), Component(name, call, merge)).column)

    def _both(self, condition: Node | None, other: Node) -> Node:
        if condition is None:
            return other
        return self._syntax.expression("x AND y", x=condition, y=other)

    def _invalid(self, call: Node, *reason: str) -> ReadModelInvalid:
        return invalid(self._select, call, "; ".join(reason))
