"""Seeded shopping, and the check of a whole pipeline against the oracle."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import duckdb

from pipeline.settings import Settings
from tests import oracle
from tests.running import read

FEW_CARTS = ["5", "6", "12", "14", "a", "b", "c", "d", "e", "f", "g", "h"]
FEW_PRODUCTS = ["m", "b", "t"]
PRODUCTS = [f"p{number}" for number in range(20)]


def shopping(
    count: int,
    seed: int = 7,
    carts: Sequence[str] = (),
    products: Sequence[str] = PRODUCTS,
    prefix: str = "c",
) -> list[dict[str, Any]]:
    """Seeded commands of some carts; some are invalid, some against the rules, some sent twice.

    A cart has a dozen commands unless `carts` are named. `prefix` begins the command ids.
    """
    rnd = random.Random(seed)
    carts = carts or [f"cart-{number}" for number in range(max(1, count // 12))]
    commands: list[dict[str, Any]] = []
    for number in range(count):
        if number and rnd.random() < 0.02:
            commands.append(rnd.choice(commands[-50:]))
            continue
        command: dict[str, Any] = {
            "type": rnd.choices(["AddProduct", "RemoveProduct", "CheckOut"], [8, 3, 1])[0],
            "command_id": f"{prefix}{number}",
            "cart_id": carts[rnd.randrange(len(carts))],
            "occurred_at": f"2017-0{rnd.randint(1, 9)}-11T10:00:00Z",
        }
        if command["type"] != "CheckOut":
            command |= {"product_id": products[rnd.randrange(len(products))]}
            command |= {"quantity": rnd.randint(0, 5)}
        if command["type"] == "AddProduct":
            command["unit_price_cents"] = rnd.randint(1, 2000)
        commands.append(command)
    return commands


LIVED = shopping(800)
"""What the pipeline of the fixture `lived` has handled."""


def check(settings: Settings, commands: list[dict[str, Any]]) -> None:
    """The log and the published read models are what an independent computation says."""
    expected = oracle.expect(commands)
    shown = read(settings.published, "carts", "cart_items", "product_daily")
    assert {r[0]: list(r[1:5]) for r in shown["carts"]} == expected.carts
    assert {(c, p): [q, v] for c, p, q, v, _, _ in shown["cart_items"]} == expected.items
    assert {(p, str(d)): [a, r, v] for p, d, a, r, v in shown["product_daily"]} == expected.daily
    with duckdb.connect(str(settings.published), read_only=True) as db:
        outcomes = db.execute("SELECT command_id, outcome, reason FROM outcomes").fetchall()
        gaps = db.execute(
            "SELECT partition FROM live.log GROUP BY partition"
            " HAVING count(*) <> max(position) + 1 OR count(DISTINCT position) <> count(*)"
        ).fetchall()
        wrong_versions = db.execute(
            "SELECT aggregate_id FROM events GROUP BY aggregate_id"
            " HAVING count(*) <> max(version) OR count(DISTINCT version) <> count(*)"
        ).fetchall()
    assert {i: (o, r) for i, o, r in outcomes} == expected.outcomes
    assert len(outcomes) == len(expected.outcomes)
    assert (gaps, wrong_versions) == ([], [])
