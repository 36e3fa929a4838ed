"""What the names in a SELECT stand for, by DuckDB's own rules.

A column of the relation comes before an output of that name, but in HAVING, where only a column
that is grouped by does. An output's name stands for its expression: afterwards there are columns
of the relation alone, each as `column("its_name")`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from projections.allowed import depends_on_more
from projections.functions import is_aggregate
from projections.model import Select
from projections.refusal import invalid
from projections.syntax import Node, arguments, column, in_place_of, name_of, same, with_parts

HIDDEN = re.compile(r"[kc]\d+", re.IGNORECASE)
"""Columns of hidden tables: k0, k1 … and c0, c1 …"""


class Names:
    """The columns that names in one SELECT stand for."""

    def __init__(self, select: Select, source: Node, columns: Collection[str]) -> None:
        """`source` is what stands in FROM, and has `columns`."""
        self._select = select
        self._columns = {name.lower(): name for name in columns}
        self._tables = [[(source["alias"] or source["table_name"]).lower()]]
        if not source["alias"]:
            self._tables.append(["main", *self._tables[0]])

    def columns_first(self, node: Node, outputs: Mapping[str, Node]) -> Node:
        """The expression over columns of the relation; `outputs` by their names in lower case.

        Raises `ReadModelInvalid` where a name stands for something else.
        """
        return self._resolved(node, outputs, frozenset())

    def in_having(self, node: Node, outputs: Mapping[str, Node], keys: Collection[str]) -> Node:
        """The same for HAVING; `keys` are what is grouped by, as `same` writes it."""
        by_column = self.columns_first(node, outputs)
        if same(by_column) in keys or is_aggregate(node) or node["class"] == "LAMBDA":
            return by_column
        if node["class"] == "COLUMN_REF":
            output = outputs.get(name_of(node).lower())
            return in_place_of(node, output) if output else by_column
        return with_parts(node, lambda part: self.in_having(part, outputs, keys))

    def is_column(self, node: Node) -> bool:
        """Whether a resolved expression is a column of the relation, or a field in one."""
        return node["class"] == "COLUMN_REF" and node["column_names"][0].lower() in self._columns

    def _resolved(
        self, node: Node, outputs: Mapping[str, Node], parameters: frozenset[str]
    ) -> Node:
        if node["class"] == "LAMBDA":
            parameters |= self._parameters(node, outputs)
        if node["class"] != "COLUMN_REF":
            return with_parts(node, lambda part: self._resolved(part, outputs, parameters))
        names = node["column_names"]
        if names[0].lower() in parameters:
            return node
        own = self._own(names)
        if own:
            return {**node, **column(*own), "alias": node["alias"]}
        output = outputs.get(names[0].lower()) if len(names) == 1 else None
        if output is None:
            # DuckDB has found something by that name: current_date, say, or a whole row.
            raise depends_on_more(self._select, node)
        return in_place_of(node, output)

    def _own(self, names: list[str]) -> list[str] | None:
        """A column of the relation, and which field in it, if the names are that."""
        lower = [name.lower() for name in names]
        for table in self._tables:
            rest = len(table)
            if lower[:rest] == table and len(lower) > rest and lower[rest] in self._columns:
                return [self._columns[lower[rest]], *names[rest + 1 :]]
        return [self._columns[lower[0]], *names[1:]] if lower[0] in self._columns else None

    def _parameters(self, node: Node, outputs: Mapping[str, Node]) -> frozenset[str]:
        """A lambda's own names. JSON's arrow is written as a lambda too, and has none."""
        left = node["lhs"]
        several = left["class"] == "FUNCTION" and left["function_name"] == "row"
        stand = arguments(left) if several else [left]
        if any(one["class"] != "COLUMN_REF" for one in stand):
            return frozenset()
        names = {name_of(one).lower() for one in stand}
        taken = [n for n in names if n in self._columns or n in outputs or HIDDEN.fullmatch(n)]
        if not taken:
            return frozenset(names)
        if not several and node.get("syntax_type", "SINGLE_ARROW") == "SINGLE_ARROW":
            return frozenset()
        raise invalid(
            self._select, node, f"the lambda's {taken[0]} is a column as well; call it otherwise"
        )
