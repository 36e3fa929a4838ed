"""A Redis that comes back behind the log, and producers that are faster than the worker."""

from __future__ import annotations

import pytest

from tests.failover import Case

CASES = [
    Case("emptied", "down", -0.5),
    Case("emptied", "paused", -10),
    Case("rolled back", "down", 10),
    Case("rolled back", "paused", -3),
    Case("replaced", "running", -0.05),
    Case("replaced", "paused", -0.5),
    Case("flushed", "running", -0.5),
    Case("resynced", "paused", -0.5),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_whatever_redis_forgets_each_command_that_it_still_has_gets_one_outcome(case: Case) -> None:
    assert case.run() == []
