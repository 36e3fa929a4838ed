"""The aggregates' rows as of the log's end: from the newest states that are saved, and the rest.

The states in a snapshot are the fold of the log up to its position, so only what follows has to be
folded. Where that is much, there is a process for each core, which own partitions: nothing moves
between them.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from typing import Any

import pyarrow as pa

from pipeline.decide.folded_rows import FoldedRows
from pipeline.deployment import Deployment
from pipeline.engine.garbage import not_now
from pipeline.engine.without_pandas import start_without_pandas
from pipeline.replay.matching import is_of
from pipeline.replay.snapshot_file import Saved
from pipeline.replay.snapshots import code_of, saved_states
from pipeline.replay.states import folded, scan
from pipeline.settings import Settings
from projections.relations import Positions
from projections.tables import FoldedBetween

ALONE_ROWS = 200_000
"""Fewer rows of the log are folded sooner than other processes have started."""

LOOK_S = 0.2

_folded_rows: Any = None
"""Of a process of the pool: how many rows all of them have folded, in shared memory."""


def refolded(
    deployed: Deployment, share: Callable[[float], None], *, from_the_log: bool
) -> FoldedBetween:
    """A function that gives the aggregates' rows up to `until`; `share(done)` is called as it goes.

    With `from_the_log`, no saved state is used.
    """

    code = None if from_the_log else code_of(deployed.domain)

    def between(_: Positions, until: Positions) -> dict[str, pa.Table]:
        parts = [(p, end) for p, end in until.items() if end]
        with ExitStack() as opened:
            begins = [opened.enter_context(_newest(deployed, *part, code)) for part in parts]
            missing = sum(end for _, end in parts) - sum(begin.position for begin in begins)
            if missing < ALONE_ROWS:
                return FoldedRows(deployed.domain).joined(
                    [
                        _folded(deployed, *part, begin, lambda _: None)
                        for part, begin in zip(parts, begins, strict=True)
                    ]
                )
        return _on_all_cores(deployed, parts, share, code)

    return between


@contextmanager
def _newest(deployed: Deployment, number: int, end: int, code: str | None) -> Iterator[Saved]:
    """The newest states of a partition that this code has saved, of positions below `end`.

    None of them without `code`.
    """
    settings, log = deployed.settings, deployed.log
    if code is None:
        yield Saved()
        return
    with ExitStack() as opened:
        found = [
            opened.enter_context(saved_states(folder, number, code))
            for folder in (settings.states, settings.snapshots)
        ]
        fit = [each for each in found if each.position <= end and is_of(each, log, number)]
        yield max(fit, key=lambda each: each.position, default=Saved())


def _folded(
    deployed: Deployment, number: int, end: int, begin: Saved, seen: Callable[[int], None]
) -> dict[str, pa.Table]:
    """The rows of one partition as of `end`; `seen` hears of rows as they are folded."""
    domain, log = deployed.domain, deployed.log

    def events(since: int) -> Iterator[pa.Table]:
        for rows in scan(domain, log, {number: end}, since={number: since}):
            yield rows
            seen(len(rows))

    with not_now():
        try:
            aggregates = begin.aggregates()
        except sqlite3.Error:
            return folded(domain, events(0))
        return folded(domain, events(begin.position), aggregates)


def _on_all_cores(
    deployed: Deployment,
    parts: list[tuple[int, int]],
    share: Callable[[float], None],
    code: str | None,
) -> dict[str, pa.Table]:
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])  # what it imports is imported once
    counter = context.Value("q", 0)
    count = min(os.cpu_count() or 1, len(parts))
    with ProcessPoolExecutor(count, context, _begin, (counter,)) as pool:
        given = deployed.settings.model_dump()
        futures = [pool.submit(_in_the_pool, given, p, end, code) for p, end in parts]
        waiting = {*futures}
        while waiting:
            waiting = wait(waiting, LOOK_S, FIRST_COMPLETED).not_done
            share(counter.value / sum(end for _, end in parts))
        return FoldedRows(deployed.domain).joined([future.result() for future in futures])


def _begin(counter: Any) -> None:
    global _folded_rows
    start_without_pandas()
    _folded_rows = counter


def _in_the_pool(
    settings: dict[str, Any], number: int, end: int, code: str | None
) -> dict[str, pa.Table]:
    deployed = Deployment.open(Settings(**settings))

    def seen(rows: int) -> None:
        with _folded_rows.get_lock():
            _folded_rows.value += rows

    with _newest(deployed, number, end, code) as begin:
        return _folded(deployed, number, end, begin, seen)
