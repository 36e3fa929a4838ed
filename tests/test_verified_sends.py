"""`foldlog verify` names a send that is lost, handled twice, too early, or was never sent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.log.inputs import Inputs
from pipeline.log.log import Log
from pipeline.operate.sends import wrong_sends
from tests.domains.transfers import Deposit, Transfer, transfers
from tests.reacting import Workers

A, B = "a", "g"
"""Accounts of the partitions 0 and 1."""


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """Four transfers from partition 0 to partition 1, all handled."""
    workers = Workers(tmp_path, transfers, [[0, 1, 2]])
    workers.send(Deposit(account_id=A, cents=100))
    for _ in range(4):
        workers.send(Transfer(account_id=A, to_account=B, cents=1))
        workers.settle()
    return workers.log


def rewritten(log: Log, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    """Partition 1 with other rows in its place, and the cursors of its end."""
    inputs = log.tail(1).inputs
    rows = pa.concat_tables(log.read(1))
    changed = change(rows.to_pylist())
    for position, row in enumerate(changed):
        row["position"] = position
    for file in log.all_files(1):
        file.path.unlink()
    made = pa.Table.from_pylist(changed, rows.schema)
    log.append(1, 0, made, inputs=Inputs(inputs.stream_id, inputs.cursors, inputs.sent))


def sources(rows: list[dict[str, Any]]) -> list[str]:
    return [*dict.fromkeys(row["stream_id"] for row in rows if row["stream_id"][:2] == "0/")]


def test_nothing_is_wrong_where_each_is_handled_once_and_in_order(log: Log) -> None:
    assert [*wrong_sends(transfers, log)] == []


def test_a_send_that_has_no_outcome_below_the_cursor_is_named(log: Log) -> None:
    lost = sources(pa.concat_tables(log.read(1)).to_pylist())[1]
    rewritten(log, lambda rows: [row for row in rows if row["stream_id"] != lost])
    said = f"partition 1 has passed over {lost}, which was sent to it"
    assert [*wrong_sends(transfers, log)] == [said]


def test_a_send_that_has_two_outcomes_is_named(log: Log) -> None:
    first = sources(pa.concat_tables(log.read(1)).to_pylist())[0]
    rewritten(log, lambda rows: [*rows, *({**r} for r in rows if r["stream_id"] == first)])
    assert [*wrong_sends(transfers, log)] == [f"partition 1 handles {first} in two places"]


def test_a_send_that_comes_before_an_earlier_one_is_named(log: Log) -> None:
    first, second, *_ = sources(pa.concat_tables(log.read(1)).to_pylist())
    swapped = {first: second, second: first}
    rewritten(
        log,
        lambda rows: [
            {**r, "stream_id": swapped.get(r["stream_id"], r["stream_id"])} for r in rows
        ],
    )
    said = f"partition 1 handles {first} ahead of what was sent before"
    assert [*wrong_sends(transfers, log)] == [said]


def test_an_outcome_of_what_nobody_has_sent_is_named(log: Log) -> None:
    first = sources(pa.concat_tables(log.read(1)).to_pylist())[0]
    rewritten(
        log, lambda rows: [{**r, "stream_id": "0/0" if r["stream_id"] == first else r["stream_id"]}
                           for r in rows]
    )  # fmt: skip
    assert [*wrong_sends(transfers, log)] == [
        "partition 1 handles 0/0, which is nothing sent to it",
        f"partition 1 has passed over {first}, which was sent to it",
    ]
