"""A SELECT as DuckDB's own parser reads it: a tree of dicts that DuckDB also writes as SQL again.

The tree is that of `json_serialize_sql`: an expression is a dict with a `class`, its parts are the
dicts with a `class` that stand somewhere in it. So nobody here has an opinion of what SQL means.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import duckdb

Node: TypeAlias = dict[str, Any]
"""An expression, or a whole SELECT."""

NOWHERE = 2**64 - 1
"""What DuckDB says of a part that stands nowhere in the text."""


class NotOneSelect(Exception):
    """The text is something else; says what, and at which byte, where DuckDB says it."""

    def __init__(self, reason: str, byte: int = NOWHERE) -> None:
        super().__init__(reason)
        self.byte = byte


class Syntax:
    """DuckDB's parser, in the connection `db`."""

    def __init__(self, db: duckdb.DuckDBPyConnection) -> None:
        self._db = db
        self._templates: dict[str, Node] = {}

    def parse(self, sql: str) -> Node:
        """The tree of one SELECT. Raises `NotOneSelect`."""
        found = json.loads(self._ask("json_serialize_sql", sql))
        if found["error"]:
            reason = found["error_message"]
            if found["error_type"] == "parser":
                raise NotOneSelect(reason, int(found.get("position", NOWHERE)))
            raise NotOneSelect(f"a read model is one SELECT ({reason})")
        trees = [statement["node"] for statement in found["statements"]]
        if len(trees) != 1:
            raise NotOneSelect(f"a read model is one SELECT, not {len(trees)} statements")
        return with_parts(trees[0], self._exact)

    def written(self, select: Node) -> str:
        """The SELECT as SQL."""
        tree = {"error": False, "statements": [{"node": select, "named_param_map": []}]}
        return self._ask("json_deserialize_sql", json.dumps(tree))

    def text(self, node: Node) -> str:
        """An expression as SQL."""
        sql = self.written({**self.parse("SELECT 1"), "select_list": [{**node, "alias": ""}]})
        return sql.removeprefix("SELECT ").replace("count_star()", "count(*)")

    def expression(self, sql: str, **parts: Node) -> Node:
        """The tree of an expression in which the names of `parts` stand for those."""
        if sql not in self._templates:
            (self._templates[sql],) = self.parse(f"SELECT {sql}")["select_list"]

        def filled(node: Node) -> Node:
            if node["class"] == "COLUMN_REF" and (part := parts.get(node["column_names"][0])):
                return in_place_of(node, part)
            return with_parts(node, filled)

        return filled(self._templates[sql])

    def _ask(self, function: str, text: str) -> str:
        (answer,) = self._db.execute(f"SELECT {function}(?)", [text]).fetchone() or ("",)
        return str(answer)

    def _exact(self, part: Node) -> Node:
        """DuckDB 1.5 writes 1e3 as 1000.0, which it reads as a DECIMAL: the type goes with it."""
        value = part.get("value") if part["class"] == "CONSTANT" else None
        if value and value["type"]["id"] == "DOUBLE" and not value["is_null"]:
            cast = self.expression(f"CAST('{value['value']!r}' AS DOUBLE)")
            return {**in_place_of(part, cast), "query_location": part["query_location"]}
        return with_parts(part, self._exact)


def column(*names: str) -> Node:
    """A reference to a column, or to a field in one."""
    return {
        "class": "COLUMN_REF",
        "type": "COLUMN_REF",
        "alias": "",
        "query_location": NOWHERE,
        "column_names": list(names),
    }


def in_place_of(old: Node, new: Node) -> Node:
    """`new` under the name that `old` has where it stands."""
    return {**new, "alias": old["alias"]}


def parts(node: Node) -> Iterator[Node]:
    """The expressions that stand directly in an expression, or in a SELECT."""

    def inside(value: Any) -> Iterator[Node]:
        if isinstance(value, dict):
            if "class" in value:
                yield value
            else:
                yield from inside(list(value.values()))
        elif isinstance(value, list):
            for one in value:
                yield from inside(one)

    return inside(list(node.values()))


def everything(node: Node) -> Iterator[Node]:
    """All expressions in an expression or a SELECT, the outer ones first."""
    for part in parts(node):
        yield part
        yield from everything(part)


def with_parts(node: Node, changed: Callable[[Node], Node]) -> Node:
    """A copy of an expression with `changed` applied to each that stands directly in it."""

    def inside(value: Any) -> Any:
        if isinstance(value, dict):
            if "class" in value:
                return changed(value)
            return {key: inside(v) for key, v in value.items()}
        if isinstance(value, list):
            return [inside(one) for one in value]
        return value

    return {key: inside(value) for key, value in node.items()}


def same(node: Node) -> str:
    """Equal for expressions that say the same, wherever they stand."""

    def bare(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: bare(v) for k, v in value.items() if not k.startswith("query_location")}
        return [bare(one) for one in value] if isinstance(value, list) else value

    return json.dumps(bare({**node, "alias": ""}), sort_keys=True)


def arguments(call: Node) -> list[Node]:
    """What a function is called with."""
    if "arguments" in call:
        return [argument["expression"] for argument in call["arguments"]]
    return list(call["children"])


def name_of(node: Node) -> str:
    """What the user calls a part: a function's or a column's name, or the kind it is of."""
    if node.get("class") in ("FUNCTION", "WINDOW"):
        return str(node["function_name"])
    if node.get("class") == "COLUMN_REF":
        return ".".join(node["column_names"])
    return str(node.get("class", "FROM"))


def relations_in(db: duckdb.DuckDBPyConnection, sql: str) -> frozenset[str] | None:
    """The relations that SELECTs read from, in lower case; None where `sql` is something else.

    Names that a WITH clause makes are left out where they hide a relation. `db` only parses.
    """
    (answer,) = db.execute("SELECT json_serialize_sql(?)", [sql]).fetchone() or ("",)
    found = json.loads(answer)
    return None if found["error"] else frozenset(_read_in(found["statements"], frozenset()))


def _read_in(part: Any, hidden: frozenset[str]) -> Iterator[str]:
    """The relations in a part of a tree, where names in `hidden` are those of a WITH clause."""
    if isinstance(part, list):
        for one in part:
            yield from _read_in(one, hidden)
    if not isinstance(part, dict):
        return
    if part.get("type") == "BASE_TABLE":
        name = part["table_name"].lower()
        if part["schema_name"] or name not in hidden:
            yield name
    if "cte_name" in part:  # recursive: it reads itself
        hidden |= {part["cte_name"].lower()}
    for cte in part["cte_map"]["map"] if "cte_map" in part else ():
        yield from _read_in(cte["value"], hidden)
        hidden |= {cte["key"].lower()}
    for key, value in part.items():
        if key != "cte_map":
            yield from _read_in(value, hidden)
