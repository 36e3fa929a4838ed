"""A short chaos run; `make chaos` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

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
