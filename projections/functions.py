"""Which functions a SELECT that is kept live may call: those that give the same answer always.

DuckDB's own catalogue says which depend on their arguments alone. Functions that also read the
session's time zone are taken, since that is UTC in every session of ours.
"""

from __future__ import annotations

from functools import lru_cache

from projections.session import session
from projections.syntax import Node, Syntax, arguments, everything

OF_THE_SESSION = {"age/1", "current_setting", "getvariable", "in_search_path", "version"}
"""Functions, some with a number of arguments, that some DuckDB calls constant, and are not."""


def is_aggregate(node: Node) -> bool:
    """Whether an expression calls an aggregate of this DuckDB."""
    return node["class"] == "FUNCTION" and node["function_name"].lower() in _catalogue()[0]


def is_constant(syntax: Syntax, call: Node) -> bool:
    """Whether a scalar function's answer depends on its arguments alone, today and tomorrow."""
    _, scalars, macros = _catalogue()
    name, given = call["function_name"].lower(), arguments(call)
    if {name, f"{name}/{len(given)}"} & OF_THE_SESSION or name.startswith("current_"):
        return False
    if name in macros:
        return all(_is_constant_macro(syntax, *macro) for macro in macros[name])
    return name in scalars


def _is_constant_macro(syntax: Syntax, parameters: tuple[str, ...], sql: str) -> bool:
    return all(
        part["column_names"][0] in parameters
        if part["class"] == "COLUMN_REF"
        else is_constant(syntax, part)
        if part["class"] == "FUNCTION"
        else part["class"] not in ("SUBQUERY", "WINDOW")
        for part in everything(syntax.parse(f"SELECT {sql}"))
    )


@lru_cache(maxsize=1)
def _catalogue() -> tuple[set[str], set[str], dict[str, list[tuple[tuple[str, ...], str]]]]:
    """Aggregates, scalar functions that are constant, and macros, of this DuckDB."""
    with session() as db:
        found = db.execute(
            "SELECT lower(function_name), function_type, stability, parameters, macro_definition"
            " FROM duckdb_functions() WHERE function_type IN ('aggregate', 'scalar', 'macro')"
        ).fetchall()
    aggregates = {name for name, kind, *_ in found if kind == "aggregate"}
    volatile = {name for name, _, stability, *_ in found if stability == "VOLATILE"}
    scalars = {name for name, _, stability, *_ in found if stability == "CONSISTENT"}
    macros: dict[str, list[tuple[tuple[str, ...], str]]] = {}
    for name, kind, _, parameters, sql in found:
        if kind == "macro":
            macros.setdefault(name, []).append((tuple(parameters), sql))
    return aggregates, scalars - aggregates - volatile, macros
