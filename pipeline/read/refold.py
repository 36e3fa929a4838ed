"""The folded read model from the whole log, on all cores: a process for each, which own partitions.

Nothing moves between partitions, so each is folded by itself, like the write side folds it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from multiprocessing import get_context
from typing import Any

import pyarrow as pa

from pipeline.decide.aggregates import Aggregate
from pipeline.decide.folded_rows import FoldedRows
from pipeline.deployment import Deployment
from pipeline.engine.without_pandas import start_without_pandas
from pipeline.replay.decode import Decoder
from pipeline.replay.states import fold_rows, scan
from pipeline.settings import Settings
from projections.relations import Positions
from projections.tables import FoldedBetween

LOOK_S = 0.2

_folded_rows: Any = None
"""Of a process of the pool: how many rows all of them have folded, in shared memory."""


def _begin(counter: Any) -> None:
    global _folded_rows
    start_without_pandas()
    _folded_rows = counter


def _partition(settings: dict[str, Any], number: int, end: int) -> pa.Table:
    """In a process of the pool: the folded rows of one partition as of `end`."""
    deployed = Deployment.open(Settings(**settings))
    domain, log = deployed.domain, deployed.log
    decoder = Decoder(domain)
    aggregates: dict[str, Aggregate] = {}
    for rows in scan(domain, log, {number: end}):
        aggregates |= fold_rows(domain, decoder, aggregates.get, rows)
        with _folded_rows.get_lock():
            _folded_rows.value += len(rows)
    return FoldedRows(domain).table(aggregates)


def refolded(deployed: Deployment, share: Callable[[float], None]) -> FoldedBetween:
    """A function that folds the whole log up to `until`; `share(done)` is called as it goes."""

    def folded(_: Positions, until: Positions) -> pa.Table:
        context = get_context("spawn")
        counter = context.Value("q", 0)
        parts = [(p, end) for p, end in until.items() if end]
        empty = FoldedRows(deployed.domain).schema.empty_table()
        count = min(os.cpu_count() or 1, max(1, len(parts)))
        with ProcessPoolExecutor(count, context, _begin, (counter,)) as pool:
            given = deployed.settings.model_dump()
            futures = [pool.submit(_partition, given, p, end) for p, end in parts]
            waiting = {*futures}
            while waiting:
                waiting = wait(waiting, LOOK_S, FIRST_COMPLETED).not_done
                share(counter.value / max(1, sum(until.values())))
            return pa.concat_tables([empty, *(future.result() for future in futures)])

    return folded
