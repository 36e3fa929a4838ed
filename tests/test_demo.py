"""The demo's answers, computed once more from the baskets by plain SQL, to the cent."""

from __future__ import annotations

import subprocess
from pathlib import Path

import duckdb

from pipeline.extras.baskets import transactions
from pipeline.settings import Settings
from tests.processes import COLD
from tests.running import foldlog

LIMIT = 20_000

FIRST_COMMANDS = f"""
CREATE VIEW lines AS SELECT *, row_number() OVER (
    ORDER BY basket_time, basket_id, is_check_out, product_id) AS number
FROM (
    SELECT basket_id, product_id, quantity, sales_value, transaction_timestamp AS line_time,
        false AS is_check_out,
        max(transaction_timestamp) OVER (PARTITION BY basket_id) AS basket_time
    FROM '{transactions()}'
    UNION ALL BY NAME
    SELECT basket_id, true AS is_check_out, max(transaction_timestamp) AS basket_time
    FROM '{transactions()}' GROUP BY basket_id)
QUALIFY number <= {LIMIT};
CREATE VIEW sold AS SELECT *, round(100 * sales_value / quantity)::BIGINT AS cents
FROM lines WHERE quantity > 0;
"""

SAME = {
    "revenue by month": (
        "SELECT strftime(day, '%Y-%m') AS m, sum(revenue_cents) FROM product_daily GROUP BY m",
        "SELECT strftime(line_time, '%Y-%m') AS m, sum(quantity * cents) FROM sold GROUP BY m",
    ),
    "sales by product and day": (
        "SELECT product_id, day, units_added, revenue_cents FROM product_daily",
        "SELECT product_id::VARCHAR, line_time::DATE AS d, sum(quantity), sum(quantity * cents)"
        " FROM sold GROUP BY product_id, d",
    ),
    "what is in each cart": (
        "SELECT cart_id, product_id, quantity, value_cents, first_at FROM cart_items",
        "SELECT basket_id::VARCHAR, product_id::VARCHAR, sum(quantity), sum(quantity * cents),"
        " min(line_time) FROM sold GROUP BY basket_id, product_id",
    ),
    "carts": (
        "SELECT cart_id, status = 'checked out', units, value_cents, version FROM carts",
        "SELECT basket_id::VARCHAR, bool_or(is_check_out), sum(quantity) FILTER (NOT is_check_out),"
        " sum(quantity * cents) FILTER (NOT is_check_out), count(*) FROM ("
        " SELECT *, round(100 * sales_value / quantity)::BIGINT AS cents,"
        " bool_or(quantity > 0) OVER (PARTITION BY basket_id) AS sold FROM lines"
        " WHERE quantity > 0 OR is_check_out) WHERE sold GROUP BY basket_id",
    ),
    "commands by outcome": (
        "SELECT outcome, count(*) FROM outcomes GROUP BY outcome",
        "SELECT CASE WHEN quantity <= 0 THEN 'unreadable' WHEN is_check_out AND NOT sold"
        " THEN 'rejected' ELSE 'accepted' END AS o, count(*) FROM ("
        " SELECT *, coalesce(bool_or(quantity > 0) OVER (PARTITION BY basket_id), false) AS sold"
        " FROM lines) GROUP BY o",
    ),
}


def demo(data: Path, *flags: str, cold: bool = COLD) -> subprocess.CompletedProcess[str]:
    return foldlog(Settings(data=data), "demo", *flags, environment={"COLUMNS": "120"}, cold=cold)


def test_the_demos_answers_are_those_of_plain_sql_over_the_baskets(tmp_path: Path) -> None:
    data = tmp_path / "data"
    ran = demo(data, "--limit", str(LIMIT))
    assert ran.returncode == 0, ran.stderr
    assert f"Sent {LIMIT:,} commands" in ran.stdout
    assert "each has exactly one" in ran.stdout
    with duckdb.connect() as db:
        db.execute(FIRST_COMMANDS)
        db.execute(f"ATTACH '{data / 'read_models.duckdb'}' AS shown (READ_ONLY)")
        for what, (ours, theirs) in SAME.items():
            db.execute("USE shown")
            answered = db.execute(ours).fetchall()
            db.execute("USE memory")
            assert sorted(answered) == sorted(db.execute(theirs).fetchall()), what


def test_keep_goes_on_where_the_last_run_ended(tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert demo(data, "--limit", "3000").returncode == 0
    more = demo(data, "--limit", "5000", "--keep")
    assert "Sent 2,000 commands. The log holds 5,000 outcomes of 5,000 commands" in more.stdout
    again = demo(data, "--limit", "1000")
    assert "Sent 1,000 commands. The log holds 1,000 outcomes of 1,000 commands" in again.stdout


def test_the_demo_removes_only_what_it_made(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    refused = demo(tmp_path, "--limit", "10", cold=True)
    assert refused.returncode == 1
    assert "holds what the demo did not make" in refused.stderr
    assert (tmp_path / "precious").read_text() == "mine"


STOCK = """
    SELECT product_id, sum(units) FILTER (kind IN ('StockReceived', 'StockReleased'))
        - coalesce(sum(units) FILTER (kind = 'StockReserved'), 0),
        coalesce(sum(units) FILTER (kind = 'StockReserved'), 0)
        - coalesce(sum(units) FILTER (kind IN ('StockReleased', 'StockDispatched')), 0)
    FROM (SELECT aggregate_id AS product_id, event_type AS kind, quantity AS units FROM events
        WHERE aggregate = 'stock') GROUP BY product_id ORDER BY product_id
"""


def test_orders_are_shipped_or_give_back_what_they_held_and_no_unit_is_lost(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path / "data")
    ran = demo(settings.data, "--orders", "--limit", "600")
    assert ran.returncode == 0, ran.stderr
    assert "conserved to the unit" in ran.stdout
    with duckdb.connect(str(settings.published), read_only=True) as db:
        shown = db.execute(
            "SELECT product_id, free, held FROM stock ORDER BY product_id"
        ).fetchall()
        assert shown == db.execute(STOCK).fetchall()
        ended = dict(db.execute("SELECT status, count(*) FROM orders GROUP BY status").fetchall())
        assert ended.keys() <= {"shipped", "cancelled", "awaiting payment"}
        assert min(ended["shipped"], ended["cancelled"]) > 0
        states = db.execute("SELECT DISTINCT state FROM sends").fetchall()
        assert states == [("accepted",)]
        checked_out = "event_type = 'CheckedOut' AND deliver_to IS NOT NULL"
        delivered = db.execute(f"SELECT position FROM events WHERE {checked_out}").fetchall()
        assert len(delivered) == sum(ended.values())
