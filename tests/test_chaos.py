"""A short chaos run; `make chaos` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.run import chaos


@pytest.mark.parametrize("workers", [1, 2])
def test_twelve_kills_of_anything_lose_nothing_and_double_nothing(
    tmp_path: Path, workers: int
) -> None:
    kills, outcomes, _, wrong = chaos(tmp_path, seed=20 + workers, kills=12, workers=workers)
    assert sum(kills.values()) == 12
    assert outcomes > 0
    assert wrong == []
