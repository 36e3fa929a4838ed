"""Every entry of a stream has exactly one outcome, whatever its bytes are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.entries import Batch
from ingest.envelope import REJECTED, UNREADABLE
from ingest.errors import DomainFailed
from ingest.shop import shop
from pipeline.decide.batch import BatchDecider
from pipeline.decide.partition import Decided, Partition
from tests.chaos.fuzz import fuzz
from tests.declaring import redeclared, taking
from tests.domains.bank import bank
from tests.domains.carts import carts
from tests.more import examples
from tests.oracle import partition_of
from tests.running import InProcess, entry

ADD: dict[str, Any] = {
    "type": "AddProduct",
    "command_id": "c1",
    "cart_id": "7",
    "product_id": "milk",
    "quantity": 2,
    "unit_price_cents": 89,
}


def decide(*payloads: Any, domain: Any = shop, limit: int = 65_536) -> Decided:
    """One batch on an empty log of one partition."""
    fold = BatchDecider(domain, partitions=1, payload_bytes_max=limit)
    entries = [p if isinstance(p, tuple) else entry(i, p) for i, p in enumerate(payloads)]
    return fold.decide(Partition(0), Batch(0, entries))


def only_row(decided: Decided) -> dict[str, Any]:
    (row,) = decided.rows.to_pylist()
    return dict(row)


def test_an_accepted_command_is_its_events() -> None:
    row = only_row(decide(ADD))
    assert row["event_type"] == "ProductAdded"
    assert (row["partition"], row["position"], row["version"]) == (0, 0, 1)
    assert (row["product_id"], row["quantity"], row["unit_price_cents"]) == ("milk", 2, 89)
    assert row["reason"] is None
    assert row["payload"] is None


def test_recorded_at_is_the_time_in_the_stream_id_and_occurred_at_what_the_producer_says() -> None:
    said = {**ADD, "command_id": "c2", "occurred_at": "2017-01-01T12:00:00+01:00"}
    silent, spoken = decide(ADD, said).rows.to_pylist()
    assert str(silent["recorded_at"]) == str(silent["occurred_at"]) == "2023-11-14 22:13:20"
    assert str(spoken["occurred_at"]) == "2017-01-01 11:00:00"


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"no JSON", "Invalid JSON"),
        (b'"\xff"', "Invalid JSON"),
        (b"[1, 2]", "Input should be an object"),
        (b"", "Invalid JSON"),
        ({"type": "Steal", "command_id": "c1"}, "Input tag 'Steal'"),
        ({**ADD, "quantity": 0}, "quantity: Input should be greater than 0"),
        ({**ADD, "quantity": "2"}, "quantity: Input should be a valid integer"),
        ({**ADD, "quantity": 10**30}, "quantity: "),
        ({**ADD, "colour": "red"}, "colour: Extra inputs are not permitted"),
        ({**ADD, "product_id": "x" * 101}, "product_id: String should have at most 100"),
        ({**ADD, "product_id": None}, "product_id: Input should be a valid string"),
        ({k: v for k, v in ADD.items() if k != "command_id"}, "command_id: Field required"),
        ({**ADD, "command_id": ""}, "command_id: String should have at least 1 character"),
        ({**ADD, "occurred_at": "2017-01-01T12:00:00"}, "occurred_at: Input should have timezone"),
        ({**ADD, "reply_to": "session:42"}, "reply_to: begin it with shop:replies:"),
        (json.dumps(ADD).replace('"milk"', '"\\ud800"').encode(), "Invalid JSON"),
        (json.dumps(ADD).replace("89", "NaN").encode(), "unit_price_cents: "),
        (b"[" * 50_000, "Invalid JSON"),
    ],
)
def test_what_is_no_command_is_one_row_with_the_reason_and_its_bytes(
    payload: bytes | dict[str, Any], reason: str
) -> None:
    row = only_row(decide(payload))
    raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    assert row["event_type"] == UNREADABLE
    assert row["reason"].startswith(reason)
    assert row["payload"] == raw[:4096]
    assert row["version"] is None


def test_a_payload_over_the_limit_is_unreadable_and_kept_in_part() -> None:
    row = only_row(decide({**ADD, "product_id": "x" * 6000}, limit=5000))
    assert row["reason"].endswith("the limit is 5000")
    assert len(row["payload"]) == 4096


def test_an_entry_without_the_field_command_is_unreadable() -> None:
    row = only_row(decide((b"5-0", None, [b"cmd", b"{}"])))
    assert row["reason"] == "the entry has no field named command"
    assert row["payload"] == b"cmd {}"


def test_a_command_in_another_partitions_stream_is_unreadable() -> None:
    fold = BatchDecider(shop, partitions=4, payload_bytes_max=1000)
    right = partition_of("7", 4)
    wrong = (right + 1) % 4
    row = only_row(fold.decide(Partition(wrong), Batch(wrong, [entry(0, ADD)])))
    assert row["reason"] == f"7 belongs in {{shop-{right}}}:commands"


def test_a_rejected_command_is_kept_whole_so_that_it_can_be_sent_again() -> None:
    command = {"type": "CheckOut", "command_id": "c1", "cart_id": "7"}
    row = only_row(decide(command))
    assert row["event_type"] == REJECTED
    assert row["reason"] == "the cart is empty"
    assert json.loads(row["payload"]) == command


@pytest.mark.parametrize(("expected", "accepted"), [(0, True), (1, False), (7, False)])
def test_an_expected_version_that_does_not_match_is_a_rejection(
    expected: int, accepted: bool
) -> None:
    row = only_row(decide({**ADD, "expected_version": expected}))
    assert (row["event_type"] == "ProductAdded") is accepted
    assert accepted or row["reason"] == f"the version is 0, not {expected}"


@pytest.mark.parametrize(
    "first", [ADD, {**ADD, "quantity": 0}, {"type": "CheckOut", "command_id": "c1", "cart_id": "7"}]
)
def test_a_command_id_that_has_an_outcome_changes_nothing_and_its_sender_is_told(
    first: dict[str, Any],
) -> None:
    again = {**ADD, "reply_to": "shop:replies:me"}
    decided = decide(first, again)
    assert len(decided.rows) == 1
    ((key, outcome),) = decided.replies
    assert key == "shop:replies:me"
    assert outcome.duplicate
    assert outcome.position == 0
    assert (outcome.outcome == "accepted") is (first == ADD)
    assert outcome.reason == only_row(decided)["reason"]


def test_duplicates_are_known_after_a_restart(tmp_path: Path) -> None:
    pipeline = InProcess(tmp_path, partitions=1)
    pipeline.run(0, ADD)
    pipeline.restart()
    assert pipeline.run(0, ADD) == []
    pipeline.writer.close()


def test_a_command_that_changes_nothing_still_has_its_outcome_in_the_log() -> None:
    touch = {"type": "Touch", "command_id": "t", "account_id": "a"}
    row = only_row(decide(touch, domain=bank))
    assert row["event_type"] == "NothingChanged"


def test_a_value_that_no_column_can_hold_is_a_rejection_and_spares_its_neighbours() -> None:
    deposit = {"type": "Deposit", "account_id": "a"}
    decided = decide(
        {**deposit, "command_id": "1", "cents": 5},
        {**deposit, "command_id": "2", "cents": 2**63},
        {**deposit, "command_id": "3", "cents": 2**63 - 1},  # fits, but then the balance does not
        {**deposit, "command_id": "4", "cents": 7},
        domain=bank,
    )
    rows = decided.rows.to_pylist()
    assert [r["event_type"] for r in rows] == [
        "Deposited", UNREADABLE, REJECTED, "Deposited",
    ]  # fmt: skip
    assert [r["version"] for r in rows] == [1, None, None, 2]
    assert rows[1]["reason"].startswith("cents: ")
    assert rows[2]["reason"].startswith("a value does not fit its column")
    assert [state.balance for state, _ in decided.changed.values()] == [12]


def test_a_stream_id_from_the_far_future_is_recorded_at_the_end_of_time() -> None:
    row = only_row(decide((b"18446744073709551615-1", json.dumps(ADD).encode(), [])))
    assert row["recorded_at"].year == 9999


def test_a_mistake_in_the_domains_code_is_named_and_is_no_rejection() -> None:
    broken = taking(lambda state, command: [1 // 0], *carts.commands)
    with pytest.raises(DomainFailed, match=r"command c1 .*ZeroDivisionError.*test_outcomes.py:\d+"):
        decide(ADD, domain=redeclared(carts, decide=broken))


PAYLOADS = st.one_of(
    st.binary(max_size=200),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
        max_leaves=10,
    ).map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass")),
    st.fixed_dictionaries(
        {},
        optional={
            name: st.just(value) | st.integers() | st.text(max_size=5) | st.none()
            for name, value in [
                *ADD.items(),
                ("expected_version", 0),
                ("occurred_at", "2017-01-01Z"),
            ]
        },
    ).map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass")),
)


@examples(100)
@given(st.lists(PAYLOADS, min_size=1, max_size=30))
def test_any_bytes_give_one_outcome_each_unless_their_command_id_has_one(
    payloads: list[bytes],
) -> None:
    decided = decide(*payloads)
    stream_ids = decided.rows["stream_id"].to_pylist()
    assert len(set(stream_ids)) == len(stream_ids)
    without_outcome = len(payloads) - len(stream_ids)
    command_ids = [i for i in decided.rows["command_id"].to_pylist() if i is not None]
    assert len(set(command_ids)) == len(command_ids)
    assert without_outcome == 0 or command_ids
    assert decided.rows["position"].to_pylist() == list(range(len(decided.rows)))


def test_twenty_thousand_broken_commands_have_one_outcome_each() -> None:
    kinds = fuzz(seed=7, count=20_000)
    assert all(kinds.values()), kinds
