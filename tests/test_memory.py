"""What the programs hold in memory has limits, and work that needs more is done all the same."""

from __future__ import annotations

from pathlib import Path

from ingest.shop import shop
from pipeline.extras.bench.load import log_of_carts
from pipeline.log.log import Log
from pipeline.replay.states import Refold
from pipeline.settings import Settings
from projections.held import held_in
from projections.model import Select, read_models
from projections.publish import Publisher
from projections.writer import Writer

MEMORY_MB = 64
"""Flushes of these read models take 85 where they may."""

SELECTS = {model.name for model in read_models(shop) if isinstance(model, Select)}

EVENTS, LENGTH = 1_200_000, 2


def test_read_models_are_merged_where_duckdb_may_take_less_than_it_would(
    tmp_path: Path,
) -> None:
    settings = Settings(data=tmp_path)
    log_of_carts(settings, EVENTS, length=LENGTH, items=LENGTH, checked_out=False)
    log = Log.open(settings.events, domain=shop.name)
    ends = {p: log.next_position(p) for p in range(log.partitions)}
    writer = Writer.open(
        settings.writers_file, shop, log, Refold(shop, log), SELECTS, memory_mb=MEMORY_MB
    )
    writer.migrate()
    flushes = EVENTS // settings.flush_rows_max
    for flush in range(1, flushes + 1):
        writer.catch_up({p: end * flush // flushes for p, end in ends.items()})
        writer.checkpoint()
    Publisher(writer, settings.published, 0).publish()
    writer.close()
    with held_in(settings.published) as held:
        assert held.positions() == ends
    assert not settings.writers_file.with_name("writer.duckdb.tmp").exists()
