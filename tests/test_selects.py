"""One declaration, two ways, the same rows: any SELECT, any log, any cut, any restart."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.running import InProcess, entry, read
from tests.test_read_models import PARTITIONS, cart_with, plain, shopping

KEYS = [
    "product_id",
    "event_type",
    "aggregate_id",
    "occurred_at::DATE",
    "version % 3",
    "quantity",
    "upper(product_id) || '!'",
    "CASE WHEN quantity > 1 THEN 'many' END",
]
NUMBERS = ["quantity", "unit_price_cents", "value_cents", "version", "quantity * version - 1"]
VALUES = [*NUMBERS, "product_id", "event_type", "occurred_at", "command_id"]
FLAGS = ["quantity > 1", "event_type = 'ProductAdded'", "version % 2 = 0", "product_id = 'm'"]
ORDERS = ["occurred_at", "version", "quantity", "occurred_at, product_id", "recorded_at"]

filters = st.sampled_from(["", *(f" FILTER ({flag})" for flag in FLAGS)])


def both(call: str) -> tuple[str, str]:
    """An aggregate that says the same as a read model and to DuckDB."""
    return call, call


def picked(name: str, value: str, order: str, condition: str) -> tuple[str, str]:
    """An aggregate that picks a row: for DuckDB with an ORDER BY; `plain` adds the ties."""
    if name.startswith("arg"):
        order = order.partition(",")[0]
        known = f"({value}) IS NOT NULL AND ({order}) IS NOT NULL"
        condition = condition.removesuffix(")") + f" AND {known})" if condition else ""
        plainly = "last" if name == "arg_max" else "first"
        shown = f"{name}({value}, {order})"
        return (
            shown + condition,
            f"{plainly}({value} ORDER BY {order})" + (condition or f" FILTER ({known})"),
        )
    return both(f"{name}({value} ORDER BY {order}){condition}")


AGGREGATES = st.one_of(
    st.builds(lambda n, f: both(f"sum({n}){f}"), st.sampled_from(NUMBERS), filters),
    st.builds(lambda n, f: both(f"avg({n}){f}"), st.sampled_from(NUMBERS), filters),
    st.builds(lambda v, f: both(f"count({v}){f}"), st.sampled_from([*VALUES, "*"]), filters),
    st.builds(
        lambda a, v, f: both(f"{a}({v}){f}"),
        st.sampled_from(["min", "max", "histogram"]),
        st.sampled_from(VALUES),
        filters,
    ),
    st.builds(
        lambda a, v, f: both(f"{a}({v}){f}"),
        st.sampled_from(["bool_and", "bool_or"]),
        st.sampled_from(FLAGS),
        filters,
    ),
    st.builds(
        lambda a, v, f: both(f"{a}({v}){f}"),
        st.sampled_from(["bit_and", "bit_or", "bit_xor"]),
        st.sampled_from(NUMBERS),
        filters,
    ),
    st.builds(
        picked,
        st.sampled_from(["first", "last", "arg_min", "arg_max"]),
        st.sampled_from(VALUES),
        st.sampled_from(ORDERS),
        filters,
    ),
    st.builds(
        lambda v, f: (f"any_value({v}){f}", f"min({v}){f}"), st.sampled_from(VALUES), filters
    ),
)


@st.composite
def expressions(draw: Any) -> tuple[str, str]:
    """An aggregate, or something computed from two."""
    live, plainly = draw(AGGREGATES)
    if draw(st.booleans()):
        return live, plainly
    number = draw(st.sampled_from(NUMBERS))
    return f"[({live})::VARCHAR, sum({number})::VARCHAR]", (
        f"[({plainly})::VARCHAR, sum({number})::VARCHAR]"
    )


@st.composite
def selects(draw: Any) -> tuple[str, str]:
    """A SELECT as a read model, and as DuckDB is asked."""
    keys = draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=3, unique=True))
    found = draw(st.lists(expressions(), min_size=0, max_size=4))
    where = draw(st.sampled_from(["", *(f" WHERE {flag}" for flag in FLAGS)]))
    having = draw(st.sampled_from(["", " HAVING count(*) > 1", " HAVING max(version) % 2 = 0"]))
    sides = []
    for side in (0, 1):
        columns = [f"{key} AS k{i}" for i, key in enumerate(keys)]
        columns += [f"{pair[side]} AS a{i}" for i, pair in enumerate(found)]
        sides.append(
            f"SELECT {', '.join(columns)} FROM events{where} GROUP BY {', '.join(keys)}{having}"
        )
    return sides[0], sides[1]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(selects(), min_size=4, max_size=8),
    st.integers(0, 10_000),
    st.lists(
        st.tuples(st.integers(0, PARTITIONS - 1), st.integers(1, 20), st.booleans(), st.booleans()),
        max_size=10,
    ),
)
def test_any_select_kept_live_equals_the_same_select_over_all_events(
    generated: list[tuple[str, str]],
    seed: int,
    cuts: list[tuple[int, int, bool, bool]],
) -> None:
    """`cuts`: of which partition, how many commands; is it flushed, or left for the next start."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        domain = cart_with(
            folder / "sql", **{f"m{i}": live for i, (live, _) in enumerate(generated)}
        )
        pipeline = InProcess(folder, domain, partitions=PARTITIONS)
        waiting: list[list[Any]] = [[] for _ in range(PARTITIONS)]
        for number, (partition, command) in enumerate(shopping(seed, 80)):
            waiting[partition].append(entry(number, command))
        for partition, count, flushed, restarted in cuts:
            batch, waiting[partition] = waiting[partition][:count], waiting[partition][count:]
            decided = pipeline.decide(partition, batch)
            if flushed:
                pipeline.flush([decided])
            if restarted:
                pipeline.restart()
        pipeline.flush([pipeline.decide(p, left) for p, left in enumerate(waiting)])
        published = pipeline.publish()
        for i, (live, plainly) in enumerate(generated):
            assert read(published, f"m{i}")[f"m{i}"] == plain(published, plainly), live
        pipeline.writer.close()


@pytest.mark.parametrize("seed", range(5))
def test_the_generated_selects_are_not_all_empty(tmp_path: Path, seed: int) -> None:
    """So that what is compared above is something."""
    pipeline = InProcess(tmp_path, partitions=PARTITIONS)
    for partition in range(PARTITIONS):
        batch = [entry(i, c) for i, (p, c) in enumerate(shopping(seed, 80)) if p == partition]
        pipeline.flush([pipeline.decide(partition, batch)])
    published = pipeline.publish()
    for flag in FLAGS:
        assert plain(published, f"SELECT * FROM events WHERE {flag}")
    pipeline.writer.close()
