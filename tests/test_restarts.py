"""Any commands, cut into any batches, restarts anywhere: the same log and read models."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests import oracle
from tests.more import examples
from tests.running import InProcess, chunked, entry, read

PARTITIONS = 2
CARTS = ["a", "b", "c", "d"]
RELATIONS = ("carts", "cart_items", "product_daily", "rejections", "outcomes", "events")

COMMANDS = st.lists(
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(["AddProduct", "AddProduct", "RemoveProduct", "CheckOut"]),
            "command_id": st.integers(0, 40).map(str),
            "cart_id": st.sampled_from(CARTS),
            "product_id": st.sampled_from(["milk", "bread"]),
            "quantity": st.integers(0, 3),
            "unit_price_cents": st.integers(0, 500),
            "occurred_at": st.sampled_from(["2017-01-01T10:00:00Z", "2017-01-02T23:59:59Z"]),
        },
        optional={"expected_version": st.integers(0, 3)},
    ).map(lambda c: {k: v for k, v in c.items() if k in FIELDS[c["type"]]}),
    max_size=60,
)
ENVELOPE = {"type", "command_id", "cart_id", "occurred_at", "expected_version"}
FIELDS = {
    "AddProduct": ENVELOPE | {"product_id", "quantity", "unit_price_cents"},
    "RemoveProduct": ENVELOPE | {"product_id", "quantity"},
    "CheckOut": ENVELOPE,
}


def run(
    folder: Path, commands: list[dict[str, Any]], sizes: list[int], plan: list[str]
) -> tuple[Any, dict[str, list[Any]]]:
    """The log and the read models after the commands, with what the plan says between batches."""
    pipeline = InProcess(folder, partitions=PARTITIONS)
    waiting = []
    steps = itertools.cycle(plan)
    for number in range(PARTITIONS):
        mine = [entry(i, c) for i, c in enumerate(commands)
                if oracle.partition_of(c["cart_id"], PARTITIONS) == number]  # fmt: skip
        for batch in chunked(mine, sizes):
            waiting.append(pipeline.decide(number, batch))
            step = next(steps)
            if step == "flush":
                pipeline.flush(waiting)
                waiting = []
            elif step == "restart":
                pipeline.restart()
                waiting = []
    pipeline.flush(waiting)
    shown = read(pipeline.publish(), *RELATIONS)
    pipeline.writer.close()
    return pipeline.rows(), shown


@examples(5)
@given(
    commands=COMMANDS,
    sizes=st.lists(st.integers(1, 12), max_size=12),
    plan=st.lists(st.sampled_from(["go on", "flush", "restart"]), min_size=1, max_size=8),
)
def test_cuts_and_restarts_change_nothing(
    commands: list[dict[str, Any]], sizes: list[int], plan: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        straight = run(Path(folder) / "straight", commands, [], ["flush"])
        cut = run(Path(folder) / "cut", commands, sizes, plan)

    assert cut[0].equals(straight[0])
    assert cut[1] == straight[1]
    expected = expect_per_partition(commands)
    assert {row[0]: list(row[1:5]) for row in cut[1]["carts"]} == expected.carts
    assert {(c, p): [q, v] for c, p, q, v, _, _ in cut[1]["cart_items"]} == expected.items
    assert {(p, str(d)): [a, r, c] for p, d, a, r, c in cut[1]["product_daily"]} == expected.daily


def expect_per_partition(commands: list[dict[str, Any]]) -> oracle.Expected:
    """A command id is remembered in its own partition, so each partition is expected for itself."""
    together = oracle.Expected()
    for number in range(PARTITIONS):
        mine = [c for c in commands if oracle.partition_of(c["cart_id"], PARTITIONS) == number]
        alone = oracle.expect(mine)
        together.carts |= alone.carts
        together.items |= alone.items
        for key, counts in alone.daily.items():
            together.daily[key] = [a + b for a, b in zip(together.daily[key], counts, strict=True)]
    return together
