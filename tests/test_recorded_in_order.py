"""In a partition no row is recorded before the one ahead of it, wherever each comes from."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.feed.subscription import Subscription
from pipeline.operate.as_of import as_of
from tests.domains.transfers import Deposit, Transfer, transfers
from tests.reacting import BEGINS_MS, Workers

AN_HOUR_MS = 3_600_000


def at(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


@pytest.fixture
def workers(tmp_path: Path) -> Workers:
    """Partition 1 has old commands in its stream when something is sent to it, and handles that
    first.
    """
    workers = Workers(tmp_path, transfers, [[0], [1, 2]])
    for _ in range(20):
        workers.send(Deposit(account_id="g", cents=5))
    workers.now_ms += AN_HOUR_MS
    workers.send(Deposit(account_id="a", cents=100))
    workers.send(Transfer(account_id="a", to_account="g", cents=10))
    while workers.step(0, 0):
        pass
    workers.settle()
    return workers


def test_a_command_that_waited_in_its_stream_is_not_recorded_before_what_was_handled_meanwhile(
    workers: Workers,
) -> None:
    rows = workers.rows(1)
    assert rows[0]["event_type"] == "Received"
    recorded = [row["recorded_at"] for row in rows]
    assert recorded == sorted(recorded)
    workers.kill(1)
    workers.send(Deposit(account_id="g", cents=5))
    workers.settle()
    recorded = [row["recorded_at"] for row in workers.rows(1)]
    assert recorded == sorted(recorded)


def test_whoever_subscribes_from_a_time_gets_all_that_was_recorded_since(workers: Workers) -> None:
    since = at(BEGINS_MS + AN_HOUR_MS)
    found = {
        (e.partition, e.position) for e in Subscription(transfers, workers.log, since, follow=False)
    }
    events = {"Deposited", "Withdrawn", "Received"}
    expected = {
        (partition, row["position"])
        for partition in range(3)
        for row in workers.rows(partition)
        if row["event_type"] in events and row["recorded_at"].replace(tzinfo=UTC) >= since
    }
    assert found == expected


def test_as_of_a_time_of_recording_an_account_has_a_history_without_gaps(workers: Workers) -> None:
    settings = workers.deployed.settings.model_copy(
        update={"domain": "tests.domains.transfers:transfers"}
    )
    for minutes in (30, 60):
        moment = at(BEGINS_MS + minutes * 60_000)
        with as_of(moment, settings=settings) as db:
            shown = db.execute("SELECT balance FROM accounts WHERE account_id = 'g'").fetchall()
        assert shown == ([] if minutes == 30 else [(20 * 5 + 10,)])
