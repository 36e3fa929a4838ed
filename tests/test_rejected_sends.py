"""A send that is rejected is a mistake in the domain: it is told, and can be sent again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.health.status import status
from pipeline.settings import Settings
from tests.command_line import one_line_of
from tests.domains.transfers import Deposit, Transfer, transfers
from tests.reacting import Workers, check_sends
from tests.running import Up, foldlog, wait_for

TOO_LOW = "reason = 'the balance is too low'"


def asked(settings: Settings, sql: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(
        foldlog(settings, "query", sql, "--format", "json").stdout
    )
    return found


def settle(pipeline: Up, settings: Settings) -> None:
    wait_for(lambda: not status(settings).sent.waiting, "the sends")
    pipeline.settle()


def test_it_is_told_and_when_it_is_sent_again_it_is_the_same_process_still(
    settings: Settings, up: Callable[..., Up]
) -> None:
    domain = "tests.domains.standing_orders:standing_orders"
    settings = settings.model_copy(update={"domain": domain, "workers": 2})
    pipeline = up(settings)
    with pipeline.ready() as producer:
        producer.execute(Deposit(command_id="d", account_id="ada", cents=100))
        settle(pipeline, settings)
        assert foldlog(settings, "status", "--check").returncode == 0
        producer.execute(Transfer(command_id="t", account_id="ada", to_account="eve", cents=10))
        settle(pipeline, settings)
        said = one_line_of(foldlog(settings, "status", "--check"))
        assert "1 command(s) of policies were rejected within a day" in said
        (failed,) = asked(settings, "FROM sends WHERE state = 'rejected'")
        assert (failed["command"], failed["aggregate_id"]) == ("Transfer", "bank")
        assert failed["reason"] == "the balance is too low"
        producer.execute(Deposit(command_id="b", account_id="bank", cents=5))
    for _ in range(2):  # the second time it is known
        assert foldlog(settings, "resubmit", "--where", TOO_LOW, "--yes").returncode == 0
        pipeline.settle()
        settle(pipeline, settings)
    balances = asked(settings, "SELECT account_id, balance FROM accounts ORDER BY account_id")
    assert {row["account_id"]: row["balance"] for row in balances} == {
        "ada": 90, "bank": 4, "eve": 11,
    }  # fmt: skip
    (again,) = asked(
        settings, "FROM events WHERE event_type = 'Withdrawn' AND aggregate_id = 'bank'"
    )
    assert again["correlation_id"] == failed["correlation_id"] == "t"
    assert again["causation_id"] == f"{failed['partition']}/{failed['position']}"
    assert pipeline.stop() == 0
    assert foldlog(settings, "verify").returncode == 0


def test_a_sender_that_sends_without_end_does_not_keep_others_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = Workers(tmp_path, transfers, [[0], [1], [2]])
    for name in ("a", "b"):  # of partitions 0 and 2
        workers.send(Deposit(account_id=name, cents=10_000))
    for _ in range(60):
        workers.send(Transfer(account_id="a", to_account="g", cents=1))
    workers.send(Transfer(account_id="b", to_account="g", cents=2))
    while workers.step(0, 0) or workers.step(2, 2):
        pass
    workers.step(1, 1)
    handled = {row["from_account"] for row in workers.rows(1) if row["event_type"] == "Received"}
    assert handled == {"a", "b"}
    workers.settle()
    check_sends(workers, complete=True)
