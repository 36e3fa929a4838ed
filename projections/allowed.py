"""What a SELECT that is kept live may say: clauses and functions that are known to come out right.

Everything else is refused before anything runs: whatever is not one row a group of one relation
of the log, and whatever depends on more than the events.
"""

from __future__ import annotations

from ingest.errors import ReadModelInvalid
from projections.functions import is_aggregate, is_constant
from projections.model import RELATIONS, Select
from projections.refusal import invalid
from projections.syntax import Node, Syntax, everything, name_of

INSTEAD = (
    "write that in a .sql file that reads from a read model instead of events (it may be any SQL),"
    " or when querying"
)

_MODIFIERS = {
    "DISTINCT_MODIFIER": "DISTINCT",
    "ORDER_MODIFIER": "ORDER BY",
    "LIMIT_MODIFIER": "LIMIT",
    "LIMIT_PERCENT_MODIFIER": "LIMIT",
}
_EXPRESSIONS = {
    "BETWEEN",
    "CASE",
    "CAST",
    "COLUMN_REF",
    "COMPARISON",
    "CONJUNCTION",
    "CONSTANT",
    "FUNCTION",
    "LAMBDA",
    "OPERATOR",
    "TYPE",
}
_OPERATORS = {
    "ARRAY_CONSTRUCTOR",
    "ARRAY_EXTRACT",
    "ARRAY_SLICE",
    "COMPARE_IN",
    "COMPARE_NOT_IN",
    "OPERATOR_COALESCE",
    "OPERATOR_IS_NOT_NULL",
    "OPERATOR_IS_NULL",
    "OPERATOR_NOT",
    "OPERATOR_NULLIF",
    "OPERATOR_TRY",
    "STRUCT_EXTRACT",
}


def check(select: Select, syntax: Syntax, tree: Node) -> None:
    """Raises `ReadModelInvalid` for what cannot be kept live."""
    clause = _clause_beyond(tree)
    if clause:
        raise invalid(select, clause.split()[0], f"{clause} cannot be kept live; {INSTEAD}")
    _check_source(select, tree["from_table"])
    sets = tree["group_sets"]
    if tree["aggregate_handling"] != "FORCE_AGGREGATES":
        if not tree["group_expressions"]:
            raise invalid(
                select,
                "SELECT",
                "a read model needs GROUP BY; GROUP BY ALL groups by all that is no aggregate",
            )
        if len(sets) != 1 or len(sets[0]) != len(tree["group_expressions"]):
            raise invalid(
                select, "GROUP", "grouping sets cannot be kept live; write one read model for each"
            )
    for part in everything(tree):
        _check_expression(select, syntax, part)


def _clause_beyond(tree: Node) -> str | None:
    """A clause that says more than one row a group."""
    if tree["type"] != "SELECT_NODE":
        return str(tree.get("setop_type", tree["type"]))
    if tree["cte_map"]["map"]:
        return "WITH"
    for modifier in tree["modifiers"]:
        if modifier.get("limit", 0) is None:
            return "OFFSET"
        return _MODIFIERS.get(modifier["type"], str(modifier["type"]))
    if tree["sample"]:
        return "SAMPLE"
    return "QUALIFY" if tree["qualify"] else None


def _check_source(select: Select, source: Node) -> None:
    kind, sample = source["type"], source["sample"]
    if kind == "JOIN" or kind == "SUBQUERY" or sample:
        what = "a subquery" if kind == "SUBQUERY" else "JOIN" if kind == "JOIN" else "TABLESAMPLE"
        raise invalid(select, source, f"{what} cannot be kept live; {INSTEAD}")
    plain = kind == "BASE_TABLE" and not source["catalog_name"] and not source["column_name_alias"]
    if (
        not plain
        or source["schema_name"] not in ("", "main")
        or source["table_name"].lower() not in RELATIONS
    ):
        raise invalid(
            select,
            source,
            f"a read model reads FROM {', '.join(RELATIONS[:-1])} or {RELATIONS[-1]},"
            " or from other read models, each by its name",
        )


def _check_expression(select: Select, syntax: Syntax, part: Node) -> None:
    kind, name = part["class"], name_of(part)
    if kind == "SUBQUERY":
        raise invalid(select, part, f"a subquery cannot be kept live; {INSTEAD}")
    if kind == "WINDOW":
        raise invalid(select, part, f"the window {name}() cannot be kept live; {INSTEAD}")
    if kind == "COLLATE":
        raise invalid(
            select, part, "COLLATE cannot be kept live: of equal values any may show; use lower(…)"
        )
    if kind not in _EXPRESSIONS or (kind == "OPERATOR" and part["type"] not in _OPERATORS):
        raise invalid(select, part, f"{part['type']} cannot be kept live; name what it stands for")
    if kind != "FUNCTION" or is_aggregate(part):
        return
    if part["catalog"] or part["schema"] not in ("", "main"):
        raise invalid(select, part, f"call {name} as {name}(…), not after a dot")
    if not is_constant(syntax, part):
        raise depends_on_more(select, part)


def depends_on_more(select: Select, part: Node) -> ReadModelInvalid:
    """The error for what another day, session or machine would answer otherwise."""
    reason = f"{name_of(part)} cannot be kept live: it depends on more than the events"
    return invalid(select, part, f"{reason}; {INSTEAD}")
