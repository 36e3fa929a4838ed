"""Events a second of a rebuild from the log alone, beside DuckDB's bare SELECTs in the same run.

    python -m tests.bench.rebuild [SYNTHETIC_EVENTS]

First the demo's real baskets in the files that the pipeline would commit, then synthetic events in
large files. The bare SELECTs are those of the .sql files, run by DuckDB over the same files into
tables in memory; a rebuild also writes them to disk so that they can be merged into.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import duckdb
import pyarrow as pa

from ingest.cart import cart
from ingest.command import partition_of
from ingest.source import Batch
from pipeline.demo import commands
from pipeline.fold import Fold, Partition
from pipeline.log import Log
from pipeline.rebuild import Built, rebuild
from pipeline.settings import Settings
from projections.model import Select, read_models
from projections.relations import rows_between, with_relations
from tests.running import entry

PARTITIONS = 4
COMMIT = 8192
LARGE_FILE = 1_000_000

SYNTHETIC = """
    SELECT
        {partition}::INTEGER AS partition, i AS position,
        (1700000000000 + i // 100)::VARCHAR || '-' || (i % 100)::VARCHAR AS stream_id,
        CASE i % 10 WHEN 9 THEN 'CheckedOut' ELSE 'ProductAdded' END AS event_type,
        '{partition}-' || (i // 10)::VARCHAR AS aggregate_id, i % 10 + 1 AS version,
        'c-{partition}-' || i::VARCHAR AS command_id,
        NULL::VARCHAR AS correlation_id, NULL::VARCHAR AS causation_id,
        TIMESTAMP '2023-11-14' + INTERVAL (i // 100) MILLISECOND AS recorded_at,
        TIMESTAMP '2022-11-14' + INTERVAL (i * 6) SECOND AS occurred_at,
        1::SMALLINT AS schema_version,
        CASE i % 10 WHEN 9 THEN NULL ELSE 'p' || (hash(i) % 50000)::VARCHAR END AS product_id,
        CASE i % 10 WHEN 9 THEN NULL ELSE (hash(i, 1) % 5 + 1)::BIGINT END AS quantity,
        CASE i % 10 WHEN 9 THEN NULL ELSE (hash(i, 2) % 2000)::BIGINT END AS unit_price_cents,
        NULL::BIGINT AS value_cents, NULL::VARCHAR AS reason, NULL::BLOB AS payload
    FROM range({first}, {last}) AS numbers(i)
"""


def real_baskets(settings: Settings) -> None:
    """The demo's commands, decided and committed without Redis."""
    log = Log.create(settings.events, partitions=PARTITIONS, domain="cart")
    fold = Fold(cart, partitions=PARTITIONS, payload_bytes_max=65_536)
    partitions = [Partition(number) for number in range(PARTITIONS)]
    waiting: list[list[dict[str, object]]] = [[] for _ in partitions]
    number = 0

    def commit(partition: Partition) -> None:
        nonlocal number
        entries = []
        for command in waiting[partition.number]:
            entries.append(entry(number, command))
            number += 1
        waiting[partition.number].clear()
        decided = fold.decide(partition, Batch(partition.number, entries))
        partition.apply(decided, 100_000)
        log.append(partition.number, decided.first, decided.rows)

    for chunk in commands():
        for command in chunk:
            of = partition_of(str(command["cart_id"]), PARTITIONS)
            waiting[of].append(command)
            if len(waiting[of]) == COMMIT:
                commit(partitions[of])
    for partition in partitions:
        commit(partition)


def synthetic(settings: Settings, events: int) -> None:
    """Carts of nine products and a check-out, in large files."""
    log = Log.create(settings.events, partitions=PARTITIONS, domain="cart")
    each = events // PARTITIONS // 10 * 10
    with duckdb.connect() as db:
        for partition in range(PARTITIONS):
            for first in range(0, each, LARGE_FILE):
                last = min(each, first + LARGE_FILE)
                rows: pa.Table = db.sql(
                    SYNTHETIC.format(partition=partition, first=first, last=last)
                ).to_arrow_table()
                log.append(partition, first, rows.cast(cart.schema))


def bare_selects(settings: Settings) -> float:
    """Seconds that DuckDB takes for the SELECTs themselves."""
    log = Log.open(settings.events, domain="cart")
    until = {p: log.next_position(p) for p in range(PARTITIONS)}
    rows = rows_between(log, cart.schema, {}, until)
    started = time.perf_counter()
    with duckdb.connect() as db:
        for model in read_models(cart):
            if isinstance(model, Select):
                query = with_relations(cart.schema, rows, f"SELECT * FROM ({model.sql}\n)")
                db.execute(f"CREATE TEMP TABLE {model.name} AS {query}")
    return time.perf_counter() - started


def measure(title: str, settings: Settings) -> None:
    bare = bare_selects(settings)
    built: list[Built] = rebuild(settings, [], everything=True, seen=lambda *_: None)
    selects = sum(b.seconds for b in built if b.name != "carts")
    (folded,) = (b for b in built if b.name == "carts")
    cores = os.cpu_count() or 1
    again = bare_selects(settings)
    events = folded.events
    print(f"{title}: {events:,} events, {len(built) - 1} SELECTs")
    print(f"  bare SELECTs      {bare:7.2f} s, and once more {again:.2f} s")
    print(f"  rebuilt SELECTs   {selects:7.2f} s  {selects / ((bare + again) / 2):.2f} of the bare")
    print(
        f"  folded state      {folded.seconds:7.2f} s  {events / folded.seconds:,.0f} events/s,"
        f" {events / folded.seconds / cores:,.0f}/s for each of {cores} cores"
    )


def main(events: int) -> None:
    with tempfile.TemporaryDirectory(prefix="foldlog-bench-") as folder:
        settings = Settings(data=Path(folder) / "demo")
        os.environ |= settings.as_environment()
        real_baskets(settings)
        measure("the demo's baskets", settings)
        settings = Settings(data=Path(folder) / "synthetic")
        os.environ |= settings.as_environment()
        synthetic(settings, events)
        measure("synthetic", settings)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000_000)
