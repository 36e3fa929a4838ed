"""A short chaos run; `make chaos` is the long one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.chaos.orders import OrdersChaos, sends
from tests.chaos.run import chaos


@pytest.mark.parametrize(
    ("workers", "count"),
    [(2, 4), *(pytest.param(workers, 12, marks=pytest.mark.long) for workers in (1, 2))],
)
def test_kills_of_anything_lose_nothing_and_double_nothing(
    tmp_path: Path, workers: int, count: int
) -> None:
    kills, outcomes, _, wrong = chaos(tmp_path, seed=20 + workers, kills=count, workers=workers)
    assert sum(kills.values()) == count
    assert outcomes > 0
    assert wrong == []


def test_kills_of_anything_lose_no_order_no_unit_of_stock_and_no_send(tmp_path: Path) -> None:
    kills, ended, _, wrong = chaos(tmp_path, seed=31, kills=4, workers=2, kind=OrdersChaos)
    assert sum(kills.values()) == 4
    assert ended > 0
    assert wrong == []


def test_the_look_at_sends_finds_what_is_lost_twice_or_of_nothing() -> None:
    sent: dict[str, Any] = {"event_type": "CommandSent", "stream_id": "5-0", "to_partition": 1}
    sender = [{**sent, "position": 0}, {**sent, "position": 1}]

    def handled(*sources: str) -> list[str]:
        rows = [
            {"stream_id": s, "event_type": "ItemHeld", "position": n} for n, s in enumerate(sources)
        ]
        return [*sends({0: sender, 1: rows})]

    assert handled("0/0", "0/1") == []
    for wrong in (["0/0"], ["0/1"], ["0/1", "0/0"], ["0/0", "0/1", "0/0"], ["0/0", "0/1", "0/7"]):
        assert handled(*wrong), wrong
