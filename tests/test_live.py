"""The two sides stay in step: what is applied is published, with or without another commit."""

from __future__ import annotations

from pathlib import Path

import duckdb

from projections.live import Live
from projections.publish import Publisher
from projections.writer import Commit
from tests.running import InProcess, entry, wait_for

ADD = {"type": "AddProduct", "product_id": "m", "quantity": 1, "unit_price_cents": 5}


def units(published: Path) -> int:
    with duckdb.connect(str(published), read_only=True) as db:
        (found,) = db.execute("SELECT coalesce(sum(units), 0)::INT FROM carts").fetchone() or (0,)
    return int(found)


def live_on(pipeline: InProcess, failures: list[BaseException], rows_max: int) -> tuple[Live, Path]:
    published = pipeline.folder / "read_models.duckdb"
    publisher = Publisher(pipeline.writer, published, 0.2)
    return Live(
        pipeline.writer,
        publisher,
        offered=pipeline.folder / "rebuilt.duckdb",
        rows_max=rows_max,
        on_failure=failures.append,
    ), published


def commit(pipeline: InProcess, number: int) -> Commit:
    command = {**ADD, "command_id": str(number), "cart_id": "7"}
    d = pipeline.decide(0, [entry(number, command)])
    return Commit(d.partition, d.first, d.rows, d.states)


def test_what_a_full_queue_flushed_early_is_published_all_the_same(tmp_path: Path) -> None:
    pipeline = InProcess(tmp_path, partitions=1)
    live, published = live_on(pipeline, [], rows_max=1)
    wait_for(published.exists, "the first publish")
    for number in range(5):
        live.put(commit(pipeline, number))
    wait_for(lambda: units(published) == 5, "the last commits to be published", 5)
    live.close()


def test_closing_applies_and_publishes_what_waits(tmp_path: Path) -> None:
    pipeline = InProcess(tmp_path, partitions=1)
    live, published = live_on(pipeline, [], rows_max=1000)
    for number in range(5):
        live.put(commit(pipeline, number))
    live.close()
    assert units(published) == 5


def test_a_failure_is_told_and_stops_it_before_anything_else_is_applied(tmp_path: Path) -> None:
    pipeline = InProcess(tmp_path, partitions=1)
    failures: list[BaseException] = []
    live, published = live_on(pipeline, failures, rows_max=1000)
    first = commit(pipeline, 0)
    live.put(Commit(0, 0, first.rows, first.states.rename_columns(["a", "b", "c", "d", "e"])))
    wait_for(lambda: bool(failures), "the failure")
    assert "partition 0 positions 0-0" in str(failures[0])
    live.put(commit(pipeline, 1))
    live.close()
    assert units(published) == 0
    pipeline.writer.close()
