"""Policies come, go and fail, and what was sent stays as it is: handled once, by whatever code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ingest.command import COMMAND_BYTES_MAX
from ingest.domain import Domain
from ingest.entries import Batch
from ingest.envelope import UNREADABLE
from ingest.policy import Later, Of
from pipeline.decide.batch import BatchDecider
from pipeline.decide.partition import Partition
from pipeline.decide.sends import EPOCH, Send
from pipeline.replay.committed import comparison
from pipeline.replay.restore import restore
from tests.domains import transfers as bank
from tests.domains.shop import Sell, Sold, Till, sell, then
from tests.domains.shop import now as till
from tests.domains.transfers import Account, Deposit, Receive, Transfer, Withdrawn, transfers
from tests.reacting import Workers, check_sends
from tests.running import DEDUPE_WINDOW, InProcess

WITHOUT = Domain("transfers", transfers.aggregates)
SHARES = [[0, 2], [1]]


def again(workers: Workers, domain: Domain) -> Workers:
    """Everything started once more, with other code."""
    goes_on = Workers(workers.log.folder.parent, domain, workers.shares)
    goes_on.streams, goes_on._sent, goes_on.now_ms = workers.streams, 1000, workers.now_ms + 1000
    return goes_on


def types(workers: Workers) -> list[str]:
    return [row["event_type"] for p in range(workers.partitions) for row in workers.rows(p)]


@pytest.mark.parametrize("snapshots", [False, True])
def test_a_new_policy_begins_with_the_next_event_and_older_files_lack_its_columns(
    tmp_path: Path, snapshots: bool
) -> None:
    before = Workers(tmp_path, WITHOUT, SHARES)
    before.send(Deposit(account_id="a", cents=100))
    before.send(Transfer(account_id="a", to_account="g", cents=10))
    before.settle()
    assert types(before) == ["Deposited", "Withdrawn"]
    if snapshots:
        for worker in before.workers:
            worker.close(worker_stop())
    workers = again(before, transfers)
    workers.settle()
    assert types(workers) == ["Deposited", "Withdrawn"]
    workers.send(Transfer(account_id="a", to_account="g", cents=20))
    workers.settle()
    check_sends(workers, complete=True)
    assert types(workers).count("CommandSent") == types(workers).count("Received") == 1
    for number in (0, 1):
        workers.kill(number)
    workers.now_ms += 25 * 3_600_000
    workers.settle()
    assert types(workers).count("FellAsleep") == 2


def worker_stop() -> Any:
    return type("Stop", (), {"error": None, "requested": True})()


ONE_LESS = replace(transfers, policies=(bank.pay_back, bank.sleep))


@pytest.mark.parametrize("after", [ONE_LESS, WITHOUT], ids=["one of three", "all"])
def test_what_was_sent_and_deferred_before_its_policy_was_removed_is_handled(
    tmp_path: Path, after: Domain
) -> None:
    workers = Workers(tmp_path, transfers, SHARES)
    workers.send(Deposit(account_id="a", cents=100))
    workers.send(Transfer(account_id="a", to_account="g", cents=10))
    workers.step(0, 0)
    workers = again(workers, after)
    workers.send(Transfer(account_id="a", to_account="g", cents=20))
    workers.settle()
    check_sends(workers, complete=True)
    assert types(workers).count("Received") == 1
    workers.now_ms += 25 * 3_600_000
    workers.settle()
    assert types(workers).count("FellAsleep") == (1 if after is WITHOUT else 2)
    back = again(workers, transfers)
    back.settle()
    check_sends(back, complete=True)
    assert types(back) == types(workers)


def total(event: Sold, of: Of[Till]) -> Iterator[Sell | Later[Sell]]:
    if event.channel != "total":
        sold: dict[str, Any] = {"name": event.name, "cents": event.cents, "channel": "total"}
        yield Sell(till="all", **sold)
        yield Later(timedelta(hours=1), Sell(till=of.id, **sold))


def test_a_log_of_an_older_schema_goes_on_with_policies(tmp_path: Path) -> None:
    older = InProcess(tmp_path, then, partitions=1)
    older.run(0, sell(1, price=1.25), sell(2, price=0.1))
    older.writer.close()
    workers = Workers(tmp_path, replace(till, policies=(total,)), [[0]])
    workers.now_ms += 60_000
    workers.settle()
    assert "CommandSent" not in types(workers)
    workers.send(Sell(till="a", name="Tea", cents=7))
    workers.settle()
    workers.kill(0)
    workers.now_ms += 2 * 3_600_000
    workers.settle()
    check_sends(workers, complete=True)
    sold = [
        (r["aggregate_id"], r.get("cents")) for r in workers.rows(0) if r["event_type"] == "Sold"
    ]
    assert sold[-3:] == [("a", 7), ("all", 7), ("a", 7)]


BROKEN: list[str] = []


def tell(event: bank.Received, of: Of[Account]) -> Iterator[Receive]:
    if of.id in BROKEN:
        raise ValueError("a mistake in a policy")
    yield from ()


@pytest.mark.parametrize("fails_at", [0, 2, 5])
def test_a_send_at_which_a_policy_fails_halts_and_is_decided_again_with_all_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    domain = replace(transfers, policies=(*transfers.policies, tell))
    workers = Workers(tmp_path, domain, SHARES)
    receivers = ["g", "i", "k", "l", "p", "r"]  # all of partition 1
    workers.send(Deposit(account_id="a", cents=100))
    for receiver in receivers:
        workers.send(Transfer(account_id="a", to_account=receiver, cents=1))
    while workers.step(0, 0):
        pass
    for number in range(3):
        workers.send(Deposit(account_id="g", cents=10 + number))
    monkeypatch.setattr(f"{__name__}.BROKEN", [receivers[fails_at]])
    monkeypatch.setattr("pipeline.work.steps.tell_halted", lambda *_: None)
    halted = workers.workers[1]
    decided = workers.decide(halted, 1)
    assert decided is not None
    assert len(decided.handled) == fails_at
    assert decided.entries == 0, "what comes after the failed one waits"
    on_its_way = halted.decide(Batch(1, workers.streams[1][:2]))
    assert on_its_way is None
    halted.commit(decided)
    halted.reply(decided)
    workers.settle()
    assert types(workers).count("Received") == fails_at
    BROKEN.clear()
    workers.kill(1)
    workers.settle()
    check_sends(workers, complete=True)
    assert types(workers).count("Received") == len(receivers)
    balance = restore(domain, workers.log, 1, DEDUPE_WINDOW).aggregates.get(("account", "g"))
    assert balance is not None
    assert balance[0].balance == 1 + 10 + 11 + 12


def test_an_entry_that_has_sent_something_is_known_to_be_in_the_log(tmp_path: Path) -> None:
    """Redis may come back with it after the window in which command ids are remembered."""
    workers = Workers(tmp_path, transfers, SHARES)
    workers.send(Deposit(account_id="a", cents=100))
    workers.send(Transfer(account_id="a", to_account="g", cents=10))
    workers.settle()
    rows = [row for row in workers.rows(0) if row["event_type"] == Withdrawn.__name__]
    assert len(rows) == 1
    compare = comparison(workers.log, 0, workers.deployed.decider())
    assert compare(workers.streams[0]) == ["committed", "committed"]


def test_a_send_whose_command_is_gone_says_why_as_a_producers_does_and_without_a_value() -> None:
    decider = BatchDecider(transfers, partitions=1, payload_bytes_max=COMMAND_BYTES_MAX)
    fields = b'{"type": "Gone", "account_id": "a", "owner": "a secret"}'
    gone = Send(0, 0, ("account", "a"), 0, 1, None, fields, None, None, 0, EPOCH)
    entry = b"1-0", fields.replace(b"{", b'{"command_id": "1", ', 1), ()
    rows = decider.decide(Partition(0, 1), Batch(0, [entry]), [gone]).rows
    assert rows["event_type"].to_pylist() == [UNREADABLE] * 2
    sent, came_in = rows["reason"].to_pylist()
    assert sent == came_in
    assert sent.startswith("Input tag 'Gone' found using 'type' does not match any of the expected")
    assert "secret" not in sent
