"""A SELECT with every choice made that SQL leaves to DuckDB, as `projections.merges` makes it."""

from __future__ import annotations

from projections.functions import is_aggregate
from projections.merges import ORDERED, aggregate_of, order_in_log
from projections.model import Select
from projections.syntax import Node, Syntax, arguments, everything, in_place_of, with_parts


def settled(syntax: Syntax, select: Select) -> str | None:
    """The SELECT as SQL that leaves nothing open; None where it never does."""
    tree = syntax.parse(select.sql)
    source = tree["from_table"]["table_name"].lower()
    last_orders = {f"l{i}": one for i, one in enumerate(order_in_log(source))}

    def of_one(node: Node) -> Node:
        node = with_parts(node, of_one)
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
    return syntax.written(with_parts(tree, of_one))
