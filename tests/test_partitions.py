"""Where an aggregate belongs: the CRC-32 of its id, or of what stands between `{` and `}`."""

from __future__ import annotations

from binascii import crc_hqx
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from ingest.command import partition_of
from ingest.envelope import UNREADABLE
from tests import oracle
from tests.more import examples
from tests.running import InProcess, read

COUNTS = {
    "7": "7",
    "": "",
    "{ada}/cart": "ada",
    "{ada}/order-9": "ada",
    "order-9/{ada}": "ada",
    "{ada}{eve}": "ada",
    "{ada": "{ada",
    "ada}": "ada}",
    "}{": "}{",
    "}ada{": "}ada{",
    "}{ada}": "ada",
    "{}": "{}",
    "{}{ada}": "{}{ada}",
    "{}ada": "{}ada",
    "{{ada}}": "{ada",
    "{ }": " ",
    "{käthe}": "käthe",
    "{ada}\0{eve}": "ada",
}
"""An id → what counts of it."""


@pytest.mark.parametrize(("aggregate_id", "counts"), COUNTS.items())
def test_what_stands_between_the_first_braces_counts_and_else_the_whole_id(
    aggregate_id: str, counts: str
) -> None:
    for partitions in (1, 2, 4, 7, 1024):
        assert partition_of(aggregate_id, partitions) == crc32(counts.encode()) % partitions
    assert oracle.tag_of(aggregate_id) == counts


@examples(200)
@given(
    st.text(st.sampled_from("{}ab\u00e4"), max_size=8) | st.text(max_size=20), st.integers(1, 99)
)
@example("{}", 4)
@example("{{a}}", 4)
def test_any_id_counts_as_redis_cluster_would_have_it(aggregate_id: str, partitions: int) -> None:
    tag = oracle.tag_of(aggregate_id)
    slot = crc_hqx(tag.encode(), 0) % REDIS_CLUSTER_HASH_SLOTS
    assert key_slot(aggregate_id.encode()) == slot, "the oracle knows the rule"
    assert partition_of(aggregate_id, partitions) == crc32(tag.encode()) % partitions


def add(cart_id: str) -> dict[str, Any]:
    return {"type": "AddProduct", "command_id": f"of {cart_id}", "cart_id": cart_id,
            "product_id": "tea", "quantity": 1, "unit_price_cents": 1}  # fmt: skip


def test_aggregates_of_one_tag_are_in_one_partition_and_in_no_other(tmp_path: Path) -> None:
    pipeline = InProcess(tmp_path, partitions=4)
    carts = [f"{{ada}}/{number}" for number in range(8)]
    assert len({crc32(cart.encode()) % 4 for cart in carts}) > 1, "their ids alone would part them"
    right = crc32(b"ada") % 4
    wrong = (right + 1) % 4
    assert {row["event_type"] for row in pipeline.run(right, *map(add, carts))} == {"ProductAdded"}
    (row,) = pipeline.run(wrong, add("{ada}/8"))
    assert row["event_type"] == UNREADABLE
    assert row["reason"] == f"{{ada}}/8 belongs in {{shop-{right}}}:commands"
    shown = read(pipeline.publish(), "carts")["carts"]
    pipeline.writer.close()
    assert [cart for cart, *_ in shown] == carts
